"""The numbers of a report: measured from per-image correctness into the lines of results.jsonl, and read from them.

Tables, figures, claims and the page see `Numbers`, which knows nothing but those lines: what they show is what the
file says, and a page can be made again wherever the file is, without the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.disk import paths, storage
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.measure import Evidence, Row, SetInfo
from modelsoups.soup.coefficients import Soup
from modelsoups.stats import intervals, paired_tests

if TYPE_CHECKING:  # recipes and soups can be read without loading torch
    pass

MEAN = "mean of shifts"
Z = 1.959964  # of a 95% interval
PAIRS = (("greedy", "uniform"), ("ensemble", "greedy"), ("greedy_ensemble", "greedy"), ("learned_layers", "greedy"))


@dataclass(frozen=True)
class Difference:
    """a - b in accuracy (-1 to 1), its 95% interval and two-sided p-value: exact McNemar, or permutation for a mean.

    Interval and p-value are None where only accuracies are known, not which images were right.
    """

    a: str
    b: str
    on: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Measured:
    """A row's accuracies. mean: over the shifts, None unless all are there. inference: forward passes an image."""

    name: str
    kind: str
    results: dict[str, Result] = field(default_factory=dict)
    mean: Result | None = None
    inference: int = 1
    soup: Soup | None = None
    recipe: Recipe | None = None

    def accuracy(self, dataset: str) -> float:
        """Share of images that are right, 0 to 1."""
        return self.results[dataset].accuracy


class Numbers:
    """What results.jsonl says. Raises ValueError for lines that are not of that file."""

    def __init__(self, lines: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any] | None = None) -> None:
        self.lines, self.provenance = list(lines), dict(provenance or {})
        try:
            self._read()
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not the lines of a report: {type(error).__name__} {error}") from error

    @classmethod
    def of(cls, evidence: Evidence) -> Numbers:
        """Of a finished run."""
        return cls(measure(evidence), evidence.provenance)

    @classmethod
    def read(cls, folder: Path) -> Numbers:
        """Of a results folder: results.jsonl, and provenance.json for where it came from."""
        file = folder / paths.RESULTS
        try:
            return cls(storage.read_jsonl(file), storage.read_json(folder / paths.PROVENANCE))
        except ValueError as error:
            hint = f"; delete {file} and run `modelsoups report` to make it again from the run"
            raise ValueError(f"{file}: {error}{hint}") from error

    def _read(self) -> None:
        about = next(line["experiment"] for line in self.lines if "experiment" in line)
        self.name: str = about["name"]
        self.sets = [SetInfo(**s) for s in about["sets"]]
        self.failed: dict[str, str] = about["failed"]
        self.notes: list[str] = about["notes"]
        self.test, self.holdout = self.names("test")[0], self.names("holdout")[0]
        self.shifts = self.names("shift")  # all of the experiment, also those that are not available
        self.extra = self.names("extra")
        self.present = [s.name for s in self.sets if s.role == "shift" and s.n]
        models = _models(self.lines)
        self.individuals = {name: models[name] for name in about["individuals"]}
        self.rows = {name: models[name] for name in about["rows"]}
        self.curve = {int(k): {m: models[row] for m, row in by.items()} for k, by in about["curve"].items()}
        compared = [Difference(**line["comparison"]) for line in self.lines if "comparison" in line]
        self._differences = {(d.a, d.b, d.on): d for d in compared}

    def names(self, role: str) -> list[str]:
        return [s.name for s in self.sets if s.role == role]

    def title(self, dataset: str) -> str:
        return next(s.title for s in self.sets if s.name == dataset)

    def shift_mean(self, row: Measured) -> float | None:
        """Unweighted mean over the five shifts; None when one of them is not there (never a mean of four)."""
        return row.mean.accuracy if row.mean else None

    def difference(self, a: str, b: str, on: str) -> Difference | None:
        """Row a against row b on a data set, or on the mean of the shifts; None where it was not compared."""
        if found := self._differences.get((a, b, on)):
            return found
        if (d := self._differences.get((b, a, on))) is None:
            return None
        low, high = (None if x is None else -x for x in (d.high, d.low))
        return Difference(a, b, on, -d.value, low, high, d.p)

    @property
    def comparable(self) -> list[str]:
        """What rows are compared on: the test set, and the mean of the shifts if all of them are there."""
        return [self.test, MEAN] if self.shifts and self.present == self.shifts else [self.test]

    @property
    def headline(self) -> list[Difference]:
        """Greedy soup against best individual, in distribution and, if all shifts are there, on their mean."""
        found = [self.difference("greedy", "best", on) for on in self.comparable]
        return [d for d in found if d is not None]


