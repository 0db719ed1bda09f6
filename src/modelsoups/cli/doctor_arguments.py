"""Checks whether averaging checkpoints can work: `modelsoups doctor a.safetensors b.pt [--init c]`.

The exit status is 0 if it can, 1 if it cannot (the lines marked FATAL explain why), and 2 for wrong usage.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modelsoups.cli.mix_arguments import CHECKPOINTS, KEY


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of `modelsoups doctor`; exit with 2 if they cannot be parsed."""
    made = argparse.ArgumentParser(prog="modelsoups doctor", description=__doc__)
    made.add_argument("checkpoints", nargs="+", help=CHECKPOINTS)
    made.add_argument("--init", help="model that all checkpoints were fine-tuned from (default: --base)")
    made.add_argument("--base", help="for folders of LoRA adapters: the model into which each is merged")
    made.add_argument("--key", metavar="ENTRY", help=KEY)
    text = "function that returns a soup.Holdout, to evaluate the mean of each pair of checkpoints"
    made.add_argument("--data", "--holdout", dest="holdout", metavar="MODULE:FUNCTION", help=text)
    made.add_argument("--heatmap", type=Path, help="draw the printed matrix to this .png or .svg")
    return made.parse_args(argv)
