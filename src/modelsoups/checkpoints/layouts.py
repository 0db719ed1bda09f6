"""Compare the layouts of checkpoints: the names, shapes and dtypes of their tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelsoups.checkpoints.states import State, describe
from modelsoups.checkpoints.tensors import Checkpoint

Layout = Mapping[str, str]  # tensor name -> its shape and dtype, "(10, 128) float32"


@dataclass(frozen=True)
class Difference:
    """How two layouts (tensor names, shapes and dtypes) differ: the first tensor that does, `key`.

    expected, found: its shape and dtype in each, None if missing. count: how many tensors differ.
    """

    key: str
    expected: str | None
    found: str | None
    count: int

    def __str__(self) -> str:
        what = f"is {self.found or 'missing'}, expected {self.expected or 'no such tensor'}"
        return f"tensor {self.key} {what}" + (f" ({self.count} tensors differ)" if self.count > 1 else "")


def layout_of(state: State) -> dict[str, str]:
    """Return {tensor name: shape and dtype, as "(10, 128) float32"} without reading tensors."""
    entries = state.entries if isinstance(state, Checkpoint) else state
    return {key: describe(entry) for key, entry in entries.items()}


def difference(expected: Layout, found: Layout) -> Difference | None:
    """Return how names, shapes and dtypes of tensors differ, or None; their order is ignored."""
    names = dict.fromkeys([*expected, *found])
    keys = [key for key in names if expected.get(key) != found.get(key)]
    return Difference(keys[0], expected.get(keys[0]), found.get(keys[0]), len(keys)) if keys else None


def grouped(layouts: Mapping[str, Layout]) -> list[list[str]]:
    """Group checkpoints (keys of `layouts`) with equal tensor names, shapes and dtypes."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, layout in layouts.items():
        groups.setdefault(frozenset(layout.items()), []).append(name)
    return list(groups.values())


def check_layout(state: State, expected: Layout, where: str) -> None:
    """Raise ValueError, with `where` first, unless names, shapes and dtypes are `expected`."""
    if odd := difference(expected, layout_of(state)):
        raise ValueError(f"{where}: {odd}")


def check_layouts(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ValueError if tensor names, shapes or dtypes differ or are complex; reads no tensor."""
    first = checkpoints[0]
    for key, entry in first.entries.items():
        if entry.dtype.is_complex:
            raise ValueError(f"{first.name}: tensor {key} is complex; expected real numbers")
    expected = layout_of(first)
    for other in checkpoints[1:]:
        how = "`modelsoups doctor` compares all checkpoints"
        if {k: e.shape for k, e in other.entries.items()} == {k: e.shape for k, e in first.entries.items()}:
            how = "`modelsoups mix --dtype float32` accepts different dtypes"
        check_layout(other, expected, f"{other.name} cannot be mixed with {first.name} ({how})")
