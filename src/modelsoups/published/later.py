"""Soups that are newer than the paper, and what their authors report for its 72 released models."""

import functools
from dataclasses import dataclass

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS


@dataclass(frozen=True)
class LaterSoup:
    """One method: its row, name, ImageNet accuracy of its soup of the 72 models, and where that is from.

    imagenet: in percent, None if its authors did not report it. greedy: the accuracy that they report
    for the greedy soup of the same models. date: of the source as it was read.
    """

    row: str
    label: str
    imagenet: float | None
    greedy: float | None
    source: str
    date: str

    @property
    def note(self) -> str:
        """The reported accuracy in a sentence."""
        return (
            f"Not in the paper: {self.label} of the same 72 models has {self.imagenet:.2f}% on ImageNet, and the "
            f"greedy soup {self.greedy:.2f}%, as its authors report ({self.source}, {self.date})."
        )


@functools.cache
def later_soups() -> dict[str, LaterSoup]:
    """Return the methods by row: mehl, radin and soce."""
    return {line["row"]: LaterSoup(**line) for line in storage.read_jsonl(ASSETS / "published/later_soups.jsonl")}
