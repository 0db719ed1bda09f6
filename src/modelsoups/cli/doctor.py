"""Runs `modelsoups doctor`, which checks whether averaging checkpoints can work."""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from modelsoups.checkpoints.states import State
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.cli.mix import holdout_of
from modelsoups.disk import storage
from modelsoups.disk.terminal import printable
from modelsoups.soup.diagnosis import Diagnosis
from modelsoups.soup.doctor import examine
from modelsoups.soup.library import open_all, open_initialization
from modelsoups.soup.on_base import on_base

MOST_NUMBERED = 16  # checkpoints up to which the heat map prints its numbers


def main(args: argparse.Namespace) -> None:
    """Print the checkpoints' problems, a matrix of pairwise angles or accuracies, and a verdict."""
    opened = open_all(args.checkpoints, args.key, adapters_too=args.base is not None)
    if args.base is not None:
        opened = on_base(opened, args.base)
    start = args.init or args.base
    init = open_initialization(start, opened, args.key) if start else None
    states = dict(zip(short([c.name for c in opened]), opened, strict=True))
    print_notes(states, init)
    accuracy = None
    if args.holdout is not None:
        holdout = holdout_of(args.holdout)

        def accuracy(state: State) -> float:
            try:
                return (holdout.count(state)[0] or 0) / len(holdout)
            except RuntimeError as error:
                what = f"--data {args.holdout}: the checkpoints do not fit the model of its soup.Holdout"
                raise ValueError(f"{what}: {error}") from error

    found = examine(states, init, accuracy)
    for finding in found.findings:
        print(f"doctor: {'FATAL' if finding.fatal else 'note '} {finding.cause}: {printable(finding.text)}")
    print_matrix(found)
    if args.heatmap is not None:
        heatmap(found, args.heatmap)
    outcome = "can succeed" if found.healthy else "will fail"
    print(f"doctor: a soup of these checkpoints {outcome}" + (", see above" if found.findings else ""))
    if not found.healthy:
        raise SystemExit(1)


def print_notes(opened: Mapping[str, Checkpoint], init: Checkpoint | None) -> None:
    """Print how files were read (entry taken, prefix removed): each note once, with its files."""
    named: dict[str, list[str]] = {}
    for name, checkpoint in (*opened.items(), *([("the initialization", init)] if init is not None else [])):
        for note in checkpoint.notes:
            named.setdefault(note, []).append(name)
    for note, names in named.items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        print(f"doctor: read  {printable(', '.join(names[:2]) + more)}: {printable(note)}")


def short(names: Sequence[str]) -> list[str]:
    """Return the paths without shared first and last parts: x/a/m.pt and x/b/m.pt give a and b."""
    parts = [list(Path(name).parts) for name in names]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({part[end] for part in parts}) == 1:
            for part in parts:
                del part[end]
    return [str(Path(*part)) for part in parts]


def _matrix(found: Diagnosis) -> tuple[str, Tensor | None]:
    if found.midpoints_KK is not None:
        return "accuracy at pairwise midpoints", found.midpoints_KK
    what = "updates from the initialization" if found.from_init else "weights"
    return f"angles between {what}, degrees", found.angles_KK


def print_matrix(found: Diagnosis) -> None:
    title, matrix_KK = _matrix(found)
    if matrix_KK is None:
        return
    scale = "" if found.midpoints_KK is not None else " (0: the same direction, 90: unrelated)"
    print(f"doctor: {title}{scale}")
    for name, row in zip(found.names, matrix_KK.tolist(), strict=True):
        print(f"  {' '.join(f'{x:7.3f}' for x in row)}  {printable(name)}")


def heatmap(found: Diagnosis, path: Path) -> None:
    """Draw the pairwise angles or accuracies to a .png or .svg; ValueError if there are none."""
    from matplotlib.figure import Figure

    title, matrix_KK = _matrix(found)
    if matrix_KK is None:
        raise ValueError(f"{path}: no two checkpoints could be compared, so there is no matrix to draw")
    count = len(found.names)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix_KK.numpy())
    axes.set_title(title)
    axes.set_yticks(range(count), [Path(n).name for n in found.names], fontsize=min(10, 260 / count))
    axes.set_xticks([])
    if count <= MOST_NUMBERED:
        middle = float(matrix_KK.min() + matrix_KK.max()) / 2
        digits = 0 if found.midpoints_KK is None else 2
        for i, j in itertools.product(range(count), repeat=2):
            value = float(matrix_KK[i, j])
            colour = "white" if value < middle else "black"
            axes.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image)
    with storage.atomic(path) as tmp:
        figure.savefig(tmp, format=path.suffix[1:] or "png")
