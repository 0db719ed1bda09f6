"""Accuracies with intervals, and paired comparisons of two rows, from per-image correctness."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modelsoups.core import stats
from modelsoups.core.types import Result
from modelsoups.evidence import Evidence, Row

MEAN = "mean of shifts"


@dataclass(frozen=True)
class Difference:
    """a - b in accuracy (-1 to 1), its 95% interval and two-sided p-value: exact McNemar, or permutation for a mean."""

    a: str
    b: str
    on: str
    value: float
    low: float
    high: float
    p: float


class Numbers:
    """Every number of a report, computed once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.test = evidence.names("test")[0]
        self.holdout = evidence.names("holdout")[0]
        self.shifts = evidence.names("shift")  # all of the experiment, also those that are not available
        self.extra = evidence.names("extra")
        self.present = [s.name for s in evidence.sets if s.role == "shift" and s.n]

    def result(self, row: Row, dataset: str) -> Result:
        correct_N = row.correct[dataset]
        correct, n = int(correct_N.sum()), len(correct_N)
        return Result(row.name, dataset, n, correct, row.accuracy(dataset), *stats.wilson(correct, n))

    def shift_mean(self, row: Row) -> float | None:
        """Unweighted mean over the five shifts; None when one of them is not there (never a mean of four)."""
        if not self.shifts or any(name not in row.correct for name in self.shifts):
            return None
        return sum(row.accuracy(name) for name in self.shifts) / len(self.shifts)

    def difference(self, a: str, b: str, on: str) -> Difference:
        """Row a against row b on a data set, or on the mean of the shifts."""
        one, two = self.evidence.rows[a], self.evidence.rows[b]
        names = self.shifts if on == MEAN else [on]
        pairs = [(one.correct[name], two.correct[name]) for name in names]
        low, high = stats.paired_mean_interval(pairs)
        if on == MEAN:
            value, p = stats.paired_mean_test(pairs, seed=0)
        else:
            value, p = one.accuracy(on) - two.accuracy(on), stats.mcnemar_exact(*pairs[0]).p
        return Difference(a, b, on, value, low, high, p)

    @cached_property
    def comparable(self) -> list[str]:
        """What rows are compared on: the test set, and the mean of the shifts if all of them are there."""
        return [self.test, MEAN] if self.shifts and self.present == self.shifts else [self.test]

    @cached_property
    def headline(self) -> list[Difference]:
        """Greedy soup against best individual, in distribution and, if all shifts are there, on their mean."""
        return [self.difference("greedy", "best", on) for on in self.comparable]

    def lines(self) -> list[dict[str, Any]]:
        """results.jsonl: accuracies, soups, comparisons; nothing that differs between runs of the same seed."""
        rows = {**self.evidence.rows, **self.evidence.individuals}
        rows |= {f"{r.name}": r for by in self.evidence.curve.values() for r in by.values()}
        lines: list[dict[str, Any]] = []
        for row in rows.values():
            for dataset in row.correct:
                lines.append({"kind": row.kind, **vars(self.result(row, dataset))})
            lines.append({"kind": row.kind, "row": row.name, "dataset": MEAN, "accuracy": self.shift_mean(row)})
        for row in rows.values():
            if row.soup is not None:
                soup = row.soup.to_json()
                lines.append({"soup": row.name, **{k: v for k, v in soup.items() if k != "trace"}})
        others = [r for r in self.evidence.rows if r != "best"]
        lines += [{"comparison": vars(self.difference(r, "best", on))} for r in others for on in self.comparable]
        return lines


def percent(share: float | None, plus: bool = False) -> str:
    """A share as per cent with two decimals, as the paper prints them."""
    if share is None:
        return "not available"
    return f"{100 * share:+.2f}" if plus else f"{100 * share:.2f}"


def signed(points: float) -> str:
    """A difference in points, with its sign; what rounds to zero is +0.00."""
    return f"{round(points, 2) + 0.0:+.2f}"


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}" if p < 0.01 else f"p = {p:.2f}"
