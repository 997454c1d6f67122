"""Take the screenshots in the docs again, from a finished demo: of `prolip explore`, the report and suites' pages.

    .venv/bin/python docs/screenshots.py --run runs/demo --data data/emoji --suite evals/uncertainty/results.html \
        --own evals/zero_shot/results.html

Needs Debian's chromium, and the extras `explore` and `dev`.
"""

from __future__ import annotations

import io
import logging
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image
from playwright.sync_api import Browser, Locator, sync_playwright

DOCS = Path(__file__).resolve().parent
PANELS = {
    "compare": "Image and captions",
    "captions": "Vague and precise",
    "walk": "From image",
    "search": "Search",
    "browse": "Most and least certain",
    "classify": "Classify",
}
"""Tabs of the page by the names of their screenshots."""
WIDTH = 1180
TALLEST = 1500
"""Largest height in pixels; screenshots are cut off below."""
LARGEST = 150_000
"""Largest file in bytes."""

log = logging.getLogger("screenshots")


@dataclass(frozen=True, kw_only=True)
class ScreenshotOptions:
    """Take the screenshots in docs/ again: of `prolip explore`, the report and suites' pages."""

    run: Path = Path("runs/demo")
    """A finished demo with its report."""
    data: Path = Path("data/emoji")
    """The shards of the demo."""
    suite: Path | None = None
    """The results.html of a suite with two models or more."""
    own: Path | None = None
    """The results.html of `prolip eval zero_shot` on clothes (Fashion-MNIST)."""


def main(options: ScreenshotOptions) -> None:
    """Take all screenshots."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(open_file(browser, options.run / "report.html").locator("body"), "report.png", tallest=1180)
        for name, page, tallest in (("suite", options.suite, TALLEST), ("own-images", options.own, 1380)):
            if page is not None:
                take(open_file(browser, page).locator("body"), f"images/{name}.png", tallest)
        with served(options) as address:
            take_panels(browser, address)
        browser.close()


def take_panels(browser: Browser, address: str) -> None:
    """Each panel as the page opens."""
    for panel, tab in PANELS.items():
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(address)
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#{panel}-answer .pl").first.wait_for(timeout=60_000)
        page.wait_for_load_state("networkidle")
        take(page.locator("body"), f"images/explore-{panel}.png")
        page.close()


def open_file(browser: Browser, path: Path) -> Locator:
    """Open a page from a file."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 800})
    page.goto(path.resolve().as_uri())
    return page.locator("html")


def take(part: Locator, name: str, tallest: int = TALLEST) -> None:
    """Into docs, with as many colours as fit into the size limit."""
    with Image.open(io.BytesIO(part.screenshot())) as shot:
        image = shot.convert("RGB").crop((0, 0, shot.width, min(shot.height, tallest)))
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if buffer.tell() < LARGEST:
            break
    else:
        raise ValueError(f"{name} has {buffer.tell():,} bytes: more than {LARGEST:,}")
    (DOCS / name).write_bytes(buffer.getvalue())
    log.info("%s: %d x %d, %d colours, %s bytes", name, *image.size, colours, f"{buffer.tell():,}")


@contextmanager
def served(options: ScreenshotOptions) -> Iterator[str]:
    """Run `prolip explore`; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = ["explore", "--checkpoint", str(options.run), "--shards", str(options.data), "--port", str(port)]
    words += ["--caption_key", "captions.name", "captions.subgroup", "captions.group", "--class_key", "captions.group"]
    server = subprocess.Popen([sys.executable, "-m", "prolip.cli", *words])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None:
                    raise
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main(tyro.cli(ScreenshotOptions, use_underscores=True))
