"""The data sets of a run: their names, their preparation, and access to the prepared sets."""

from pathlib import Path
from typing import Any

from modelsoups.config import registry
from modelsoups.config.data import DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests

# data.library -> a module, or an object, with the functions names, inputs, facts, make and, if not for images, opened
LIBRARIES = {
    "iconnet": "modelsoups.miniature.library:",
    "phrases": "modelsoups.miniature.text.library:",
    "imagenet": "modelsoups.data.imagenet.library:",
    "folders": "modelsoups.data.folders:",
    "domains": "modelsoups.data.domains:",
    "cifar": "modelsoups.data.cifar.library:",
    "fmow": "modelsoups.data.wilds.library:FMOW",
    "iwildcam": "modelsoups.data.wilds.library:IWILDCAM",
    "dtd": "modelsoups.data.transfer.library:DTD",
    "food101": "modelsoups.data.transfer.library:FOOD101",
    "sun397": "modelsoups.data.transfer.library:SUN397",
    "cars": "modelsoups.data.transfer.library:CARS",
    "cifar100": "modelsoups.data.transfer.library:CIFAR100",
    "text": "modelsoups.data.text.library:",
}


class Sets:
    """The data sets of one run. sets["test"] opens one; ValueError if it is not prepared."""

    def __init__(self, data: DataConfig, protocol: str, without_holdout: bool) -> None:
        """without_holdout: whether models may be evaluated while the hold-out is not prepared."""
        self.data, self.protocol, self.without_holdout = data, protocol, without_holdout
        self._opened: dict[str, ShardSet] = {}

    def __getitem__(self, name: str) -> ShardSet:
        if name not in self._opened:
            opened = getattr(self._library(), "opened", ShardSet)
            self._opened[name] = opened(self.folder(name))
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
        """Return whether a set is completely prepared; damage is only found when it is opened."""
        return (self.folder(name) / manifests.MANIFEST).exists()

    def tests(self) -> list[str]:
        """Return the names of the test set and of prepared shifts and extra sets with own images.

        No soup is chosen on them. A set that only has other labels for the test set's images, such
        as ReaL, is excluded: it is scored from the test set's logits.
        """
        others = filter(self.is_prepared, [*self.data.shifts, *self.data.extra])
        return [self.data.test, *(name for name in others if self[name].scoring is None)]

    def relabelled(self) -> list[str]:
        """Return the names of prepared sets that give other labels to the test set's images."""
        prepared = filter(self.is_prepared, self.data.extra)
        return [name for name in prepared if self[name].scoring is not None]

    def evaluated(self) -> list[str]:
        """Return the names of the sets on which every ingredient is evaluated, hold-out first."""
        if self.without_holdout and not self.is_prepared(self.data.holdout):
            return self.tests()
        return [self.data.holdout, *self.tests()]

    def missing(self) -> list[str]:
        """Return the names of the shifts and extra sets that are not prepared."""
        return [n for n in [*self.data.shifts, *self.data.extra] if not self.is_prepared(n)]

    # ---- preparation ----

    def names(self) -> list[str]:
        """Return the names of all sets of the run: training, hold-out, test, shifts and extra."""
        found: list[str] = self._library().names(self.data)
        return found

    def inputs(self, name: str) -> dict[str, Any]:
        """Return the options and source files that a set depends on, for its manifest.json."""
        found: dict[str, Any] = self._library().inputs(self.data, self.protocol, name)
        return found

    def is_current(self, name: str, sources: bool = True) -> bool:
        """Return whether a set is prepared; ValueError for wrong sources, or if it was prepared with other options.

        sources: False, if a set is to count as current where its sources cannot be read any more.
        """
        folder = self.folder(name)
        manifest = manifests.manifest_of(folder)
        try:
            inputs = self.inputs(name)
        except (OSError, ValueError):
            if sources:
                raise
            return manifest is not None
        if manifest is None:
            return False
        if manifest["inputs"] != inputs:
            raise ValueError(
                f"{folder} was prepared with {manifest['inputs']}, but now needs {inputs}; choose "
                "another data.dir=..., or move that folder away"
            )
        return True

    def facts(self, name: str) -> dict[str, Any]:
        """Return metadata of a set for its manifest.json: title, role, class names and others."""
        found: dict[str, Any] = self._library().facts(self.data, self.protocol, name)
        return found

    def make(self, names: list[str], workers: int) -> dict[str, int]:
        """Write these sets with worker processes; return {name: number of images} for each."""
        made: dict[str, int] = self._library().make(self.data, self.protocol, names, workers)
        return made

    def _library(self) -> Any:
        return registry.find(LIBRARIES, self.data.library, "data.library")
