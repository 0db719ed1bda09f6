"""The tables of the paper, and its authors' results for their 72 released models and their soups.

Data sets: holdout, val (ImageNet), v2, r, sketch, objectnet, a. Accuracies of released models are
from 0 to 1, the paper's are in percent. The released means over the five shifts are 0.10 to 0.14
points above the paper's, for an unpublished reason, so reports compare with both.
"""

import functools
import statistics
from dataclasses import dataclass
from typing import Any

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

SETS = {  # the authors' name of a data set -> its name in this package
    "ImageNet2p": "holdout",
    "ImageNet": "val",
    "ImageNetV2": "v2",
    "ImageNetR": "r",
    "ImageNetSketch": "sketch",
    "ObjectNet": "objectnet",
    "ImageNetA": "a",
}
SHIFTS = ("v2", "r", "sketch", "objectnet", "a")
TITLES = {
    "v2": "ImageNet-V2",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet",
    "a": "ImageNet-A",
}
SOUPS = "published/released_soup_results.jsonl"  # below ASSETS
MODELS = 72
INITIALIZATION = 0  # model_0
ALIKE = (4, 5)  # model_4 and model_5 are the same model
PAPER_NAMES = {  # row -> its label in the paper's Table 3
    "best": "Best individual model",
    "second_best": "Second best model",
    "uniform": "Uniform soup",
    "greedy": "Greedy soup",
    "greedy_random": "Greedy soup (random order)",
    "learned": "Learned soup",
    "learned_layers": "Learned soup (by layer)",
    "ensemble": "Ensemble",
    "greedy_ensemble": "Greedy ensemble",
}
OTHER_NAMES = {  # released rows that are not in the paper's Table 3
    "initialization": "LP initialization",
    "learned_tensors": "Learned soup (by tensor; authors' code)",
}


@dataclass(frozen=True)
class ReleasedModel:
    """One released model, model_<index>.pt: its hyperparameters and its accuracy by data set."""

    index: int
    hyperparameters: dict[str, Any]
    accuracy: dict[str, float]

    @property
    def name(self) -> str:
        return f"model_{self.index}"

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The hyperparameters, with the names of Recipe; None for model_0, the initialization.

        Without augmentation, aug is "minimal". The seeds are not published: `index` replaces them.
        """
        if self.index == INITIALIZATION:
            return None
        keys = ("lr", "weight_decay", "epochs", "label_smoothing", "mixup")
        values = {key: self.hyperparameters[key] for key in keys}
        return {**values, "aug": self.hyperparameters["aug"] or "minimal", "seed": self.index}


@dataclass(frozen=True)
class Table3Row:
    """One row of Table 3: the released accuracies and, in `paper`, the printed ones; in percent.

    shifts: mean over the shifts; None, and by_shift empty, if only ImageNet's accuracy was released.
    """

    row: str
    label: str
    model: str | None  # name of the model if the row is an individual model
    imagenet: float
    shifts: float | None
    by_shift: dict[str, float]
    paper: tuple[float, float] | None  # ImageNet and mean of shifts


@functools.cache
def released_models() -> tuple[ReleasedModel, ...]:
    """Return the 72 released models, from model_0 to model_71."""
    folder = ASSETS / "released"
    hyperparameters = {r.pop("model_name"): r for r in storage.read_jsonl(folder / "released_models_hparams.jsonl")}
    results = {r.pop("model_name"): r for r in storage.read_jsonl(folder / "released_models_results.jsonl")}
    models = []
    for index in range(MODELS):
        name = f"model_{index}"
        accuracy = {ours: float(results[name][theirs]) for theirs, ours in SETS.items()}
        models.append(ReleasedModel(index, hyperparameters[name], accuracy))
    return tuple(models)


@functools.cache
def released_rows() -> dict[str, dict[str, float]]:
    """Return the released accuracies of Table 3, 0 to 1: row ("greedy") -> data set -> accuracy.

    Of the authors' learned soup ("learned_tensors") only the accuracy on ImageNet was released.
    """
    rows = {}
    for line in storage.read_jsonl(ASSETS / SOUPS):
        rows[line["row"]] = {ours: float(line[theirs]) / 100 for theirs, ours in SETS.items() if theirs in line}
    return rows


def greedy_ingredients() -> tuple[int, ...]:
    """Return the model numbers in the authors' greedy soup, in the order they were added."""
    line = next(line for line in storage.read_jsonl(ASSETS / SOUPS) if line["row"] == "greedy")
    return tuple(int(name.removeprefix("model_")) for name in line["ingredients_in_order_added"])


@functools.cache
def official_keys() -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and dtype of each tensor in a released checkpoint, by tensor name."""
    lines = storage.read_jsonl(ASSETS / "released" / "official_checkpoint_keys.jsonl")
    return {line["key"]: (tuple(line["shape"]), line["dtype"].removeprefix("torch.")) for line in lines}


@functools.cache
def paper_rows(table: str) -> dict[str, Any]:
    """Return the rows of a table of the paper, by label; tables.json explains their numbers."""
    rows: dict[str, Any] = storage.read_json(ASSETS / "published" / "tables.json")[table]["rows"]
    return rows


def printed(row: str) -> tuple[float, float] | None:
    """Return a row's ImageNet accuracy and mean over the shifts in the paper's Table 3, or None."""
    if row not in PAPER_NAMES:
        return None
    imagenet, shifts = paper_rows("table_3")[PAPER_NAMES[row]]
    return imagenet, shifts


def by_holdout() -> list[ReleasedModel]:
    """Return the released models by decreasing hold-out accuracy; ties by decreasing index."""
    return sorted(released_models(), key=lambda m: (m.accuracy["holdout"], m.index), reverse=True)


def table_3_from_released() -> list[Table3Row]:
    """Return the rows of Table 3 from the authors' released results, the initialization first.

    Best and second best are those of the 72 models with the highest hold-out accuracies. Soups and
    ensembles cannot be computed from accuracies; their released results are used.
    """
    first, second = by_holdout()[:2]
    models = {"initialization": released_models()[INITIALIZATION], "best": first, "second_best": second}
    rows = []
    for row, released in released_rows().items():
        accuracy = models[row].accuracy if row in models else released
        shifts = {name: 100 * accuracy[name] for name in SHIFTS if name in accuracy}
        label = PAPER_NAMES.get(row) or OTHER_NAMES[row]
        model = models[row].name if row in models else None
        mean = statistics.fmean(shifts.values()) if shifts else None
        rows.append(Table3Row(row, label, model, 100 * accuracy["val"], mean, shifts, printed(row)))
    return rows
