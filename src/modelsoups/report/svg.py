"""Prepares a matplotlib SVG for an HTML page: adds tooltips and uses the page's colours."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from modelsoups.report.plotting import INK, PAPER

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
COLOURS = {INK: "currentColor", PAPER: "var(--paper)"}


def inline(svg: bytes, texts: Mapping[str, Sequence[str]], name: str, title: str) -> str:
    """Return the `<svg>` element for HTML. texts: id of a group -> tooltips of its points or bars.

    `name` is put before each id, since figures share a page. A tooltip is a `<title>` of its point
    or bar, which then can have the keyboard focus. Raises ValueError if the number of tooltips
    differs from the number of points or bars in a group.
    """
    root = ElementTree.fromstring(svg)
    for group in root.iter(f"{{{SVG}}}g"):
        if (key := group.get("id")) in texts:
            _name(_marks(group), texts[str(key)], str(key))
    for unused in root.findall(f"{{{SVG}}}metadata"):
        root.remove(unused)
    root.attrib |= {"role": "group", "aria-label": title, "data-rove": ""}
    width = float(str(root.get("width")).removesuffix("pt"))
    root.attrib |= {"width": f"{width * 4 / 3:.0f}", "style": f"--width: {width / 12:.1f}rem"}
    del root.attrib["height"]
    for element in root.iter():
        _own(element, name)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _marks(group: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the points or bars of an SVG group: its `<use>` elements, or else its `<path>`s."""
    uses = list(group.iter(f"{{{SVG}}}use"))
    hidden = {path for defs in group.iter(f"{{{SVG}}}defs") for path in defs.iter()}
    return uses or [path for path in group.iter(f"{{{SVG}}}path") if path not in hidden]


def _name(marks: Sequence[ElementTree.Element], texts: Sequence[str], key: str) -> None:
    if len(marks) != len(texts):
        raise ValueError(f"figure: group {key} of the SVG has {len(marks)} points or bars but {len(texts)} tooltips")
    for mark, text in zip(marks, texts, strict=True):
        title = ElementTree.SubElement(mark, f"{{{SVG}}}title")
        title.text = text
        mark.attrib |= {"class": "mark", "role": "img", "aria-label": text, "tabindex": "-1"}


def _own(element: ElementTree.Element, name: str) -> None:
    """Prefix the element's id and references with `name`; use the page's variables for colours."""
    for attribute, value in element.attrib.items():
        if attribute == "id":
            value = f"{name}-{value}"
        elif attribute == f"{{{XLINK}}}href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif attribute in ("style", "clip-path", "fill"):
            value = value.replace("url(#", f"url(#{name}-")
            for ours, theirs in COLOURS.items():
                value = re.sub(ours, theirs, value, flags=re.IGNORECASE)
        element.attrib[attribute] = value
