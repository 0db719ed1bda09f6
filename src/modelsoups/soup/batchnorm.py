"""BatchNorm after mixing: averaged running statistics do not describe what the mixed weights compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from modelsoups.soup.holdout import Holdout


@dataclass(frozen=True)
class Reestimated:
    """The new running statistics by tensor name, and the hold-out images that were right before and after, of n."""

    statistics: dict[str, Tensor]
    before: int
    after: int
    n: int


def has_batchnorm(names: Iterable[str]) -> bool:
    """Whether a state holds running statistics."""
    return any(name.rpartition(".")[2] == "running_mean" for name in names)


def reestimate(state: Mapping[str, Tensor], holdout: Holdout, loader: Iterable[tuple[Tensor, Tensor]]) -> Reestimated:
    """Running statistics of these weights over a loader of training images (labels are not looked at).

    torch.optim.swa_utils.update_bn's cumulative mean over batches (Izmailov et al. 2018, section 3.2); the loader's
    images go through the hold-out's `prepare`. Raises ValueError for a model without BatchNorm or an empty loader.
    """
    model = holdout.model
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm: there is nothing to re-estimate")
    before = holdout.count(state)[0]
    device = next(model.parameters()).device
    batches = [0]

    def inputs() -> Iterable[Tensor]:
        for images_BCHW, _ in loader:
            batches[0] += 1
            moved = images_BCHW.to(device)
            prepared = holdout.prepare(moved) if holdout.prepare else moved
            assert isinstance(prepared, Tensor)
            yield prepared

    model.load_state_dict(dict(state))
    update_bn(inputs(), model)
    if not batches[0]:
        raise ValueError("the loader of training images is empty")
    model.eval()
    names = ("running_mean", "running_var", "num_batches_tracked")
    fresh = {k: t.detach().cpu().clone() for k, t in model.state_dict().items() if k.rpartition(".")[2] in names}
    after = holdout.count({**state, **fresh})[0]
    assert before is not None
    assert after is not None
    return Reestimated(fresh, before, after, len(holdout))
