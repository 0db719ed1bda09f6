"""Inputs of a report: the outcome of each model and soup on each example, read from a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data.imagenet import relabelled
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View, eval_crop
from modelsoups.disk import manifests as manifests_
from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.experiment.logits import LogitsCache
from modelsoups.experiment.sets import Sets
from modelsoups.experiment.soups import Soups
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import SetInfo
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.stats import scores
from modelsoups.tasks.task import Task


@dataclass(frozen=True)
class RowOutcomes:
    """The outcomes of one model, soup or ensemble, by data set: one per example (`Task.outcomes`).

    kind: initialization, individual, soup, ensemble or interpolation. inference: forward passes per
    example. weight: each image's weight, for data sets whose accuracy is averaged over classes; the
    weights of a data set add up to 1.
    """

    name: str
    kind: str
    outcomes: dict[str, np.ndarray]
    soup: Soup | None = None
    recipe: Recipe | None = None
    inference: int = 1
    weight: dict[str, np.ndarray] = field(default_factory=dict)

    def score(self, task: Task, dataset: str) -> float:
        """Return the task's score on a data set, or the accuracy averaged over classes."""
        outcomes_N = self.outcomes[dataset]
        return float(outcomes_N @ self.weight[dataset]) if dataset in self.weight else task.score(outcomes_N)


@dataclass(frozen=True)
class Evidence:
    """All inputs of a run's report; a row has the outcomes of one model, soup or ensemble.

    rows: by name, such as "initialization", "greedy", "greedy_random_0" or "wise_ft_best_0.5".
    individuals: all fine-tuned models, by id. failed: id of a model -> why its fine-tuning failed.
    curve[k][method]: the row of a method (best, uniform, greedy or ensemble) on the first k models
    of one random order (Figure B.1).
    """

    name: str
    sets: list[SetInfo]
    rows: dict[str, RowOutcomes]
    individuals: dict[str, RowOutcomes]
    curve: dict[int, dict[str, RowOutcomes]]
    failed: dict[str, str]
    contact: dict[str, np.ndarray]  # title of a set -> a few uint8 images_BHWC; not of texts
    timings: dict[str, float]  # stage -> seconds that it took
    provenance: dict[str, Any]  # of the soups, with the configuration and the result of `made_by`
    notes: list[str] = field(default_factory=list)  # for the reader, such as which sets are missing
    texts: list[dict[str, Any]] = field(default_factory=list)  # of text sets: title, counts, notes
    chosen_on_test: bool = False  # whether the hold-out is the test set itself (data.choose_on)


