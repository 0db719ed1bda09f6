"""Averages checkpoints into a soup: `modelsoups mix uniform a.safetensors b.pt -o soup.safetensors`.

The methods greedy, pruned, learned, mehl, radin and soce need a hold-out: `--holdout module:function` names
a function that returns a `soup.Holdout` (a model, images and labels). Instead, greedy and pruned accept
`--evaluate module:function`, a function from a state dict to a score (higher is better).
"""

import argparse
import functools
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from modelsoups import soup
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.config import registry
from modelsoups.disk.terminal import printable
from modelsoups.soup import methods as soup_methods
from modelsoups.soup.choosing import LEARNED
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import Score
from modelsoups.soup.library import open_all, open_initialization
from modelsoups.soup.options import Option, options_of
from modelsoups.soup.refusals import refuse
from modelsoups.soup.trajectories import SCHEDULES, Schedule
from modelsoups.weights.digests import later
from modelsoups.weights.state_dicts import EVERYTHING

METHODS = {
    "uniform": "the mean of all checkpoints",
    "greedy": "add checkpoints one by one, best first, unless the hold-out score falls",
    "pruned": "start with the mean and remove checkpoints unless the hold-out score falls",
    "model_stock": "interpolate between --init and the mean, depending on the angles of the updates",
    "learned": "optimize coefficients by gradient descent on the hold-out",
    "mehl": "learn coefficients of each tensor that sum to one and may be negative (MEHL-Soup+)",
    "radin": "mix the subsets whose ensembles are best on the hold-out, and keep the best soup (RADIN)",
    "soce": "weight the models that are best on a category of classes (SoCE)",
    "trajectory": "average checkpoints of one training run, weighted by --schedule",
    "weights": "the sum of the checkpoints times their --coefficients",
}
ON_HOLDOUT = ("learned", "mehl", "radin", "soce")  # these need a soup.Holdout, and have the options of their functions
WITH_DECISIONS = ("greedy", "pruned", "radin", "soce")
OF_ADAPTERS = ("uniform", "weights")  # the methods that need no base of adapters
KEY = "the entry with the weights, such as state_dict_ema or app.model, in each file (in --init only if there)"
HOLDOUT = f"for greedy, pruned, {', '.join(ON_HOLDOUT)}: function that returns a soup.Holdout"
USAGE = "modelsoups mix METHOD CHECKPOINT... -o OUT [options]; modelsoups mix -h explains them"
CHECKPOINTS = ".safetensors, .pt, .pth, .bin, .ckpt or .index.json files, or folders of models"


