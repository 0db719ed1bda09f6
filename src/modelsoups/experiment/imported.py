"""Reads the models that `modelsoups import-released` wrote into a run."""

from pathlib import Path
from typing import Any

from modelsoups.disk import manifests, paths
from modelsoups.disk.paths import Run
from modelsoups.published import tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient


class Imported:
    """The authors' released models, imported into the ingredient folders of one run."""

    def __init__(self, files: Run, holdout: Path) -> None:
        """holdout: folder of the prepared hold-out; `find` checks how it was split."""
        self.files, self.holdout = files, holdout

    @property
    def is_here(self) -> bool:
        """Return whether the import has finished on this machine; without it there are no models."""
        return manifests.manifest_of(self.files.ingredients) is not None

    def find(self) -> tuple[list[Ingredient], dict[str, str]]:
        """Return the imported models with their recipes, and {id: reason} for each missing model.

        Raises ValueError if the import has not finished or a model has changed since, or if the
        hold-out was not split by the authors' index file.
        """
        manifest = self.manifest()
        self._check_holdout()
        found = []
        for name, sha256 in manifest["ingredients"].items():
            folder = self.files.ingredient(int(name))
            facts = manifests.manifest_of(folder)
            if facts is None or facts["sha256"] != sha256:
                raise ValueError(
                    f"{folder} has changed since it was imported; run `modelsoups import-released DIR` again"
                )
            recipe = Recipe(**facts["recipe"]) if facts["recipe"] else None
            found.append(Ingredient(name, str(folder / paths.MODEL), sha256, recipe))
        return found, manifest["missing"]

    def initial(self) -> dict[str, Ingredient]:
        """Return {"initialization": model_0}, or an empty dict if model_0 was not imported."""
        sha256 = self.manifest()["ingredients"].get(f"{tables.INITIALIZATION:03d}")
        path = self.files.ingredient(tables.INITIALIZATION) / paths.MODEL
        return {"initialization": Ingredient("initialization", str(path), sha256, None)} if sha256 else {}

    def manifest(self) -> dict[str, Any]:
        """Return manifest.json, which lists imported and missing models; ValueError if absent."""
        folder = self.files.ingredients
        manifest = manifests.manifest_of(folder)
        if manifest is None:
            way_out = "run `modelsoups import-released DIR` first"
            raise ValueError(f"{folder} has no imported models; {way_out}")
        return manifest

    def _check_holdout(self) -> None:
        """Raise ValueError if the hold-out has images on which the released models were trained."""
        manifest = manifests.manifest_of(self.holdout)
        if manifest is not None and manifest["inputs"].get("holdout", {}).get("rule") != "file":
            raise ValueError(
                f"{self.holdout}: this hold-out was not split by the authors' index file. The "
                "released models were trained on about 98% of it, so no soup can be chosen on it. "
                "Run `modelsoups prepare` with data.holdout_file=imagenet_98_idxs.npy and another "
                "data.dir=..."
            )
