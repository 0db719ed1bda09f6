"""Compares measured accuracies of the authors' 72 released models with those that they published.

Usage: `modelsoups verify [FILE] [KEY=VALUE ...]`. Without FILE, it uses the accuracies measured by
`modelsoups evaluate experiment=released`, and also compares the greedy soup's ingredients with the
authors'. FILE has measured accuracies as JSON lines: a report's results.jsonl, or the authors' format
(model_name, ImageNet, ImageNetV2, ...; fractions or percent; null: not available). The exit status is
0 if every accuracy is within a tolerance of the published one, and no model as a whole is farther from
its published accuracies than noise explains; it is 1 otherwise. Other GPU kernels and image decoders
change the prediction for a few images; `published.reruns` has the model of this noise.

`modelsoups verify timm` checks data and evaluation with one public model of 350 MB, before the 72 models
are downloaded; `modelsoups verify timm -h` explains it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.config.recall import open_run
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.published import reruns, tables
from modelsoups.published.released import number_of
from modelsoups.report.numbers import signed

TOLERANCE = {name: reruns.tolerance(name, tables.MODELS) for name in reruns.IMAGES}
Accuracies = Mapping[int, Mapping[str, float]]  # number of the model -> set -> accuracy, 0 to 1


@dataclass(frozen=True)
class Comparison:
    """The measured and the published accuracy of one model on one data set, in percent."""

    model: int
    dataset: str
    measured: float
    released: float

    @property
    def difference(self) -> float:
        return self.measured - self.released

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= TOLERANCE[self.dataset]


def main(argv: Sequence[str]) -> int:
    """Run `modelsoups verify` with these arguments, and return its exit status."""
    args = list(argv)
    if args[:1] == ["timm"]:
        from modelsoups.cli import preflight  # loads timm, which takes seconds

        return preflight.main(args[1:])
    if "-h" in args or "--help" in args:
        print(__doc__)
        return 0
    file = Path(args.pop(0)).expanduser() if args and "=" not in args[0] else None
    experiment = Experiment(open_run(["experiment=released", *args]))
    comparisons = compare(read(file) if file else measured(experiment))
    print(text(comparisons))
    if file is None and experiment.files.soup("greedy").exists():
        print(greedy(experiment.soups.read("greedy").ingredients))
    return 0 if all(c.agrees for c in comparisons) and not distant(comparisons) else 1


def compare(accuracies: Accuracies) -> list[Comparison]:
    """Pair each measured accuracy with the published one, ordered by model and then data set."""
    found = []
    for number in sorted(accuracies):
        measured, released = accuracies[number], tables.released_models()[number].accuracy
        for name in TOLERANCE:
            if name in measured:
                found.append(Comparison(number, name, 100 * measured[name], 100 * released[name]))
    return found


def distant(comparisons: Sequence[Comparison]) -> dict[int, float]:
    """Return {model number: distance} of the models that differ more than noise explains.

    The distance (`reruns.distance`) combines all data sets of a model. It detects a wrong model whose
    differences are each within the tolerance.
    """
    found = {}
    for model, by_set in _by_model(comparisons).items():
        distance = reruns.distance({name: c.difference for name, c in by_set.items()})
        if distance > reruns.largest_distance(len(by_set), tables.MODELS):
            found[model] = distance
    return found


def _by_model(comparisons: Sequence[Comparison]) -> dict[int, dict[str, Comparison]]:
    by_model: dict[int, dict[str, Comparison]] = {}
    for c in comparisons:
        by_model.setdefault(c.model, {})[c.dataset] = c
    return by_model


def text(comparisons: Sequence[Comparison]) -> str:
    """Return a table of differences in percentage points, and a line for each that is too large."""
    by_model, far = _by_model(comparisons), distant(comparisons)
    names = list(filter({c.dataset for c in comparisons}.__contains__, TOLERANCE))
    lines = [f"{'measured - released':<20}" + "".join(f"{name:>11}" for name in names)]
    for model, found in by_model.items():
        cells = "".join(_cell(found.get(name)) for name in names)
        agrees = model not in far and all(c.agrees for c in found.values())
        lines.append(f"{f'model_{model}':<20}{cells}{'' if agrees else '  differs'}".rstrip())
    lines.append(f"{'tolerance':<20}" + "".join(f"{TOLERANCE[name]:>10.2f} " for name in names).rstrip())
    wrong = [c for c in comparisons if not c.agrees]
    for c in wrong:
        values = f"measured {c.measured:.2f}, released {c.released:.2f}"
        apart = f"{signed(c.difference)} points, tolerance {TOLERANCE[c.dataset]:.2f}"
        lines.append(f"model_{c.model} on {c.dataset}: {values}, {apart}")
    for model, distance in far.items():
        limit = reruns.largest_distance(len(by_model[model]), tables.MODELS)
        all_sets = f"sum of squared differences {distance:.1f} (in standard deviations of a correct rerun)"
        lines.append(f"model_{model} on all sets together: {all_sets}, at most {limit:.1f}; is it another model?")
    lines += _unavailable(by_model, names)
    agree = len(comparisons) - len(wrong)
    lines.append(f"{agree:,} of {len(comparisons):,} accuracies agree within the tolerance")
    return "\n".join(lines)


def _unavailable(by_model: Mapping[int, Mapping[str, Comparison]], names: Sequence[str]) -> list[str]:
    """Return lines that say which accuracies were not measured."""
    lines = []
    if absent := [name for name in TOLERANCE if name not in names]:
        lines.append(f"data sets not available: {', '.join(absent)}")
    if missing := sum(name not in found for found in by_model.values() for name in names):
        lines.append(f"other accuracies not available: {missing:,} (shown as -)")
    if len(by_model) < tables.MODELS:
        lines.append(f"measured models: {len(by_model)} of {tables.MODELS}")
    return lines


def _cell(c: Comparison | None) -> str:
    """Return a difference as 11 characters, the last a "!" if it exceeds the tolerance."""
    if c is None:
        return f"{'-':>10} "
    return f"{signed(c.difference):>10}{' ' if c.agrees else '!'}"


def greedy(ingredients: Sequence[str]) -> str:
    """Return a line that compares a greedy soup's ingredients, in order, with the authors'."""
    ours = list(map(int, ingredients))
    theirs = list(tables.greedy_ingredients())
    listed, released = ", ".join(map(str, ours)), ", ".join(map(str, theirs))
    if ours == theirs:
        return f"greedy soup: models {listed}, the same as in the authors' greedy soup"
    return f"greedy soup: models {listed}; the authors' soup: {released} (one image can change the choice)"


# ---- sources of measured accuracies ----


def measured(experiment: Experiment) -> Accuracies:
    """Return the imported models' accuracies; ValueError if `evaluate` has not computed them."""
    found: dict[int, dict[str, float]] = {}
    for ingredient in experiment.ingredients.find().ingredients:
        for name in experiment.sets.evaluated():
            if name in TOLERANCE:
                correct_N = experiment.logits.of(name, ingredient.sha256).correct_N
                found.setdefault(int(ingredient.id), {})[name] = float(correct_N.double().mean())
    return found


