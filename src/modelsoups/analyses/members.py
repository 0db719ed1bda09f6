"""The models that analyses use: those of the run and of its additional pools (analyse.pools)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.soup.coefficients import Ingredient

OWN = "random"  # the pool of the run's own models (the paper's random search)
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "sam": 0.0, "optimizer": "adamw"}
PLAIN |= {"schedule": "cosine", "seed": 0, "teachers": (), "init": None}


class Unavailable(ValueError):
    """An analysis cannot run because models or data are missing; the message says which."""


@dataclass(frozen=True)
class Member:
    """A fine-tuned model and its pool's name. init: type of its initial head, lp or zeroshot."""

    pool: str
    init: str
    ingredient: Ingredient

    @property
    def average(self) -> str:
        """The type of weight average that the model is, such as ema-0.999; empty if it is none."""
        return self.ingredient.id.partition("-")[2]

    @property
    def name(self) -> str:
        return f"{self.pool}/{self.ingredient.id}"

    @property
    def lr(self) -> float:
        return self.ingredient.recipe.lr if self.ingredient.recipe else float("nan")

    def has(self, wanted: dict[str, Any]) -> bool:
        """Return whether the model has these hyperparameters and is not a weight average."""
        recipe = self.ingredient.recipe
        if recipe is None or self.average:
            return False
        return all(_equal(getattr(recipe, key), value) for key, value in wanted.items())


def models_of(members: Iterable[Member]) -> list[Ingredient]:
    return [member.ingredient for member in members]


def open_pool(experiment: Experiment, name: str) -> Experiment:
    """Open a pool as a run of its own: the experiment with the pool's settings, in a subfolder."""
    pools, config = experiment.files.pools, experiment.config
    folder = str((pools / name).absolute())
    given = [line.replace("{pools}", str(pools)) for line in config.analyse.pools[name]]
    try:
        own = [] if experiment.has_models else ["pool=finetuned"]
        made = load([*config.overrides, *own, *given, f"runs={folder}", "soup.minimum=1"])
    except ValueError as error:
        raise ValueError(f"analyse.pools.{name}: {error}") from error
    return Experiment(replace(made, runs=folder))


def _equal(found: Any, wanted: Any) -> bool:
    """Return whether two values are equal; floats up to a relative 1e-6, because of rounding."""
    return abs(found - wanted) <= 1e-6 * abs(wanted) if isinstance(wanted, float) else bool(found == wanted)
