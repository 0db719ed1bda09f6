"""The pool that `modelsoups import-released` made, as the stages read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths
from modelsoups.published import tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient


def imported(cfg: Config) -> tuple[list[Ingredient], dict[str, str]]:
    """The imported ingredients, each with the recipe that was released with it, and why others are missing.

    Raises ValueError when the import is not complete, or when the hold-out is not the authors'.
    """
    manifest = _manifest(cfg)
    check_holdout(cfg)
    found = []
    for name, sha256 in manifest["ingredients"].items():
        folder = cfg.run.ingredient(int(name))
        facts = manifests.manifest_of(folder)
        if facts is None or facts["sha256"] != sha256:
            raise ValueError(f"{folder} has changed since it was imported; run `modelsoups import-released DIR` again")
        recipe = Recipe(**facts["recipe"]) if facts["recipe"] else None
        found.append(Ingredient(name, str(folder / paths.MODEL), sha256, recipe))
    return found, manifest["missing"]


def initialization(cfg: Config) -> dict[str, Ingredient]:
    """model_0 under "initialization", if it was imported."""
    name = f"{tables.INITIALIZATION:03d}"
    sha256 = _manifest(cfg)["ingredients"].get(name)
    path = cfg.run.ingredient(tables.INITIALIZATION) / paths.MODEL
    return {"initialization": Ingredient("initialization", str(path), sha256, None)} if sha256 else {}


def require_import(cfg: Config, stage: str) -> None:
    """What a stage that the import stands in for says instead of running; ValueError when nothing was imported."""
    count = len(_manifest(cfg)["ingredients"])
    print(f"{stage}: complete: the {count} models were imported")


def _manifest(cfg: Config) -> dict[str, Any]:
    manifest = manifests.manifest_of(cfg.run.ingredients)
    if manifest is None:
        raise ValueError(f"{cfg.run.ingredients} holds no imported models; run `modelsoups import-released DIR` first")
    return manifest


def check_holdout(cfg: Config) -> None:
    """Refuse a prepared hold-out that is not the authors': the released models were trained on about 98% of it."""
    folder = Path(cfg.data.dir) / cfg.data.holdout
    manifest = manifests.manifest_of(folder)
    if manifest is not None and manifest["inputs"].get("holdout", {}).get("rule") != "file":
        raise ValueError(
            f"{folder}: this hold-out was not split by the authors' index file, and the released models were trained "
            "on about 98% of it, so no soup can be chosen on it; prepare with data.holdout_file=imagenet_98_idxs.npy "
            "and another data.dir=..."
        )
