"""The class `Analysis`, and functions that test a claim of the paper on the numbers of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modelsoups.analyses.bench import Bench
from modelsoups.analyses.points import Measures
from modelsoups.analyses.rows import ON, Rows, Table, having, interval, select
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict
from modelsoups.stats import correlations, intervals, paired_tests

Verdicts = list[Verdict]
# The fixed fields of each analysis (title, claims, ...) by its name, in the order of the paper
PAPER: dict[str, dict[str, Any]] = {x["name"]: x for x in storage.read_jsonl(ASSETS / "published" / "analyses.jsonl")}
MIN_MODELS = 4  # with fewer, resampling models gives no useful interval of a correlation over pairs


@dataclass(frozen=True)
class Analysis:
    """One figure or table of the paper, to be computed again from the models of a run.

    `rows` computes the data or raises Unavailable. `judge`, `draw` and `table` read only the rows.
    paper: what the paper found. shows: how to read the figure, its caption. claims: (name of a
    comparison, "test" or "shifts", claim as text).
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
    shows: str = ""
    claimed_in: str = ""  # source of the claims; empty: the figure or table of the title
    asked: bool = False  # made only if analyse.which names it: the numbers of another one, beside other numbers

    def verdicts(self, rows: Rows) -> Verdicts:
        """Return for each claim of the figure or table whether it holds in `rows` (a Verdict)."""
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
    """Return whether the claim `text`, that a quantity is above zero, holds by its 95% interval.

    estimate: value, low and high. unit: "points" prints them in percentage points, "" unchanged.
    """
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    scale, form = (100, "+.2f") if unit == "points" else (1, "+.3f")
    numbers = f"{scale * value:{form}} [{scale * low:{form}}, {scale * high:{form}}]"
    verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    p = paired_tests.p_of_interval(value, low, high)
    return Verdict(text, source, verdict, f"{numbers} {unit}".strip(), p, above=value > 0)


def counted(text: str, source: str, cases: Sequence[bool]) -> Verdict:
    """Return whether the claim `text`, that most of `cases` are true, holds (Wilson's interval)."""
    true, n = sum(cases), len(cases)
    low, high = intervals.wilson(true, n)
    verdict = HOLDS if low > 0.5 else FAILS if high < 0.5 else OPEN
    p = paired_tests.p_of_interval(true / n - 0.5, low - 0.5, high - 0.5)
    numbers = f"{true} of {n} [{100 * low:.0f}%, {100 * high:.0f}%]"
    return Verdict(text, source, verdict, numbers, p, true > n / 2)


def estimated(result: correlations.Estimate) -> dict[str, float]:
    """Convert a bootstrap estimate to a dict with the keys value, low and high (95% interval)."""
    return interval((result.value, result.low, result.high))


def correlated(
    text: str, source: str, x: Sequence[float], y: Sequence[float], models: Sequence[tuple[str, str]]
) -> Verdicts:
    """Return a list with the verdict on the claim `text`: x and y are positively correlated.

    x, y: a value for each pair in `models`. The list is empty if there are fewer than MIN_MODELS
    models, or x or y is constant.
    """
    names = {name for pair in models for name in pair}
    if len(names) < MIN_MODELS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return []
    r = correlations.correlation(x, y, models)
    return [judged(f"{text}: correlation over {r.n} points", source, estimated(r), unit="")]


def comparison(name: str, bench: Bench, pairs: Sequence[tuple[Measures, Measures]], **more: Any) -> dict[str, Any]:
    """Return a data row that compares accuracies: a minus b, averaged over pairs (a, b).

    Its keys "test" and "shifts" have dicts of value, low and high (95% interval over images).
    """
    row: dict[str, Any] = {**more, "comparison": name}
    for on, names in bench.columns.items():
        row[on] = interval(intervals.mean_interval([_mean_gain(pairs, name) for name in names]))
    return row


def _mean_gain(pairs: Sequence[tuple[Measures, Measures]], dataset: str) -> np.ndarray:
    """Return (a is correct) - (b is correct), -1 to 1 per image, averaged over pairs (a, b)."""
    gains = [a[dataset].correct_N.astype(float) - b[dataset].correct_N for a, b in pairs]
    return np.mean(gains, axis=0)


def compared(rows: Rows, name: str, on: str, text: str, source: str) -> Verdicts:
    """Return a list with the verdict on the claim `text`: the difference `name` is above zero.

    on: "test" or "shifts". The list is empty if the difference was not measured there.
    """
    found = having(select(rows, comparison=name), on)
    return [judged(text, source, row[on]) for row in found]


def corrected(verdicts: Sequence[Verdict]) -> Verdicts:
    """Return copies of the verdicts, whose `holm` is the p-value after Holm's correction."""
    p = [v.p for v in verdicts if v.p is not None]
    adjusted = iter(paired_tests.holm(p))
    return [v if v.p is None else replace(v, holm=next(adjusted)) for v in verdicts]