def main(argv: Sequence[str]) -> None:
    """Choose a soup with the method in `argv`, print decisions, and write the averaged weights."""
    args = parser().parse_args(list(map(_plain, argv)))
    checkpoints = open_all(args.checkpoints, args.key, adapters_too=args.base is not None or args.method in OF_ADAPTERS)
    if args.base is not None:
        models = soup.on_base(checkpoints, args.base, args.force)
    else:  # before any evaluation; of those chosen, mix does
        models = checkpoints
        refuse(models, args.force, heads=False)
    start = args.init or (args.base if args.method == "model_stock" else None)
    init = None if start is None else open_initialization(start, models, args.key)
    holdout = None if args.holdout is None else holdout_of(args.holdout)
    chosen = choose(args, models, init, holdout)
    by_name = {checkpoint.name: checkpoint for checkpoint in (*checkpoints, *filter(None, [init]))}
    sources = [by_name[name] for name in chosen.ingredients]
    if args.method == "trajectory":
        print_steps(chosen)
    if args.method in ("learned", "model_stock"):
        print_coefficients(chosen)
    accuracy = print_decisions(chosen) if args.method in WITH_DECISIONS else None
    if holdout is not None and args.method in ("greedy", "pruned"):
        total = holdout.seen + holdout.skipped
        saved = f"saved {holdout.skipped} of {total} ({100 * holdout.skipped / total:.0f}%)"
        print(f"mix: evaluated {holdout.seen} images; {saved} by rejecting candidates early")
    if args.plot is not None:
        soup.plot_trace(chosen, args.plot)
    statistics = None
    if args.batchnorm is not None:
        if holdout is None:
            raise ValueError("--batchnorm needs --holdout MODULE:FUNCTION; its soup.Holdout has the model to run")
        state = soup.mixed(chosen, sources, args.force, base=args.base)
        fresh = soup.reestimate(state, holdout, registry.result(args.batchnorm))
        worse = "; that is worse, so leave --batchnorm out" if fresh.after < fresh.before else ""
        correct = f"{fresh.before} of {fresh.n} hold-out images correct before this, {fresh.after} after"
        print(f"mix: BatchNorm statistics re-estimated: {correct}{worse}")
        statistics, accuracy = fresh.statistics, fresh.after / fresh.n
    more: dict[str, Any] = {"base": args.base, "rank": args.rank}
    for note in soup.mix(chosen, args.out, sources, accuracy, statistics, args.force, **more):
        print(f"mix: {printable(note)}")
    count = len(chosen.ingredients)
    many = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    print(f"mix: wrote the {chosen.method} soup of {many} to {printable(args.out)}")


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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="modelsoups mix", description=__doc__, usage=USAGE)
    add, named = made.add_argument, "MODULE:FUNCTION"
    add("method", choices=METHODS, help="; ".join(f"{k}: {v}" for k, v in METHODS.items()))
    add("checkpoints", nargs="+", help=CHECKPOINTS)
    add("-o", "--out", required=True, help="the .safetensors file to write; from folders of models, a new folder")
    add("--coefficients", type=float, nargs="+", help="for method weights: one coefficient for each checkpoint")
    add("--evaluate", metavar=named, help="for greedy and pruned: function from a state dict to a score")
    add(
        "--holdout",
        metavar=named,
        help=f"for greedy, pruned, {', '.join(ON_HOLDOUT)}: function that returns a soup.Holdout",
    )
    add("--batchnorm", metavar=named, help="re-estimate BatchNorm: function that returns a loader of training images")
    add("--init", help="for model_stock: model that all checkpoints were fine-tuned from (default: --base)")
    add("--base", help="for LoRA adapters: their base model; the full model is written instead of an adapter")
    add("--rank", type=int, help="for LoRA adapters: truncate the written adapter to this rank; a note gives the error")
    add("--key", metavar="ENTRY", help=KEY)
    for option in options_of(soup.greedy):
        flag, sentence = _flag(option.name), f"for greedy: {option.sentence}"
        if option.default is False:
            add(flag, action="store_true", help=sentence)
        else:
            add(flag, type=int, help=sentence)
    add("--plot", metavar="FILE", help="plot the decisions, or for method learned the loss, to a .png, .pdf or .svg")
    text = (
        "average even adapter files, quantized weights or models with different configurations, with a note in the soup"
    )
    add("--force", action="store_true", help=text)
    _add_trajectory(made)
    _add_on_holdout(made)
    return made


