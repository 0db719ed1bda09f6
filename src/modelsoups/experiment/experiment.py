"""`Experiment`: one run with its configuration and files, the argument of every stage."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelsoups.config import registry
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.draw import Draw
from modelsoups.experiment.sets import Sets
from modelsoups.tasks import UNITS
from modelsoups.workers.processes import worker_count

if TYPE_CHECKING:
    from modelsoups.experiment.parts import CropStore, Imported, Ingredients, LogitsCache, Soups
    from modelsoups.models.classifier import Classifier
    from modelsoups.recipes.recipe import Recipe
    from modelsoups.soup.coefficients import Ingredient
    from modelsoups.tasks.task import Task

TASKS = {
    "images": "modelsoups.tasks.images:ImageClassification",
    "text": "modelsoups.tasks.text:TextClassification",
}


def _parts() -> ModuleType:
    from modelsoups.experiment import parts  # loads PyTorch, which status and plan do not need

    return parts


@dataclass(frozen=True, eq=False)
class Experiment:
    """One run: its configuration, and objects that read and write its files.

    The objects are created when they are first used. Only the configuration is pickled.
    """

    config: Config

    def __reduce__(self) -> tuple[Any, ...]:
        return Experiment, (self.config,)

    @cached_property
    def files(self) -> Run:
        """Return an object with the path of every file of the run."""
        return Run(Path(self.config.runs), Path(self.config.results))

    @cached_property
    def sets(self) -> Sets:
        """Return the data sets of the run, which are opened when they are first used."""
        return Sets(self.config.data, self.config.protocol, self.config.pool == "imported")

    @cached_property
    def draw(self) -> Draw:
        """Return the draw: the recipes of the run, and the search file that they come from."""
        one_order = {"order_seed": self.config.data.seed} if self.config.finetune.share else {}
        return Draw(self.files, self.config.sweep, one_order | self.config.recipe)

    @cached_property
    def imported(self) -> "Imported | None":
        """Return the models that `import-released` wrote if pool=imported, otherwise None."""
        holdout = self.sets.folder(self.config.data.holdout)
        return _parts().Imported(self.files, holdout) if self.config.pool == "imported" else None

    @cached_property
    def ingredients(self) -> "Ingredients":
        """Return the object that finds the run's initial and fine-tuned models."""
        config = self.config
        soup = config.soup if self.has_models else replace(config.soup, minimum=0)
        return _parts().Ingredients(self.files, self.draw, config.heads, soup, self.imported)

    @property
    def has_models(self) -> bool:
        """Return whether the run has models of its own, and not only those of analyse.pools (pool=none)."""
        return self.config.pool != "none"

    def check_head(self) -> None:
        """Raise ValueError if the initial model's head was made for other classes than those of the training set."""
        folder, train = self.files.head(self.config.heads.init), self.sets.train
        made = (manifests.manifest_of(folder) or {}).get("inputs", {}).get("classes")
        if made not in (None, storage.fingerprint(train.classes)):
            classes = f"{len(train.classes)} classes of {train.folder}"
            raise ValueError(f"{folder} has the head of other classes than the {classes}; run `modelsoups heads` again")

    @cached_property
    def task(self) -> "Task":
        """Return the learning task (such as image classification): its inputs, loss and score."""
        task: Task = registry.find(TASKS, self.config.task, "task").of(self.config, self.crops)
        return task

    @property
    def unit(self) -> str:
        """Return the word for the task's examples, such as images; loads only a user's own task."""
        return UNITS.get(self.config.task) or self.task.unit

    @cached_property
    def crops(self) -> "CropStore":
        """Return the cache of the images that models are evaluated on, decoded and cropped."""
        return _parts().CropStore(self.files.root / "pixels")

    @cached_property
    def logits(self) -> "LogitsCache":
        """Return the cache of the logits of models and soups on the data sets."""
        return _parts().LogitsCache(self.files, self.sets, self.task, self.classifier)

    @cached_property
    def soups(self) -> "Soups":
        """Return the object that reads, writes and averages the run's soups."""
        return _parts().Soups(self.files, self.ingredients, self.logits, self.config.soup.batchnorm)

    @cached_property
    def _classifiers(self) -> "dict[int, Classifier]":
        return {}

    def classifier(self, classes: int) -> "Classifier":
        """Return a network for this many classes. It is shared, so load weights before each use."""
        if classes not in self._classifiers:
            self._classifiers[classes] = self.task.build(self.config.model, classes)
        return self._classifiers[classes]

    def loading_speed(self, recipe: "Recipe") -> float:
        """Return how many training examples per second one core of this machine loads, measured."""
        model = self.classifier(len(self.sets.train.classes))
        speed: float = _parts().loading_speed(self.task, self.sets.train, model, recipe, self.config.finetune)
        return speed

    @property
    def workers(self) -> int:
        """Return the number of worker processes to run in parallel."""
        return worker_count(self.config.finetune.parallel)

    def prepare_inputs(self, names: list[str]) -> None:
        """Decode the images of large sets to disk, once for all models that are evaluated."""
        for name in names:
            self.task.prepare(self.sets[name], self.config.model)

    def head_inputs(self, init: str) -> dict[str, Any]:
        """Return what an initial model depends on (options, classes, data), for manifest.json."""
        train = self.sets.train
        classes = storage.fingerprint(train.classes)
        inputs: dict[str, Any] = {"model": asdict(self.config.model), "init": init, "classes": classes}
        if init == "zeroshot":
            return inputs
        heads = asdict(self.config.heads)
        del heads["lp_loss"]  # it is part of `init`
        return {**inputs, "heads": heads, "train": train.sha256}

    def soup_inputs(self, ingredients: "list[Ingredient]") -> dict[str, Any]:
        """Return what soups depend on (hashes of models and data, options), for manifest.json."""
        config, sets = self.config, self.sets
        inputs = {
            "ingredients": {i.id: i.sha256 for i in ingredients},
            "initial": {row: i.sha256 for row, i in self.ingredients.initial().items()},
            "holdout": sets.holdout.sha256,
            "sets": {name: sets[name].sha256 for name in sets.tests()},
            "soup": _without_defaults(asdict(config.soup), ("average", "initialization", "batchnorm")),
            "protocol": config.protocol,
            "wise_ft": config.evaluate.wise_ft,
        }
        if config.data.score != "accuracy":  # the default leaves no mark, so that earlier runs stay complete
            inputs["score"] = config.data.score
        if ingredients and self.soups.is_reestimated(ingredients):
            inputs["batchnorm"] = "reestimated"
        if self.task.view:
            inputs["view"] = self.task.view
        own = registry.own_code([config.task, *config.soup.also])
        return {**inputs, "own code": own} if own else inputs

    def report_inputs(self) -> dict[str, Any]:
        """Return what a report depends on, for manifest.json; ValueError if soups are missing."""
        soups = self.files.soups
        manifest = manifests.manifest_of(soups)
        if manifest is None:
            raise ValueError(f"{soups} is not complete; run `modelsoups soup` first")
        made = manifest["provenance"]["time"]
        inputs = {"soups": storage.fingerprint(manifest["inputs"]), "made": made, "name": self.config.name}
        sets = self.sets
        extra = {name: sets[name].sha256 if sets.is_prepared(name) else None for name in sets.data.extra}
        return {**inputs, "extra": extra} if extra else inputs


def _without_defaults(section: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    """Return a section without keys of later versions that are not set: earlier runs stay complete."""
    unset: tuple[Any, ...] = (None, False, [], "", "auto")
    return {name: value for name, value in section.items() if value not in unset or name not in later}
