"""Averages checkpoints into a soup: `modelsoups mix uniform a.safetensors b.pt -o soup.safetensors`.

The methods greedy, pruned, learned, mehl, radin, soce and fisher need a hold-out: `--holdout module:function`
names a function that returns a `soup.Holdout` (a model, images and labels). Instead, greedy and pruned accept
`--evaluate module:function`, a function from a state dict to a score (higher is better).
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from inspect import Parameter
from typing import Any

from modelsoups.config.soup_options import DTYPES, SCHEDULES, Option, options_of

INIT, HOLDOUT, SCORE = "--init", "--holdout", "--holdout or --evaluate"  # what methods need


@dataclass(frozen=True)
class Method:
    """A method of `modelsoups mix`: this entry, and a function of the same name in `modelsoups.soup`.

    options: functions in `soup/` whose options (see `options_of`) become flags. needs: INIT, HOLDOUT,
    SCORE or nothing; what is needed is an argument of the function.
    """

    what: str
    options: tuple[str, ...] = ()
    needs: str = ""


METHODS = {
    "uniform": Method("the mean of all checkpoints"),
    "greedy": Method(
        "add checkpoints one by one, best first, unless the hold-out score falls", ("choosing.greedy",), SCORE
    ),
    "pruned": Method("start with the mean and remove checkpoints unless the hold-out score falls", needs=SCORE),
    "wise_ft": Method(
        "(1 - alpha) times the first checkpoint, or --init, plus alpha times the other one (WiSE-FT)",
        ("from_initialization.wise_ft",),
    ),
    "model_stock": Method(
        "interpolate between --init and the mean, depending on the angles of the updates", needs=INIT
    ),
    "lines": Method(
        "--init plus the mean of the updates, scaled by depth (LiNeS)", ("from_initialization.lines",), INIT
    ),
    "learned": Method(
        "optimize coefficients by gradient descent on the hold-out",
        ("choosing.learned", "methods.learned.learned"),
        HOLDOUT,
    ),
    "mehl": Method(
        "learn coefficients of each tensor that sum to one and may be negative (MEHL-Soup+)",
        ("methods.mehl.mehl",),
        HOLDOUT,
    ),
    "radin": Method(
        "mix the subsets whose ensembles are best on the hold-out, and keep the best soup (RADIN)",
        ("methods.radin.radin",),
        HOLDOUT,
    ),
    "soce": Method("weight the models that are best on a category of classes (SoCE)", ("methods.soce.soce",), HOLDOUT),
    "fisher": Method(
        "a mean that weights every number by its Fisher information on the images of the hold-out",
        ("fisher.fisher",),
        HOLDOUT,
    ),
    "trajectory": Method("average checkpoints of one training run, weighted by --schedule"),
    "weights": Method("the sum of the checkpoints times their --coefficients"),
}
OTHERS = {  # flags of some methods that `options_of` does not find -> these methods
    **dict.fromkeys(("schedule", "last", "decay", "steps"), ("trajectory",)),
    "coefficients": ("weights", "fisher"),
    "evaluate": ("greedy", "pruned"),
}
KEY = "the entry with the weights, such as state_dict_ema or app.model, in each file (in --init only if there)"
USAGE = "modelsoups mix METHOD CHECKPOINT... -o OUT [options]; modelsoups mix -h explains them"
CHECKPOINTS = ".safetensors, .pt, .pth, .bin, .ckpt or .index.json files, or folders of models"
Flags = dict[str, dict[str, Option]]  # name of an option -> method -> its option


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of `modelsoups mix`, with the method's own options as a dict in `given`.

    Exits with 2 if they cannot be parsed. Raises ValueError if one is missing, or is an option of
    another method.
    """
    flags = _flags()
    args = parser(flags).parse_args(list(map(_plain, argv)))
    method = METHODS[args.method]
    if method.needs == INIT and args.init is None and args.base is None:
        raise ValueError(f"{args.method} needs --init, the model that all were fine-tuned from")
    if method.needs == HOLDOUT and args.holdout is None:
        raise ValueError(f"{args.method} needs --holdout; see `modelsoups mix -h`")
    if method.needs == SCORE and args.holdout is None and args.evaluate is None:
        raise ValueError(f"{args.method} needs {SCORE}; see `modelsoups mix -h`")
    args.given = _given(args, flags)
    if args.batchnorm is not None and args.holdout is None:
        raise ValueError("--batchnorm needs --holdout MODULE:FUNCTION; its soup.Holdout has the model to run")
    has_init = args.init is not None or args.base is not None
    if args.method == "wise_ft" and len(args.checkpoints) != 2 - has_init:
        expected = "one, beside --init or --base" if has_init else "two, the initialization first"
        raise ValueError(f"wise_ft: got {len(args.checkpoints)} checkpoints; expected {expected}")
    count = len(args.coefficients or ())
    if (args.method == "weights" or count) and count != len(args.checkpoints):
        raise ValueError(f"--coefficients: expected {len(args.checkpoints)} numbers, one per checkpoint")
    return args