def _add_on_holdout(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group(f"options of the methods {', '.join(ON_HOLDOUT)}").add_argument
    add("--by", choices=LEARNED, default="all", help="for learned: which tensors share their coefficients")
    for name, by_method in _options_on_holdout().items():
        told = [f"for {method}: {o.sentence} (default: {o.default})" for method, o in by_method.items()]
        kind = float if any(isinstance(o.default, float) for o in by_method.values()) else int
        add(_flag(name), type=kind, help="; ".join(told))


def _options_on_holdout() -> dict[str, dict[str, Option]]:
    """Return the options of the methods ON_HOLDOUT: name -> method -> option."""
    found: dict[str, dict[str, Option]] = {}
    for method in ON_HOLDOUT:
        for option in options_of(soup_methods.METHODS[method]):
            found.setdefault(option.name, {})[method] = option
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_trajectory(made: argparse.ArgumentParser) -> None:
    named = ", ".join(f"{k}: {v}" for k, v in SCHEDULES.items())
    add = made.add_argument_group("options of the method trajectory").add_argument
    text = f"{named}; MODULE:FUNCTION: a decay curve; w_1,...,w_k: weights of the updates (default: uniform)"
    add("--schedule", metavar="NAME", help=text)
    add("--last", type=int, help="average only this many checkpoints, the last of the run")
    add("--decay", type=float, help="for --schedule ema: the share that the average keeps at each checkpoint")
    add("--steps", type=float, nargs="+", help="the checkpoints' steps, if their names do not contain them")


def choose(
    args: argparse.Namespace, checkpoints: Sequence[Checkpoint], init: Checkpoint | None, holdout: soup.Holdout | None
) -> Soup:
    """Choose a soup with args.method; ValueError if an option is missing or does not apply."""
    options = {option.name: getattr(args, option.name) for option in options_of(soup.greedy)}
    if args.method != "greedy" and any(v is not None and v is not False for v in options.values()):
        flags = ", ".join(map(_flag, options))
        raise ValueError(f"{flags} are options of the method greedy; {args.method} has no such options")
    along = {name: getattr(args, name) for name in ("schedule", "last", "decay", "steps")}
    if args.method == "trajectory":
        return soup.trajectory(checkpoints, **{**along, "schedule": _schedule(args.schedule or "uniform")})
    if any(value is not None for value in along.values()):
        raise ValueError("--schedule, --last, --decay, --steps are options of the method trajectory")
    given = _given_on_holdout(args)
    if args.method == "uniform":
        return soup.uniform(checkpoints)
    if args.method == "weights":
        return _weights(checkpoints, args.coefficients)
    if args.method == "model_stock":
        if init is None:
            raise ValueError("model_stock needs --init, the model that all were fine-tuned from")
        return soup.model_stock(init, checkpoints)
    if args.method in ON_HOLDOUT:
        if holdout is None:
            raise ValueError(f"{args.method} needs --holdout; see `modelsoups mix -h`")
        by = {"by": args.by} if args.method == "learned" else {}
        return getattr(soup, args.method)(checkpoints, holdout, **by, **given)
    if holdout is None and args.evaluate is None:
        raise ValueError(f"{args.method} needs --holdout or --evaluate; see `modelsoups mix -h`")
    grow: Callable[..., Soup] = soup.pruned if args.method == "pruned" else functools.partial(soup.greedy, **options)
    return grow(checkpoints, registry.function(args.evaluate) if holdout is None else holdout)


def _given_on_holdout(args: argparse.Namespace) -> dict[str, Any]:
    """Return the given options of methods ON_HOLDOUT; ValueError for one that args.method does not have."""
    given = {}
    for name, by_method in _options_on_holdout().items():
        value = getattr(args, name)
        if value is not None and args.method not in by_method:
            raise ValueError(f"{_flag(name)} is an option of {', '.join(by_method)}; {args.method} has no such option")
        if value is not None:
            given[name] = value
    return given


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


def _plain(argument: str) -> str:
    """Return "-0.001" for "-1e-3", which argparse takes for an option; else the same argument."""
    return format(Decimal(argument), "f") if re.fullmatch(r"-[\d.]+[eE][-+]?\d{1,3}", argument) else argument


def _weights(checkpoints: Sequence[Checkpoint], coefficients: Sequence[float] | None) -> Soup:
    if coefficients is None or len(coefficients) != len(checkpoints):
        raise ValueError(f"--coefficients: expected {len(checkpoints)} numbers, one per checkpoint")
    hashes = tuple(map(later, checkpoints))
    return Soup("weights", tuple(c.name for c in checkpoints), hashes, {EVERYTHING: list(coefficients)})
