"""One self-contained HTML page of sections, from report/templates/: no font, script or image is fetched.

Every number and every mark of a figure says what it was measured on and what made it, under the
pointer, on touch and under the keyboard's focus. Where scripts do not run, the browser shows the
same text as the element's title. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelsoups.report import figures, svg, templates
from modelsoups.report.sections import Picture, Section


def document(title: str, sections: Sequence[Section], links: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page. links: address and text of further pages, shown after the sections' own links."""
    return templates.render("report.html", title=title, sections=sections, links=links, svg=_svg)


def _svg(picture: Picture) -> str:
    content, texts = figures.save(picture.figure, "svg"), figures.described(picture.figure)
    return svg.inline(content, texts, picture.name, picture.caption)
