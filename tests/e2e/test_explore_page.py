"""The page of `prolip explore` in a real browser: every panel used, as a person would."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.unit.sample_run import write_run
from tests.unit.sample_shards import encoded
from tests.unit.test_explore import write_items

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: sudo apt-get install chromium"),
    pytest.mark.timeout(600),
]
MAX_UPLOAD = 1 << 20


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    write_items(folder)
    port = free_port()
    words = ["explore", "--checkpoint", str(folder / "run"), "--data", str(folder), "--port", str(port)]
    words += ["--max_upload_mb", "1", "--caption_keys", "captions.name", "captions.group"]
    log = folder / "log"
    with log.open("w") as told:
        server = subprocess.Popen(
            [sys.executable, "-m", "prolip.cli", *words],
            stdout=told,
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "uploads")},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: foreign(request.url, wrong))
        yield page
        assert not wrong


def foreign(url: str, wrong: list[str]) -> None:
    """The page asks nobody else for anything."""
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        wrong.append(url)


def rows(page: Page, panel: str) -> list[str]:
    expect(page.locator(f"#{panel}-answer tbody tr").first).to_be_visible()
    return page.locator(f"#{panel}-answer tbody td.name").all_inner_texts()


def open_panel(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_a_picture_beside_captions_from_the_data_and_from_a_file(page: Page, address: str) -> None:
    page.goto(address)
    assert "a 0" in rows(page, "compare")
    page.get_by_label("Captions, one a line").fill("food\nan animal\n<b>travel</b>")
    page.get_by_label("A picture of the data set").first.click()
    page.get_by_role("option", name="test-000/007").click()
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer")).to_contain_text("<b>travel</b>")
    from_data = page.locator("#compare-answer tbody").inner_text()
    picture = {"name": "mine.png", "mimeType": "image/png", "buffer": encoded((250, 10, 10), (40, 30))}
    page.locator("#compare-picture input[type=file]").set_input_files(files=[picture])  # type: ignore[list-item]
    expect(page.get_by_label("A picture of the data set").first).to_have_value("")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody")).not_to_have_text(from_data)
    assert sorted(rows(page, "compare")) == ["<b>travel</b>", "an animal", "food"]


def test_only_pictures_of_bounded_size_are_taken(page: Page, address: str) -> None:
    page.goto(address)
    rows(page, "compare")
    upload = page.locator("#compare-picture input[type=file]")
    upload.set_input_files(files=[{"name": "a.png", "mimeType": "image/png", "buffer": b"no picture at all"}])
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
    page.get_by_label("Captions, one a line").fill("food")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-answer tbody tr")).to_have_count(1)


def test_variances_move_while_one_types(page: Page, address: str) -> None:
    page.goto(f"{address}/?panel=captions&vague=a+picture&precise=food")
    assert rows(page, "captions") == ["a picture", "food"]
    page.locator("#precise textarea, #precise input").first.press_sequentially(" and travel")
    expect(page.locator("#captions-answer")).to_contain_text("food and travel")
    expect(page.locator("#captions-answer")).to_contain_text("3 tokens")


def test_a_walk_from_a_picture_to_the_root(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "From picture")
    before = rows(page, "walk")
    assert before
    page.get_by_label("Root: the most general caption").fill(before[0])
    page.locator("#walk-run").click()
    expect(page.locator("#walk-answer tbody tr")).to_have_count(1)
    page.get_by_label("Root: the most general caption").fill(" ")
    page.locator("#walk-run").click()
    expect(page.locator(".toast-body").first).to_contain_text("the root is empty")


def test_the_most_and_the_least_certain(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "Most and least certain")
    expect(page.locator("#browse-gallery img").first).to_be_visible()
    assert page.locator("#browse-gallery img").count() == 12
    page.get_by_label("captions", exact=True).check()
    least = rows(page, "browse")
    assert len(least) == 13
    page.get_by_label("most certain", exact=True).check()
    expect(page.locator("#browse-answer tbody td.name").first).not_to_have_text(least[0])
    assert rows(page, "browse") == least[::-1]
    page.get_by_label("Page", exact=True).fill("9")
    page.get_by_label("Page", exact=True).blur()
    expect(page.locator("#browse-answer tbody tr")).to_have_count(0)


def test_a_classifier_and_the_prompts_that_it_prefers(page: Page, address: str) -> None:
    page.goto(address)
    open_panel(page, "Classifier and prompts")
    expect(page.locator("#classify-answer tbody tr").first).to_be_visible()
    page.get_by_label("Class names, one a line").fill("animals\nfood")
    page.locator("#classify-run").click()
    expect(page.locator("#classify-answer table")).to_have_count(2)
    expect(page.locator("#classify-answer table").nth(1).locator("tbody tr")).to_have_count(4)
    page.get_by_label("Templates, one a line, {} in each").fill("no place")
    page.locator("#classify-run").click()
    expect(page.locator(".toast-body").first).to_contain_text("no place")


def test_an_address_brings_the_page_back(page: Page, address: str) -> None:
    page.goto(address)
    rows(page, "compare")
    open_panel(page, "Classifier and prompts")
    page.get_by_label("Class names, one a line").fill("food\ntravel")
    page.wait_for_url(lambda url: "classes=food" in url and "panel=classify" in url)
    assert "templates=" not in page.url
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("tab", name="Classifier and prompts")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_label("Class names, one a line")).to_have_value("food\ntravel")
    expect(page.locator("#classify-answer")).to_contain_text("travel")
    # What no panel has is passed over.
    page.goto(f"{address}/?panel=other&place=x&number=3")
    assert rows(page, "compare")


def test_the_keyboard_is_enough(page: Page, address: str) -> None:
    page.goto(address)
    rows(page, "compare")
    page.get_by_role("tab", name="Picture and captions").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role') === 'tab'"):
            break
    page.get_by_role("tab", name="Vague and precise").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#vague textarea, #vague input").first).to_be_visible()
    page.locator("#vague textarea, #vague input").first.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("an emoji")
    expect(page.locator("#captions-answer")).to_contain_text("an emoji")


def test_a_narrow_screen_shows_everything(browser: Browser, address: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        context.set_default_timeout(30_000)
        page = context.new_page()
        for panel in ("compare", "captions", "walk", "browse", "classify"):
            page.goto(f"{address}/?panel={panel}")
            shown = "#browse-gallery img" if panel == "browse" else f"#{panel}-answer tbody tr"
            expect(page.locator(shown).first).to_be_visible()
            # Nothing is wider than the screen.
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, panel


def test_only_this_machine_can_reach_it(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    with socket.socket() as other:
        other.settimeout(5)
        # Another address of this same machine, on which it does not listen.
        with pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))
