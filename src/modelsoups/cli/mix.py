"""Soups of any checkpoints from the command line: `modelsoups mix uniform a.safetensors b.pt -o soup.safetensors`.

greedy and learned take a function of yours: `--evaluate module:function` gives a score for a state dict, larger being
better; `--holdout module:function` returns a `soup.Holdout`, for greedy with early rejection and for learned.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from modelsoups import soup
from modelsoups.soup.choosing import LEARNED
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.library import open_all
from modelsoups.weights.digests import later
from modelsoups.weights.state_dicts import EVERYTHING

METHODS = {
    "uniform": "the mean of all",
    "greedy": "each joins if the hold-out score does not fall",
    "pruned": "each leaves if the hold-out score does not fall",
    "model_stock": "as far from --init as angles say",
    "learned": "coefficients by gradient descent on the hold-out",
    "weights": "sum of --coefficients times checkpoints",
}


def main(argv: Sequence[str]) -> None:
    """Choose, mix and say what happened; ValueError for everything that can be put right."""
    args = parser().parse_args(argv)
    holdout = None if args.holdout is None else holdout_of(args.holdout)
    chosen = choose(args, holdout)
    accuracy = None
    for step in chosen.trace if args.method in ("greedy", "pruned") else ():
        shown = "rejected early" if step["correct"] is None else step["correct"]
        print(f"mix: {step['ingredient'] or 'all'}: {shown}, {'kept' if step['kept'] else 'refused'}")
        accuracy = step["best"] / step["n"] if step["n"] else step["best"]
    if holdout is not None and args.method in ("greedy", "pruned"):
        every = holdout.seen + holdout.skipped
        share = 100 * holdout.skipped / every
        print(
            f"mix: {holdout.seen} forward passes, {holdout.skipped} of {every} saved by early rejection ({share:.0f}%)"
        )
    if args.plot is not None:
        soup.plot_trace(chosen, args.plot)
    statistics = None
    if args.batchnorm is not None:
        if holdout is None:
            raise ValueError("--batchnorm needs --holdout, whose model is run")
        fresh = soup.reestimate(soup.mixed(chosen), holdout, imported(args.batchnorm)())
        print(f"mix: BatchNorm re-estimated: {fresh.before} of {fresh.n} right before, {fresh.after} after")
        statistics, accuracy = fresh.statistics, fresh.after / fresh.n
    shown_accuracy = accuracy if isinstance(accuracy, float) else None
    for note in soup.mix(chosen, args.out, holdout_accuracy=shown_accuracy, statistics=statistics):
        print(f"mix: {note}")
    print(f"mix: {chosen.method} of {len(chosen.ingredients)} checkpoints -> {args.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="modelsoups mix", description=__doc__)
    made.add_argument("method", choices=METHODS, help="; ".join(f"{k}: {v}" for k, v in METHODS.items()))
    made.add_argument("checkpoints", nargs="+", help=".safetensors, .pt, .pth, .bin, .ckpt, an .index.json or a folder")
    made.add_argument("-o", "--out", required=True, help=".safetensors file, or a new folder for Hugging Face folders")
    made.add_argument("--coefficients", type=float, nargs="+", help="one a checkpoint, for the method weights")
    made.add_argument("--evaluate", metavar="MODULE:FUNCTION", help="state dict -> score, for greedy and pruned")
    made.add_argument("--holdout", metavar="MODULE:FUNCTION", help="() -> soup.Holdout, for greedy, pruned, learned")
    made.add_argument("--batchnorm", metavar="MODULE:FUNCTION", help="() -> loader of training images, with --holdout")
    made.add_argument("--init", help="the model that all were fine-tuned from, for model_stock")
    made.add_argument("--order-seed", type=int, help="greedy: a random order instead of best first")
    made.add_argument("--replacement", action="store_true", help="greedy: rounds over all until one helps nobody")
    made.add_argument("--patience", type=int, help="greedy: stop after so many refusals in a row")
    made.add_argument("--strict", action="store_true", help="greedy: equal is refused, as in the authors' code")
    made.add_argument("--plot", metavar="FILE", help="a .png, .pdf or .svg of the decisions, or of the learned loss")
    made.add_argument("--by", choices=LEARNED, default="all", help="what has coefficients of its own, for learned")
    return made


def choose(args: argparse.Namespace, holdout: soup.Holdout | None) -> Soup:
    """The soup that the arguments ask for."""
    options = {"order_seed": args.order_seed, "patience": args.patience}
    options |= {"replacement": args.replacement, "strict": args.strict}
    if args.method != "greedy" and any(v is not None and v is not False for v in options.values()):
        raise ValueError("--order-seed, --replacement, --patience and --strict are options of greedy alone")
    if args.method == "uniform":
        return soup.uniform(args.checkpoints)
    if args.method == "weights":
        return _weights(args.checkpoints, args.coefficients)
    if args.method == "model_stock":
        if args.init is None:
            raise ValueError("model_stock needs --init, the model that all were fine-tuned from")
        return soup.model_stock(args.init, args.checkpoints)
    grow: Callable[..., Soup] = soup.pruned if args.method == "pruned" else functools.partial(soup.greedy, **options)
    if holdout is not None:
        if args.method == "learned":
            return soup.learned(args.checkpoints, holdout, by=args.by)
        return grow(args.checkpoints, holdout)
    if args.method != "learned" and args.evaluate is not None:
        return grow(args.checkpoints, imported(args.evaluate))
    raise ValueError(f"{args.method} needs --holdout{' or --evaluate' if args.method != 'learned' else ''}; see -h")


def holdout_of(name: str) -> soup.Holdout:
    """What the function that "module:function" names returns."""
    holdout = imported(name)()
    if not isinstance(holdout, soup.Holdout):
        raise ValueError(f"--holdout {name}: returned a {type(holdout).__name__}, expected a soup.Holdout")
    return holdout


def imported(name: str) -> Callable[..., Any]:
    """The function that "module:function" names, also from the current folder."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name}: expected module:function")
    sys.path.insert(0, "")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    finally:
        sys.path.remove("")
    return function


def _weights(paths: Sequence[str], coefficients: Sequence[float] | None) -> Soup:
    if coefficients is None or len(coefficients) != len(paths):
        raise ValueError(f"--coefficients: expected {len(paths)} numbers, one a checkpoint")
    checkpoints = open_all(paths)
    found = tuple(map(later, checkpoints))
    return Soup("weights", tuple(c.name for c in checkpoints), found, {EVERYTHING: list(coefficients)})
