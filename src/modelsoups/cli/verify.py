"""Measured accuracies of the released models against the released ones: `modelsoups verify [FILE] [key=value ...]`.

Without FILE, the imported models as `modelsoups evaluate experiment=released` measured them. FILE holds measured
accuracies as JSON lines: of a report (results.jsonl), or as the authors' own (model_name, ImageNet, ImageNetV2, ...;
shares or per cent). Without FILE the models of our greedy soup, where it was chosen, are set beside the authors' too.
The exit status is 0 when every accuracy agrees, 1 otherwise.

The tolerance of a set is how far an independent rerun of the 72 models on other hardware came out from the released
accuracies at most, in points: other matrix kernels and image decoders move images at the decision boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.published import tables
from modelsoups.report.numbers import signed

TOLERANCE = {  # points; Sketch was not rerun: as R, of which it has a similar number of images and accuracy
    "holdout": 0.11,
    "val": 0.06,
    "v2": 0.14,
    "r": 0.15,
    "sketch": 0.15,
    "objectnet": 0.50,
    "a": 0.23,
}
ROUNDING = 1e-6  # points: a difference of exactly the tolerance agrees
Measured = Mapping[int, Mapping[str, float]]  # number of the model -> set -> accuracy, 0 to 1


@dataclass(frozen=True)
class Comparison:
    """One accuracy of one model; all in points (per cent)."""

    model: int
    dataset: str
    measured: float
    released: float

    @property
    def difference(self) -> float:
        return self.measured - self.released

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= TOLERANCE[self.dataset] + ROUNDING


def main(argv: Sequence[str]) -> int:
    """`modelsoups verify [FILE] [key=value ...]`; experiment=released unless it says otherwise."""
    args = list(argv)
    if any(a in ("-h", "--help") for a in args):
        print(__doc__)
        return 0
    file = Path(args.pop(0)).expanduser() if args and "=" not in args[0] else None
    cfg = load(["experiment=released", *args])
    comparisons = compare(read(file) if file else measured(cfg))
    print(text(comparisons))
    if file is None and cfg.run.soup("greedy").exists():
        print(greedy(cfg))
    return 0 if all(c.agrees for c in comparisons) else 1


def compare(accuracies: Measured) -> list[Comparison]:
    """Every measured accuracy beside the released one, by model, sets in the order of the paper."""
    models = tables.released_models()
    return [
        Comparison(index, name, 100 * accuracies[index][name], 100 * models[index].accuracy[name])
        for index in sorted(accuracies)
        for name in TOLERANCE
        if name in accuracies[index]
    ]


def text(comparisons: Sequence[Comparison]) -> str:
    """A line a model with its difference on each set in points, then what disagrees and what is missing."""
    models = sorted({c.model for c in comparisons})
    names = [name for name in TOLERANCE if any(c.dataset == name for c in comparisons)]
    found = {(c.model, c.dataset): c for c in comparisons}
    lines = [f"{'measured - released':<20}" + "".join(f"{name:>11}" for name in names)]
    for model in models:
        row = [found.get((model, name)) for name in names]
        cells = "".join(f"{signed(c.difference):>10}{' ' if c.agrees else '!'}" if c else f"{'-':>10} " for c in row)
        lines.append(
            f"{f'model_{model}':<20}{cells}" + ("" if all(c is None or c.agrees for c in row) else "  differs")
        )
    lines.append(f"{'tolerance':<20}" + "".join(f"{TOLERANCE[name]:>10.2f} " for name in names))
    wrong = [c for c in comparisons if not c.agrees]
    for c in wrong:
        lines.append(
            f"model_{c.model} on {c.dataset}: measured {c.measured:.2f}, released {c.released:.2f}, "
            f"{signed(c.difference)} points, tolerance {TOLERANCE[c.dataset]:.2f}"
        )
    if absent := [name for name in TOLERANCE if name not in names]:
        lines.append(f"not available: {', '.join(absent)}")
    if len(models) < tables.MODELS:
        lines.append(f"{len(models)} of {tables.MODELS} models")
    lines.append(f"{len(comparisons) - len(wrong):,} of {len(comparisons):,} accuracies agree")
    return "\n".join(lines)


def greedy(cfg: Config) -> str:
    """The models of our greedy soup over the imported ones beside the authors', in the order in which they joined."""
    from modelsoups.experiment.soups import read_soup

    ours = tuple(int(name) for name in read_soup(cfg.run.soup("greedy")).ingredients)
    theirs = tables.greedy_ingredients()
    listed = ", ".join(map(str, theirs))
    if ours == theirs:
        return f"greedy soup: models {listed}, as the authors'"
    return f"greedy soup: models {', '.join(map(str, ours))}; the authors': {listed} (one image can change the choice)"


# ---- where measured accuracies come from ----


def measured(cfg: Config) -> Measured:
    """Of the imported models, from the cache of logits; ValueError when they were not evaluated."""
    from modelsoups.experiment.ingredients import load_pool
    from modelsoups.experiment.logits import logits_of
    from modelsoups.experiment.sets import evaluated

    names = [name for name in evaluated(cfg) if name in TOLERANCE]
    return {
        int(i.id): {name: float(logits_of(cfg, name, i.sha256).correct_N.double().mean()) for name in names}
        for i in load_pool(cfg).ingredients
    }


def read(path: Path) -> Measured:
    """Of a file, see the module; ValueError naming the file and line that is neither kind."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected JSON lines with measured accuracies")
    accuracies: dict[int, dict[str, float]] = {}
    for number, row in enumerate(storage.read_jsonl(path), 1):
        for model, name, value in _accuracies(row):
            if name in TOLERANCE:
                accuracies.setdefault(model, {})[name] = _share(value, f"{path} line {number}: {name}")
    if not accuracies:
        raise ValueError(f"{path} holds no accuracy of a released model (model_0 to model_{tables.MODELS - 1})")
    return accuracies


def _accuracies(row: Any) -> list[tuple[int, str, Any]]:
    """(model, set, accuracy) of a line: of the authors' kind several, of results.jsonl one, of any other none."""
    from modelsoups.cli.import_released import number_of

    if not isinstance(row, dict):
        return []
    if "model_name" in row and (model := number_of(str(row["model_name"]))) is not None:
        return [(model, tables.SETS[key], value) for key, value in row.items() if key in tables.SETS]
    if row.get("kind") == "individual" and (model := number_of(str(row["row"]))) is not None:
        return [(model, str(row["dataset"]), row["accuracy"])]
    return []


def _share(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"{where} is {value!r}, expected an accuracy as a share or in per cent")
    return value / 100 if value > 1 else float(value)
