"""The authors' 72 released models as ingredients: `modelsoups import-released DIR [key=value ...]`.

DIR holds model_0.pt ... model_71.pt (mlfoundations/model-soups), or some of them. Each is read
without running code in it, checked tensor by tensor, renamed and written as
runs/released/ingredients/<number>/model.safetensors, without the text tower, which the models never
use: 25 of 33 GB remain. DIR is not needed afterwards. A stopped import continues where it stopped.
The manifest of all ingredients is written last, so that stages see the whole import or nothing.

model_0 is the initialization and, as in the paper, one of the 72. Ingredient 043 is model_43.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.config.compose import load
from modelsoups.config.schema import Config, ModelConfig
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.models.classifier import build
from modelsoups.published import released, tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import run_tasks

Layout = Mapping[str, str]  # tensor -> shape and dtype

READERS = 4  # processes: the disk is the limit before more of them would help
SHOWN = 8  # names in a message


def main(argv: Sequence[str]) -> int:
    """`modelsoups import-released DIR [key=value ...]`, with experiment=released by default."""
    if not argv or "=" in argv[0] or argv[0].startswith("-"):
        usage = (__doc__ or "").partition("\n\n")[0]
        print(f"{usage}\n\nDIR: the folder with model_0.pt ... model_71.pt")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    import_folder(load(["experiment=released", *argv[1:]]), Path(argv[0]).expanduser())
    return 0


def import_folder(config: Config, folder: Path) -> None:
    """Import the models in a folder, report duplicates and missing ones, and write the manifest.

    Raises ValueError naming a file and tensor that is not as released, or an ingredient of the run
    that was not imported.
    """
    if config.pool != "imported":
        raise ValueError(f"pool={config.pool}: an import needs pool=imported, as in experiment=released")
    files, layout, run = find(folder), expected_layout(config.model), config.run
    todo = []
    for number, file in files.items():
        manifest = manifests.manifest_of(run.ingredient(number))
        if manifest is not None and "released" not in manifest["inputs"]:
            raise ValueError(f"{run.ingredient(number)} was fine-tuned, not imported; choose another name=...")
        if manifests.complete(run.ingredient(number), _inputs(file, layout)) is None:
            todo.append(number)
    if todo:  # the ingredients are not whole until the end
        (run.ingredients / manifests.MANIFEST).unlink(missing_ok=True)
    what = f"{len(todo)} of {len(files)} models of {folder}"
    print(f"import-released: {what} -> {run.ingredients}", flush=True)
    convert = functools.partial(_convert, run, files, layout, config.recipe)
    for _ in run_tasks(convert, todo, READERS, "import-released"):
        pass
    _finish(run, folder)


def find(folder: Path) -> dict[int, Path]:
    """The released models in a folder, by number; ValueError when there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name the one with model_0.pt ... model_71.pt")
    names = {number: folder / f"model_{number}.pt" for number in range(tables.MODELS)}
    files = {number: path for number, path in names.items() if path.is_file()}
    if not files:
        raise ValueError(f"{folder} has no model_0.pt ... model_71.pt; name the folder that holds them")
    return files


def expected_layout(model: ModelConfig) -> dict[str, str]:
    """Shape and dtype of every tensor of a released checkpoint, by its released name.

    The names are the authors'; the shapes of what is used are the given model's. Raises ValueError
    when the two have different tensors.
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
        raise ValueError(f"model.name={model.name} has a tensor {other} that they lack; {needed}")
    return layout


def read_released(path: Path, layout: Layout) -> dict[str, Tensor]:
    """A released checkpoint under our names. Tensors of the unused text tower may be absent.

    Raises ValueError naming the file and a tensor that is missing, foreign, or not as expected.
    """
    used = {key: text for key, text in layout.items() if released.our_name(key)}
    state = state_dicts.load_state(path)
    for key in layout.keys() - used.keys():
        state.pop(key, None)
    check_layout(state, used, str(path))
    renamed = {}
    for key, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: tensor {key} holds NaN or infinity; download the file again")
        renamed[released.our_name(key) or key] = tensor.contiguous()
    return renamed


def _inputs(path: Path, layout: Layout) -> dict[str, Any]:
    """What an ingredient is made from; a file that was replaced has another time."""
    stat = path.stat()
    file = {"name": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return {"released": file, "layout": storage.fingerprint(dict(layout))}


def _convert(run: Run, files: Mapping[int, Path], layout: Layout, fixed: dict[str, Any], number: int) -> None:
    """Write one ingredient, its manifest last. fixed: the recipe's keys that were not released."""
    inputs = _inputs(files[number], layout)
    state = read_released(files[number], layout)
    path = run.ingredient(number) / paths.MODEL
    storage.save_weights(path, state)
    model = tables.released_models()[number]
    recipe = None if model.recipe is None else asdict(Recipe(**{**fixed, **model.recipe}))
    facts = {"sha256": state_dicts.state_sha256(state), "recipe": recipe}
    manifests.finish(path.parent, inputs, [path], **facts, hyperparameters=model.hyperparameters)


def _finish(run: Run, folder: Path) -> None:
    """Compare hashes, report the missing models, and write the manifest of all ingredients."""
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
        print(f"import-released: {len(names)} of {tables.MODELS} are missing: {listed}")
        print("import-released: with fewer models, soups and ensembles differ from the released ones")
    ingredients = {f"{number:03d}": sha256 for number, sha256 in hashes.items()}
    inputs, where = {"released": tables.MODELS}, run.ingredients
    manifests.finish(where, inputs, [], ingredients=ingredients, missing=missing)
    print(f"import-released: {len(hashes)} models in {where}; next: modelsoups experiment=released")


def duplicates(hashes: Mapping[int, str]) -> list[str]:
    """Report whether model_4 and model_5 are one model, as released; hashes: number -> sha256.

    Raises ValueError for any other two models with the same weights.
    """
    first: dict[str, int] = {}
    for number, sha256 in hashes.items():
        twin = first.setdefault(sha256, number)
        if twin != number and (twin, number) != tables.ALIKE:
            names = f"model_{twin}.pt and model_{number}.pt"
            raise ValueError(f"{names} hold the same weights, which the released ones do not; download them again")
    four, five = map(hashes.get, tables.ALIKE)
    if four is None or five is None:
        return []
    if four == five:
        alike = "model_4 and model_5 are the same model, as released: 71 of the 72 are distinct"
        return [f"{alike}; both stay in the pool, as in the paper's soups"]
    return ["model_4 and model_5 differ, although the released ones are the same model: is one a wrong copy?"]
