"""Converts a matplotlib SVG for inlining in a page, with the page's colours and tooltips."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from modelsoups.report.plotting import INK, PAPER

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
COLOURS = {INK: "currentColor", PAPER: "var(--paper)"}


def inline(svg: bytes, texts: Mapping[str, Sequence[str]], name: str, title: str) -> str:
    """Return the `<svg>` element for HTML. texts: id of a group -> the texts of its marks, in order.

    Ids are prefixed with name, since figures share a page. A mark gets its text as `<title>`, which
    browsers show as a tooltip, and can take the focus. Raises ValueError if the number of texts
    differs from the number of marks in a group.
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
    """Return the marks of a group: its copies of a marker, or its drawn paths if there are none."""
    uses = list(group.iter(f"{{{SVG}}}use"))
    hidden = {path for defs in group.iter(f"{{{SVG}}}defs") for path in defs.iter()}
    return uses or [path for path in group.iter(f"{{{SVG}}}path") if path not in hidden]


def _name(marks: Sequence[ElementTree.Element], texts: Sequence[str], key: str) -> None:
    if len(marks) != len(texts):
        raise ValueError(f"figure: {key} has {len(marks)} marks and {len(texts)} texts")
    for mark, text in zip(marks, texts, strict=True):
        title = ElementTree.SubElement(mark, f"{{{SVG}}}title")
        title.text = text
        mark.attrib |= {"class": "mark", "role": "img", "aria-label": text, "tabindex": "-1"}


def _own(element: ElementTree.Element, name: str) -> None:
    """Prefix the element's ids and references with name, and use the page's colours."""
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
