"""Chooses a soup by every method of Table 3 on the hold-out only, then evaluates them: `modelsoups soup`.

Writes each soup's coefficients to runs/<name>/soups/<row>.json; for the soups in soup.write, also
the averaged weights, as .safetensors. No test set is read before all soups have been chosen on the
hold-out.
"""

import functools
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelsoups.checkpoints.states import state_sha256
from modelsoups.config.schema import SoupConfig
from modelsoups.disk import manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.soups import curve_points
from modelsoups.published import released
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.methods import INDIVIDUAL, method_of
from modelsoups.soup.methods.wise_ft import wise_ft
from modelsoups.workers.processes import Size, run_tasks, workers_kept

FROM_LOGITS = ("best", "second_best", "uniform", "ensemble", "greedy_ensemble")  # methods that evaluate no mixture


@dataclass(frozen=True)
class Order:
    """A soup to choose: its name (row), method, options, and indices of ingredients (None: all).

    on_test: choose it on the test set itself (data.choose_on), not on the hold-out.
    """

    row: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    subset: tuple[int, ...] | None = None
    on_test: bool = False


@workers_kept()  # choosing and measuring use the same processes
def run(experiment: Experiment) -> bool:
    """Choose the soups that are missing, then evaluate all; return whether there was work."""
    files, soups = experiment.files, experiment.soups
    found = experiment.ingredients.find()
    inputs = experiment.soup_inputs(found.ingredients)
    for name, reason in found.missing.items():
        print(f"soup: ingredient {name} is left out: {reason}")
    if manifests.complete(files.soups, inputs):
        print(f"soup: complete, {len(list(files.soups.glob('*.json'))) - 1} soups in {files.soups}")
        return False
    experiment.prepare_inputs([experiment.config.data.holdout, *experiment.sets.tests()])
    chosen_from = {**inputs, "sets": None, "soup": {**inputs["soup"], "also": None, "write": None}}
    own = chosen_from.pop("own code", {})
    # Choices do not depend on the test sets or on soup.also and soup.write.
    key = _key_of(experiment.config.task, storage.fingerprint(chosen_from), own)
    workers = experiment.workers
    rows: list[str] = []
    on_holdout = plan(experiment, len(experiment.ingredients.pool(found.ingredients)))
    for orders, chosen_by in ((on_holdout, key), (on_test(experiment), storage.fingerprint([key, inputs["sets"]]))):
        keys = {order.row: _key_of(order.method, chosen_by, own) for order in orders}
        todo = [order for order in orders if soups.extras(order.row).get("inputs") != keys[order.row]]
        size = Size(
            functools.partial(_evaluations, experiment, len(found.ingredients)), kind=lambda order: order.method
        )
        for order, soup in run_tasks(_choose, todo, workers, "soup: choosing", size, experiment):
            soups.write(order.row, soup, inputs=keys[order.row])
        rows += keys
    rows += _interpolations(experiment, key)
    mixed = {row for row in rows if soups.read(row).space != "logits"}  # ensembles take no time
    size = Size(lambda row: float(row in mixed), kind=lambda row: str(row in mixed))
    for _ in run_tasks(_measure, rows, workers, "soup: measuring", size, experiment):
        pass
    made = [*map(files.soup, rows), *map(files.mixed, experiment.config.soup.write)]
    manifests.finish(files.soups, inputs, made, missing=found.missing)
    print(f"soup: wrote {len(rows)} soups to {files.soups}")
    return True


def _evaluations(experiment: Experiment, count: int, order: Order) -> float:
    """Return about how many models a method evaluates on the hold-out to choose from `count` models.

    This orders the tasks and says how much of the time is left. Methods that learn go over all models
    in each epoch, forward and backward; those that read only cached logits count as one.
    """
    if order.method in FROM_LOGITS:
        return 1.0
    models = count if order.subset is None else len(order.subset)
    known = inspect.signature(method_of(order.method)).parameters
    if "epochs" in known:
        return 3.0 * models * order.options.get("epochs", known["epochs"].default)
    return 3.0 * models if order.method == "greedy_replacement" else float(models)


def _key_of(name: str, key: str, own: Mapping[str, str]) -> str:
    """Return `key`, the hash of the inputs; if `name` is the user's own code, also of its file."""
    return storage.fingerprint([key, name, own[name]]) if name in own else key


