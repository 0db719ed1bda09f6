"""The HTML templates of report/templates/, as `render` fills them in."""

import base64
from typing import Any

import jinja2
from markupsafe import Markup

_LOADER = jinja2.PackageLoader("modelsoups.report")
_ENVIRONMENT = jinja2.Environment(
    loader=_LOADER, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, **values: Any) -> str:
    """Fill in a template. Values are escaped, except where the template says `| safe`.

    Raises jinja2.UndefinedError for a value that the template needs and does not get.
    """
    return _ENVIRONMENT.get_template(template).render(values)


def asset(name: str) -> Markup:
    """A style sheet or script beside the templates, to be inlined unchanged."""
    return Markup(_LOADER.get_source(_ENVIRONMENT, name)[0])


_ENVIRONMENT.globals["asset"] = asset
_ENVIRONMENT.filters["base64"] = lambda content: base64.b64encode(content).decode()
_ENVIRONMENT.filters["kind"] = lambda value: type(value).__name__
