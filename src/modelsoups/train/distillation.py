"""Distillation from an ensemble of fine-tuned models (appendix L.1; Hinton et al. 2014): recipe.teachers.

Training images are augmented anew each epoch, so that the teachers' predictions cannot be kept: each goes forward once
a step, which makes a run with three teachers about as expensive as theirs were together.

Legend: B images, C classes, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelsoups.disk import manifests
from modelsoups.experiment.ingredients import load_weights
from modelsoups.models.classifier import Classifier
from modelsoups.soup.coefficients import Ingredient
from modelsoups.train import step
from modelsoups.weights import state_dicts


class Ensemble:
    """The models of recipe.teachers, each a copy of `model` with its own weights, on the same device."""

    def __init__(self, model: Classifier, teachers: Sequence[str]) -> None:
        self.models = [_teacher(model, ingredient(name)) for name in teachers]

    @torch.no_grad()
    def targets(self, images_BCHW: Tensor, loss: str) -> Tensor:
        """targets_BC of normalised images."""
        return step.ensemble_targets([model(images_BCHW) for model in self.models], loss)


def _teacher(model: Classifier, teacher: Ingredient) -> Classifier:
    twin = copy.deepcopy(model).requires_grad_(False).eval()
    try:
        twin.load_state_dict(load_weights(teacher))
    except RuntimeError as error:
        raise ValueError(
            f"recipe.teachers: {teacher.path} does not fit the student ({' '.join(str(error).split())[:200]}); "
            "teachers are ingredients of the same model and classes"
        ) from error
    return twin


def ingredient(name: str) -> Ingredient:
    """What an entry of recipe.teachers names: a complete ingredient's folder, or a file of weights."""
    path = Path(name)
    if path.is_dir():
        manifest = manifests.manifest_of(path)
        if manifest is None or "sha256" not in manifest:
            raise ValueError(
                f"recipe.teachers: {path} is not a complete ingredient; run `modelsoups finetune` there first"
            )
        return Ingredient(path.name, str(path / "model.safetensors"), manifest["sha256"], None)
    if not path.exists():
        raise ValueError(
            f"recipe.teachers: {path} does not exist; expected an ingredient's folder or a file of weights"
        )
    return Ingredient(path.stem, str(path), state_dicts.state_sha256(state_dicts.load_state(path)), None)
