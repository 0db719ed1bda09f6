"""Re-estimate BatchNorm's running statistics, as averaged ones do not fit averaged weights."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from modelsoups.soup.holdout import Holdout

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


def reestimate(state: Mapping[str, Tensor], holdout: Holdout, loader: Iterable[tuple[Tensor, Tensor]]) -> Reestimated:
    """Re-estimate the BatchNorm running statistics of these weights on a loader of training images.

    loader: yields (images, labels); images pass through `holdout.prepare`. The result is the mean
    over batches (Izmailov et al. 2018, section 3.2). ValueError if there is no BatchNorm or image.

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
        for images_BCHW, _ in loader:
            batches += 1
            moved = images_BCHW.to(next(model.parameters()).device)
            prepared = holdout.prepare(moved) if holdout.prepare else moved
            assert isinstance(prepared, Tensor)
            yield prepared

    model.load_state_dict(dict(state))
    update_bn(inputs(), model)
    if not batches:
        raise ValueError("the loader of training images is empty")
    model.eval()
    fresh = {}
    for key, tensor in model.state_dict().items():
        if key.rpartition(".")[2] in STATISTICS:
            fresh[key] = tensor.detach().cpu().clone()
    after = holdout.count({**state, **fresh})[0] or 0
    return Reestimated(fresh, before, after, len(holdout))
