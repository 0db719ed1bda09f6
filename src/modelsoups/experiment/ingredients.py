"""The ingredients of a run, read from its folders: what is complete, what is missing and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, storage
from modelsoups.experiment.draw import load_draw
from modelsoups.experiment.imported import imported, initialization
from modelsoups.soup.coefficients import Ingredient
from modelsoups.weights import state_dicts

_checked: set[tuple[str, int, str]] = set()  # (path, time of its last change, sha256) of the weights found whole


@dataclass(frozen=True)
class Folder:
    """The complete ingredients in order of index, and why each of the others is missing."""

    ingredients: list[Ingredient]
    missing: dict[str, str]


def load_pool(cfg: Config) -> Folder:
    """Read the manifests of all ingredients of the draw; ValueError when fewer than soup.minimum are complete."""
    if cfg.pool == "imported":
        return enough(cfg, Folder(*imported(cfg)), "modelsoups import-released DIR")
    found, missing = [], {}
    for index, recipe in enumerate(load_draw(cfg)):
        folder = cfg.run.ingredient(index)
        manifest = manifests.manifest_of(folder)
        name = folder.name
        if manifest is not None:
            found.append(Ingredient(name, str(folder / "model.safetensors"), manifest["sha256"], recipe))
            for average, sha256 in manifest.get("averages", {}).items():
                found.append(Ingredient(f"{name}-{average}", str(folder / f"{average}.safetensors"), sha256, recipe))
        elif (failed := folder / "failed.json").exists():
            missing[name] = str(storage.read_json(failed)["reason"])
        else:
            missing[name] = "not finished" if folder.exists() else "not started"
    return enough(cfg, Folder(found, missing), "modelsoups finetune")


def enough(cfg: Config, folder: Folder, command: str) -> Folder:
    """The folder, unless it holds fewer ingredients than soup.minimum; ValueError then says what makes them."""
    if len(folder.ingredients) < cfg.soup.minimum:
        why = "; ".join(f"{k} {v}" for k, v in list(folder.missing.items())[:5])
        raise ValueError(
            f"{cfg.run.root / 'ingredients'}: {len(folder.ingredients)} complete ingredients, "
            f"soup.minimum={cfg.soup.minimum} needed ({why or 'the draw is empty'}); run `{command}`"
        )
    return folder


def load_weights(ingredient: Ingredient) -> dict[str, Tensor]:
    """An ingredient's state dict, on the CPU; ValueError when it is not what its manifest says."""
    state = state_dicts.load_state(Path(ingredient.path))
    _check(ingredient, state)
    return state


def open_weights(ingredient: Ingredient) -> Checkpoint:
    """As `load_weights`, but each tensor is read when it is asked for."""
    checkpoint = open_checkpoint(ingredient.path)
    checkpoint.name = f"ingredient {ingredient.id}"
    _check(ingredient, checkpoint)
    return checkpoint


def _check(ingredient: Ingredient, state: state_dicts.State) -> None:
    """The hash is looked at once a process: for each soup of a large pool it would take longer than the mixing."""
    path = Path(ingredient.path)
    seen = (ingredient.path, path.stat().st_mtime_ns, ingredient.sha256)
    if seen not in _checked and state_dicts.state_sha256(state) != ingredient.sha256:
        raise ValueError(
            f"{path} has changed since it was made (its sha256 is another); delete {path.parent} to make it again"
        )
    _checked.add(seen)


def initial_models(cfg: Config) -> dict[str, Ingredient]:
    """theta_0 under "initialization", and the zero-shot model beside it where the two differ.

    An imported pool has none when model_0 was not there to be imported.
    """
    if cfg.pool == "imported":
        return initialization(cfg)
    names = {"initialization": cfg.heads.init}
    if cfg.heads.init != "zeroshot" and manifests.manifest_of(cfg.run.head("zeroshot")):
        names["zeroshot"] = "zeroshot"
    return {row: _initial(cfg, row, init) for row, init in names.items()}


def _initial(cfg: Config, row: str, init: str) -> Ingredient:
    folder = cfg.run.head(init)
    manifest = manifests.manifest_of(folder)
    if manifest is None:
        raise ValueError(f"{folder} is not complete; run `modelsoups heads` first")
    return Ingredient(row, str(Path(folder) / "model.safetensors"), manifest["sha256"], None)
