"""Jinja templates of all pages: escaped by default, with one style sheet."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def open_templates(package: str = "prolip.report") -> Environment:
    """Open the templates of a package. The global `style` is the text of the style sheet that pages share."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, _, _ = PackageLoader("prolip.report").get_source(environment, "style.css")
    environment.globals["style"] = Markup(style)
    return environment
