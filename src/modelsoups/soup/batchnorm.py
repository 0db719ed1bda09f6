"""Re-estimate BatchNorm's running statistics, as averaged ones do not fit averaged weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from modelsoups.soup.holdout import Holdout, inputs_of

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Reestimated:
    """New running statistics by tensor name; how many of n images are right before and after."""

    statistics: dict[str, Tensor]
    before: int
    after: int
    n: int


def has_batchnorm(names: Iterable[str]) -> bool:
    """Return whether a state dict with these tensor names has BatchNorm running statistics."""
    return any(name.rpartition(".")[2] == "running_mean" for name in names)


def statistics_differ(states: Sequence[Mapping[str, Tensor]]) -> bool:
    """Return whether BatchNorm running statistics differ between states (frozen ones do not)."""
    names = [name for name in states[0] if name.rpartition(".")[2] in STATISTICS[:2]]
    return any(not torch.equal(states[0][n], other[n]) for other in states[1:] for n in names if n in other)


def new_statistics(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return BatchNorm's running statistics, by tensor name, as the mean over batches of normalised images.

    The model keeps them, and is left in evaluation mode (Izmailov et al. 2018, section 3.2).
    """
    update_bn(batches, model)
    model.eval()
    state = model.state_dict()
    return {key: tensor.detach().cpu().clone() for key, tensor in state.items() if key.rpartition(".")[2] in STATISTICS}


def reestimate(state: Mapping[str, Tensor], holdout: Holdout, loader: Iterable[Any]) -> Reestimated:
    """Re-estimate the BatchNorm running statistics of these weights on a loader of training images.

    loader: yields (images, labels) or mappings; images pass through `holdout.prepare`. The result
    is the mean over batches (Izmailov et al. 2018, section 3.2). ValueError if there is no
    BatchNorm or image.

        fresh = soup.reestimate(soup.mixed(chosen), holdout, train_loader)
        soup.mix(chosen, "soup.safetensors", statistics=fresh.statistics)
    """
    model = holdout.model
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        raise ValueError(f"{type(model).__name__} has no BatchNorm: there is nothing to re-estimate")
    before = holdout.count(state)[0] or 0
    batches = 0

    def inputs() -> Iterator[Tensor]:
        nonlocal batches
        for batch in loader:
            images_BCHW = inputs_of(batch, model)
            if not isinstance(images_BCHW, Tensor):
                what = type(images_BCHW).__name__
                raise ValueError(f"batch {batches} of training images contains a {what}; expected a tensor of images")
            batches += 1
            moved = images_BCHW.to(next(model.parameters()).device)
            prepared = holdout.prepare(moved) if holdout.prepare else moved
            assert isinstance(prepared, Tensor)
            yield prepared

    model.load_state_dict(dict(state))
    fresh = new_statistics(model, inputs())
    if not batches:
        raise ValueError("the loader of training images is empty")
    after = holdout.count({**state, **fresh})[0] or 0
    return Reestimated(fresh, before, after, len(holdout))
