"""Creates the lines of results.jsonl from the per-image correctness of a finished run.

Two runs with the same seed give the same lines.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from modelsoups.report.measure import Evidence, RowCorrectness
from modelsoups.report.numbers import MEAN, Difference, Result, names_of
from modelsoups.stats import intervals
from modelsoups.tasks.task import Task

Z = 1.959964  # of a 95% interval
VERSUS_GREEDY = ("ensemble", "greedy_ensemble", "learned_layers")  # rows that claims compare with greedy


def result_lines(task: Task, evidence: Evidence) -> list[dict[str, Any]]:
    """Return all lines of results.jsonl, in order. task: provides the significance tests."""
    rows = {**evidence.rows, **evidence.individuals}
    curve: dict[int, dict[str, str]] = {}
    for count, by_method in sorted(evidence.curve.items()):
        curve[count] = {method: row.name for method, row in by_method.items()}
    for by_method in evidence.curve.values():
        for row in by_method.values():
            rows.setdefault(row.name, row)
    about = {
        "name": evidence.name,
        "sets": list(map(asdict, evidence.sets)),
        "rows": list(evidence.rows),
        "individuals": list(evidence.individuals),
        "curve": curve,
        "failed": evidence.failed,
        "notes": evidence.notes,
    }
    lines: list[dict[str, Any]] = [{"experiment": about}]
    shifts = names_of(evidence.sets, "shift")
    for row in rows.values():
        for dataset in row.correct:
            lines.append(vars(_result(row, dataset)))
        lines.append(mean_line(row.kind, row.name, _shares(row, shifts)))
    for row in rows.values():
        recipe = None if row.recipe is None else asdict(row.recipe)
        lines.append({"model": row.name, "inference": row.inference, "recipe": recipe})
    for row in rows.values():
        if row.soup is not None:
            lines.append(_soup_line(row))
    for difference in _differences(task, evidence):
        lines.append({"comparison": vars(difference)})
    return lines


def compared_rows(rows: Collection[str]) -> list[tuple[str, str]]:
    """Return pairs of methods to compare: each with the best model, and those that claims need."""
    pairs = [(row, "best") for row in rows if row != "best"]
    pairs += [("greedy", "uniform"), *((row, "greedy") for row in VERSUS_GREEDY)]
    pairs += [(row, "greedy") for row in rows if row.startswith("wise_ft_best")]
    return [(a, b) for a, b in pairs if a in rows and b in rows]


def mean_line(kind: str, row: str, shares: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return the line with a row's mean accuracy over data sets and its 95% normal interval.

    shares: (accuracy, number of images) of each data set. If it is empty, the accuracy is None.
    """
    line = {"kind": kind, "row": row, "dataset": MEAN}
    if not shares:
        return {**line, "accuracy": None}
    mean = sum(p for p, _ in shares) / len(shares)
    half = Z * math.sqrt(sum(p * (1 - p) / n for p, n in shares)) / len(shares)
    return {**line, "accuracy": mean, "low": mean - half, "high": mean + half}


def _result(row: RowCorrectness, dataset: str) -> Result:
    correct_N = row.correct[dataset]
    correct, n = int(correct_N.sum()), len(correct_N)
    accuracy, ends = row.accuracy(dataset), intervals.wilson(correct, n)
    return Result(row.kind, row.name, dataset, n, correct, accuracy, *ends)


def _shares(row: RowCorrectness, sets: list[str]) -> list[tuple[float, int]]:
    """Return (accuracy, number of images) of each data set; an empty list if one is missing."""
    if not set(sets) <= set(row.correct):
        return []
    return [(row.accuracy(name), len(row.correct[name])) for name in sets]


def _soup_line(row: RowCorrectness) -> dict[str, Any]:
    """Return the line of a soup: ingredients, coefficients and, for greedy soups, the steps."""
    assert row.soup is not None
    soup = row.soup.to_json()
    decisions = all("kept" in step for step in soup["trace"])
    if not soup["trace"] or not decisions:
        del soup["trace"]
    return {"soup": row.name, **soup}


def _differences(task: Task, evidence: Evidence) -> Iterator[Difference]:
    """Yield comparisons of methods on the test set and, if all shifts exist, on their mean."""
    rows, shifts = evidence.rows, names_of(evidence.sets, "shift")
    test = names_of(evidence.sets, "test")[0]
    whole = bool(shifts) and all(s.n for s in evidence.sets if s.role == "shift")
    for a, b in compared_rows(rows):
        yield _difference(task, rows[a], rows[b], test, [test])
        if whole:
            yield _difference(task, rows[a], rows[b], MEAN, shifts)


def _difference(task: Task, a: RowCorrectness, b: RowCorrectness, on: str, sets: list[str]) -> Difference:
    pairs = [(a.correct[name], b.correct[name]) for name in sets]
    found = task.compare_means(pairs) if on == MEAN else task.compare(*pairs[0])
    return Difference(a.name, b.name, on, found.difference, found.low, found.high, found.p)
