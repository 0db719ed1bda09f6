"""BatchNorm's running statistics in a run's soups: averaged with the weights, or re-estimated.

Averaged statistics do not fit averaged weights if training updated them. If training left them as
they were in the initial model (recipe.batchnorm=frozen), new ones do harm: a network never saw them.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from modelsoups.experiment.logits import LogitsCache
from modelsoups.soup.batchnorm import has_batchnorm, new_statistics
from modelsoups.soup.coefficients import Ingredient

IMAGES, BATCH = 2048, 128  # training images on which statistics are re-estimated
SEED = 0  # of their choice


def is_reestimated(wanted: str, ingredients: Sequence[Ingredient], names: Sequence[str]) -> bool:
    """Return whether soups of these ingredients get new statistics; ValueError if `wanted` makes no sense.

    wanted: the key soup.batchnorm; names: of the tensors of an ingredient.
    """
    live = [i for i in ingredients if i.recipe is not None and i.recipe.batchnorm == "live"]
    if wanted == "reestimated" and not has_batchnorm(names):
        raise ValueError("soup.batchnorm=reestimated: this model has no BatchNorm; set soup.batchnorm=auto")
    if wanted == "reestimated" and not live:
        reason = "the models were trained with the initial model's statistics (recipe.batchnorm=frozen)"
        raise ValueError(f"soup.batchnorm=reestimated: {reason}, and others ruin them; set soup.batchnorm=auto")
    return wanted != "averaged" and bool(live) and has_batchnorm(names)


def reestimated(logits: LogitsCache, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with statistics of IMAGES random training images, seen as in an evaluation."""
    train = logits.sets.train
    model = logits.classifier(len(train.classes))
    chosen_N = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:IMAGES]

    def batches() -> Iterator[Tensor]:
        for index_B in chosen_N.split(BATCH):
            yield logits.task.inputs(train, model, index_B)

    model.load_state_dict(dict(state))
    return {**state, **new_statistics(model, batches())}
