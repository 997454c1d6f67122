"""The page of `prolip explore` in a real browser: every panel, used as a person would."""

import re
import shutil

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout, expect, sync_playwright
from tests.support.explore_items import served_page
from tests.support.shards import encoded

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: sudo apt-get install chromium"),
    pytest.mark.timeout(600),
]
TABS = {
    "compare": "Image and captions",
    "captions": "Vague and precise",
    "walk": "From image",
    "search": "Search",
    "browse": "Most and least certain",
    "classify": "Classify",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served_page(tmp_path_factory.mktemp("page"), calibrated=True) as page:
        yield page.address


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """One for all tests: its cache keeps Gradio's scripts, which take seconds to fetch and compile."""
    with sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        with playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=["--no-sandbox"], viewport={"width": 1280, "height": 900}
        ) as context:
            context.set_default_timeout(30_000)
            expect.set_options(timeout=30_000)
            yield context


@pytest.fixture
def page(context):
    with context.new_page() as page:
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: foreign(request.url, wrong))
        yield page
        assert not wrong


def foreign(url, wrong):
    """The page asks nobody else for anything."""
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        wrong.append(url)


def rows(page, panel):
    expect(page.locator(f"#{panel}-answer tbody tr").first).to_be_visible()
    return page.locator(f"#{panel}-answer tbody td.name").all_inner_texts()


def open_panel(page, name):
    page.get_by_role("tab", name=TABS[name]).click()
    expect(page.locator("#browse-answer img" if name == "browse" else f"#{name}-answer tbody tr").first).to_be_visible()


def upload(page, panel, content):
    file = {"name": "mine.png", "mimeType": "image/png", "buffer": content}
    page.locator(f"#{panel}-image input[type=file]").set_input_files(files=[file])


def test_an_image_from_the_data_or_an_upload_is_compared_with_captions(page, address):
    page.goto(address)
    assert "a 0" in rows(page, "compare")
    upload(page, "compare", b"no image at all")
    expect(page.locator(".toast-body").first).to_contain_text("not an image of")
    page.get_by_label("Captions, one per line").fill("food\nan animal\n<b>travel</b>")
    page.get_by_label("An image of the data set").first.click()
    page.get_by_role("option", name="test-000/007").click()
    expect(page.locator("#compare-answer")).to_contain_text("<b>travel</b>")
    from_data = page.locator("#compare-answer tbody").inner_text()
    upload(page, "compare", encoded((250, 10, 10), (40, 30)))
    expect(page.get_by_label("An image of the data set").first).to_have_value("")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody")).not_to_have_text(from_data)
    assert sorted(rows(page, "compare")) == ["<b>travel</b>", "an animal", "food"]
    large = {"name": "b.png", "mimeType": "image/png", "buffer": encoded((1, 2, 3)) + bytes(1 << 20)}
    sent = page.request.post(f"{address}/gradio_api/upload", multipart={"files": large})
    assert sent.status == 413


def test_every_panel_answers(page, address):
    page.goto(address)
    rows(page, "compare")
    open_panel(page, "captions")
    precise = page.locator("#precise textarea, #precise input").first
    precise.press_sequentially(" and travel")
    expect(page.locator("#captions-answer")).to_contain_text("an animal and travel")
    precise.fill("")
    precise.press_sequentially(" ")
    expect(page.locator("#captions-answer")).to_contain_text("No answer yet: second caption")
    open_panel(page, "walk")
    page.get_by_label("Root: the most general caption").fill(rows(page, "walk")[0])
    page.locator("#walk-run").click()
    expect(page.locator("#walk-answer tbody tr")).to_have_count(1)
    open_panel(page, "browse")
    assert page.locator("#browse-answer img").count() == 12
    page.get_by_label("captions", exact=True).check()
    least = rows(page, "browse")
    assert len(least) == 13
    page.get_by_label("most certain", exact=True).check()
    expect(page.locator("#browse-answer tbody td.name").first).not_to_have_text(least[0])
    assert rows(page, "browse") == least[::-1]


def test_label_sets_follow_the_guarantee(page, address):
    page.goto(address)
    open_panel(page, "classify")
    answer = page.locator("#classify-answer")
    for name, value in (("guarantee", 99), ("limit", 1)):
        page.locator(f"#{name} input[type=number]").fill(str(value))
        page.locator(f"#{name} input[type=number]").blur()
    expect(answer).to_contain_text(re.compile(r"Label set: “\w+”, “\w+”, “\w+”\. At least 99\s% of such sets contain"))
    expect(answer).to_contain_text("Don't know: the calibration cannot promise that at most 1\u00a0%")
    assert sorted(rows(page, "classify")[:3]) == ["animals", "food", "travel"]
    page.get_by_label("Labels, one per line").fill("a picture\nfood")
    page.get_by_label("Templates, one per line, each with {}").fill("{}\na picture of {}")
    page.locator("#classify-run").click()
    expect(answer).to_contain_text("There is no guarantee")
    expect(answer.locator("table")).to_have_count(3)
    expect(answer).to_contain_text("prefers")


def test_every_panel_works_with_the_keyboard_alone(page, address):
    page.goto(address)
    rows(page, "compare")

    def tab_to(selector):
        for _ in range(60):
            if page.evaluate(f"document.activeElement.closest('{selector}') !== null"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached by Tab")

    def write(selector, text):
        tab_to(selector)
        page.keyboard.press("Control+A")
        page.keyboard.type(text)

    def choose_file():
        # On a busy machine Gradio may still be drawing the page, and the button ignores a first press.
        for _ in range(5):
            try:
                with page.expect_file_chooser(timeout=6000) as chooser:
                    page.keyboard.press("Space")
            except PlaywrightTimeout:
                continue
            file = {"name": "mine.png", "mimeType": "image/png", "buffer": encoded((9, 200, 9))}
            return chooser.value.set_files(file)
        raise AssertionError("Space on the upload button opens no file chooser")

    tab_to("[role=tab]")
    tab_to("#compare-image")
    choose_file()
    expect(page.locator("#compare-item input")).to_have_value("")
    answer = page.locator("#compare-answer").inner_text()
    tab_to("#compare-run")
    page.keyboard.press("Enter")
    expect(page.locator("#compare-answer")).not_to_have_text(answer)
    asked = {
        "captions": ("#vague", "an emoji", "an emoji"),
        "walk": ("#root", "food", "towards “food”"),
        "search": ("#search-text", "food", "prolip calibrate search"),
        "browse": ("#browse-page input", "9", "There is no page 9"),
        "classify": ("#guarantee input[type=number]", "85", "At least 85\u00a0% of such sets"),
    }
    for name, (selector, text, expected) in asked.items():
        page.get_by_role("tab", name=TABS[name]).focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"#{name}-answer")).to_be_visible()
        write(selector, text)
        if name in {"walk", "classify"}:
            tab_to(f"#{name}-run")
        if name in {"walk", "classify", "search"}:
            page.keyboard.press("Enter")
        else:
            page.keyboard.press("Tab")
        expect(page.locator(f"#{name}-answer")).to_contain_text(expected)
