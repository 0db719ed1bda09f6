"""Distillation from an ensemble of fine-tuned models (appendix L.1; Hinton et al. 2014).

recipe.teachers lists the models. They run a forward pass in each step, because images are augmented
anew in each epoch: three teachers double the computation of a step.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

from modelsoups.disk import manifests, paths
from modelsoups.experiment.ingredients import load_weights
from modelsoups.models.classifier import Classifier
from modelsoups.soup.coefficients import Ingredient
from modelsoups.weights import state_dicts


def load_teachers(model: Classifier, names: Sequence[str]) -> list[Classifier]:
    """Return one frozen copy of `model` per path in `names`, with the weights at that path."""
    return [_load(model, teacher(name)) for name in names]


def _load(model: Classifier, teacher: Ingredient) -> Classifier:
    twin = copy.deepcopy(model).requires_grad_(False).eval()
    try:
        twin.load_state_dict(load_weights(teacher))
    except RuntimeError as error:
        why = f"does not fit the student model ({' '.join(str(error).split())[:200]})"
        way_out = "all teachers must have the model.name and the classes of this run"
        raise ValueError(f"recipe.teachers: {teacher.path} {why}; {way_out}") from error
    return twin


def teacher(name: str) -> Ingredient:
    """Return the model at path `name`, a folder or weight file; ValueError if it is incomplete."""
    path = Path(name)
    if not path.exists():
        raise ValueError(f"recipe.teachers: {path} does not exist; give a fine-tuned model's folder or weight file")
    if not path.is_dir():
        sha256 = state_dicts.state_sha256(state_dicts.load_state(path))
        return Ingredient(path.stem, str(path), sha256, None)
    manifest = manifests.manifest_of(path)
    if manifest is None or "sha256" not in manifest:
        raise ValueError(f"recipe.teachers: {path} is not a finished model; finish it with `modelsoups finetune`")
    return Ingredient(path.name, str(path / paths.MODEL), manifest["sha256"], None)
