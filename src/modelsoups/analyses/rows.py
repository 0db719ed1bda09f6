"""The rows of an analysis, which are the lines of its data file, and how to read them."""

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Table = list[list[str]]  # the header first
ON = (("test", "in distribution"), ("shifts", "under shift"))  # where accuracy is compared


def having(rows: Rows, key: str) -> Rows:
    """The rows that have this key."""
    return [row for row in rows if key in row]


def select(rows: Rows, **wanted: Any) -> Rows:
    """The rows that have these values."""
    return [row for row in rows if wanted.items() <= row.items()]


def column(rows: Rows, key: str, scale: float = 1) -> list[Any]:
    """The values of a key; scale 100 turns shares into percentages."""
    return [row[key] if scale == 1 else scale * row[key] for row in rows]


def nested(rows: Rows, outer: str, inner: str) -> list[Any]:
    """The values of a key inside another: row[outer][inner]."""
    return column(column(rows, outer), inner)


def distinct(rows: Rows, key: str) -> list[Any]:
    """The values of a key in order of appearance, each once."""
    return list(dict.fromkeys(column(rows, key)))


def measured_on(rows: Rows) -> list[str]:
    """test, and shifts where the mean over all of them is known."""
    return [on for on in ("test", "shifts") if any(row.get(on) is not None for row in rows)]


def means_by_count(rows: Rows, key: str) -> tuple[list[int], list[float]]:
    """Each number of models k, and the mean of a key over its rows, in %."""
    counts = sorted(distinct(rows, "k"))
    return counts, [float(100 * np.mean(column(select(rows, k=k), key))) for k in counts]


def pairs_of(rows: Rows) -> list[tuple[str, str]]:
    """The names of both models of each pair, by which dependent pairs are recognised."""
    return list(zip(column(rows, "a"), column(rows, "b"), strict=True))


def interval(triple: tuple[float, float, float]) -> dict[str, float]:
    """A value and its 95% interval, as rows hold them."""
    return dict(zip(("value", "low", "high"), triple, strict=True))
