"""Lists of the configuration keys as text, for `modelsoups <stage> --help` and the docs."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, is_dataclass
from inspect import getdoc
from typing import Any, get_type_hints

from modelsoups.config.compose import keys
from modelsoups.config.schema import Config, TopLevel
from modelsoups.recipes.recipe import Recipe


def listing(sections: Sequence[str]) -> str:
    """Return the help of all keys in `sections` (sections or single keys), a line for each key."""
    chosen = {n: k for n, k in keys().items() if n in sections or n.partition(".")[0] in sections}
    width = max(map(len, chosen), default=0)
    lines = []
    for name, about in chosen.items():
        own = ["module:object"] if about.metadata.get("own") else []
        shown = [*map(_yaml, about.metadata["choices"]), *own, f"default {_default(about)}"]
        lines.append(f"  {name:<{width}}  {about.metadata['sentence']} [{', '.join(shown)}]")
    return "\n".join(lines)


def markdown() -> str:
    """Return Markdown tables with the default and meaning of every key, one table a section."""
    parts = [f"### Keys outside a section\n\n{_table(n for n in keys() if '.' not in n)}"]
    for section, kind in get_type_hints(Config).items():
        if is_dataclass(kind) and kind is not TopLevel:
            names = [name for name in keys() if name.startswith(f"{section}.")]
            parts.append(f"### `{section}`\n\n{getdoc(kind)}\n\n{_table(names)}")
    recipe = "A key that you set is the same for all ingredients; the search file may draw the others."
    parts.append(f"### `recipe`\n\n{recipe}\n\n{_table(Recipe.names(), 'recipe.')}")
    return "\n".join(parts)


def _table(names: Iterable[str], prefix: str = "") -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name in map(prefix.__add__, names):
        about = keys()[name]
        own = ("module:object",) if about.metadata.get("own") else ()
        choices = ", ".join(f"`{_yaml(c)}`" for c in (*about.metadata["choices"], *own))
        meaning = about.metadata["sentence"] + (f" ({choices})" if choices else "")
        rows.append(f"| `{name}` | `{_default(about)}` | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(about: Field[Any]) -> str:
    value = about.default if about.default_factory is MISSING else about.default_factory()
    if value is MISSING:
        return "drawn" if about.name in Recipe.names() else "required"
    return _yaml(value)


def _yaml(value: Any) -> str:
    """Return a value as it is written in YAML and on the command line, such as null for None."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return str(list(value))
    return '""' if value == "" else str(value)


if __name__ == "__main__":  # python -m modelsoups.config.reference > docs/keys.txt
    print(markdown(), end="")
