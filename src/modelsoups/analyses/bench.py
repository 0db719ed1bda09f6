"""Accuracies of a run's models and of soups of them, for all analyses; cached in files.

The result of one soup (`Point`) on one data set has its own file. So a killed analysis continues
where it stopped, and two analyses that need the same soup evaluate it once. File names contain a
hash of the evaluating code: after a change of this code, soups are evaluated again.

Legend: N images of a data set, M models.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modelsoups.analyses import images, points
from modelsoups.analyses.images import Images
from modelsoups.analyses.members import OWN, PLAIN, Member, Unavailable, models_of, open_pool
from modelsoups.analyses.points import Measured, Measures, Point, hashes, measured
from modelsoups.data import crops, transforms
from modelsoups.disk import provenance, storage
from modelsoups.disk.paths import RESULTS
from modelsoups.experiment import logits
from modelsoups.experiment.experiment import Experiment
from modelsoups.models import classifier
from modelsoups.published import tables
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import projection, scores
from modelsoups.stats.scores import Logits
from modelsoups.weights import state_dicts
from modelsoups.weights.state_dicts import EVERYTHING
from modelsoups.workers.processes import run_tasks

Task = TypeVar("Task", bound=Hashable)
Made = TypeVar("Made")
_MODULES = (points, images, projection, scores, state_dicts, transforms, crops, logits, classifier)
HEAD = "head."  # with which the names of the head's tensors begin
MEASURING = (__name__, *(module.__name__ for module in _MODULES))


class Bench:
    """Finds and evaluates the models of a run and of its additional runs (analyse.pools)."""

    def __init__(self, experiment: Experiment, pools: dict[str, Experiment] | None = None) -> None:
        """pools: the additional runs by name; None opens the runs that analyse.pools defines."""
        self.experiment, config = experiment, experiment.config
        if pools is None:
            pools = {name: open_pool(experiment, name) for name in config.analyse.pools}
        self.runs = {OWN: experiment, **pools}
        # Of the authors' models only the published accuracies are here: nothing was imported
        self.published = experiment.imported is not None and not experiment.imported.is_here
        self._members_read: dict[str, list[Member]] = {}
        self.images = Images(experiment)
        self.weights, self.logits = self.images.weights, self.images.logits
        self.settings, self.files = config.analyse, experiment.files
        self.strict = config.protocol == "released"  # greedy soups need a strict improvement
        prepared, data = experiment.sets.tests(), config.data
        self.test, self.holdout = data.test, data.holdout
        has_train = data.train != data.holdout and experiment.sets.is_prepared(data.train)
        self.train = data.train if has_train else None
        self.shifts = list(filter(prepared.__contains__, data.shifts))
        self.all_shifts = self.shifts == list(data.shifts) and bool(self.shifts)
        self.tests = [self.test, *self.shifts]
        self.columns = {"test": [self.test]}  # column -> data sets whose accuracies are averaged
        if self.all_shifts:
            self.columns["shifts"] = self.shifts

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the runs; a worker process then loads weights and images by itself."""
        return Bench, (self.experiment, self._pools())

    def _pools(self) -> dict[str, Experiment]:
        return {name: run for name, run in self.runs.items() if name != OWN}

    def has_models(self) -> bool:
        """Return whether a run's models, or the authors' published accuracies, are on this machine."""
        return any(run.imported or run.files.draw.exists() for run in self.runs.values())

    def whole(self) -> "Bench":
        """Return a copy that uses all images of each test set, not only analyse.images of them."""
        return self.looking_at(None)

    def looking_at(self, images: int | None) -> "Bench":
        """Return a copy that uses this many images of each data set but the hold-out; None: all."""
        config = self.experiment.config
        other = replace(config, analyse=replace(config.analyse, images=images))
        return Bench(Experiment(other), self._pools())

    def for_pool(self, pool: str) -> "Bench":
        """Return self, or a Bench for the pool alone if its architecture differs from the run's."""
        own = self.runs[pool].config.model == self.experiment.config.model
        return self if own else Bench(self.runs[pool], {})

    def inputs(self) -> dict[str, Any]:
        """Return the options and the hashes of models, data and code that the results depend on."""
        options: dict[str, Any] = {**asdict(self.settings), "protocol": self.experiment.config.protocol}
        del options["in_pipeline"]
        code = provenance.code_fingerprint("analyses", "soup", "weights", "stats", "report")
        if self.published:
            return {"released results": tables.MODELS, "options": options, "code": code}
        pools, starts = {}, {}
        for name, run in self.runs.items():
            pools[name] = hashes(run.ingredients.find().ingredients)
            starts[name] = hashes(run.ingredients.initial().values())
        sets = {name: self.images.dataset(name).sha256 for name in self.experiment.sets.evaluated()}
        options["train"] = self.train is not None
        if self.experiment.task.view:
            options["view"] = self.experiment.task.view
        found: dict[str, Any] = {"pools": pools, "starts": starts, "sets": sets, "options": options, "code": code}
        report = self.files.results / RESULTS  # the numbers of the analysis robustness, on ImageNet alone
        if self.experiment.config.data.library == "imagenet" and report.exists():
            found["report"] = storage.file_sha256(report)
        return found

    # ---- models ----

    def pool(self, *names: str, averages: bool = False) -> list[Member]:
        """Return the models of these pools, or raise Unavailable; averages: with all EMAs and SWAs.

        Without them, it is the trained weights or, if soups are made of an average (soup.average), that one.
        """
        found = []
        for name in names:
            if name not in self.runs:
                raise Unavailable(f"the analysis needs a pool of models: analyse.pools.{name} is not defined")
            average = self.runs[name].config.soup.average or ""
            found += [m for m in self._members(name) if averages or m.average == average]
        return found

    def ingredients(self, *pools: str) -> list[Ingredient]:
        return models_of(self.pool(*pools))

    def contenders(self) -> tuple[list[Ingredient], list[Ingredient]]:
        """Return the run's individual models, and those of which soups are made (soup.average, soup.initialization)."""
        average = self.experiment.config.soup.average
        individuals = models_of(self.pool(OWN, averages=average is not None))
        return individuals, self.experiment.ingredients.pool(individuals)

    def start(self, pool: str) -> Ingredient:
        """Return a pool's model before fine-tuning (theta_0); raise Unavailable if missing."""
        self.pool(pool)
        initial = self.runs[pool].ingredients.initial().get("initialization")
        if initial is None:
            raise Unavailable("the analysis needs the initial weights (model_0.pt), which were not imported")
        return initial

    def find(self, init: str, **wanted: Any) -> Member:
        """Return a model with heads.init=init and these hyperparameters, the others as in PLAIN."""
        wanted = {**PLAIN, "epochs": self.settings.epochs, **wanted}
        for name, run in self.runs.items():
            same = run.config.heads.init == init and run.config.model == self.experiment.config.model
            same = same and run.config.data == self.experiment.config.data
            for member in self._members(name) if same else ():
                if member.has(wanted):
                    return member
        shown = ", ".join(f"{k}={v}" for k, v in wanted.items() if k not in PLAIN or v != PLAIN[k])
        raise Unavailable(f"the analysis needs a model from the {init} head with {shown}; no pool has one")

    def _members(self, pool: str) -> list[Member]:
        """Return all models of a pool whose fine-tuning has finished; files are read only once."""
        if self.published:
            raise Unavailable("the analysis needs the authors' models: run modelsoups import-released DIR first")
        if pool not in self._members_read:
            run = self.runs[pool]
            models = run.ingredients.find().ingredients
            self._members_read[pool] = [Member(pool, run.config.heads.init, i) for i in models]
        return self._members_read[pool]

    # ---- measuring ----

    def run_tasks(self, function: "Callable[[Bench, Task], Made]", tasks: Sequence[Task], label: str) -> list[Made]:
        """Call function(bench, task) in worker processes; return the results in task order."""
        workers, label = self.experiment.workers, f"analyse: {label}"
        made = dict(run_tasks(function, tasks, workers, label, shared=self))
        return [made[task] for task in tasks]

    def kept_path(self, key: list[Any], *modules: str) -> Path:
        """Return the path of a cached result; its name hashes the key and the evaluating code."""
        names = (*MEASURING, *modules)
        parts = [name.removeprefix("modelsoups.").replace(".", "/") for name in names]
        view = self.experiment.task.view
        seen = [view] if view else []  # another evaluation has other results
        return self.files.point(storage.fingerprint([provenance.code_fingerprint(*parts), key, *seen]))

    def evaluate(self, ingredients: Sequence[Ingredient], choosing: bool = False) -> None:
        """Cache the models' logits on test set and shifts, with `choosing` also on the hold-out."""
        names = self.experiment.sets.evaluated() if choosing else self.tests
        todo: dict[str, tuple[Ingredient, tuple[str, ...]]] = {}
        for ingredient in ingredients:
            if not all(self.images.is_cached(ingredient, name) for name in names):
                todo[ingredient.sha256] = ingredient, tuple(names)
        self.run_tasks(_evaluate, list(todo.values()), "evaluating")

    def individual(self, ingredient: Ingredient, sets: Sequence[str] | None = None) -> Measures:
        """Return one model's loss and correctness by data set (default: test set and shifts)."""
        return {name: measured(self.logits(ingredient, name)) for name in sets or self.tests}

    def ensemble(self, ingredients: Sequence[Ingredient], weights: Sequence[float] | None = None) -> Measures:
        """Return loss and correctness of the models' mean (or weighted) logits, by data set."""
        found = {}
        for name in self.tests:
            each = [self.logits(i, name) for i in ingredients]
            mixed_NC = scores.ensemble([x.logits_NC for x in each], weights)
            found[name] = measured(Logits(name, mixed_NC, each[0].labels_N))
        return found

    def measure(self, points: Sequence[Point], label: str, sets: Sequence[str] | None = None) -> list[Measures]:
        """Return each soup's loss and correctness by data set, from cached files if they exist."""
        names = tuple(sets or self.tests)
        todo: dict[str, tuple[Point, tuple[str, ...]]] = {}
        for point in points:
            if not all(self.point_path(point, name).exists() for name in names):
                todo[str(point.key())] = point, names
        self.run_tasks(_measure, list(todo.values()), label)
        return [{name: self._read(point, name) for name in names} for point in points]

    def point_path(self, point: Point, name: str) -> Path:
        looked_at = len(self.images.positions(name))
        return self.kept_path([point.key(), self.images.dataset(name).sha256, looked_at])

    def _read(self, point: Point, name: str) -> Measured:
        content = storage.read_json(self.point_path(point, name))
        packed = np.frombuffer(bytes.fromhex(content["correct"]), np.uint8)
        correct_N = np.unpackbits(packed, count=len(self.images.positions(name)))
        return Measured(content["loss"], correct_N.astype(bool))

    def accuracies(self, measures: Measures) -> dict[str, float | None]:
        """Return the test accuracy and the mean over the shifts (None if a shift is missing)."""
        shifts = [measures[name].accuracy for name in self.shifts]
        mean = float(np.mean(shifts)) if self.all_shifts else None
        return {"test": measures[self.test].accuracy, "shifts": mean}


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return the content of a JSON file; if it does not exist, write the result of make() first."""
    if not path.exists():
        storage.write_json(path, make())
    return storage.read_json(path)


# ---- functions that run in the workers ----


def _evaluate(bench: Bench, task: tuple[Ingredient, tuple[str, ...]]) -> None:
    ingredient, names = task
    for name in names:
        bench.logits(ingredient, name)


def _measure(bench: Bench, task: tuple[Point, tuple[str, ...]]) -> None:
    point, names = task
    logits_of = logits_on(bench, point)
    for name in names:
        path = bench.point_path(point, name)
        if not path.exists():
            found = measured(logits_of(name))
            correct = np.packbits(found.correct_N).tobytes().hex()
            storage.write_json(path, {"loss": found.loss, "correct": correct})


def logits_on(bench: Bench, point: Point) -> Callable[[str], Logits]:
    """Return a function from the name of a data set to the logits of the soup `point` on it."""
    pairs = zip(point.ingredients, point.coefficients, strict=True)
    ingredients, coefficients = zip(*((i, c) for i, c in pairs if c), strict=True)
    if coefficients == (1,) and point.head in (None, ingredients[0]):
        return lambda name: bench.logits(ingredients[0], name)
    states = list(map(bench.weights, ingredients))
    if point.head:
        head = {key: tensor for key, tensor in bench.weights(point.head).items() if key.startswith(HEAD)}
        states = [state | head for state in states]
    state = state_dicts.mix(states, {EVERYTHING: coefficients})
    return lambda name: bench.images.forward(name, state)
