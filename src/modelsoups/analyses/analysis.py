"""What an analysis is: rows of data, and verdicts, a figure or a table made from them alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modelsoups.analyses.bench import Bench, Measures
from modelsoups.analyses.rows import ON, Rows, Table, having, interval, select
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict
from modelsoups.stats import correlations, intervals, paired_tests

Verdicts = list[Verdict]
# The facts of each analysis by name, in the order of the paper
PAPER: dict[str, dict[str, Any]] = {x["name"]: x for x in storage.read_jsonl(ASSETS / "published" / "analyses.jsonl")}
MIN_MODELS = 4  # with fewer, resampling models says nothing about a correlation over their pairs


@dataclass(frozen=True)
class Analysis:
    """A figure or table. `rows` raises Unavailable if models or data are missing.

    paper: what the paper found, in a sentence. claims: (comparison, "test" or "shifts", text).
    `verdicts`, draw and table read rows only, so they can be made again from the data file.
    """

    name: str
    title: str
    source: str
    paper: str
    rows: Callable[[Bench], Rows]
    judge: Callable[[Rows], Verdicts] | None = None
    draw: Callable[[Rows], Figure] | None = None
    table: Callable[[Rows], Table] | None = None
    claims: Sequence[tuple[str, str, str]] = ()
    claimed_in: str = ""  # where it is not the figure or table that the title begins with

    def verdicts(self, rows: Rows) -> Verdicts:
        """The verdicts of `judge`; without it, those on the claims and on rows that hold one as `said`."""
        if self.judge:
            return self.judge(rows)
        source, found = self.claimed_in or self.title.partition(". ")[0], []
        for name, on, text in self.claims:
            found += compared(rows, name, on, text, source)
        for row in having(rows, "said"):
            lr = f", learning rate {row['lr']:.1e}" if "lr" in row else ""
            for on, where in ON:
                found += compared([row], row["comparison"], on, f"{row['said']}, {where}{lr}", source)
        return found


def judged(text: str, source: str, estimate: dict[str, float], unit: str = "points") -> Verdict:
    """The verdict that a quantity is above zero, by whether its 95% interval excludes zero.

    estimate: value, low and high. unit "points": a share, shown in percentage points; else "".
    """
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    scale, form = (100, "+.2f") if unit == "points" else (1, "+.3f")
    numbers = f"{scale * value:{form}} [{scale * low:{form}}, {scale * high:{form}}]"
    verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    p = paired_tests.p_of_interval(value, low, high)
    return Verdict(text, source, verdict, f"{numbers} {unit}".strip(), p, above=value > 0)


def counted(text: str, source: str, cases: Sequence[bool]) -> Verdict:
    """The verdict that most cases are true: Wilson's 95% interval of the share against one half."""
    true, n = sum(cases), len(cases)
    low, high = intervals.wilson(true, n)
    verdict = HOLDS if low > 0.5 else FAILS if high < 0.5 else OPEN
    p = paired_tests.p_of_interval(true / n - 0.5, low - 0.5, high - 0.5)
    numbers = f"{true} of {n} [{100 * low:.0f}%, {100 * high:.0f}%]"
    return Verdict(text, source, verdict, numbers, p, true > n / 2)


def estimated(result: correlations.Estimate) -> dict[str, float]:
    """The value and interval of a statistic over pairs of models (`stats.correlations`)."""
    return interval((result.value, result.low, result.high))


def correlated(
    text: str, source: str, x: Sequence[float], y: Sequence[float], models: Sequence[tuple[str, str]]
) -> Verdicts:
    """The verdict that x and y, one value a pair of models, are correlated.

    Empty with fewer than MIN_MODELS models or where x or y is constant.
    """
    names = {name for pair in models for name in pair}
    if len(names) < MIN_MODELS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return []
    r = correlations.correlation(x, y, models)
    return [judged(f"{text}: correlation over {r.n} points", source, estimated(r), unit="")]


def comparison(name: str, bench: Bench, pairs: Sequence[tuple[Measures, Measures]], **more: Any) -> dict[str, Any]:
    """A row with accuracy a - b averaged over pairs (a, b), on test and on the mean of the shifts.

    Each holds value, low and high, the 95% interval over images. more: further keys of the row.
    """
    row: dict[str, Any] = {**more, "comparison": name}
    for on, names in bench.columns.items():
        row[on] = interval(intervals.mean_interval([_mean_gain(pairs, name) for name in names]))
    return row


def _mean_gain(pairs: Sequence[tuple[Measures, Measures]], dataset: str) -> np.ndarray:
    """Correctness of a less that of b by image, averaged over the pairs."""
    gains = [a[dataset].correct_N.astype(float) - b[dataset].correct_N for a, b in pairs]
    return np.mean(gains, axis=0)


def compared(rows: Rows, name: str, on: str, text: str, source: str) -> Verdicts:
    """The verdict on a comparison's row; empty where it was not made, as without all shifts."""
    found = having(select(rows, comparison=name), on)
    return [judged(text, source, row[on]) for row in found]


def corrected(verdicts: Sequence[Verdict]) -> Verdicts:
    """The verdicts with Holm's correction over all p-values among them."""
    p = [v.p for v in verdicts if v.p is not None]
    adjusted = iter(paired_tests.holm(p))
    return [v if v.p is None else replace(v, holm=next(adjusted)) for v in verdicts]
