"""The numbers of a report, read from results.jsonl, and functions that format numbers as text.

Tables, figures, claims and pages read only `Numbers`. They show exactly what the file contains, and
can be recreated from the file alone, without the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.disk import paths, storage
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Soup

MEAN = "mean of shifts"  # used like the name of a data set in results.jsonl
ON_TEST = ("best_validation", "greedy_validation")  # rows that are chosen on the test set itself
SCORE, UNIT = "top-1 accuracy", "images"  # unless the first line of results.jsonl has others


@dataclass(frozen=True)
class SetInfo:
    """One data set. role: holdout, test, shift or extra; n: its examples (0: not available)."""

    name: str
    title: str
    role: str
    n: int


def names_of(sets: Sequence[SetInfo], role: str) -> list[str]:
    return [s.name for s in sets if s.role == role]


@dataclass(frozen=True)
class Result:
    """The score of one row (a model or method, such as "greedy") on a data set, such as 0.8.

    accuracy: the score, whether it is an accuracy or not. low, high: its 95% interval. correct:
    correct examples of n, 0 if the score is no accuracy; both are 0 for the mean of shifts.
    """

    kind: str
    row: str
    dataset: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The score of row a minus row b on a data set, with 95% interval and two-sided p.

    For accuracies McNemar's exact test gives p, or a permutation test for the mean of shifts; for
    other scores a paired bootstrap. Interval and p are None if only accuracies are known, not which
    images are correct.
    """

    a: str
    b: str
    on: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class RowResults:
    """The scores of one model, soup or ensemble. inference: forward passes per example.

    mean: the mean score over the shifts; None unless all shifts are available.
    """

    name: str
    kind: str
    results: dict[str, Result]
    mean: Result | None
    inference: int
    soup: Soup | None
    recipe: Recipe | None

    def accuracy(self, dataset: str) -> float:
        return self.results[dataset].accuracy

    @property
    def shift_mean(self) -> float | None:
        return self.mean.accuracy if self.mean else None


class Numbers:
    """The contents of a results.jsonl file. ValueError if a line lacks a key or is malformed.

    score, unit: the words for scores and examples, such as "top-1 accuracy" and "images".
    holdout_error: the standard error of the best model's score on the hold-out, if known.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any] | None = None) -> None:
        self.lines, self.provenance = list(lines), dict(provenance or {})
        try:
            self._read()
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"these are not the lines of a results.jsonl: {type(error).__name__} {error}") from error

    @classmethod
    def read(cls, folder: Path) -> "Numbers":
        """Read results.jsonl and provenance.json of a folder; ValueError if a file is malformed."""
        file = folder / "results.jsonl"
        try:
            return cls(storage.read_jsonl(file), storage.read_json(folder / paths.PROVENANCE))
        except ValueError as error:
            hint = "rename this file and run `modelsoups report`, which creates it again from the run"
            raise ValueError(f"{file}: {error}; {hint}") from error

    def _read(self) -> None:
        rows = _rows(self.lines)
        about: dict[str, Any] = next(filter(None, (x.get("experiment") for x in self.lines)), {})
        self.name: str = about["name"]
        self.sets = [SetInfo(**info) for info in about["sets"]]
        self.failed: dict[str, str] = about["failed"]
        self.notes: list[str] = about["notes"]
        score = about.get("score", {})
        self.score: str = score.get("name", SCORE)
        self.unit: str = score.get("unit", UNIT)
        self.holdout_error: float | None = score.get("holdout_error")
        self.texts: list[dict[str, Any]] = about.get("texts", [])
        self.chosen_on_test: bool = about.get("chosen_on_test", False)
        self.test, self.holdout = (names_of(self.sets, role)[0] for role in ("test", "holdout"))
        self.shifts = names_of(self.sets, "shift")  # including those that are not available
        self.extra = names_of(self.sets, "extra")
        self.available_shifts = [s.name for s in self.sets if s.role == "shift" and s.n]
        self.individuals = {name: rows[name] for name in about["individuals"]}
        self.rows = {name: rows[name] for name in about["rows"]}
        self.curve: dict[int, dict[str, RowResults]] = {}
        for count, names in about["curve"].items():
            self.curve[int(count)] = {method: rows[name] for method, name in names.items()}
        self._differences: dict[tuple[str, str, str], Difference] = {}
        for line in self.lines:
            if "comparison" in line:
                d = Difference(**line["comparison"])
                self._differences[d.a, d.b, d.on] = d

    def title(self, dataset: str) -> str:
        return next(s.title for s in self.sets if s.name == dataset)

    def difference(self, a: str, b: str, on: str) -> Difference | None:
        """Return score a - b on a data set or the mean of shifts; None if not compared."""
        if found := self._differences.get((a, b, on)):
            return found
        if (d := self._differences.get((b, a, on))) is None:
            return None
        low, high = (None if end is None else -end for end in (d.high, d.low))
        return Difference(a, b, on, -d.value, low, high, d.p)

    @property
    def has_images(self) -> bool:
        return self.unit == UNIT

    @property
    def has_top_1(self) -> bool:
        """Whether the score is the top-1 accuracy of images, as in the paper's Table 3."""
        return self.has_images and self.score == SCORE

    @property
    def score_unit(self) -> str:
        """The unit of axes: "%", or "times 100" if the score is no accuracy."""
        return "%" if self.score.endswith("accuracy") else "times 100"

    @property
    def score_in_words(self) -> str:
        """The score and its unit for a sentence's start, such as "Top-1 accuracy in percent"."""
        unit = "in percent" if self.score_unit == "%" else self.score_unit
        return f"{self.score[0].upper()}{self.score[1:]} {unit}"

    @property
    def shifts_title(self) -> str:
        """What the mean over the shifts is called: "mean of 5 shifts", or one shift's own title."""
        return self.title(self.shifts[0]) if len(self.shifts) == 1 else f"mean of {len(self.shifts)} shifts"

    @property
    def shifts_heading(self) -> str:
        """`shifts_title` at the start of a heading."""
        return self.shifts_title.replace("mean", "Mean", 1) if len(self.shifts) != 1 else self.shifts_title

    def scored(self, share: float) -> str:
        """Return a score for a sentence, such as "73.11%"; without "%" if it is no accuracy."""
        return f"{percent(share)}{'%' if self.score_unit == '%' else ''}"

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the run, from provenance.json; empty if it is not known."""
        found: Mapping[str, Any] = self.provenance.get("config", {})
        return found

    @property
    def greedy_members(self) -> int:
        """The number of different models in the greedy soup; 0 if it is not known. If 1, it is the best model."""
        soup = self.rows["greedy"].soup if "greedy" in self.rows else None
        return len(set(soup.ingredients)) if soup else 0

    @property
    def headline(self) -> list[Difference]:
        """The greedy soup's gain over the best individual model, on the test set and mean of shifts."""
        return [d for on in (self.test, MEAN) if (d := self.difference("greedy", "best", on))]


