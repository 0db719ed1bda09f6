"""The lines of results.jsonl from the per-image correctness of a finished run.

They hold nothing that differs between two runs of the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from modelsoups.report.measure import Evidence, RowCorrectness
from modelsoups.report.numbers import MEAN, Difference, Result, names_of
from modelsoups.stats import intervals, paired_tests

Z = 1.959964  # of a 95% interval
PAIRS = (  # of rows that are compared besides every row with the best individual: the claims need them
    ("greedy", "uniform"),
    ("ensemble", "greedy"),
    ("greedy_ensemble", "greedy"),
    ("learned_layers", "greedy"),
)


def result_lines(evidence: Evidence) -> list[dict[str, Any]]:
    """Every line, in the order of the file."""
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
        lines.append({"kind": row.kind, "row": row.name, "dataset": MEAN, **_mean(row, shifts)})
    for row in rows.values():
        recipe = None if row.recipe is None else asdict(row.recipe)
        lines.append({"model": row.name, "inference": row.inference, "recipe": recipe})
    lines += [_soup_line(row) for row in rows.values() if row.soup is not None]
    return lines + [{"comparison": vars(d)} for d in _differences(evidence)]


def compared_rows(rows: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of rows to compare: every row with the best individual, then PAIRS, where both exist."""
    if "best" in rows:
        for row in rows:
            if row != "best":
                yield row, "best"
    for a, b in PAIRS:
        if a in rows and b in rows:
            yield a, b


def mean_half_width(shares: Sequence[tuple[float, int]]) -> float:
    """Half the 95% interval of a mean over sets: normal, variances added. shares: (accuracy, images)."""
    return Z * math.sqrt(sum(p * (1 - p) / n for p, n in shares)) / len(shares)


def _result(row: RowCorrectness, dataset: str) -> Result:
    correct_N = row.correct[dataset]
    correct, n = int(correct_N.sum()), len(correct_N)
    accuracy, ends = row.accuracy(dataset), intervals.wilson(correct, n)
    return Result(row.kind, row.name, dataset, n, correct, accuracy, *ends)


def _mean(row: RowCorrectness, shifts: list[str]) -> dict[str, float | None]:
    """The mean over all shifts with its 95% interval; accuracy None where a shift is missing."""
    if not shifts or not set(shifts) <= set(row.correct):
        return {"accuracy": None}
    shares = [(row.accuracy(name), len(row.correct[name])) for name in shifts]
    value, half = sum(share for share, _ in shares) / len(shifts), mean_half_width(shares)
    return {"accuracy": value, "low": value - half, "high": value + half}


def _soup_line(row: RowCorrectness) -> dict[str, Any]:
    """The soup's coefficients, and its trace if that is a list of candidates that joined or did not.

    The steps of a learned soup stay in the soup's own file.
    """
    assert row.soup is not None
    soup = row.soup.to_json()
    decisions = all("kept" in step for step in soup["trace"])
    if not soup["trace"] or not decisions:
        del soup["trace"]
    return {"soup": row.name, **soup}


def _differences(evidence: Evidence) -> Iterator[Difference]:
    """Every comparison of the file, on the test set and, if all are available, on the shifts."""
    rows, shifts = evidence.rows, names_of(evidence.sets, "shift")
    whole = bool(shifts) and all(s.n for s in evidence.sets if s.role == "shift")
    pairs = list(compared_rows(list(rows)))
    for row in rows:
        if row.startswith("wise_ft_best") and "greedy" in rows:
            pairs.append((row, "greedy"))
    for a, b in pairs:
        yield _on_test(rows[a], rows[b], names_of(evidence.sets, "test")[0])
        if whole:
            yield _on_mean(rows[a], rows[b], shifts)


def _on_test(a: RowCorrectness, b: RowCorrectness, test: str) -> Difference:
    pair = a.correct[test], b.correct[test]
    low, high = paired_tests.paired_mean_interval([pair])
    value, p = a.accuracy(test) - b.accuracy(test), paired_tests.mcnemar_exact(*pair).p
    return Difference(a.name, b.name, test, value, low, high, p)


def _on_mean(a: RowCorrectness, b: RowCorrectness, shifts: list[str]) -> Difference:
    pairs = [(a.correct[name], b.correct[name]) for name in shifts]
    low, high = paired_tests.paired_mean_interval(pairs)
    value, p = paired_tests.paired_mean_test(pairs, seed=0)
    return Difference(a.name, b.name, MEAN, value, low, high, p)
