"""Creates the lines of results.jsonl from the outcomes of a finished run, one per example.

Two runs with the same seed give the same lines.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from modelsoups.report.measure import Evidence, RowOutcomes
from modelsoups.report.numbers import MEAN, ON_TEST, SCORE, UNIT, Difference, Result, names_of
from modelsoups.tasks.task import Task

Z = 1.959964  # of a 95% interval
VERSUS_GREEDY = ("ensemble", "greedy_ensemble", "learned_layers")  # in claims


def result_lines(task: Task, evidence: Evidence) -> list[dict[str, Any]]:
    """Return all lines of results.jsonl, in order. task: provides scores and significance tests."""
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
    lines: list[dict[str, Any]] = [{"experiment": about | _about_score(task, evidence)}]
    shifts = names_of(evidence.sets, "shift")
    for row in rows.values():
        for dataset in row.outcomes:
            lines.append(vars(_result(task, row, dataset)))
        lines.append(mean_line(row.kind, row.name, _scores(task, row, shifts)))
    for row in rows.values():
        recipe = None if row.recipe is None else row.recipe.to_json()
        lines.append({"model": row.name, "inference": row.inference, "recipe": recipe})
    for row in rows.values():
        if row.soup is not None:
            lines.append(_soup_line(row))
    for difference in _differences(task, evidence):
        lines.append({"comparison": vars(difference)})
    return lines


def compared_rows(rows: Collection[str]) -> list[tuple[str, str]]:
    """Return pairs of methods to compare: each with the best model, and those that claims need."""
    pairs = [(row, "best") for row in rows if row != "best" and row not in ON_TEST]
    pairs += [("greedy_validation", "best_validation"), ("uniform", "best_validation")]
    pairs += [("greedy", "uniform"), *((row, "greedy") for row in VERSUS_GREEDY)]
    pairs += [(row, "greedy") for row in rows if row.startswith("wise_ft_best")]
    return [(a, b) for a, b in pairs if a in rows and b in rows]


def mean_line(kind: str, row: str, scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the line with a row's mean score over data sets and its 95% normal interval.

    scores: (score, its variance) on each data set. If it is empty, the score is None.
    """
    line = {"kind": kind, "row": row, "dataset": MEAN}
    if not scores:
        return {**line, "accuracy": None}
    mean = sum(score for score, _ in scores) / len(scores)
    half = Z * math.sqrt(sum(variance for _, variance in scores)) / len(scores)
    return {**line, "accuracy": mean, "low": mean - half, "high": mean + half}


def _about_score(task: Task, evidence: Evidence) -> dict[str, Any]:
    """Return facts about score and data, in the first line; none for images with top-1 accuracy."""
    if (task.score_name, task.unit) == (SCORE, UNIT):
        return {}
    facts: dict[str, Any] = {"score": {"name": task.score_name, "unit": task.unit}}
    if best := evidence.rows.get("best"):
        (holdout,) = names_of(evidence.sets, "holdout")
        facts["score"]["holdout_error"] = math.sqrt(task.variance(best.outcomes[holdout]))
    facts |= {"texts": evidence.texts} if evidence.texts else {}
    return facts | ({"chosen_on_test": True} if evidence.chosen_on_test else {})


def _result(task: Task, row: RowOutcomes, dataset: str) -> Result:
    outcomes_N = row.outcomes[dataset]
    correct, ends = task.count_correct(outcomes_N), task.interval(outcomes_N)
    return Result(row.kind, row.name, dataset, len(outcomes_N), correct, row.score(task, dataset), *ends)


def _scores(task: Task, row: RowOutcomes, sets: list[str]) -> list[tuple[float, float]]:
    """Return (score, its variance) on each data set; an empty list if one is missing."""
    if not set(sets) <= set(row.outcomes):
        return []
    return [(row.score(task, name), task.variance(row.outcomes[name])) for name in sets]


def _soup_line(row: RowOutcomes) -> dict[str, Any]:
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


def _difference(task: Task, a: RowOutcomes, b: RowOutcomes, on: str, sets: list[str]) -> Difference:
    pairs = [(a.outcomes[name], b.outcomes[name]) for name in sets]
    found = task.compare_means(pairs) if on == MEAN else task.compare(*pairs[0])
    return Difference(a.name, b.name, on, found.difference, found.low, found.high, found.p)
