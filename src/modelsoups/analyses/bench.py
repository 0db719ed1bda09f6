"""What an analysis works with: the models of the run and of its further pools, and measurements of their soups.

A measurement is of one point (ingredients and coefficients) on one data set, cached in a file of its own, so that an
analysis which is killed continues, and two analyses that look at the same point measure it once. Code that measures
otherwise measures anew (`kept_path`).

Legend: N images of a set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from modelsoups.analyses.forward import forward_part, is_cached, kept_weights, looked_at, part_logits
from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import provenance, storage
from modelsoups.experiment.ingredients import initial_models, load_pool
from modelsoups.experiment.sets import evaluated, is_prepared, open_set, test_names
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import scores
from modelsoups.stats.scores import Logits
from modelsoups.weights import state_dicts
from modelsoups.weights.state_dicts import EVERYTHING
from modelsoups.workers.processes import run_tasks, worker_count

OWN = "random"  # the run's own models, in the paper those of the random search
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "sam": 0.0, "optimizer": "adamw", "schedule": "cosine", "seed": 0, "teachers": ()}


MEASURING = (
    "analyses/bench",
    "analyses/forward",
    "stats/scores",
    "stats/projection",
    "weights/state_dicts",
    "data/transforms",
    "data/crops",
    "experiment/logits",
    "models/classifier",
)


class Unavailable(ValueError):
    """Why an analysis cannot be made of these models."""


@dataclass(frozen=True)
class Member:
    """A model of a pool; average is "" or the name of an average along its run (ema-0.999). init: lp or zeroshot."""

    pool: str
    init: str
    ingredient: Ingredient
    average: str

    @property
    def name(self) -> str:
        return f"{self.pool}/{self.ingredient.id}"

    @property
    def lr(self) -> float:
        return self.ingredient.recipe.lr if self.ingredient.recipe else float("nan")


@dataclass(frozen=True)
class Point:
    """A soup to measure: one coefficient an ingredient, for every tensor."""

    ingredients: tuple[Ingredient, ...]
    coefficients: tuple[float, ...]

    def key(self) -> list[Any]:
        return [[i.sha256 for i in self.ingredients], [round(c, 12) for c in self.coefficients]]


@dataclass(frozen=True)
class Measured:
    """A model on a data set: mean cross-entropy in nats, and which images it gets right."""

    loss: float
    correct_N: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.correct_N.mean())


Measures = dict[str, Measured]  # data set -> what was measured


class Bench:
    """The models and data sets of a run with its further pools."""

    def __init__(self, cfg: Config, pools: dict[str, Config] | None = None) -> None:
        """pools: the configurations of analyse.pools, where they are known already."""
        self.cfg = cfg
        self.configs = {OWN: cfg, **(pools or {name: pool_config(cfg, name) for name in cfg.analyse.pools})}
        self._read: dict[str, list[Member]] = {}
        there = test_names(cfg)
        self.test = cfg.data.test
        self.shifts = [name for name in cfg.data.shifts if name in there]
        self.all_shifts = self.shifts == list(cfg.data.shifts) and bool(self.shifts)
        self.tests = [self.test, *self.shifts]

    def whole(self) -> Bench:
        """The same models on every image of the test sets, on which `evaluate` has measured the run's own already."""
        cfg = replace(self.cfg, analyse=replace(self.cfg.analyse, images=None))
        return Bench(cfg, {name: made for name, made in self.configs.items() if name != OWN})

    # ---- models ----

    def pool(self, *names: str, averages: bool = False) -> list[Member]:
        """The models of these pools, in order; Unavailable names a pool that is not there."""
        found = []
        for name in names:
            if name not in self.configs:
                raise Unavailable(f"it needs the pool {name} (analyse.pools.{name})")
            found += [m for m in self._members(name) if averages or not m.average]
        return found

    def start(self, pool: str) -> Ingredient:
        """theta_0 of a pool; Unavailable where an imported pool came without it."""
        self.pool(pool)
        initial = initial_models(self.configs[pool]).get("initialization")
        if initial is None:
            raise Unavailable("it needs the initialization, which was not imported (model_0.pt)")
        return initial

    def find(self, init: str, average: str = "", **wanted: Any) -> Member:
        """The first model of any pool that has these hyperparameters, the others being PLAIN and analyse.epochs."""
        wanted = {**PLAIN, "epochs": self.cfg.analyse.epochs, **wanted}
        for name, cfg in self.configs.items():
            same = cfg.heads.init == init and cfg.model == self.cfg.model
            for member in self._members(name) if same else ():
                if member.average == average and _matches(member.ingredient, wanted):
                    return member
        shown = ", ".join(f"{k}={v}" for k, v in wanted.items() if k not in PLAIN or v != PLAIN[k])
        what = f"{average} of a model" if average else "a model"
        raise Unavailable(f"no pool has {what} from the {init} head with {shown}")

    def _members(self, pool: str) -> list[Member]:
        """The complete models of a pool, read once."""
        if pool not in self._read:
            cfg = self.configs[pool]
            models = load_pool(cfg).ingredients
            self._read[pool] = [Member(pool, cfg.heads.init, i, i.id.partition("-")[2]) for i in models]
        return self._read[pool]

    # ---- measuring ----

    def logits(self, ingredient: Ingredient, dataset: str) -> Logits:
        """On the images that the analyses look at; see analyse.forward.looked_at."""
        return part_logits(self.cfg, dataset, ingredient)

    def evaluate(self, ingredients: Sequence[Ingredient], choosing: bool = False) -> None:
        """Put the logits of models on the test sets into the run's cache, side by side; with choosing the hold-out's
        too."""
        names = evaluated(self.cfg) if choosing else self.tests
        unique = list({i.sha256: i for i in ingredients}.values())
        todo = [i for i in unique if not all(is_cached(self.cfg, n, i) for n in names)]
        job = functools.partial(_evaluate, self.cfg, names)
        for _ in run_tasks(job, todo, worker_count(self.cfg.finetune.parallel), "analyse: evaluating"):
            pass

    def individual(self, ingredient: Ingredient, sets: Sequence[str] | None = None) -> Measures:
        """On data sets (the test sets by default)."""
        return {n: _measured(self.logits(ingredient, n)) for n in sets or self.tests}

    def ensemble(self, ingredients: Sequence[Ingredient], weights: Sequence[float] | None = None) -> Measures:
        """The mean of logits, or their sum with these weights, on the test sets."""
        found = {}
        for name in self.tests:
            each = [self.logits(i, name) for i in ingredients]
            mixed_NC = scores.ensemble([x.logits_NC for x in each], weights)
            found[name] = _measured(Logits(name, mixed_NC, each[0].labels_N))
        return found

    def measure(self, points: Sequence[Point], label: str, sets: Sequence[str] | None = None) -> list[Measures]:
        """Soups on data sets (the test sets by default); cached, side by side."""
        names = list(sets or self.tests)
        unique = {str(p.key()): p for p in points}.values()
        todo = [p for p in unique if not all(_path(self.cfg, p, name).exists() for name in names)]
        job = functools.partial(_measure, self.cfg, names)
        for _ in run_tasks(job, todo, worker_count(self.cfg.finetune.parallel), f"analyse: {label}"):
            pass
        return [{name: _read(self.cfg, p, name) for name in names} for p in points]

    def shift_accuracy(self, measures: Measures) -> float:
        """Unweighted mean over the shifts; NaN unless all of them are there."""
        return float(np.mean([measures[n].accuracy for n in self.shifts])) if self.all_shifts else float("nan")

    def has_train(self) -> bool:
        return self.cfg.data.train != self.cfg.data.holdout and is_prepared(self.cfg, self.cfg.data.train)


