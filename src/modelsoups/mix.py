"""Soups of any checkpoints from the command line: `modelsoups mix uniform a.safetensors b.pt -o soup.safetensors`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modelsoups import soup
from modelsoups.core.types import EVERYTHING, Soup
from modelsoups.soup.library import hashes, open_all

METHODS = {"uniform": "the mean of all", "weights": "sum of --coefficients times checkpoints"}


def main(argv: Sequence[str]) -> None:
    """Choose, mix and say what happened; ValueError for everything that can be put right."""
    args = parser().parse_args(argv)
    chosen = (
        _weights(args.checkpoints, args.coefficients) if args.method == "weights" else soup.uniform(args.checkpoints)
    )
    for note in soup.mix(chosen, args.out):
        print(f"mix: {note}")
    print(f"mix: {chosen.method} of {len(chosen.ingredients)} checkpoints -> {args.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="modelsoups mix", description=__doc__)
    made.add_argument("method", choices=METHODS, help="; ".join(f"{k}: {v}" for k, v in METHODS.items()))
    made.add_argument("checkpoints", nargs="+", help=".safetensors, .pt, .pth, .bin, an .index.json, or a folder")
    made.add_argument(
        "-o", "--out", required=True, help="a .safetensors file, or a new folder for Hugging Face folders"
    )
    made.add_argument("--coefficients", type=float, nargs="+", help="one a checkpoint, for the method weights")
    return made


def _weights(paths: Sequence[str], coefficients: Sequence[float] | None) -> Soup:
    if coefficients is None or len(coefficients) != len(paths):
        raise ValueError(f"--coefficients: expected {len(paths)} numbers, one a checkpoint")
    checkpoints = open_all(paths)
    return Soup("weights", tuple(c.name for c in checkpoints), hashes(checkpoints), {EVERYTHING: list(coefficients)})
