"""`modelsoups doctor` on a pool of the pipeline and its hold-out: `python benchmarks/doctor.py experiment=miniature`.

Angles and distances need the weights alone, accuracies at pairwise midpoints the first images of the hold-out: 78
evaluations of 12 models. Run where the experiment was run, after `modelsoups train`; nothing is written there.
Writes results/benchmarks/doctor.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from modelsoups import soup
from modelsoups.cli.doctor import print_matrix
from modelsoups.config import compose
from modelsoups.config.schema import Config
from modelsoups.data.crops import Crops
from modelsoups.data.transforms import View
from modelsoups.disk import provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import normalise
from modelsoups.soup.doctor import examine

OUT = Path(__file__).parents[1] / "results" / "benchmarks"


def holdout(cfg: Config, images: int) -> soup.Holdout:
    found = Experiment(cfg).sets[cfg.data.holdout]
    model, labels_N = Experiment(cfg).classifier(len(found.classes)), torch.from_numpy(found.labels_N)
    crops = Crops(found, View(model.image_size))

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        for index_B in torch.arange(min(images, len(found))).split(250):
            yield torch.stack([crops[int(i)] for i in index_B]), labels_N[index_B]

    return soup.Holdout(model, loader(), prepare=lambda pixels_B: normalise(model, pixels_B))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("overrides", nargs="*", help="as for the stages: experiment=miniature")
    made.add_argument("--images", type=int, default=1000, help="of the hold-out")
    args = made.parse_args()
    cfg = compose.load(args.overrides)
    ingredients = Experiment(cfg).ingredients
    states = {i.id: ingredients.open(i) for i in ingredients.find().ingredients}
    init = ingredients.open(ingredients.initial()["initialization"])
    data = holdout(cfg, args.images)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for given in (None, lambda state: (data.count(state)[0] or 0) / len(data)):
            found = examine(states, init, given)
            print_matrix(found)
            print(f"doctor: {found.verdict()}\n")
    made_by, command = provenance.record(), " ".join(["python benchmarks/doctor.py", *args.overrides])
    text = [f"`{command} --images {args.images}` ({made_by['machine']}, commit {str(made_by['commit'])[:9]})", ""]
    text += ["Weights alone, then with the hold-out:", "", "```", printed.getvalue().rstrip(), "```", ""]
    storage.write_text(OUT / "doctor.md", "\n".join(text))
    print(printed.getvalue())


if __name__ == "__main__":
    main()
