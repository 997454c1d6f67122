"""What a person does on the page of `prolip explore`, and what it shows then."""

from __future__ import annotations

from playwright.sync_api import FileChooser, Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

TABS = {
    "compare": "Image and captions",
    "captions": "Vague and precise",
    "walk": "From image",
    "browse": "Most and least certain",
    "classify": "Classifier",
    "rely": "What can I rely on",
}


def rows(page: Page, panel: str) -> list[str]:
    expect(page.locator(f"#{panel}-answer tbody tr").first).to_be_visible()
    return page.locator(f"#{panel}-answer tbody td.name").all_inner_texts()


def open_panel(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def shown(panel: str) -> str:
    """What is there when a panel has answered."""
    return "#browse-answer img" if panel == "browse" else f"#{panel}-answer tbody tr"


def slide(page: Page, name: str, value: int) -> None:
    """Move a slider, as its number field does."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.blur()


LABELS = {"captions": "Captions, one per line", "pool": "Captions to walk through"}
IDS = {"place": "browse-page", "kind": "browse-kind", "end": "browse-end"}


def control(page: Page, name: str) -> Locator:
    if name in LABELS:
        return page.get_by_label(LABELS[name])
    return page.locator(f"#{IDS.get(name, name)}").locator("textarea, input:not([type=range])").first


def tab_to(page: Page, selector: str) -> None:
    for _ in range(60):
        if page.evaluate(f"document.activeElement.closest('{selector}') !== null"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by Tab")


def press_for_file_chooser(page: Page) -> FileChooser:
    """Press Space until the focused upload button opens its file chooser.

    On a busy machine Gradio may still be drawing the page, and the button, though focused, ignores a first press.
    """
    for _ in range(5):
        try:
            with page.expect_file_chooser(timeout=6000) as chooser:
                page.keyboard.press("Space")
            return chooser.value
        except PlaywrightTimeout:
            continue
    raise AssertionError("Space on the upload button opens no file chooser")
