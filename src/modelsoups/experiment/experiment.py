"""Experiment: a run, opened once for each command and handed to stages, analyses and cluster commands."""

from dataclasses import asdict, dataclass
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
from modelsoups.workers.processes import worker_count

if TYPE_CHECKING:
    from modelsoups.experiment.parts import CropStore, Imported, Ingredients, LogitsCache, Soups
    from modelsoups.models.classifier import Classifier
    from modelsoups.soup.coefficients import Ingredient
    from modelsoups.tasks.task import Task

TASKS = {"images": "modelsoups.tasks.images:ImageClassification"}


def _parts() -> ModuleType:
    from modelsoups.experiment import parts  # loads PyTorch: status, submit and plan do without

    return parts


@dataclass(frozen=True, eq=False)
class Experiment:
    """What a run has and makes. Each part is opened when it is first used, and kept.

    An Experiment that is sent to a worker process takes only its configuration along.
    """

    config: Config

    def __reduce__(self) -> tuple[Any, ...]:
        return Experiment, (self.config,)

    @cached_property
    def files(self) -> Run:
        """The path of every file of the run."""
        return Run(Path(self.config.runs), Path(self.config.results))

    @cached_property
    def sets(self) -> Sets:
        """The prepared data sets."""
        return Sets(self.config.data, self.config.protocol, self.config.pool == "imported")

    @cached_property
    def draw(self) -> Draw:
        """The recipes."""
        return Draw(self.files, self.config.sweep, self.config.recipe)

    @cached_property
    def imported(self) -> "Imported | None":
        """The imported pool, for pool=imported."""
        holdout = self.sets.folder(self.config.data.holdout)
        return _parts().Imported(self.files, holdout) if self.config.pool == "imported" else None

    @cached_property
    def ingredients(self) -> "Ingredients":
        """The initial models and the fine-tuned ones."""
        config = self.config
        return _parts().Ingredients(self.files, self.draw, config.heads.init, config.soup.minimum, self.imported)

    @cached_property
    def task(self) -> "Task":
        """What is learned."""
        make = registry.find(TASKS, self.config.task, "task")
        task: Task = make(self.crops, self.config.evaluate.batch_size)
        return task

    @cached_property
    def crops(self) -> "CropStore":
        """The evaluation crops of the prepared sets, decoded once."""
        return _parts().CropStore(self.files.root / "pixels")

    @cached_property
    def logits(self) -> "LogitsCache":
        """The logits of models and soups."""
        return _parts().LogitsCache(self.files, self.sets, self.task, self.classifier)

    @cached_property
    def soups(self) -> "Soups":
        """The soups, and what they are chosen from."""
        return _parts().Soups(self.files, self.ingredients, self.logits)

    @cached_property
    def _classifiers(self) -> "dict[int, Classifier]":
        return {}

    def classifier(self, classes: int) -> "Classifier":
        """The network of the run, built once; its weights are those that were loaded last."""
        if classes not in self._classifiers:
            self._classifiers[classes] = self.task.build(self.config.model, classes)
        return self._classifiers[classes]

    @property
    def workers(self) -> int:
        """Processes to run side by side."""
        return worker_count(self.config.finetune.parallel)

    def prepare_inputs(self, names: list[str]) -> None:
        """Write what all models will read of these sets: large sets are decoded only once."""
        for name in names:
            self.task.prepare(self.sets[name], self.config.model)

    def soup_inputs(self, ingredients: "list[Ingredient]") -> dict[str, Any]:
        """What the soups depend on: ingredients, initial models, data sets, options."""
        config, sets = self.config, self.sets
        return {
            "ingredients": {i.id: i.sha256 for i in ingredients},
            "initial": {row: i.sha256 for row, i in self.ingredients.initial().items()},
            "holdout": sets.holdout.sha256,
            "sets": {name: sets[name].sha256 for name in sets.tests()},
            "soup": asdict(config.soup),
            "protocol": config.protocol,
            "wise_ft": config.evaluate.wise_ft,
        }

    def report_inputs(self) -> dict[str, Any]:
        """What a report depends on, cheap to compute; ValueError when the soups are not complete."""
        soups = self.files.soups
        manifest = manifests.manifest_of(soups)
        if manifest is None:
            raise ValueError(f"{soups} is not complete; run `modelsoups soup` first")
        made = manifest["provenance"]["time"]
        return {"soups": storage.fingerprint(manifest["inputs"]), "made": made, "name": self.config.name}
