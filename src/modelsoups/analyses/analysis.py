"""What an analysis is: rows of data, and verdicts on what the paper claims, from the rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelsoups.analyses.bench import Bench, Measures
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict
from modelsoups.stats import correlations, intervals, paired_tests

Rows = list[dict[str, Any]]
FEW = 4  # models, below which draws of them say nothing of a correlation between their pairs


@dataclass(frozen=True)
class Analysis:
    """One figure or table. paper: what the paper found, in a sentence. rows raises Unavailable where it cannot be made.

    verdicts reads rows only, so figures, page and claims can be made again from the data file.
    """

    name: str
    title: str
    source: str
    paper: str
    rows: Callable[[Bench], Rows]
    verdicts: Callable[[Rows], list[Verdict]]


def judged(text: str, source: str, value: float, low: float, high: float, unit: str = "points") -> Verdict:
    """A claim that a quantity is above zero: holds or not where its 95% interval leaves zero out, else not decided.

    unit points: a share, shown as percentage points; "": shown as it is.
    """
    scale, form = (100, "+.2f") if unit == "points" else (1, "+.3f")
    numbers = f"{scale * value:{form}} [{scale * low:{form}}, {scale * high:{form}}]"
    verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    p = paired_tests.p_of_interval(value, low, high)
    return Verdict(text, source, verdict, f"{numbers} {unit}".strip(), p, above=value > 0)


def counted(text: str, source: str, there: int, of: int) -> Verdict:
    """A claim that something is so more often than not: Wilson's interval of the share against one half."""
    low, high = intervals.wilson(there, of)
    verdict = HOLDS if low > 0.5 else FAILS if high < 0.5 else OPEN
    p = paired_tests.p_of_interval(there / of - 0.5, low - 0.5, high - 0.5)
    return Verdict(text, source, verdict, f"{there} of {of} [{100 * low:.0f}%, {100 * high:.0f}%]", p, there > of / 2)


def correlated(
    text: str, source: str, x: Sequence[float], y: Sequence[float], models: Sequence[tuple[str, str]]
) -> list[Verdict]:
    """The verdict that two quantities of pairs of models go together; none where there is too little to correlate."""
    if len({name for pair in models for name in pair}) < FEW or np.ptp(x) == 0 or np.ptp(y) == 0:
        return []
    r = correlations.correlation(x, y, models)
    return [judged(f"{text}: correlation over {r.n} points", source, r.value, r.low, r.high, unit="")]


def accuracies(bench: Bench, measures: Measures) -> dict[str, float | None]:
    """test, and the mean of the shifts (null unless all are there)."""
    shift = bench.shift_accuracy(measures)
    return {"test": measures[bench.test].accuracy, "shifts": None if np.isnan(shift) else shift}


def differences(bench: Bench, pairs: Sequence[tuple[Measures, Measures]]) -> dict[str, dict[str, float]]:
    """a - b averaged over pairs, on the test set and on the mean of the shifts: value, low, high (95%, over images)."""
    found = {}
    for on, names in (("test", [bench.test]), ("shifts", bench.shifts if bench.all_shifts else [])):
        if names:
            per_set = [
                np.mean([a[n].correct_N.astype(float) - b[n].correct_N for a, b in pairs], axis=0) for n in names
            ]
            found[on] = dict(zip(("value", "low", "high"), intervals.mean_interval(per_set), strict=True))
    return found


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts with Holm's p over all of them that have one, and what they say by it."""
    tested = [v for v in verdicts if v.p is not None]
    adjusted = iter(paired_tests.holm([v.p for v in tested if v.p is not None]))
    return [v if v.p is None else replace(v, holm=next(adjusted)) for v in verdicts]


def comparison(name: str, bench: Bench, pairs: Sequence[tuple[Measures, Measures]]) -> dict[str, Any]:
    """A row that a verdict is read from."""
    return {"comparison": name, **differences(bench, pairs)}


def compared(rows: Rows, name: str, on: str, text: str, source: str) -> list[Verdict]:
    """The verdict on a comparison's row; none when it was not made (shifts that are not there)."""
    found = [row for row in rows if row.get("comparison") == name and on in row]
    return [judged(text, source, **row[on]) for row in found]