def _models(lines: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """Every row and ingredient by name, from its lines."""
    about = {line["model"]: line for line in lines if "model" in line}
    soups = {line["soup"]: _soup(line) for line in lines if "soup" in line}
    kinds = {line["row"]: line["kind"] for line in lines if "dataset" in line}
    results: dict[str, dict[str, Result]] = {name: {} for name in about}
    for line in lines:
        if "dataset" in line and line["accuracy"] is not None:
            values = {k: line.get(k, 0) for k in ("row", "dataset", "n", "correct", "accuracy", "low", "high")}
            results[line["row"]][line["dataset"]] = Result(**values)
    return {
        name: Measured(name, kinds[name], results[name], results[name].pop(MEAN, None), line["inference"],
                       soups.get(name), None if line["recipe"] is None else Recipe(**line["recipe"]))
        for name, line in about.items()
    }  # fmt: skip


def _soup(line: Mapping[str, Any]) -> Soup:
    return Soup.from_json({k: v for k, v in line.items() if k != "soup"})


# ---- from per-image correctness to lines ----


def measure(evidence: Evidence) -> list[dict[str, Any]]:
    """The lines of results.jsonl: nothing that differs between runs of the same seed."""
    curve = {k: {m: row.name for m, row in by.items()} for k, by in sorted(evidence.curve.items())}
    about = {
        "name": evidence.name,
        "sets": [asdict(s) for s in evidence.sets],
        "rows": list(evidence.rows),
        "individuals": list(evidence.individuals),
        "curve": curve,
        "failed": evidence.failed,
        "notes": evidence.notes,
    }
    rows = {**evidence.rows, **evidence.individuals}
    for row in (row for by in evidence.curve.values() for row in by.values()):
        rows.setdefault(row.name, row)
    shifts = evidence.names("shift")
    lines: list[dict[str, Any]] = [{"experiment": about}]
    for row in rows.values():
        lines += [{"kind": row.kind, **vars(_result(row, dataset))} for dataset in row.correct]
        lines.append({"kind": row.kind, "row": row.name, "dataset": MEAN, **_mean(row, shifts)})
    for row in rows.values():
        recipe = None if row.recipe is None else asdict(row.recipe)
        lines.append({"model": row.name, "inference": row.inference, "recipe": recipe})
    lines += [_soup_line(row) for row in rows.values() if row.soup is not None]
    return lines + [{"comparison": vars(d)} for d in _compared(evidence)]


def _result(row: Row, dataset: str) -> Result:
    correct_N = row.correct[dataset]
    correct, n = int(correct_N.sum()), len(correct_N)
    return Result(row.name, dataset, n, correct, row.accuracy(dataset), *intervals.wilson(correct, n))


def _mean(row: Row, shifts: list[str]) -> dict[str, float | None]:
    """Mean over all shifts with its 95% interval (normal, variances added), or None where one is missing."""
    if not shifts or any(name not in row.correct for name in shifts):
        return {"accuracy": None}
    value = sum(row.accuracy(name) for name in shifts) / len(shifts)
    half = mean_half([(row.accuracy(name), len(row.correct[name])) for name in shifts])
    return {"accuracy": value, "low": value - half, "high": value + half}


def mean_half(shares: Sequence[tuple[float, int]]) -> float:
    """Half of the 95% interval of a mean over sets, (accuracy, images) each: normal, variances added."""
    return Z * math.sqrt(sum(p * (1 - p) / n for p, n in shares)) / len(shares)


def _soup_line(row: Row) -> dict[str, Any]:
    """Coefficients, and the decisions where they are a list of candidates; a learned soup's steps stay in its file."""
    assert row.soup is not None
    soup = row.soup.to_json()
    decided = all("kept" in step for step in soup["trace"])
    return {"soup": row.name, **{k: v for k, v in soup.items() if k != "trace" or (v and decided)}}


def _compared(evidence: Evidence) -> list[Difference]:
    """Every row against the best individual, and PAIRS, which the claims are about."""
    rows, shifts = evidence.rows, evidence.names("shift")
    whole = bool(shifts) and all(s.n for s in evidence.sets if s.role == "shift")
    ons = [evidence.names("test")[0], *([MEAN] if whole else [])]
    pairs = [(r, "best") for r in rows if r != "best" and "best" in rows]
    pairs += [(a, b) for a, b in PAIRS if a in rows and b in rows]
    pairs += [(r, "greedy") for r in rows if r.startswith("wise_ft_best") and "greedy" in rows]
    return [_difference(rows[a], rows[b], shifts if on == MEAN else [on], on) for a, b in pairs for on in ons]


def _difference(a: Row, b: Row, names: list[str], on: str) -> Difference:
    pairs = [(a.correct[name], b.correct[name]) for name in names]
    low, high = paired_tests.paired_mean_interval(pairs)
    if on == MEAN:
        value, p = paired_tests.paired_mean_test(pairs, seed=0)
    else:
        value, p = a.accuracy(on) - b.accuracy(on), paired_tests.mcnemar_exact(*pairs[0]).p
    return Difference(a.name, b.name, on, value, low, high, p)


# ---- numbers as text ----


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


def interval(d: Difference) -> str:
    """ "[+0.39, +1.44], p = 0.0008", or why there is none."""
    if d.low is None or d.high is None or d.p is None:
        return "(which images were right is not known: no test)"
    return f"[{percent(d.low, True)}, {percent(d.high, True)}], {p_value(d.p)}"


@dataclass(frozen=True)
class Result:
    """One accuracy: row of the table ("greedy"), data set, correct out of n, with its 95% Wilson interval (0 to 1)."""

    row: str
    dataset: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
