"""The data sets of a run: their preparation, their inputs, and the prepared sets, opened once."""

from pathlib import Path
from typing import Any

from modelsoups.config import registry
from modelsoups.config.schema import DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests

LIBRARIES = {  # data.library -> a module with the functions names, inputs, facts and make
    "iconnet": "modelsoups.miniature.library:",
    "imagenet": "modelsoups.data.imagenet.library:",
    "folders": "modelsoups.data.folders:",
}


class Sets:
    """The data sets of an experiment; sets["test"] opens one; ValueError if it is not prepared."""

    def __init__(self, data: DataConfig, protocol: str, without_holdout: bool) -> None:
        """without_holdout: evaluate without the hold-out if it is not prepared."""
        self.data, self.protocol, self.without_holdout = data, protocol, without_holdout
        self._opened: dict[str, ShardSet] = {}

    def __getitem__(self, name: str) -> ShardSet:
        if name not in self._opened:
            self._opened[name] = ShardSet(self.folder(name))
        return self._opened[name]

    @property
    def train(self) -> ShardSet:
        return self[self.data.train]

    @property
    def holdout(self) -> ShardSet:
        return self[self.data.holdout]

    def folder(self, name: str) -> Path:
        return Path(self.data.dir) / name

    # ---- prepared sets ----

    def is_prepared(self, name: str) -> bool:
        """Return whether a set has been prepared; opening it checks for damage."""
        return (self.folder(name) / manifests.MANIFEST).exists()

    def tests(self) -> list[str]:
        """Return the names of the test set and of the prepared shifts and extra sets that have own images.

        They are evaluated only after every choice. Sets that only relabel the test set are excluded,
        since they are scored from its logits.
        """
        others = filter(self.is_prepared, [*self.data.shifts, *self.data.extra])
        return [self.data.test, *(name for name in others if self[name].scoring is None)]

    def relabelled(self) -> list[str]:
        """Return the names of prepared sets that give different labels to the test set's images."""
        prepared = filter(self.is_prepared, self.data.extra)
        return [name for name in prepared if self[name].scoring is not None]

    def evaluated(self) -> list[str]:
        """Return the names of the sets on which every ingredient is evaluated."""
        if self.without_holdout and not self.is_prepared(self.data.holdout):
            return self.tests()
        return [self.data.holdout, *self.tests()]

    def missing(self) -> list[str]:
        """Return the names of the shifts and extra sets that are not prepared."""
        return [n for n in [*self.data.shifts, *self.data.extra] if not self.is_prepared(n)]

    # ---- preparation ----

    def names(self) -> list[str]:
        """Return the names of all sets of the experiment, in order."""
        found: list[str] = self._library().names(self.data)
        return found

    def inputs(self, name: str) -> dict[str, Any]:
        """Return the inputs of a set; its shards are complete if they have these inputs."""
        found: dict[str, Any] = self._library().inputs(self.data, self.protocol, name)
        return found

    def facts(self, name: str) -> dict[str, Any]:
        """Return the metadata of a set for its manifest; see `shards.finish_set`."""
        found: dict[str, Any] = self._library().facts(self.data, self.protocol, name)
        return found

    def make(self, names: list[str], workers: int) -> dict[str, int]:
        """Prepare these sets, and return the number of images of each set that was written."""
        made: dict[str, int] = self._library().make(self.data, self.protocol, names, workers)
        return made

    def _library(self) -> Any:
        return registry.find(LIBRARIES, self.data.library, "data.library")
