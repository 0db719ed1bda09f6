"""Runs `modelsoups mix`: chooses a soup of checkpoints and writes it; `mix_arguments` has the methods."""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modelsoups import soup
from modelsoups.checkpoints.dtypes import alike
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.cli.mix_arguments import HOLDOUT, INIT, METHODS
from modelsoups.config import registry
from modelsoups.disk.terminal import printable
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import Score
from modelsoups.soup.library import open_all, open_initialization
from modelsoups.soup.refusals import refuse
from modelsoups.soup.trajectories import Schedule
from modelsoups.weights.digests import later
from modelsoups.weights.state_dicts import EVERYTHING

WITH_DECISIONS = ("greedy", "pruned", "radin", "soce")
WITH_COEFFICIENTS = ("learned", "model_stock", "wise_ft", "lines")
OF_ADAPTERS = ("uniform", "weights")  # the methods that need no base of adapters


def main(args: argparse.Namespace) -> None:
    """Choose a soup with args.method, print decisions, and write the averaged weights."""
    models, init, given = opened(args)
    holdout = None if args.holdout is None else holdout_of(args.holdout)
    chosen, statistics = choose(args, models, init, holdout)
    by_name = {checkpoint.name: checkpoint for checkpoint in (*given, *filter(None, [init]))}
    sources = [by_name[name] for name in chosen.ingredients]
    accuracy = print_choice(chosen)
    if holdout is not None and args.method in ("greedy", "pruned"):
        total = holdout.seen + holdout.skipped
        saved = f"saved {holdout.skipped} of {total} ({100 * holdout.skipped / total:.0f}%)"
        print(f"mix: evaluated {holdout.seen} images; {saved} by rejecting candidates early")
    if args.plot is not None:
        soup.plot_trace(chosen, args.plot)
    if args.batchnorm is not None and holdout is not None:
        state = {**soup.mixed(chosen, sources, args.force, base=args.base), **statistics}
        fresh = soup.reestimate(state, holdout, registry.result(args.batchnorm))
        worse = "; that is worse, so leave --batchnorm out" if fresh.after < fresh.before else ""
        correct = f"{fresh.before} of {fresh.n} hold-out images correct before this, {fresh.after} after"
        print(f"mix: BatchNorm statistics re-estimated: {correct}{worse}")
        statistics, accuracy = {**statistics, **fresh.statistics}, fresh.after / fresh.n
    more: dict[str, Any] = {"base": args.base, "rank": args.rank, "dtype": args.dtype}
    for note in soup.mix(chosen, args.out, sources, accuracy, statistics, args.force, **more):
        print(f"mix: {printable(note)}")
    count = len(chosen.ingredients)
    many = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    print(f"mix: wrote the {chosen.method} soup of {many} to {printable(args.out)}")


def opened(args: argparse.Namespace) -> tuple[list[Checkpoint], Checkpoint | None, list[Checkpoint]]:
    """Open the checkpoints; return the models to choose from, the initialization and what to mix.

    The last are the models themselves, or with args.base the adapters that are merged in them.
    """
    adapters_too = args.base is not None or args.method in OF_ADAPTERS
    models = given = open_all(args.checkpoints, args.key, adapters_too=adapters_too)
    if args.base is not None:
        models = soup.on_base(given, args.base, args.force)
    else:  # before any evaluation; of those chosen, mix does
        refuse(models, args.force, heads=False)
    from_base = args.base if METHODS[args.method].needs == INIT or args.method == "wise_ft" else None
    start = args.init or from_base
    init = None if start is None else open_initialization(start, models, args.key)
    if args.dtype is not None:
        same = alike([*models, *filter(None, [init])])
        models, init = same[: len(models)], None if init is None else same[-1]
    return models, init, models if args.base is None else given


def print_choice(chosen: Soup) -> float | None:
    """Print what was chosen; return the soup's hold-out score, None if there is none or several metrics."""
    if chosen.method == "trajectory":
        print_steps(chosen)
    if chosen.method.startswith(WITH_COEFFICIENTS):
        print_coefficients(chosen)
    return print_decisions(chosen) if chosen.method in WITH_DECISIONS else None


