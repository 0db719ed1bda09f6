"""The names of a run's data sets, and the role of each: train, holdout, test, shift or extra."""

from collections import Counter

from modelsoups.config.data import DataConfig


def names_of(data: DataConfig) -> list[str]:
    """Return the names of all sets, the training set first; ValueError if one is named twice."""
    names = [*main_sets(data), *data.shifts, *data.extra]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        keys = "data.train, data.holdout, data.test, data.shifts and data.extra"
        raise ValueError(f"data set {twice[0]} is named twice in {keys}; name it once")
    return names


def main_sets(data: DataConfig) -> list[str]:
    """Return the names of training set, hold-out and test set."""
    return [data.train, data.holdout, data.test]


def role_of(data: DataConfig, name: str) -> str:
    """Return the role of a data set, for its manifest.json."""
    roles = {data.train: "train", data.holdout: "holdout", data.test: "test"}
    return roles.get(name, "shift" if name in data.shifts else "extra")
