"""One self-contained HTML page of sections: no font, script or image is fetched.

Every number and every mark of a figure says what it was measured on and what made it, under the pointer, on touch and
under the keyboard's focus; where scripts do not run, as the browser's own title. Colours follow the reader's system.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from modelsoups.report import figures, svg
from modelsoups.report.sections import Cards, Cell, Part, Photograph, Picture, Section, Table

HERE = Path(__file__).resolve().parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
HINT = (
    "Numbers underlined with dots, and the marks of figures, say where they come from: point at them, touch them, or "
    "reach a table or figure with Tab and move in it with the arrow keys. A click on a column's title sorts."
)


def document(
    title: str, lead: Sequence[str], sections: Sequence[Section], others: Sequence[tuple[str, str]] = ()
) -> str:
    """The page; lead: paragraphs under the title, as text; others: pages beside it (address, title)."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'  # else browsers ask the server for one
    places = [*((f"#{s.anchor}", s.title) for s in sections), *others]
    links = "".join(f'<a href="{escape(place)}">{escape(what)}</a>' for place, what in places)
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in lead),
        f'<nav aria-label="Sections">{links}</nav><p class="faint hint">{HINT}</p></header>',
        f"<main>{''.join(map(_section, sections))}</main>",
        f"<script>{script}</script>",
    ]
    head = f"<head>{meta}{icon}<title>{escape(title)}</title><style>{CSS}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _section(section: Section) -> str:
    sentence = f"<p>{escape(section.sentence)}</p>" if section.sentence else ""
    source = f'<p class="faint">{escape(str(section.source))}</p>' if section.source else ""
    body = "\n".join(_part(part) for part in section.parts)
    heading = f"<h2>{escape(section.title)}</h2>"
    return f'<section id="{section.anchor}">{heading}{sentence}\n{body}{source}</section>\n'


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Picture):
        drawn = svg.inline(figures.save(part.figure, "svg"), figures.described(part.figure), part.name, part.caption)
        return f'<figure class="drawn">{drawn}<figcaption>{escape(part.caption)}</figcaption></figure>'
    if isinstance(part, Photograph):
        content = base64.b64encode(part.png).decode()
        return f'<figure><img alt="{escape(part.alt)}" src="data:image/png;base64,{content}"></figure>'
    if isinstance(part, Cards):
        return f'<div class="cards">{"".join(map(_card, part.cards))}</div>'
    return f'<p class="faint">{escape(part)}</p>'


def _card(card: tuple[str, Cell, Sequence[str]]) -> str:
    title, number, lines = card
    told = "".join(f'<span class="faint">{escape(line)}</span>' for line in lines)
    value = f'<b class="tip" title="{escape(number.tip)}" tabindex="0">{escape(number.text)}</b>'
    return f'<div class="card"><span>{escape(title)}</span>{value}{told}</div>'


def _table(table: Table) -> str:
    groups = ""
    if table.groups:
        cells = "".join(
            f'<th colspan="{span}"{" class=group" if title else ""}>{escape(title)}</th>'
            for title, span in table.groups
        )
        groups = f"<tr>{cells}</tr>"
    heads = "".join(
        f'<th scope="col"{" class=text" if i < table.text and table.text > 1 else ""}><button>{escape(h)}</button></th>'
        for i, h in enumerate(table.head)
    )
    body = "".join(f"<tr>{''.join(_cell(c, i, table.text) for i, c in enumerate(row))}</tr>" for row in table.rows)
    caption = f'<p class="faint">{escape(table.caption)}</p>' if table.caption else ""
    head = f"<thead>{groups}<tr>{heads}</tr></thead>"
    return f'<div class="scroll"><table data-rove>{head}<tbody>{body}</tbody></table></div>{caption}'


def _cell(cell: Cell | str, column: int, text: int) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    kinds = [cell.kind, "tip" if cell.tip else "", "text" if column < text and text > 1 else ""]
    kind = f' class="{" ".join(k for k in kinds if k)}"' if any(kinds) else ""
    tip = f' title="{escape(cell.tip)}" tabindex="-1"' if cell.tip else ""
    tag, scope = ("th", ' scope="row"') if column == 0 else ("td", "")
    return f"<{tag}{scope}{kind}{tip}>{escape(cell.text)}</{tag}>"
