"""What the pages share: their templates, escaped by default, and one style sheet that goes into each."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def open_templates() -> Environment:
    """The templates; `style` is the style sheet's text."""
    loader = PackageLoader("prolip.eval.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["style"] = Markup(loader.get_source(environment, "style.css")[0])
    return environment