def _rows(lines: Sequence[Mapping[str, Any]]) -> dict[str, RowResults]:
    models: dict[str, Mapping[str, Any]] = {}
    soups: dict[str, Soup] = {}
    kinds: dict[str, str] = {}
    results: dict[str, dict[str, Result]] = {}
    for line in lines:
        if "model" in line:
            models[line["model"]] = line
        elif "soup" in line:
            facts = dict(line)
            name = facts.pop("soup")
            soups[name] = Soup.from_json(facts)
        elif "dataset" in line:
            kinds[line["row"]] = line["kind"]
            found = results.setdefault(line["row"], {})
            if line["accuracy"] is not None:
                found[line["dataset"]] = Result(**{"n": 0, "correct": 0, **line})
    rows = {}
    for name, line in models.items():
        recipe = None if line["recipe"] is None else Recipe(**line["recipe"])
        found = results[name]
        mean = found.pop(MEAN, None)
        rows[name] = RowResults(name, kinds[name], found, mean, line["inference"], soups.get(name), recipe)
    return rows


# ---- numbers as text ----


def percent(share: float | None, plus: bool = False) -> str:
    """Return a fraction as percent with two decimals (None: "not available"); plus: with a sign."""
    if share is None:
        return "not available"
    return signed(100 * share) if plus else f"{100 * share:.2f}"


def signed(points: float) -> str:
    """Return a difference in percentage points as text with its sign; zero is always "+0.00"."""
    return f"{round(points, 2) + 0.0:+.2f}"


def p_value(p: float) -> str:
    """Return a p-value as text, such as "p = 0.0008": four decimals below 0.01, otherwise two."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}" if p < 0.01 else f"p = {p:.2f}"


def interval(d: Difference) -> str:
    """Return interval and p-value as "[+0.39, +1.44], p = 0.0008", or why they are not known."""
    if d.low is None or d.high is None or d.p is None:
        return "(not tested: the prediction for each image is not known)"
    if d.low == d.high == d.value == 0:
        return "(no difference on any example)"
    return f"[{percent(d.low, True)}, {percent(d.high, True)}], {p_value(d.p)}"
