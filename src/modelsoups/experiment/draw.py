"""The draw of a run: the hyperparameters (recipe) of each fine-tuned model, drawn only once."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from modelsoups.config.schema import HeadsConfig, SweepConfig
from modelsoups.disk import storage, yaml_files
from modelsoups.disk.paths import Run, shipped
from modelsoups.recipes import search as searches
from modelsoups.recipes.recipe import Recipe


class Draw:
    """The recipes (hyperparameters of each ingredient) of one run, in runs/<name>/draw.jsonl."""

    def __init__(self, files: Run, sweep: SweepConfig, fixed: dict[str, Any]) -> None:
        """fixed: hyperparameters that all recipes share, such as {"batch_size": 512}."""
        self.files, self.sweep, self.fixed = files, sweep, fixed

    def recipes(self) -> list[Recipe]:
        """Return the recipes in draw.jsonl; ingredient i is fine-tuned with recipe i.

        Raises ValueError if the file is missing, or has changed since the sweep was submitted.
        """
        path = self.files.draw
        if not path.exists():
            raise ValueError(f"{path} is missing; run `modelsoups sweep` first")
        submitted = self.files.draw_manifest
        if submitted.exists() and storage.read_json(submitted)["sha256"] != storage.file_sha256(path):
            raise ValueError(
                f"{path} has changed since the sweep was submitted; move it away, and `modelsoups "
                "sweep` draws the same recipes again. For other recipes, choose another run with "
                "name=..."
            )
        found = []
        for number, row in enumerate(storage.read_jsonl(path), 1):
            try:
                found.append(Recipe(**row["recipe"]))
            except (TypeError, KeyError) as error:
                what = f"does not contain recipes (line {number}: {type(error).__name__}: {error})"
                raise ValueError(f"{path} {what}; restore it") from error
            except ValueError as error:
                raise ValueError(f"{path} line {number}: {error}; restore the file") from error
        return found

    def planned(self) -> list[Recipe]:
        """Return the recipes in draw.jsonl or, if there is none, those that `sweep` would draw."""
        return self.recipes() if self.files.draw.exists() else self.drawn()

    def drawn(self) -> list[Recipe]:
        """Draw all recipes from the search file and the seed, without reading draw.jsonl."""
        search = load_search(self.sweep.search)
        return [self.recipe(search, i) for i in range(self.sweep.count or searches.size(search))]

    def recipe(self, search: dict[str, Any], index: int) -> Recipe:
        """Return recipe `index`: fixed values, else values drawn from `search`, else defaults."""
        drawn = searches.draw(search, self.sweep.seed, index)
        for about in fields(Recipe):
            name, fixed = about.name, self.fixed.get(about.name)
            if about.metadata["same"] and drawn.get(name, fixed) != fixed == about.default:
                unclear = f"{self.sweep.search} draws {name}, but recipe.{name} has its default, {fixed}"
                way_out = f"set recipe.{name}=drawn, or the value that all recipes should have"
                raise ValueError(f"{unclear}; {way_out}")
        values = {**drawn, **self.fixed}
        if values.get("steps") is not None:
            values.setdefault("epochs", None)
        missing = [f.name for f in fields(Recipe) if f.default is MISSING and f.name not in values]
        if missing:
            way_out = f"set it, or add it to {self.sweep.search}"
            raise ValueError(f"recipe.{missing[0]} has no value; {way_out}")
        return Recipe(**values)

    def extended(self) -> list[Recipe]:
        """Return the recipes that `write` would leave; ValueError if existing ones would change."""
        recipes = self.drawn()
        self._check(_rows(recipes))
        return recipes

    def write(self) -> bool:
        """Write draw.jsonl; return whether it changed. ValueError if old recipes would change."""
        rows = _rows(self.drawn())
        path, source = self.files.draw, f"{self.sweep.search}, seed {self.sweep.seed}"
        if self._check(rows) == rows:
            print(f"sweep: complete, {len(rows)} recipes in {path}")
            return False
        storage.write_jsonl(path, rows)
        if self.files.draw_manifest.exists():
            storage.write_json(self.files.draw_manifest, {"sha256": storage.file_sha256(path)})
        print(f"sweep: wrote {len(rows)} recipes ({source}) to {path}")
        return True

    def _check(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Return the rows of draw.jsonl, or None without one; ValueError if `rows` would change them."""
        path, source = self.files.draw, f"{self.sweep.search}, seed {self.sweep.seed}"
        if not path.exists():
            return None
        old = storage.read_jsonl(path)
        if old != rows[: len(old)]:
            raise ValueError(
                f"{path} has other recipes than {source} would draw, but the recipes of a run "
                f"are fixed; choose another run with name=..., or move {self.files.root} away "
                "to start over"
            )
        return old


def _rows(recipes: list[Recipe]) -> list[dict[str, Any]]:
    """Return recipes as the rows of draw.jsonl."""
    return [{"index": i, "recipe": json.loads(json.dumps(recipe.to_json()))} for i, recipe in enumerate(recipes)]


def initial_of(recipe: Recipe, heads: HeadsConfig) -> str:
    """Return the name of the initial model of a recipe, such as lp, lp-518 or lp-518-binary (J.2.3)."""
    name = recipe.init or heads.init
    binary = heads.lp_loss == "recipe" and recipe.loss == "binary" and name != "zeroshot"
    return f"{name}-binary" if binary else name


def load_search(name: str) -> dict[str, Any]:
    """Read a search file: YAML with distributions or a grid, or JSON lines with one recipe each.

    name: a path, or a name in sweeps/. Raises ValueError if the file is missing or not valid.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".jsonl"):
        found = [shipped("sweeps") / f"{name}{suffix}" for suffix in (".yaml", ".jsonl")]
        path = next((p for p in found if p.exists()), found[0])
    if not path.exists():
        files = [p.stem for p in shipped("sweeps").iterdir() if not p.stem.startswith("wandb")]
        raise ValueError(f"sweep.search={name}: no such file ({path}); available: {', '.join(sorted(files))}")
    if path.suffix == ".jsonl":
        search: Any = {"kind": "list", "recipes": storage.read_jsonl(path)}
    else:
        search = yaml_files.read_yaml(path)
    try:
        searches.validate(search)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return dict(search)
