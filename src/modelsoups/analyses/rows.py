"""Functions on the data rows of an analysis; a row is a dict, stored as a line of a JSONL file."""

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Table = list[list[str]]  # rows of cells, header first
ON = (("test", "in distribution"), ("shifts", "under shift"))  # key -> words in a claim


def having(rows: Rows, key: str) -> Rows:
    """Return the rows that have this key."""
    return [row for row in rows if key in row]


def select(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows in which these keys have these values."""
    return [row for row in rows if wanted.items() <= row.items()]


def column(rows: Rows, key: str, scale: float = 1) -> list[Any]:
    """Return the value of a key in each row, times scale (100 turns fractions into percentages)."""
    return [row[key] if scale == 1 else scale * row[key] for row in rows]


def nested(rows: Rows, outer: str, inner: str) -> list[Any]:
    """Return the list of row[outer][inner] of all rows."""
    return column(column(rows, outer), inner)


def distinct(rows: Rows, key: str) -> list[Any]:
    """Return the different values of a key, in order of first appearance."""
    return list(dict.fromkeys(column(rows, key)))


def measured_on(rows: Rows) -> list[str]:
    """Return which of the keys "test" and "shifts" have a value other than None in any row."""
    return [on for on in ("test", "shifts") if any(row.get(on) is not None for row in rows)]


def means_by_count(rows: Rows, key: str) -> tuple[list[int], list[float]]:
    """Return the numbers of models k, and the mean of a key over the rows with each k (in %)."""
    counts = sorted(distinct(rows, "k"))
    return counts, [float(100 * np.mean(column(select(rows, k=k), key))) for k in counts]


def pairs_of(rows: Rows) -> list[tuple[str, str]]:
    """Return the names of the two models that each row compares (its keys a and b)."""
    return list(zip(column(rows, "a"), column(rows, "b"), strict=True))


def interval(triple: tuple[float, float, float]) -> dict[str, float]:
    """Return the tuple (value, low, high) as a dict with these keys, for a data row."""
    return dict(zip(("value", "low", "high"), triple, strict=True))