def print_decisions(chosen: Soup) -> float | None:
    """Print which candidates were kept; return the final score, None if it is several metrics."""
    for step in chosen.trace:
        if step["correct"] is not None:
            shown = in_words(step["correct"], step["n"])
        elif step.get("seen", 0) < step["n"]:
            shown = "rejected early"
        else:
            shown = f"below {in_words(step['best'], step['n'])}"
        print(f"mix: {printable(step['ingredient'] or 'all')}: {shown}, {'kept' if step['kept'] else 'refused'}")
    first, last = chosen.trace[0], chosen.trace[-1]
    if chosen.method == "greedy":
        alone = "; no other checkpoint helped" if len(chosen.ingredients) == 1 else ""
        print(f"mix: from {in_words(first['best'], first['n'])} to {in_words(last['best'], last['n'])}{alone}")
    score = last["best"] / last["n"] if last["n"] else last["best"]
    return score if isinstance(score, float) else None


def in_words(score: Score, n: int | None) -> str:
    """Return a score as users read it: "123 of 400 (30.8%)", or without n four digits of each metric."""
    if isinstance(score, (int, float)):
        return f"{score:g} of {n} ({100 * score / n:.1f}%)" if n else f"{score:.4g}"
    return ", ".join(f"{metric:.4g}" for metric in score)


def print_steps(chosen: Soup) -> None:
    """Print step and coefficient of each checkpoint of a trajectory soup, in the order of steps."""
    for step, coefficient in zip(chosen.trace[1:], chosen.coefficients[EVERYTHING], strict=True):
        print(f"mix: step {step['step']:g}: {printable(step['ingredient'])} times {coefficient:.6g}")


def print_coefficients(chosen: Soup) -> None:
    """Print each checkpoint's coefficient, or its range if the tensors have coefficients of their own."""
    rows = [row for group, row in chosen.coefficients.items() if group != EVERYTHING]  # which is for all others
    for name, values in zip(chosen.ingredients, zip(*(rows or chosen.coefficients.values()), strict=True), strict=True):
        low, high = min(values), max(values)
        print(f"mix: {printable(name)} times {low:.4g}" + (f" to {high:.4g}" if high > low else ""))


def choose(
    args: argparse.Namespace, models: Sequence[Checkpoint], init: Checkpoint | None, holdout: soup.Holdout | None
) -> tuple[Soup, Mapping[str, Tensor]]:
    """Choose a soup with args.method; return it, and tensors to write in place of averages."""
    if args.method == "weights":
        return _weights(models, args.coefficients), {}
    if args.method == "trajectory":
        along = {name: getattr(args, name) for name in ("last", "decay", "steps")}
        return soup.trajectory(models, schedule=_schedule(args.schedule or "uniform"), **along), {}
    if args.method == "fisher":
        assert holdout is not None  # as `parse` sees to
        return soup.fisher(models, holdout, weights=args.coefficients, **args.given)
    if args.method == "wise_ft":
        start, end = models if init is None else (init, *models)
        return soup.wise_ft(start, end, **args.given), {}
    method = METHODS[args.method]
    given: list[Any] = [models]
    if method.needs == INIT:
        given = [init, models]
    elif method.needs:
        evaluator = holdout if method.needs == HOLDOUT or holdout is not None else registry.function(args.evaluate)
        given = [models, evaluator]
    return getattr(soup, args.method)(*given, **args.given), {}


def _schedule(text: str) -> Schedule:
    if ":" in text:
        return registry.function(text)
    numbers = text.split(",")
    return list(map(float, numbers)) if all(re.fullmatch(r"\d*\.?\d+", part) for part in numbers) else text


def holdout_of(name: str) -> soup.Holdout:
    """Call "module:function" and return its result; ValueError if that is not a soup.Holdout."""
    holdout = registry.result(name)
    if not isinstance(holdout, soup.Holdout):
        raise ValueError(f"--holdout {name}: returned a {type(holdout).__name__}, expected a soup.Holdout")
    return holdout


def _weights(checkpoints: Sequence[Checkpoint], coefficients: Sequence[float]) -> Soup:
    hashes = tuple(map(later, checkpoints))
    return Soup("weights", tuple(c.name for c in checkpoints), hashes, {EVERYTHING: list(coefficients)})
