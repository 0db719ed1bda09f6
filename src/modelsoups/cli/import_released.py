"""Imports the authors' 72 released models as ingredients: `modelsoups import-released DIR [key=value ...]`.

DIR contains model_0.pt ... model_71.pt (mlfoundations/model-soups), or some of them. Code in these
pickle files is not executed. The tensors of each file are checked, renamed and written to
runs/released/ingredients/<number>/model.safetensors, without the unused text tower (25 instead of
33 GB). DIR is not needed afterwards. After an interruption, the same command continues the import.
Other commands refuse to use the imported models until the import has finished.

model_0 is the initialization; as in the paper, it is one of the 72. Ingredient 043 is model_43.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.config.compose import load
from modelsoups.config.models import ModelConfig
from modelsoups.config.recall import keep_overrides
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.models.classifier import build
from modelsoups.published import released, tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import run_tasks

Layout = Mapping[str, str]  # name of a tensor -> its shape and dtype

READERS = 4  # processes; the speed of the disk makes more of them useless
SHOWN = 8  # file names listed in a message


def main(argv: Sequence[str]) -> int:
    """Run `modelsoups import-released` with these arguments, and return its exit status."""
    if not argv or "=" in argv[0] or argv[0].startswith("-"):
        usage = (__doc__ or "").partition("\n\n")[0]
        print(f"{usage}\n\nDIR: the folder with model_0.pt ... model_71.pt")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    config = load(["experiment=released", *argv[1:]])
    import_folder(config, Path(argv[0]).expanduser())
    keep_overrides(config.run, config.overrides, "sweep")
    return 0


def import_folder(config: Config, folder: Path) -> None:
    """Import the model_*.pt of a folder as ingredients; print which are duplicates or missing.

    Raises ValueError if a file's tensors are not those of the release (the message names file and
    tensor), or if the run already contains fine-tuned ingredients.
    """
    if config.pool != "imported":
        raise ValueError(f"pool={config.pool}: import-released needs pool=imported, which experiment=released sets")
    files, layout, run = find(folder), expected_layout(config.model), config.run
    todo = []
    for number, file in files.items():
        manifest = manifests.manifest_of(run.ingredient(number))
        if manifest is not None and "released" not in manifest["inputs"]:
            way_out = "import to another run, name=..."
            raise ValueError(f"{run.ingredient(number)} is a fine-tuned model; {way_out}")
        if manifests.complete(run.ingredient(number), _inputs(file, layout)) is None:
            todo.append(number)
    if todo:  # the import is incomplete until the end
        (run.ingredients / manifests.MANIFEST).unlink(missing_ok=True)
    what = f"importing {len(todo)} of {len(files)} models in {folder}"
    print(f"import-released: {what} to {run.ingredients}", flush=True)
    convert = functools.partial(_convert, run, files, layout, config.recipe)
    for _ in run_tasks(convert, todo, READERS, "import-released"):
        pass
    _finish(run, folder)


def find(folder: Path) -> dict[int, Path]:
    """Return {number: path} of the files model_<number>.pt; ValueError if there are none."""
    if not folder.is_dir():
        way_out = "give the folder with model_0.pt ... model_71.pt"
        raise ValueError(f"{folder} is not a folder; {way_out}")
    names = {number: folder / f"model_{number}.pt" for number in range(tables.MODELS)}
    files = {number: path for number, path in names.items() if path.is_file()}
    if not files:
        way_out = "give the folder that has them"
        raise ValueError(f"{folder} has no model_0.pt ... model_71.pt; {way_out}")
    return files


def expected_layout(model: ModelConfig) -> dict[str, str]:
    """Return {tensor name in a released checkpoint: expected shape and dtype}.

    For the image tower and the head, shapes are those of `model`. Raises ValueError if `model` has
    a tensor that the released checkpoints lack, or the other way round.
    """
    needed = f"the released models need model={released.MODEL}"
    ours = layout_of(build(model, released.CLASSES).state_dict())
    layout = {}
    for key, (shape, dtype) in tables.official_keys().items():
        name = released.our_name(key)
        if name and name not in ours:
            raise ValueError(f"model.name={model.name} has no tensor {name}; {needed}")
        layout[key] = ours.pop(name) if name else f"{shape} {dtype}"
    if ours:
        other = next(iter(ours))
        raise ValueError(f"model.name={model.name} has tensor {other}, which no released model has; {needed}")
    return layout


def read_released(path: Path, layout: Layout) -> dict[str, Tensor]:
    """Return the state dict of a released checkpoint with this package's tensor names.

    The unused text tower is dropped. Raises ValueError, naming file and tensor, if one is missing,
    unknown, of another shape or dtype than in `layout`, or contains NaN or infinity.
    """
    used = {key: text for key, text in layout.items() if released.our_name(key)}
    state = state_dicts.load_state(path)
    for key in layout.keys() - used.keys():
        state.pop(key, None)
    check_layout(state, used, str(path))
    renamed = {}
    for key, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            way_out = "download the file again"
            raise ValueError(f"{path}: tensor {key} contains NaN or infinity; {way_out}")
        renamed[released.our_name(key) or key] = tensor.contiguous()
    return renamed


def _inputs(path: Path, layout: Layout) -> dict[str, Any]:
    """Return a file's name, size, modification time and layout hash, to detect a later change."""
    stat = path.stat()
    file = {"name": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return {"released": file, "layout": storage.fingerprint(dict(layout))}


def _convert(run: Run, files: Mapping[int, Path], layout: Layout, fixed: dict[str, Any], number: int) -> None:
    """Import model_<number>.pt. fixed: the paper's hyperparameters that all models share."""
    inputs = _inputs(files[number], layout)
    state = read_released(files[number], layout)
    path = run.ingredient(number) / paths.MODEL
    storage.save_weights(path, state)
    model = tables.released_models()[number]
    recipe = None if model.recipe is None else Recipe(**{**fixed, **model.recipe}).to_json()
    facts = {"sha256": state_dicts.state_sha256(state), "recipe": recipe}
    manifests.finish(path.parent, inputs, [path], **facts, hyperparameters=model.hyperparameters)


def _finish(run: Run, folder: Path) -> None:
    """Print which models are duplicates or missing, and write manifest.json of the whole import."""
    hashes: dict[int, str] = {}
    missing: dict[str, str] = {}
    for number in range(tables.MODELS):
        manifest = manifests.manifest_of(run.ingredient(number))
        if manifest is not None and "released" in manifest["inputs"]:
            hashes[number] = manifest["sha256"]
        else:
            missing[f"{number:03d}"] = f"model_{number}.pt is not in {folder}"
    for line in duplicates(hashes):
        print(f"import-released: {line}")
    if missing:
        names = [f"model_{int(name)}.pt" for name in missing]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        listed = ", ".join(names[:SHOWN]) + more
        print(f"import-released: {len(names)} of {tables.MODELS} models are missing: {listed}")
        print("import-released: with fewer models, soups and ensembles differ from the authors'")
    ingredients = {f"{number:03d}": sha256 for number, sha256 in hashes.items()}
    inputs, where = {"released": tables.MODELS}, run.ingredients
    manifests.finish(where, inputs, [], ingredients=ingredients, missing=missing)
    print(f"import-released: {len(hashes)} models are in {where}; next: modelsoups experiment=released")


def duplicates(hashes: Mapping[int, str]) -> list[str]:
    """Return a message on whether model_4 and model_5 are identical, as in the release.

    The list is empty if one of the two is missing. hashes: model number -> sha256 of the weights.
    Raises ValueError if two other models have the same hash.
    """
    first: dict[str, int] = {}
    for number, sha256 in hashes.items():
        twin = first.setdefault(sha256, number)
        if twin != number and (twin, number) != tables.ALIKE:
            names = f"model_{twin}.pt and model_{number}.pt"
            way_out = "download them again"
            raise ValueError(f"{names} have the same weights, but differ in the release; {way_out}")
    four, five = map(hashes.get, tables.ALIKE)
    if four is None or five is None:
        return []
    if four == five:
        alike = "model_4 and model_5 have the same weights, as in the release"
        return [f"{alike}; soups are chosen from both, as in the paper"]
    return ["model_4 and model_5 differ, but are identical in the release; check whether one is a wrong copy"]
