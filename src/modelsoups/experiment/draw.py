"""The draw of a run: one recipe for each ingredient, from a search file."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import yaml

from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.disk.paths import shipped
from modelsoups.recipes import search as searches
from modelsoups.recipes.recipe import Recipe


def load_search(name: str) -> dict[str, Any]:
    """A search of sweeps/ by name, or any file by path: YAML, or JSON lines with a recipe each.

    Raises ValueError when it is missing, malformed or unknown.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".jsonl"):
        found = [shipped("sweeps") / f"{name}{suffix}" for suffix in (".yaml", ".jsonl")]
        path = next((p for p in found if p.exists()), found[0])
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in shipped("sweeps").iterdir() if not p.stem.startswith("wandb")))
        raise ValueError(f"sweep.search={name}: no such file ({path}); shipped searches: {names}")
    if path.suffix == ".jsonl":
        search: Any = {"kind": "list", "recipes": storage.read_jsonl(path)}
    else:
        try:
            search = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
    try:
        searches.validate(search)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return dict(search)


def recipe(search: dict[str, Any], cfg: Config, index: int) -> Recipe:
    """The recipe of one index: what the configuration fixes, else the search's draw, else Recipe's default."""
    values = {**searches.draw(search, cfg.sweep.seed, index), **cfg.recipe}
    missing = [f.name for f in fields(Recipe) if f.default is MISSING and f.name not in values]
    if missing:
        raise ValueError(f"recipe.{missing[0]} is neither set nor drawn by {cfg.sweep.search}")
    return Recipe(**values)


def load_draw(cfg: Config) -> list[Recipe]:
    """The recipes of the run, in order of index; ValueError if there is no draw, or not the one submitted."""
    path = cfg.run.draw
    if not path.exists():
        raise ValueError(f"{path} is missing; run `modelsoups sweep` first")
    fixed = cfg.run.draw_manifest  # of a draw that was submitted
    if fixed.exists() and storage.read_json(fixed)["sha256"] != storage.file_sha256(path):
        raise ValueError(
            f"{path} has changed since the sweep began; recipes are fixed once drawn: put it back (`modelsoups sweep` "
            "after deleting it draws the same), or choose another name=..."
        )
    return [Recipe(**row["recipe"]) for row in storage.read_jsonl(path)]


def write(cfg: Config) -> bool:
    """Write runs/<name>/draw.jsonl; refuse to change one that exists (the sweep may have begun)."""
    search = load_search(cfg.sweep.search)
    count = cfg.sweep.count or searches.size(search)
    rows = [{"index": i, "recipe": json.loads(json.dumps(asdict(recipe(search, cfg, i))))} for i in range(count)]
    run_ = cfg.run
    if run_.draw.exists():
        old = storage.read_jsonl(run_.draw)
        if old == rows:
            print(f"sweep: complete, {count} recipes in {run_.draw}")
            return False
        if old != rows[: len(old)]:
            raise ValueError(
                f"{run_.draw} holds other recipes than {cfg.sweep.search}, seed {cfg.sweep.seed}, now draws; recipes "
                f"are fixed once drawn: choose another name=..., or delete {run_.root} to start over"
            )
    storage.write_jsonl(run_.draw, rows)
    if run_.draw_manifest.exists():
        storage.write_json(run_.draw_manifest, {"sha256": storage.file_sha256(run_.draw)})
    print(f"sweep: {count} recipes of {cfg.sweep.search}, seed {cfg.sweep.seed} -> {run_.draw}")
    return True
