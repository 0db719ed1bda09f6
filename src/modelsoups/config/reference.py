"""The keys of the configuration as text, for `modelsoups <stage> --help` and the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field
from typing import Any

from modelsoups.config.compose import keys


def table(sections: Sequence[str] = ()) -> str:
    """Markdown table of the keys of these sections ("": the keys outside any); all of them by default."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, about in keys().items():
        if not sections or name.rpartition(".")[0].split(".")[0] in sections:
            choices = ", ".join(f"`{c}`" for c in about.metadata["choices"])
            meaning = about.metadata["sentence"] + (f" ({choices})" if choices else "")
            rows.append(f"| `{name}` | {_default(about)} | {meaning} |")
    return "\n".join(rows) + "\n"


def listing(sections: Sequence[str]) -> str:
    """The keys of these sections as a terminal shows them: name, default and meaning."""
    chosen = {n: k for n, k in keys().items() if n.rpartition(".")[0].split(".")[0] in sections}
    width = max(map(len, chosen), default=0)
    lines = []
    for name, about in chosen.items():
        values = " | ".join(about.metadata["choices"])
        default = f"default {_default(about)}"
        shown = f"{values}; {default}" if values else default
        lines.append(f"  {name:<{width}}  {about.metadata['sentence']} [{shown}]")
    return "\n".join(lines)


def _default(about: Field[Any]) -> str:
    value = about.default if about.default_factory is MISSING else about.default_factory()
    if value is MISSING:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return '""' if value == "" else str(value)
