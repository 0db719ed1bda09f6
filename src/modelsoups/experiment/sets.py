"""The prepared data sets of a run: which there are, what each is made from, and each opened once."""

from pathlib import Path
from typing import Any

from modelsoups.config import registry
from modelsoups.config.schema import DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests

LIBRARIES = {  # data.library -> a module with names, inputs, facts and make
    "iconnet": "modelsoups.miniature.library:",
    "imagenet": "modelsoups.data.imagenet.library:",
    "folders": "modelsoups.data.folders:",
}


class Sets:
    """The data sets of an experiment. sets["test"] opens a prepared one, or raises ValueError."""

    def __init__(self, data: DataConfig, protocol: str, without_holdout: bool) -> None:
        """without_holdout: an imported pool may be evaluated without its authors' hold-out."""
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

    # ---- which there are ----

    def is_prepared(self, name: str) -> bool:
        """Whether `prepare` has made a set; opening it tells whether it is damaged."""
        return (self.folder(name) / manifests.MANIFEST).exists()

    def tests(self) -> list[str]:
        """The test set, and the shifts and extra sets that are prepared and have images of their own.

        They are evaluated when everything has been chosen. Sets that only relabel the test set are
        not among them: they are scored from its logits.
        """
        others = filter(self.is_prepared, [*self.data.shifts, *self.data.extra])
        return [self.data.test, *(name for name in others if self[name].scoring is None)]

    def relabelled(self) -> list[str]:
        """Prepared sets that give other labels to the test set's images."""
        prepared = filter(self.is_prepared, self.data.extra)
        return [name for name in prepared if self[name].scoring is not None]

    def evaluated(self) -> list[str]:
        """The sets that every ingredient is evaluated on."""
        if self.without_holdout and not self.is_prepared(self.data.holdout):
            return self.tests()
        return [self.data.holdout, *self.tests()]

    def missing(self) -> list[str]:
        """The shifts and extra sets of the experiment that are not prepared."""
        return [n for n in [*self.data.shifts, *self.data.extra] if not self.is_prepared(n)]

    # ---- how they are made ----

    def names(self) -> list[str]:
        """Every set of the experiment, in order."""
        found: list[str] = self._library().names(self.data)
        return found

    def inputs(self, name: str) -> dict[str, Any]:
        """What a set is made from: its shards are complete when they were made from this."""
        found: dict[str, Any] = self._library().inputs(self.data, self.protocol, name)
        return found

    def facts(self, name: str) -> dict[str, Any]:
        """The metadata of a set, for its manifest; see `shards.finish_set`."""
        found: dict[str, Any] = self._library().facts(self.data, self.protocol, name)
        return found

    def make(self, names: list[str], workers: int) -> dict[str, int]:
        """Prepare sets; the number of images of each that was made."""
        made: dict[str, int] = self._library().make(self.data, self.protocol, names, workers)
        return made

    def _library(self) -> Any:
        return registry.find(LIBRARIES, self.data.library, "data.library")
