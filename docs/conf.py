"""Sphinx: `make docs` builds docs/_build/html, and fails at the first warning."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "prolip"
copyright = "the prolip authors, MIT licence"
release = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"prolip {release}"

myst_heading_anchors = 3
# Formulas are typeset in the reader's browser, which loads MathJax from its public address.
myst_enable_extensions = ["dollarmath"]
# A name such as `decode` in an attribute's docstring may be that of several fields.
suppress_warnings = ["ref.python"]

# Docstrings name code in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

plot_basedir = str(Path(__file__).parent / "figures")
plot_formats = ["svg"]
plot_html_show_source_link = False
plot_html_show_formats = False


def setup(app: Sphinx) -> None:
    """An attribute's docstring is text: napoleon would take what stands before a colon in its first line for a type."""

    def shield(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
        if what in {"attribute", "property", "data"}:
            lines[:0] = ["..", ""]  # an empty comment, which has no colon

    app.connect("autodoc-process-docstring", shield, priority=400)
