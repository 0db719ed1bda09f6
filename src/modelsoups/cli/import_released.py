"""The authors' 72 released models as ingredients: `modelsoups import-released DIR [key=value ...]`.

DIR holds model_0.pt ... model_71.pt (mlfoundations/model-soups), or some of them. Each is read
without running code in it, checked tensor by tensor, renamed (`model.visual.*` -> `encoder.*`,
`classification_head.*` -> `head.*`) and written as
runs/released/ingredients/<number>/model.safetensors. The text tower, which the models never use, is
left out: 25 of 33 GB remain. DIR is not needed afterwards. An import that was stopped continues
where it stopped. The manifest of all ingredients is written last, so that stages see the whole
import or nothing.

model_0 is the initialization and, as in the paper, one of the 72. Ingredient 043 is model_43.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.config.compose import load
from modelsoups.config.schema import Config, ModelConfig
from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import Run
from modelsoups.models.classifier import build
from modelsoups.models.weight_files import check_layout, layout_of
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


@dataclass(frozen=True)
class _Import:
    """One released model: its number, its file, the ingredient's folder and inputs, its recipe."""

    number: int
    file: Path
    folder: Path
    inputs: dict[str, Any]
    recipe: dict[str, Any] | None


def import_folder(cfg: Config, folder: Path) -> None:
    """Import the models in a folder, report duplicates and missing ones, and write the manifest.

    Raises ValueError naming a file and tensor that is not as released, or an ingredient of the run
    that was not imported.
    """
    if cfg.pool != "imported":
        raise ValueError(f"pool={cfg.pool}: an import needs pool=imported, as in experiment=released")
    files = find(folder)
    layout = expected_layout(cfg.model)
    todo = []
    for number, file in files.items():
        target = cfg.run.ingredient(number)
        _refuse_fine_tuned(target)
        inputs = _inputs(file, layout)
        if manifests.complete(target, inputs) is None:
            values = tables.released_models()[number].recipe
            recipe = None if values is None else asdict(Recipe(**{**cfg.recipe, **values}))
            todo.append(_Import(number, file, target, inputs, recipe))
    root = cfg.run.ingredients
    if todo:  # the ingredients are not whole until the end
        (root / manifests.MANIFEST).unlink(missing_ok=True)
    print(f"import-released: {len(todo)} of {len(files)} models of {folder} -> {root}", flush=True)
    for _ in run_tasks(functools.partial(_convert, layout), todo, READERS, "import-released"):
        pass
    _finish(cfg.run, folder)


def find(folder: Path) -> dict[int, Path]:
    """The released models in a folder, by number; ValueError when there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name the one with model_0.pt ... model_71.pt")
    files = {}
    for number in range(tables.MODELS):
        if (path := folder / f"model_{number}.pt").is_file():
            files[number] = path
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


def _refuse_fine_tuned(folder: Path) -> None:
    manifest = manifests.manifest_of(folder)
    if manifest is not None and "released" not in manifest["inputs"]:
        raise ValueError(f"{folder} was fine-tuned, not imported; choose another name=...")


def _convert(layout: Layout, task: _Import) -> None:
    """Write one ingredient, its manifest last."""
    state = read_released(task.file, layout)
    path = task.folder / "model.safetensors"
    storage.save_weights(path, state)
    hyperparameters = tables.released_models()[task.number].hyperparameters
    facts = {"sha256": state_dicts.state_sha256(state), "recipe": task.recipe}
    facts["hyperparameters"] = hyperparameters
    manifests.finish(task.folder, task.inputs, [path], **facts)


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
    inputs = {"released": tables.MODELS}
    manifests.finish(run.ingredients, inputs, [], ingredients=ingredients, missing=missing)
    count, where = len(hashes), run.ingredients
    print(f"import-released: {count} models in {where}; next: modelsoups experiment=released")


def duplicates(hashes: Mapping[int, str]) -> list[str]:
    """Report whether model_4 and model_5 are one model, as released; hashes: number -> sha256.

    Raises ValueError for any other two models with the same weights.
    """
    first: dict[str, int] = {}
    lines = []
    for number, sha256 in hashes.items():
        twin = first.setdefault(sha256, number)
        if (twin, number) == tables.ALIKE:
            lines.append(
                "model_4 and model_5 are the same model, as released: 71 of the 72 are distinct; "
                "both stay in the pool, as in the paper's soups"
            )
        elif twin != number:
            raise ValueError(
                f"model_{twin}.pt and model_{number}.pt hold the same weights, which the released "
                "ones do not; download them again"
            )
    if set(tables.ALIKE) <= set(hashes) and not lines:
        lines.append("model_4 and model_5 differ, although the released ones are the same model: is one a wrong copy?")
    return lines