class Collector:
    """Reads the inputs of a report from a finished run's files, without running any model."""

    def __init__(self, files: Run, sets: Sets, ingredients: Ingredients, logits: LogitsCache, soups: Soups) -> None:
        self.files, self.sets, self.ingredients = files, sets, ingredients
        self.logits, self.soups = logits, soups

    def evidence(self, name: str, settings: dict[str, Any], image_size: int) -> Evidence:
        """Return all inputs of a report. settings: the configuration, recorded as provenance."""
        found, data = self.ingredients.find(), self.sets.data
        rows: dict[str, RowOutcomes] = {}
        for row, initial in self.ingredients.initial().items():
            rows[row] = self._row(row, "initialization", [initial.sha256])
        curve: dict[int, dict[str, RowOutcomes]] = {}
        for path in sorted(self.files.soups.glob("*.json")):
            if path.name == manifests_.MANIFEST:
                continue
            made = self._soup_row(path.stem)
            if path.stem.startswith("curve_"):
                _, k, method = path.stem.split("_", 2)
                curve.setdefault(int(k), {})[method] = made
            else:
                rows[path.stem] = made
        curve[len(self.ingredients.pool(found.ingredients))] = {
            m: rows[m] for m in ("best", "uniform", "greedy", "ensemble")
        }
        individuals = {i.id: self._row(i.id, "individual", [i.sha256], recipe=i.recipe) for i in found.ingredients}
        manifest = manifests_.manifest_of(self.files.soups)
        assert manifest is not None, "the folder of soups has no manifest, so the soup stage is not complete"
        return Evidence(
            name=name,
            sets=list(map(self._info, [data.holdout, data.test, *data.shifts, *data.extra])),
            rows=rows,
            individuals=individuals,
            curve=curve,
            failed=found.missing,
            contact={s.title: _few(s, image_size) for s in self._shown() if hasattr(s, "image")},
            timings=storage.read_object(self.files.timings) if self.files.timings.exists() else {},
            provenance={**manifest["provenance"], "config": settings, **made_by(self.files, found.ingredients)},
            notes=self._notes(),
            texts=self._texts(),
            chosen_on_test=data.choose_on == "validation",
        )

    def _soup_row(self, name: str) -> RowOutcomes:
        soup = self.soups.read(name)
        if soup.space == "logits":
            return self._row(name, "ensemble", soup.hashes, soup=soup, inference=len(soup.hashes))
        kinds = {"wise_ft": "interpolation", "best": "individual", "second_best": "individual"}
        return self._row(name, kinds.get(soup.method, "soup"), [self.soups.extras(name)["sha256"]], soup=soup)

    def _row(self, name: str, kind: str, sha256s: Sequence[str], **more: Any) -> RowOutcomes:
        """Return the outcomes of a model, or an ensemble (mean logits), on all prepared sets."""
        outcomes: dict[str, np.ndarray] = {}
        weight: dict[str, np.ndarray] = {}
        data = self.sets.data
        for dataset in [data.holdout, *self.sets.tests()]:
            logits = [self.logits.of(dataset, sha256) for sha256 in sha256s]
            logits_NC = scores.ensemble([x.logits_NC for x in logits])
            labels_N = logits[0].labels_N
            outcomes[dataset] = self.logits.task.outcomes_on(self.sets[dataset], logits_NC, labels_N)
            for other in self.sets.relabelled() if dataset == data.test else ():
                outcomes[other], weight_N = relabelled.score(self.sets[other], logits_NC)
                if weight_N is not None:
                    weight[other] = weight_N
        return RowOutcomes(name, kind, outcomes, weight=weight, **more)

    def _info(self, name: str) -> SetInfo:
        if not self.sets.is_prepared(name):
            facts = self.sets.facts(name)
            return SetInfo(name, facts["title"], facts["role"], 0)
        dataset = self.sets[name]
        return SetInfo(name, dataset.title, dataset.role, len(dataset))

    def _shown(self) -> list[Any]:
        """Return the prepared sets that the page describes, the training set first."""
        data = self.sets.data
        train = [data.train] if self.sets.is_prepared(data.train) else []
        names = dict.fromkeys([*train, data.holdout, *self.sets.tests()])
        return [self.sets[name] for name in names]

    def _texts(self) -> list[dict[str, Any]]:
        """Return title, examples by class and notes of each text set; an empty list for images."""
        found = []
        for dataset in self._shown():
            if hasattr(dataset, "fields"):  # sets of images have none
                found.append({"title": dataset.title, "counts": dataset.counts, "notes": dataset.notes})
        return found

    def _notes(self) -> list[str]:
        missing = list(map(self._info, self.sets.missing()))
        if not missing:
            return []
        titles = ", ".join(info.title for info in missing)
        lost = any(info.role == "shift" for info in missing)
        return [f"Not available: {titles}." + (" So there is no mean of the five shifts." if lost else "")]


def made_by(files: Run, ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """Return where each model and soup comes from ("rows"), and the total training cost ("costs").

    The cost of imported models is unknown; if all are imported, "costs" is empty.
    """
    manifests: dict[Path, dict[str, Any] | None] = {}
    rows: dict[str, dict[str, Any]] = {}
    for ingredient in ingredients:
        path = Path(ingredient.path)
        if path.parent not in manifests:
            manifests[path.parent] = manifests_.manifest_of(path.parent)
        if manifest := manifests[path.parent]:
            file, by = f"ingredients/{path.parent.name}/{path.name}", manifest["provenance"]
            made = {key: by.get(key) for key in ("command", "commit", "time")}
            rows[ingredient.id] = {"file": file, "sha256": ingredient.sha256, **made}
    for path in files.soups.glob("*.json"):
        if path.name != manifests_.MANIFEST:
            sha256 = storage.read_object(path).get("sha256")
            rows[path.stem] = {"file": f"soups/{path.name}", "sha256": sha256}
    trained = [m for m in manifests.values() if m and "images" in m]
    costs = {
        "models": len(trained),
        "images": sum(m["images"] for m in trained),
        "seconds": round(sum(m["seconds"] for m in trained), 1),
        "process_seconds": round(sum(m["seconds"] * manifests_.training_ranks(m) for m in trained), 1),
    }
    return {"rows": dict(sorted(rows.items())), "costs": costs if trained else {}}


def _few(dataset: ShardSet, image_size: int) -> np.ndarray:
    """Return twelve images, evenly spread over a data set, as a uint8 array (12, H, W, C)."""
    picks = np.linspace(0, len(dataset) - 1, 12).astype(int)
    crop = eval_crop(View(image_size))
    return np.stack([np.asarray(crop(dataset.image(int(i)))) for i in picks])
