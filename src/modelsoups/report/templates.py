"""Fills in the HTML templates of report/templates/."""

import base64
from typing import Any

import jinja2
from markupsafe import Markup

_LOADER = jinja2.PackageLoader("modelsoups.report")
_ENVIRONMENT = jinja2.Environment(
    loader=_LOADER, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, **values: Any) -> str:
    """Return the filled-in template. Values are escaped unless the template marks them `| safe`.

    Raises jinja2.UndefinedError if a value that the template uses is missing.
    """
    return _ENVIRONMENT.get_template(template).render(values)


def asset(name: str) -> Markup:
    """Return a style sheet or script of the templates' folder, marked as safe to insert in HTML."""
    return Markup(_LOADER.get_source(_ENVIRONMENT, name)[0])


_ENVIRONMENT.globals["asset"] = asset
_ENVIRONMENT.filters["base64"] = lambda content: base64.b64encode(content).decode()
_ENVIRONMENT.filters["kind"] = lambda value: type(value).__name__