def mean_of(members: Sequence[Member]) -> Point:
    """The uniform soup of some models."""
    return Point(tuple(m.ingredient for m in members), (1 / len(members),) * len(members))


def between(one: Ingredient, two: Ingredient, alpha: float) -> Point:
    """(1 - alpha) one + alpha two."""
    return Point((one, two), (1 - alpha, alpha))


def pool_config(cfg: Config, name: str) -> Config:
    """The configuration of a further pool: the run's, the pool's overrides, and a folder inside the run's."""
    runs_ = (cfg.run.pools / name).absolute()
    given = [line.replace("{pools}", str(cfg.run.pools)) for line in cfg.analyse.pools[name]]
    try:
        made = load([*cfg.overrides, *given, f"runs={runs_}", "soup.minimum=1"])
    except ValueError as error:
        raise ValueError(f"analyse.pools.{name}: {error}") from error
    return replace(made, runs=str(runs_))


def _matches(ingredient: Ingredient, wanted: dict[str, Any]) -> bool:
    recipe = ingredient.recipe
    if recipe is None:
        return False
    pairs = [(getattr(recipe, key, PLAIN.get(key)), value) for key, value in wanted.items()]
    return all(_equal(a, b) for a, b in pairs)


def _equal(a: Any, b: Any) -> bool:
    return abs(a - b) <= 1e-6 * abs(b) if isinstance(b, float) else bool(a == b)


# ---- in the workers ----


def _evaluate(cfg: Config, names: list[str], ingredient: Ingredient) -> None:
    for name in names:
        part_logits(cfg, name, ingredient)


def weights_of(ingredient: Ingredient) -> dict[str, Tensor]:
    return kept_weights(ingredient.path, ingredient.sha256)


def _measure(cfg: Config, names: list[str], point: Point) -> None:
    logits = _logits_on(cfg, point)
    for name in names:
        path = _path(cfg, point, name)
        if not path.exists():
            found = _measured(logits(name))
            storage.write_json(path, {"loss": found.loss, "correct": np.packbits(found.correct_N).tobytes().hex()})


def _logits_on(cfg: Config, point: Point) -> Callable[[str], Logits]:
    """Logits of a soup by data set; one of a single model takes those that it has."""
    used = [(i, c) for i, c in zip(point.ingredients, point.coefficients, strict=True) if c]
    if [c for _, c in used] == [1]:
        return lambda name: part_logits(cfg, name, used[0][0])
    states = [weights_of(i) for i, _ in used]
    state = state_dicts.mix(states, {EVERYTHING: [c for _, c in used]})
    return lambda name: forward_part(cfg, name, state)


def _path(cfg: Config, point: Point, name: str) -> Path:
    dataset = open_set(cfg.data.dir, name)
    return kept_path(cfg, [point.key(), dataset.sha256, len(looked_at(cfg, name))])


def kept_path(cfg: Config, key: list[Any], *more: str) -> Path:
    """Where a measurement is kept that MEASURING and more modules make; a change of their code gives another place."""
    return cfg.run.point(storage.fingerprint([provenance.code_fingerprint(*MEASURING, *more), key]))


def _read(cfg: Config, point: Point, name: str) -> Measured:
    content = storage.read_json(_path(cfg, point, name))
    packed = np.frombuffer(bytes.fromhex(content["correct"]), np.uint8)
    return Measured(content["loss"], np.unpackbits(packed, count=len(looked_at(cfg, name))).astype(bool))


def _measured(logits: Logits) -> Measured:
    return Measured(scores.cross_entropy(logits.logits_NC, logits.labels_N), logits.correct_N.numpy())
