"""Averages checkpoints to a soup: `modelsoups mix uniform a.safetensors b.pt -o soup.safetensors`.

The methods greedy, pruned and learned need a hold-out: `--holdout module:function` names a function
that returns a `soup.Holdout` (a model, images and labels). Instead, greedy and pruned accept
`--evaluate module:function`, a function from a state dict to a score (larger is better).
"""

import argparse
import functools
from collections.abc import Callable, Sequence

from modelsoups import soup
from modelsoups.config import registry
from modelsoups.soup.choosing import LEARNED
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.library import open_all
from modelsoups.soup.options import options_of
from modelsoups.weights.digests import later
from modelsoups.weights.state_dicts import EVERYTHING

METHODS = {
    "uniform": "the mean of all checkpoints",
    "greedy": "add checkpoints one by one, best first, unless the hold-out score falls",
    "pruned": "start with the mean and remove checkpoints unless the hold-out score falls",
    "model_stock": "interpolate between --init and the mean, depending on the angles of the updates",
    "learned": "optimize coefficients by gradient descent on the hold-out",
    "weights": "the sum of the checkpoints times their --coefficients",
}
CHECKPOINTS = "files .safetensors, .pt, .pth, .bin, .ckpt or .index.json, or Hugging Face folders"


def main(argv: Sequence[str]) -> None:
    """Choose a soup with the method in `argv`, print decisions, and write the averaged weights."""
    args = parser().parse_args(argv)
    holdout = None if args.holdout is None else holdout_of(args.holdout)
    chosen = choose(args, holdout)
    accuracy = print_decisions(chosen) if args.method in ("greedy", "pruned") else None
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
        fresh = soup.reestimate(soup.mixed(chosen), holdout, registry.function(args.batchnorm)())
        correct = f"{fresh.before} of {fresh.n} hold-out images correct before this, {fresh.after} after"
        print(f"mix: BatchNorm statistics re-estimated: {correct}")
        statistics, accuracy = fresh.statistics, fresh.after / fresh.n
    for note in soup.mix(chosen, args.out, holdout_accuracy=accuracy, statistics=statistics):
        print(f"mix: {note}")
    print(f"mix: wrote the {chosen.method} soup of {len(chosen.ingredients)} checkpoints to {args.out}")


def print_decisions(chosen: Soup) -> float | None:
    """Print which candidates were kept; return the final score, None if it is several metrics."""
    for step in chosen.trace:
        shown = "rejected early" if step["correct"] is None else step["correct"]
        print(f"mix: {step['ingredient'] or 'all'}: {shown}, {'kept' if step['kept'] else 'refused'}")
    last = chosen.trace[-1]
    score = last["best"] / last["n"] if last["n"] else last["best"]
    return score if isinstance(score, float) else None


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="modelsoups mix", description=__doc__)
    add, named = made.add_argument, "MODULE:FUNCTION"
    add("method", choices=METHODS, help="; ".join(f"{k}: {v}" for k, v in METHODS.items()))
    add("checkpoints", nargs="+", help=CHECKPOINTS)
    add("-o", "--out", required=True, help="the .safetensors file to write; from Hugging Face folders, a new folder")
    add("--coefficients", type=float, nargs="+", help="for method weights: one coefficient for each checkpoint")
    add("--evaluate", metavar=named, help="for greedy and pruned: function from a state dict to a score")
    add("--holdout", metavar=named, help="for greedy, pruned and learned: function that returns a soup.Holdout")
    add("--batchnorm", metavar=named, help="re-estimate BatchNorm: function that returns a loader of training images")
    add("--init", help="for model_stock: checkpoint of the model that all others were fine-tuned from")
    for option in options_of(soup.greedy):
        flag, sentence = "--" + option.name.replace("_", "-"), f"for greedy: {option.sentence}"
        if option.default is False:
            add(flag, action="store_true", help=sentence)
        else:
            add(flag, type=int, help=sentence)
    add("--plot", metavar="FILE", help="plot the decisions, or for method learned the loss, to a .png, .pdf or .svg")
    add("--by", choices=LEARNED, default="all", help="for learned: which tensors share their coefficients")
    return made


def choose(args: argparse.Namespace, holdout: soup.Holdout | None) -> Soup:
    """Choose a soup with args.method; ValueError if an option is missing or does not apply."""
    options = {option.name: getattr(args, option.name) for option in options_of(soup.greedy)}
    if args.method != "greedy" and any(v is not None and v is not False for v in options.values()):
        flags = ", ".join("--" + name.replace("_", "-") for name in options)
        raise ValueError(f"{flags} are options of the method greedy; {args.method} has no such options")
    if args.method == "uniform":
        return soup.uniform(args.checkpoints)
    if args.method == "weights":
        return _weights(args.checkpoints, args.coefficients)
    if args.method == "model_stock":
        if args.init is None:
            raise ValueError("model_stock needs --init, the model that all were fine-tuned from")
        return soup.model_stock(args.init, args.checkpoints)
    if args.method == "learned":
        if holdout is None:
            raise ValueError("learned needs --holdout; see `modelsoups mix -h`")
        return soup.learned(args.checkpoints, holdout, by=args.by)
    if holdout is None and args.evaluate is None:
        raise ValueError(f"{args.method} needs --holdout or --evaluate; see `modelsoups mix -h`")
    grow: Callable[..., Soup] = soup.pruned if args.method == "pruned" else functools.partial(soup.greedy, **options)
    return grow(args.checkpoints, registry.function(args.evaluate) if holdout is None else holdout)


def holdout_of(name: str) -> soup.Holdout:
    """Call "module:function" and return its result; ValueError if that is not a soup.Holdout."""
    holdout = registry.function(name)()
    if not isinstance(holdout, soup.Holdout):
        raise ValueError(f"--holdout {name}: returned a {type(holdout).__name__}, expected a soup.Holdout")
    return holdout


def _weights(paths: Sequence[str], coefficients: Sequence[float] | None) -> Soup:
    if coefficients is None or len(coefficients) != len(paths):
        raise ValueError(f"--coefficients: expected {len(paths)} numbers, one per checkpoint")
    checkpoints = open_all(paths)
    hashes = tuple(map(later, checkpoints))
    return Soup("weights", tuple(c.name for c in checkpoints), hashes, {EVERYTHING: list(coefficients)})
