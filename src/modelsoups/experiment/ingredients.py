"""Finds and loads the initial and fine-tuned models of a run, and says why others are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from modelsoups.checkpoints.formats import load_state, open_checkpoint
from modelsoups.checkpoints.states import state_sha256
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.config.schema import HeadsConfig, SoupConfig
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.draw import Draw, initial_of
from modelsoups.experiment.imported import Imported
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient


@dataclass(frozen=True)
class Found:
    """The complete ingredients of a run, by index, and {id: reason} for each missing ingredient."""

    ingredients: list[Ingredient]
    missing: dict[str, str]


class Ingredients:
    """The initial and fine-tuned models of one run. Each call reads the run's folders again."""

    def __init__(self, files: Run, draw: Draw, heads: HeadsConfig, soup: SoupConfig, imported: Imported | None) -> None:
        """soup: with minimum=0 for a run without models; imported: only for pool=imported."""
        self.files, self.draw, self.heads, self.soup, self.imported = files, draw, heads, soup, imported
        self._verified: set[tuple[str, int, str]] = set()  # path, time of last change, sha256

    def find(self) -> Found:
        """Return the complete ingredients and why others are missing; ValueError if too few.

        With soup.average, they are averages of the weights alone.
        """
        if self.soup.minimum == 0:
            return Found([], {})
        if self.imported:
            return self._enough(Found(*self.imported.find()), "modelsoups import-released DIR")
        found, missing = [], {}
        for index, recipe in enumerate(self.draw.recipes()):
            folder, head = self.files.ingredient(index), self.files.head(initial_of(recipe, self.heads))
            manifest, start = manifests.manifest_of(folder), (manifests.manifest_of(head) or {}).get("sha256")
            name = folder.name
            if manifest and start not in (None, manifest.get("inputs", {}).get("initialization", start)):
                missing[name] = f"was fine-tuned from another initial model than {head}"
            elif manifest:
                if self.soup.average is None:
                    found.append(Ingredient(name, str(folder / paths.MODEL), manifest["sha256"], recipe))
                for average, sha256 in manifest.get("averages", {}).items():
                    path = str(folder / f"{average}.safetensors")
                    found.append(Ingredient(f"{name}-{average}", path, sha256, recipe))
            elif (failed := folder / paths.FAILED).exists():
                missing[name] = str(storage.read_object(failed, "reason")["reason"])
            else:
                missing[name] = "not finished" if folder.exists() else "not started"
        return self._enough(Found(found, missing), "modelsoups finetune")

    def _enough(self, found: Found, command: str) -> Found:
        if len(found.ingredients) < self.soup.minimum:
            why = "; ".join(f"{k} {v}" for k, v in list(found.missing.items())[:5])
            raise ValueError(
                f"{self.files.ingredients}: {len(found.ingredients)} complete ingredients, but "
                f"soup.minimum={self.soup.minimum} are needed ({why or 'there are no recipes'}); run "
                f"`{command}`"
            )
        return found

    def pool(self, individuals: Sequence[Ingredient]) -> list[Ingredient]:
        """Return which of these models soups and ensembles are made of, and the initial model if wanted.

        Raises ValueError if no model is the average soup.average, or there is no initial model.
        """
        average, chosen = self.soup.average, list(individuals)
        if average is not None:
            chosen = [i for i in individuals if i.id.partition("-")[2] == average]
            if not chosen:
                others = dict.fromkeys(i.id.partition("-")[2] or "no average" for i in individuals)
                raise ValueError(
                    f"soup.average={average}: no ingredient has this average, but {', '.join(others)}; see recipe.ema"
                )
        if self.soup.initialization:
            if not (initial := self.initial()):
                raise ValueError("soup.initialization=true: the initial model (model_0) was not imported")
            chosen.append(initial["initialization"])
        return chosen

    def start(self, recipe: Recipe) -> Ingredient:
        """Return the initial model of a recipe; ValueError if `heads` has not made it."""
        return self._initial("initialization", initial_of(recipe, self.heads))

    def initial(self) -> dict[str, Ingredient]:
        """Return {"initialization": theta_0} and, if theta_0 is not zero-shot, also "zeroshot".

        The dict is empty if the models were imported without model_0, which is their theta_0.
        """
        if self.imported:
            return self.imported.initial()
        names = {"initialization": self.heads.init}
        if self.heads.init != "zeroshot" and manifests.manifest_of(self.files.head("zeroshot")):
            names["zeroshot"] = "zeroshot"
        return {row: self._initial(row, init) for row, init in names.items()}

    def _initial(self, row: str, init: str) -> Ingredient:
        folder = self.files.head(init)
        manifest = manifests.manifest_of(folder)
        if manifest is None:
            raise ValueError(f"{folder} is not complete; run `modelsoups heads` first")
        return Ingredient(row, str(folder / paths.MODEL), manifest["sha256"], None)

    def open(self, ingredient: Ingredient) -> Checkpoint:
        """Open an ingredient's checkpoint, whose tensors are read on demand.

        Raises ValueError if its hash is wrong. The hash of a file is computed only once, since that
        takes longer than averaging.
        """
        checkpoint = open_checkpoint(ingredient.path)
        checkpoint.name = f"ingredient {ingredient.id}"
        path = Path(ingredient.path)
        seen = (ingredient.path, path.stat().st_mtime_ns, ingredient.sha256)
        if seen not in self._verified:
            verify(ingredient, state_sha256(checkpoint))
            self._verified.add(seen)
        return checkpoint


def load_weights(ingredient: Ingredient) -> dict[str, Tensor]:
    """Return an ingredient's state dict on the CPU; ValueError if the file has changed."""
    state = load_state(Path(ingredient.path))
    verify(ingredient, state_sha256(state))
    return state


def verify(ingredient: Ingredient, sha256: str) -> None:
    """Raise ValueError if `sha256`, the hash of the file's weights, is not the one on record."""
    if sha256 != ingredient.sha256:
        path = Path(ingredient.path)
        raise ValueError(
            f"{path} has changed since it was written (its sha256 differs from its manifest); "
            f"restore the file, or move {path.parent} away to train it again"
        )