def plan(experiment: Experiment, count: int) -> list[Order]:
    """Return an Order (what to compute) for each soup of `count` ingredients, slowest first.

    WiSE-FT is not among them: it mixes the initialization with two of these soups, best and greedy.
    """
    given, as_released = experiment.config.soup, experiment.config.protocol == "released"
    options_of = functools.partial(options, given, as_released)
    learned = ["learned", "learned_layers"]
    if as_released:
        learned.append("learned_tensors")  # the authors' learned soup
    strict = options_of("greedy")
    orders = [Order(method, method, options_of(method)) for method in (*learned, "greedy_replacement")]
    for j in range(given.orders):
        orders.append(Order(f"greedy_random_{j}", "greedy", {"order_seed": j, **strict}))
    for method in ("greedy", "greedy_ensemble", "uniform", "best", "second_best", "ensemble"):
        orders.append(Order(method, method, options_of(method)))
    made = {order.method for order in orders}
    orders += _also([method for method in given.also if method not in made], orders, options_of)
    shuffled = random.Random(given.seed).sample(range(count), count)
    for k in curve_points(count):
        first = tuple(sorted(shuffled[:k]))
        for method in ("best", "uniform", "ensemble"):
            orders.append(Order(f"curve_{k:03d}_{method}", method, {}, first))
        orders.append(Order(f"curve_{k:03d}_greedy", "greedy", strict, first))
    return orders


def options(given: SoupConfig, as_released: bool, method: str) -> dict[str, Any]:
    """Return the options of a soup method that the configuration sets.

    These are `strict` (as_released: protocol=released), `seed` (soup.seed), and `epochs`, `lr` and
    `batch_size` (soup.learned_*, if not null), each only if the method has a parameter of this name.
    With protocol=released, the defaults of learned_tensors are those of the authors' code.
    """
    known = inspect.signature(method_of(method)).parameters
    learned = {"epochs": given.learned_epochs, "lr": given.learned_lr, "batch_size": given.learned_batch_size}
    found: dict[str, Any] = {"strict": as_released, "seed": given.seed}
    if as_released and method == "learned_tensors":
        found |= released.LEARNED
    found |= {name: value for name, value in learned.items() if value is not None}
    return {name: value for name, value in found.items() if name in known}


def on_test(experiment: Experiment) -> list[Order]:
    """Return the soups that a text run also chooses on the test set itself, for comparison.

    The paper evaluates on GLUE's validation sets and does not say on which examples its greedy
    soups are chosen (section 3.3.3). These rows show the other reading beside those of the
    hold-out.
    """
    config = experiment.config
    if config.data.library != "text" or config.data.choose_on != "heldout":
        return []
    strict = {"strict": config.protocol == "released"}
    greedy = Order("greedy_validation", "greedy", strict, on_test=True)
    return [greedy, Order("best_validation", "best", on_test=True)]


def _also(names: Sequence[str], others: Sequence[Order], options_of: Callable[[str], dict[str, Any]]) -> list[Order]:
    """Return Orders for soup.also's methods; ValueError if one is unknown or in `others`."""
    rows = {order.row for order in others}
    orders = []
    for name in names:
        if name == "wise_ft":
            raise ValueError("soup.also: wise_ft is always computed, with the coefficients of evaluate.wise_ft")
        try:
            method_of(name)
        except ValueError as error:
            raise ValueError(f"soup.also: {error}") from error
        row = name.rpartition(":")[2]
        if row in rows:
            way_out = "rename the function"
            raise ValueError(f"soup.also: {name}: a soup named {row} already exists; {way_out}")
        rows.add(row)
        orders.append(Order(row, name, options_of(name)))
    return orders


def _interpolations(experiment: Experiment, key: str) -> list[str]:
    """Interpolate from theta_0 to the best model and greedy soup (WiSE-FT, appendix D).

    Write these soups and return their names; none without theta_0 (if model_0 was not imported).
    """
    initial = experiment.ingredients.initial().get("initialization")
    rows: list[str] = []
    if initial is None:
        return rows
    for base in ("best", "greedy"):
        soup = experiment.soups.read(base)
        for alpha in experiment.config.evaluate.wise_ft:
            rows.append(f"wise_ft_{base}_{alpha:g}")
            experiment.soups.write(rows[-1], wise_ft(initial, soup, alpha=alpha), inputs=key)
    return rows


def _choose(experiment: Experiment, order: Order) -> Soup:
    individuals = experiment.ingredients.find().ingredients
    mixed = experiment.ingredients.pool(individuals)
    everything = individuals if order.method in INDIVIDUAL else mixed
    chosen = everything if order.subset is None else [mixed[i] for i in order.subset]
    pool = experiment.soups.pool(chosen, experiment.config.data.test if order.on_test else None)
    soup = method_of(order.method)(pool, **order.options)
    if not isinstance(soup, Soup):
        raise ValueError(f"soup.also: {order.method} returned a {type(soup).__name__}; expected a soup.Soup")
    return soup


def _measure(experiment: Experiment, row: str) -> None:
    """Average a soup's weights, cache its logits on hold-out and test sets, and store its hash."""
    soups = experiment.soups
    soup = soups.read(row)
    if soup.space == "logits":
        return  # an ensemble is computed from its ingredients' cached logits
    state = soups.mixed(soup)
    sha256 = state_sha256(state)
    for name in [experiment.config.data.holdout, *experiment.sets.tests()]:
        experiment.logits.of(name, sha256, state)
    if row in experiment.config.soup.write:
        storage.save_weights(experiment.files.mixed(row), state)
    soups.write(row, soup, **{**soups.extras(row), "sha256": sha256})
