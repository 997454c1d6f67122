"""The page of `prolip explore` in a real browser: every panel, used as a person would."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from tests.e2e.page_actions import IDS, TABS, control, open_panel, press_for_file_chooser, rows, shown, slide, tab_to
from tests.e2e.page_scripts import CONTRASTS, CUT
from tests.support.explore_items import served_page
from tests.support.shards import encoded

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: sudo apt-get install chromium"),
    pytest.mark.timeout(600),
]
MAX_UPLOAD = 1 << 20


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_page(tmp_path_factory.mktemp("page"), calibrated=True) as page:
        yield page.address


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
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
def page(context: BrowserContext) -> Iterator[Page]:
    with context.new_page() as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: foreign(request.url, wrong))
        yield page
        assert not wrong


def foreign(url: str, wrong: list[str]) -> None:
    """The page asks nobody else for anything."""
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        wrong.append(url)


def test_an_image_from_the_data_or_an_upload_is_compared_with_captions(page: Page, address: str) -> None:
    page.goto(address)
    assert "a 0" in rows(page, "compare")
    page.get_by_label("Captions, one per line").fill("food\nan animal\n<b>travel</b>")
    page.get_by_label("An image of the data set").first.click()
    page.get_by_role("option", name="test-000/007").click()
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer")).to_contain_text("<b>travel</b>")
    from_data = page.locator("#compare-answer tbody").inner_text()
    upload = {"name": "mine.png", "mimeType": "image/png", "buffer": encoded((250, 10, 10), (40, 30))}
    page.locator("#compare-image input[type=file]").set_input_files(files=[upload])  # type: ignore[list-item]
    expect(page.get_by_label("An image of the data set").first).to_have_value("")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody")).not_to_have_text(from_data)
    assert sorted(rows(page, "compare")) == ["<b>travel</b>", "an animal", "food"]


def test_uploads_that_are_no_image_or_too_large_are_refused(page: Page, address: str) -> None:
    page.goto(address)
    rows(page, "compare")
    upload = page.locator("#compare-image input[type=file]")
    expect(upload).to_have_attribute("accept", "image/*")
    upload.set_input_files(files=[{"name": "a.png", "mimeType": "image/png", "buffer": b"no image at all"}])
    expect(page.locator(".toast-body").first).to_contain_text("not a JPEG, PNG")
    large = {"name": "b.png", "mimeType": "image/png", "buffer": encoded((1, 2, 3)) + bytes(MAX_UPLOAD)}
    page.reload()
    rows(page, "compare")
    upload.set_input_files(files=[large])  # type: ignore[list-item]
    expect(page.locator(".toast-body").first).to_contain_text("size")
    # The server does not rely on the page for that.
    sent = page.request.post(f"{address}/gradio_api/upload", multipart={"files": large})  # type: ignore[dict-item]
    assert sent.status == 413
    # What was there before is asked about as ever.
    page.get_by_label("Captions, one per line").fill("food")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody tr")).to_have_count(1)


def test_variances_update_while_typing(page: Page, address: str) -> None:
    page.goto(f"{address}/?panel=captions&vague=a+picture&precise=food")
    assert rows(page, "captions") == ["a picture", "food"]
    page.locator("#precise textarea, #precise input").first.press_sequentially(" and travel")
    expect(page.locator("#captions-answer")).to_contain_text("food and travel")
    expect(page.locator("#captions-answer")).to_contain_text("3 tokens")
    page.locator("#precise textarea, #precise input").first.fill("")
    page.locator("#precise textarea, #precise input").first.press_sequentially(" ")
    expect(page.locator("#captions-answer")).to_have_text("No answer yet: write at least one caption.")
    assert page.locator(".toast-body").count() == 0


def test_the_walk_from_an_image_to_the_root_is_shown(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "From image")
    before = rows(page, "walk")
    assert before
    page.get_by_label("Root: the most general caption").fill(before[0])
    page.locator("#walk-run").click()
    expect(page.locator("#walk-answer tbody tr")).to_have_count(1)
    page.get_by_label("Root: the most general caption").fill(" ")
    page.locator("#walk-run").click()
    expect(page.locator(".toast-body").first).to_contain_text("the root is empty")


def test_the_most_and_least_certain_images_are_shown(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "Most and least certain")
    expect(page.locator("#browse-answer img").first).to_be_visible()
    assert page.locator("#browse-answer img").count() == 12
    expect(page.locator("#browse-answer")).to_contain_text("Page 1 of 1: places 1 to 12 of 12.")
    least_certain = page.locator("#browse-answer img").evaluate_all("images => images.map(one => one.alt)")
    assert sorted(least_certain) == sorted(f"a {number}" for number in range(12))
    page.get_by_label("captions", exact=True).check()
    least = rows(page, "browse")
    assert len(least) == 13
    told = [float(text.split()[0]) for text in page.locator("#browse-answer tbody b").all_inner_texts()]
    assert told == sorted(told, reverse=True)
    assert told[0] > told[-1]
    page.get_by_label("most certain", exact=True).check()
    expect(page.locator("#browse-answer tbody td.name").first).not_to_have_text(least[0])
    assert rows(page, "browse") == least[::-1]
    page.get_by_label("Page", exact=True).fill("9")
    page.get_by_label("Page", exact=True).blur()
    expect(page.locator("#browse-answer")).to_contain_text("There is no page 9: the last page is 1.")
    page.get_by_label("Page", exact=True).fill("1")
    page.get_by_label("images", exact=True).check()
    expect(page.locator("#browse-answer img").first).to_have_attribute("alt", least_certain[-1])
    # The other panels' bars go over the same range.
    open_panel(page, "Image and captions")
    page.get_by_label("Captions, one per line").fill(f"{least[0]}\n{least[-1]}")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody tr")).to_have_count(2)
    for caption, width in ((least[0], "100"), (least[-1], "0")):
        row = page.locator("#compare-answer tbody tr").filter(has_text=caption)
        bar = row.locator("td[data-label=uncertainty] .bar i")
        expect(bar).to_have_attribute("style", re.compile(rf"width:{width}(\.0)?%"))


def test_the_classifier_shows_the_weights_of_its_prompts(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "Classifier")
    expect(page.locator("#classify-answer tbody tr").first).to_be_visible()
    page.get_by_label("Class names, one per line").fill("animals\nfood")
    page.locator("#classify-run").click()
    expect(page.locator("#classify-answer table")).to_have_count(2)
    expect(page.locator("#classify-answer table").nth(1).locator("tbody tr")).to_have_count(4)
    page.get_by_label("Templates, one per line, each with {}").fill("no place")
    page.locator("#classify-run").click()
    expect(page.locator(".toast-body").first).to_contain_text("no place")


def test_label_sets_follow_the_guarantee(page: Page, address: str) -> None:
    page.goto(f"{address}/?panel=rely&guarantee=99&limit=1")
    answer = page.locator("#rely-answer")
    expect(answer).to_contain_text(re.compile(r"Label set: “\w+”, “\w+”, “\w+”\. At least 99\s% of such sets contain"))
    expect(answer).to_contain_text("Don't know: the calibration cannot promise that at most 1\u00a0%")
    assert sorted(rows(page, "rely")[:3]) == ["animals", "food", "travel"]
    assert rows(page, "rely")[3:] == ["what the image leaves open", "what the model has not learned"]
    expect(answer).to_contain_text("mine, and for no others")
    slide(page, "guarantee", 80)
    expect(answer).to_contain_text("At least 80\u00a0% of such sets contain the right label")
    slide(page, "limit", 50)
    expect(answer).to_contain_text("50\u00a0% of the answers")
    page.wait_for_url(lambda url: "guarantee=80" in url and "limit=50" in url)
    # An image of one's own, and labels that the calibration does not know.
    page.locator("#rely-image input[type=file]").set_input_files(
        files=[{"name": "mine.png", "mimeType": "image/png", "buffer": encoded((9, 200, 9), (40, 30))}]
    )
    expect(page.locator("#rely-item input")).to_have_value("")
    page.get_by_label("Labels, one per line").fill("a picture\nfood")
    page.locator("#rely-run").click()
    expect(answer).to_contain_text("no guarantee for these labels")


FIELDS = [
    ("compare", "compare-item", "test-000/004"),
    ("compare", "captions", "food\nan animal & co"),
    ("captions", "vague", "an emoji"),
    ("captions", "precise", "an emoji of food"),
    ("walk", "walk-item", "test-000/005"),
    ("walk", "root", "an emoji"),
    ("walk", "pool", "food\ntravel"),
    ("browse", "kind", "captions"),
    ("browse", "end", "most certain"),
    ("browse", "place", "3"),
    ("classify", "classify-item", "test-000/006"),
    ("classify", "classes", "food\ntravel"),
    ("classify", "templates", "{}\nan emoji of {}"),
    ("rely", "rely-item", "test-000/008"),
    ("rely", "labels", "food\nanimals"),
    ("rely", "guarantee", "95"),
    ("rely", "limit", "30"),
]


def test_an_address_restores_the_state_of_every_panel(page: Page, context: BrowserContext, address: str) -> None:
    page.goto(address)
    rows(page, "compare")
    for panel, name, value in FIELDS:
        open_panel(page, TABS[panel])
        assert name not in parse_qs(urlsplit(page.url).query), "what nobody changed"
        field = control(page, name)
        if name.endswith("item"):
            field.click()
            page.get_by_role("option", name=value).click()
        elif name in {"kind", "end"}:
            page.locator(f"#{IDS[name]}").get_by_label(value, exact=True).check()
        else:
            field.fill(value)
            field.blur()
        page.wait_for_url(lambda url: name in parse_qs(urlsplit(url).query) and f"panel={panel}" in url)  # noqa: B023
    found = parse_qs(urlsplit(page.url).query)
    assert found == {"panel": ["rely"]} | {name: [value] for _, name, value in FIELDS}
    link = page.url
    open_panel(page, TABS["classify"])
    answers = page.locator("#classify-answer").inner_text()  # of the usual classes, unasked
    with context.new_page() as again:
        again.goto(link)
        expect(again.get_by_role("tab", name=TABS["rely"])).to_have_attribute("aria-selected", "true")
        expect(again.locator("#rely-answer")).to_contain_text("no guarantee for these labels")
        for panel, name, value in FIELDS:
            open_panel(again, TABS[panel])
            if name in {"kind", "end"}:
                expect(again.locator(f"#{IDS[name]}").get_by_label(value, exact=True)).to_be_checked()
            elif name.endswith("item"):
                expect(control(again, name)).to_have_value(re.compile(f".* · {value}"))
            else:
                expect(control(again, name)).to_have_value(value)
        # And what stands there is answered.
        open_panel(again, TABS["classify"])
        expect(again.locator("#classify-answer")).not_to_have_text(answers)
        expect(again.locator("#compare-answer tbody tr")).to_have_count(2)
        expect(again.locator("#captions-answer")).to_contain_text("an emoji of food")
        expect(again.locator("#walk-answer")).to_contain_text("towards “an emoji”")
        expect(again.locator("#browse-answer")).to_contain_text("There is no page 3")


def test_impossible_values_in_an_address_are_ignored(page: Page, address: str) -> None:
    wrong = "panel=other&place=x&kind=videos&end=no&compare-item=gone&walk-item=gone&classify-item=gone&number=3"
    wrong += "&rely-item=gone&guarantee=100&limit=x"
    page.goto(f"{address}/?{wrong}")
    assert "a 0" in rows(page, "compare")
    for panel, tab in TABS.items():
        open_panel(page, tab)
        expect(page.locator(shown(panel)).first).to_be_visible()
    assert page.locator(".toast-body").count() == 0


def test_every_panel_works_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    rows(page, "compare")

    def panel(name: str) -> None:
        page.get_by_role("tab", name=TABS[name]).focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"#{name}-answer")).to_be_visible()

    def write(selector: str, text: str) -> None:
        tab_to(page, selector)
        page.keyboard.press("Control+A")
        page.keyboard.type(text)

    def run(name: str) -> None:
        tab_to(page, f"#{name}-run")
        page.keyboard.press("Enter")

    tab_to(page, "[role=tab]")
    tab_to(page, "#compare-image")
    press_for_file_chooser(page).set_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": encoded((9, 200, 9))}
    )
    expect(page.locator("#compare-item input")).to_have_value("")
    answer = page.locator("#compare-answer").inner_text()
    run("compare")
    expect(page.locator("#compare-answer")).not_to_have_text(answer)
    page.reload()
    rows(page, "compare")
    tab_to(page, "#compare-item")
    before = page.locator("#compare-item input").input_value()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#compare-item input")).not_to_have_value(before)
    panel("captions")
    write("#vague", "an emoji")
    expect(page.locator("#captions-answer")).to_contain_text("an emoji")
    panel("walk")
    write("#root", "food")
    run("walk")
    expect(page.locator("#walk-answer")).to_contain_text("towards “food”")
    panel("browse")
    tab_to(page, "#browse-kind")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#browse-answer tbody tr")).to_have_count(13)
    panel("classify")
    write("#classes", "food\ntravel")
    run("classify")
    expect(page.locator("#classify-answer table").nth(1).locator("tbody tr")).to_have_count(4)
    panel("rely")
    write("#guarantee input[type=number]", "85")
    run("rely")
    expect(page.locator("#rely-answer")).to_contain_text("At least 85\u00a0% of such sets contain the right label")


def test_nothing_is_cut_on_a_narrow_screen(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for panel in TABS:  # the row of tabs is too narrow to click on the last ones
        page.goto(f"{address}/?panel={panel}")
        expect(page.locator(shown(panel)).first).to_be_visible()
        # Nothing is wider than the screen, and no number or word is cut.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, panel
        assert page.evaluate(CUT) == [], panel
        tab = page.get_by_role("tab", selected=True)
        assert tab.evaluate(
            "one => one.getBoundingClientRect().right <= one.parentElement.getBoundingClientRect().right"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark_mode(page: Page, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    for panel, name in TABS.items():
        open_panel(page, name)
        expect(page.locator(shown(panel)).first).to_be_visible()
        contrasts = page.evaluate(CONTRASTS)
        assert contrasts, panel
        assert min(contrast for contrast, _ in contrasts) >= 4.5, (panel, min(contrasts))
        assert page.evaluate(CUT) == [], panel
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) is (scheme == "dark")


def test_the_page_listens_on_this_machine_only(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    with socket.socket() as other:
        other.settimeout(5)
        # Another address of this same machine, on which it does not listen.
        with pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))
