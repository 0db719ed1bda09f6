"""Merges LoRA adapters into their base model, so that every soup method accepts them."""

from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.formats import Source
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.soup.adapters import has_adapters
from modelsoups.soup.library import Sources, open_all, open_base
from modelsoups.soup.refusals import refuse
from modelsoups.weights.merged import merged


def on_base(sources: Sources, base: Source, force: bool = False) -> list[Checkpoint]:
    """Return the checkpoints with each LoRA adapter merged into `base`, for any soup method.

    A weight is merged only when it is read, so memory does not grow. `mix(chosen, out, base=base)`
    writes the chosen soup as a full model, and `mix(chosen, folder)` as an adapter. Raises
    ValueError if there is no adapter, if adapters name different base models (unless `force`), and
    if an adapter does not fit the base.

        models = soup.on_base(["adapter-a", "adapter-b"], "base-model")
        chosen = soup.greedy(models, soup.Holdout(model, loader))
        soup.mix(chosen, "soup", base="base-model")
    """
    checkpoints, opened = open_all(sources, adapters_too=True), open_base(base)
    if not has_adapters(checkpoints):
        raise ValueError(f"base is for adapters, but {checkpoints[0].name} is a whole model: leave base (--base) out")
    refuse(checkpoints, force)
    return [merged(c, opened) if isinstance(c, Adapter) else c for c in checkpoints]
