"""The contact sheet as a page; what is on it is tested where it is made (search, rank)."""

from __future__ import annotations

import re

from prolip.embeddings.contact_sheet import Cell, Row, contact_sheet


def test_the_sheet_has_light_and_dark_colours() -> None:
    """They are those of the style sheet that all pages share; the sheet names no colour itself."""
    page = contact_sheet("ranked by image", [Row("the most certain images", None, [Cell("k0", None, ["rank 1"])])])
    assert "(prefers-color-scheme: dark)" in page
    shared, _, own = page.partition("main { padding-bottom")
    assert "--surface:" in shared
    assert "var(--surface)" in own
    assert not re.search(r"#[0-9a-f]{3,6}\b", own)
