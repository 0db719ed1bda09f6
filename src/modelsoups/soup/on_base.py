"""Adapters as whole models, so that every method works on them."""

from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.formats import Source
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.soup.adapters import BASE, has_adapters
from modelsoups.soup.library import Sources, open_all, open_base
from modelsoups.soup.refusals import refuse
from modelsoups.weights.merged import merged


def on_base(sources: Sources, base: Source, force: bool = False) -> list[Checkpoint]:
    """Return the checkpoints with each LoRA adapter merged into `base`, for any function of `soup`.

    Nothing is merged in advance: a weight is computed when it is read, so memory does not grow. The
    soup that is chosen can be written as full model (`mix(chosen, out, base=base)`) or as adapter
    (`mix(chosen, folder)`). Raises ValueError if none is an adapter, for adapters of different
    bases (which `force` takes), and for those that do not fit the base.

        models = soup.on_base(["adapter-a", "adapter-b"], "base-model")
        chosen = soup.greedy(models, soup.Holdout(model, loader))
        soup.mix(chosen, "soup", base="base-model")
    """
    checkpoints, opened = open_all(sources, adapters_too=True), open_base(base)
    if not has_adapters(checkpoints):
        raise ValueError(f"base is for adapters, and {checkpoints[0].name} is a whole model; {BASE} or leave it out")
    refuse(checkpoints, force)
    return [merged(c, opened) if isinstance(c, Adapter) else c for c in checkpoints]