def parser(flags: Flags) -> argparse.ArgumentParser:
    """Return the parser of `modelsoups mix`; `flags` are the options of its methods."""
    made = argparse.ArgumentParser(prog="modelsoups mix", description=__doc__, usage=USAGE)
    add, named = made.add_argument, "MODULE:FUNCTION"
    needy = {need: ", ".join(n for n, m in METHODS.items() if m.needs == need) for need in (INIT, HOLDOUT, SCORE)}
    add("method", choices=METHODS, help="; ".join(f"{name}: {method.what}" for name, method in METHODS.items()))
    add("checkpoints", nargs="+", help=CHECKPOINTS)
    add("-o", "--out", required=True, help="the .safetensors file to write; from folders of models, a new folder")
    text = "dtype in which the soup is written (default: that of the checkpoints, which must then be the same)"
    add("--dtype", choices=DTYPES, help=text)
    text = "for method weights: one coefficient for each checkpoint; for fisher: one weight above 0 for each"
    add("--coefficients", type=float, nargs="+", help=text)
    add("--evaluate", metavar=named, help=f"for {needy[SCORE]}: function from a state dict to a score")
    text = f"for {needy[SCORE]}, {needy[HOLDOUT]}: function that returns a soup.Holdout"
    add("--holdout", metavar=named, help=text)
    add("--batchnorm", metavar=named, help="re-estimate BatchNorm: function that returns a loader of training images")
    text = f"for {needy[INIT]}, wise_ft: model that all checkpoints were fine-tuned from (default: --base)"
    add("--init", help=text)
    add("--base", help="for LoRA adapters: their base model; the full model is written instead of an adapter")
    add("--rank", type=int, help="for LoRA adapters: truncate the written adapter to this rank; a note gives the error")
    add("--key", metavar="ENTRY", help=KEY)
    add("--plot", metavar="FILE", help="plot the decisions, or for method learned the loss, to a .png, .pdf or .svg")
    text = (
        "average even adapter files, quantized weights or models with different configurations, with a note in the soup"
    )
    add("--force", action="store_true", help=text)
    _add_options(made, flags)
    _add_trajectory(made)
    return made


def _flags() -> Flags:
    found: Flags = {}
    for name, method in METHODS.items():
        for function in method.options:
            for option in options_of(function):
                found.setdefault(option.name, {})[name] = option
    return found


def _add_options(made: argparse.ArgumentParser, flags: Flags) -> None:
    add = made.add_argument_group("options of some methods").add_argument
    for name, by_method in flags.items():
        told, kinds = [], {option.kind for option in by_method.values()}
        for method, option in by_method.items():
            default = "" if option.default in (None, Parameter.empty) or option.kind is bool else option.default
            told.append(f"for {method}: {option.sentence}" + (f" (default: {default})" if default != "" else ""))
        if kinds == {bool}:
            add(_flag(name), action="store_true", default=None, help="; ".join(told))
        else:
            choices = next(iter(by_method.values())).choices or None
            kind = float if float in kinds else next(iter(kinds))
            add(_flag(name), type=kind, choices=choices, help="; ".join(told))


def _add_trajectory(made: argparse.ArgumentParser) -> None:
    named = ", ".join(f"{k}: {v}" for k, v in SCHEDULES.items())
    add = made.add_argument_group("options of the method trajectory").add_argument
    text = f"{named}; MODULE:FUNCTION: a decay curve; w_1,...,w_k: weights of the updates (default: uniform)"
    add("--schedule", metavar="NAME", help=text)
    add("--last", type=int, help="average only this many checkpoints, the last of the run")
    add("--decay", type=float, help="for --schedule ema: the share that the average keeps at each checkpoint")
    add("--steps", type=float, nargs="+", help="the checkpoints' steps, if their names do not contain them")


def _given(args: argparse.Namespace, flags: Flags) -> dict[str, Any]:
    """Return the options in `args` of the method's functions, by name; ValueError as for `parse`."""
    owners = {**{name: tuple(by_method) for name, by_method in flags.items()}, **OTHERS}
    for name, methods in owners.items():
        if getattr(args, name) is not None and args.method not in methods:
            raise ValueError(f"{_flag(name)} is an option of {', '.join(methods)}; {args.method} has no such option")
    given = {}
    for name, by_method in flags.items():
        value = getattr(args, name)
        if value is not None:
            given[name] = value
        elif args.method in by_method and by_method[args.method].default is Parameter.empty:
            option = by_method[args.method]
            raise ValueError(f"{args.method} needs {_flag(name)}: {option.sentence}")
    return given


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(argument: str) -> str:
    """Return "-0.001" for "-1e-3", which argparse takes for an option; else the same argument."""
    return format(Decimal(argument), "f") if re.fullmatch(r"-[\d.]+[eE][-+]?\d{1,3}", argument) else argument