def read(path: Path) -> Accuracies:
    """Return {model number: {data set: accuracy}} from JSON lines; ValueError names a bad line."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected JSON lines with measured accuracies")
    found: dict[int, dict[str, float]] = {}
    for line, row in enumerate(storage.read_jsonl(path), 1):
        for model, name, value in _accuracies(row):
            if name in TOLERANCE and value is not None:  # null: not available
                found.setdefault(model, {})[name] = _share(value, f"{path} line {line}: {name}")
    if not found:
        last = tables.MODELS - 1
        expected = f"model_0 to model_{last}"
        raise ValueError(f"{path} has no accuracy of a released model; expected {expected}")
    return found


def _accuracies(row: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield (model number, data set, accuracy) for each accuracy in one parsed JSON line."""
    if not isinstance(row, dict):
        return
    individual = row.get("kind") == "individual"
    model = number_of(str(row.get("model_name", row["row"] if individual else "")))
    if model is None:
        return
    if "model_name" not in row:
        yield model, str(row["dataset"]), row["accuracy"]
        return
    for key, name in tables.SETS.items():
        if key in row:
            yield model, name, row[key]


def _share(value: Any, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 100:
        raise ValueError(f"{where} is {value!r}; expected an accuracy from 0 to 1, or in percent")
    return value / 100 if value > 1 else float(value)
