"""Jinja templates of the pages, escaped by default, with one style sheet that goes into each page."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def open_templates(package: str | None = None) -> Environment:
    """The templates of this room, and of another package if one is named; `style` is the style sheet's text."""
    own = PackageLoader("prolip.report")
    loader = own if package is None else ChoiceLoader([PackageLoader(package), own])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["style"] = Markup(own.get_source(environment, "style.css")[0])
    return environment
