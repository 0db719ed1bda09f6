"""Layouts of checkpoints (names, shapes and dtypes of the tensors) and comparisons of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelsoups.checkpoints.states import State, describe
from modelsoups.checkpoints.tensors import Checkpoint

Layout = Mapping[str, str]  # tensor name -> its shape and dtype, "(10, 128) float32"


@dataclass(frozen=True)
class Difference:
    """The first tensor where a layout differs from the expected one; None if missing."""

    key: str
    expected: str | None
    found: str | None
    count: int  # all tensors that differ

    def __str__(self) -> str:
        what = f"is {self.found or 'missing'}, expected {self.expected or 'no such tensor'}"
        return f"tensor {self.key} {what}" + (f" ({self.count} tensors differ)" if self.count > 1 else "")


def layout_of(state: State) -> dict[str, str]:
    """Return the layout of a state, without reading a checkpoint's tensors."""
    entries = state.entries if isinstance(state, Checkpoint) else state
    return {key: describe(entry) for key, entry in entries.items()}


def difference(expected: Layout, found: Layout) -> Difference | None:
    """Return how a layout differs from the expected one, or None; the order of names is ignored."""
    names = dict.fromkeys([*expected, *found])
    keys = [key for key in names if expected.get(key) != found.get(key)]
    return Difference(keys[0], expected.get(keys[0]), found.get(keys[0]), len(keys)) if keys else None


def grouped(layouts: Mapping[str, Layout]) -> list[list[str]]:
    """Return the names in groups with equal layouts, ordered by each group's first name."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, layout in layouts.items():
        groups.setdefault(frozenset(layout.items()), []).append(name)
    return list(groups.values())


def check_layout(state: State, expected: Layout, where: str) -> None:
    """Raise ValueError, starting with `where`, unless a state has the expected layout."""
    if odd := difference(expected, layout_of(state)):
        raise ValueError(f"{where}: {odd}")


def check_layouts(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ValueError for complex numbers or different layouts; reads no tensor."""
    first = checkpoints[0]
    for key, entry in first.entries.items():
        if entry.dtype.is_complex:
            raise ValueError(f"{first.name}: tensor {key} is complex, which is not supported")
    expected = layout_of(first)
    for other in checkpoints[1:]:
        where = f"{other.name} cannot be mixed with {first.name} (`modelsoups doctor` compares all of them)"
        check_layout(other, expected, where)
