"""The authors' 72 released models as the ingredients of a run: `modelsoups import-released DIR [key=value ...]`.

DIR holds model_0.pt ... model_71.pt (mlfoundations/model-soups), or some of them. Each is read without running code in
it, checked tensor by tensor, renamed (`model.visual.*` -> `encoder.*`, `classification_head.*` -> `head.*`) and written
as runs/released/ingredients/<number>/model.safetensors; the rest of CLIP's text tower, which the models never use, is
left out (25 of 33 GB remain). DIR is not needed afterwards. Killed, it continues where it stopped. The pool's manifest
comes last, so stages see all of the import or nothing.

model_0 is the initialization and, as in the paper, one of the 72; ingredient 043 is model_43.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, storage
from modelsoups.models.classifier import build
from modelsoups.published import tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import run_tasks

CLASSES = 1000
RENAMED = {"model.visual.": "encoder.", "classification_head.": "head."}  # theirs -> ours; all else is unused
READERS = 4  # processes: a disk is the limit sooner
SHOWN = 8  # names in a message


def main(argv: Sequence[str]) -> int:
    """`modelsoups import-released DIR [key=value ...]`; experiment=released unless it says otherwise."""
    if not argv or "=" in argv[0] or argv[0].startswith("-"):
        print((__doc__ or "").partition("\n\n")[0] + "\n\nDIR: the folder with model_0.pt ... model_71.pt")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    import_folder(load(["experiment=released", *argv[1:]]), Path(argv[0]).expanduser())
    return 0


def import_folder(cfg: Config, folder: Path) -> None:
    """Import what is there, report duplicates and what is missing, and write the pool's manifest.

    Raises ValueError naming the file and tensor that is not as released, or a run folder that holds something else.
    """
    if cfg.pool != "imported":
        raise ValueError(f"pool={cfg.pool}: imported models need pool=imported, as experiment=released has it")
    files = find(folder)
    layout = expected_layout(cfg)
    inputs = {index: _inputs(path, layout) for index, path in files.items()}
    for index in files:
        _refuse_other(cfg, index)
    done = {i for i in inputs if manifests.complete(cfg.run.ingredient(i), inputs[i])}
    if todo := [i for i in files if i not in done]:
        (cfg.run.ingredients / manifests.MANIFEST).unlink(missing_ok=True)  # the pool is not whole until the end
    print(f"import-released: {len(todo)} of {len(files)} models of {folder} -> {cfg.run.ingredients}", flush=True)
    job = functools.partial(_convert, cfg, files, layout, inputs)
    for _ in run_tasks(job, todo, READERS, "import-released"):
        pass
    _finish(cfg, folder)


def find(folder: Path) -> dict[int, Path]:
    """number -> file of the released models in a folder; ValueError when there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name the one with model_0.pt ... model_71.pt")
    names = {i: folder / f"model_{i}.pt" for i in range(tables.MODELS)}
    files = {i: path for i, path in names.items() if path.is_file()}
    if not files:
        raise ValueError(f"{folder} has no model_0.pt ... model_71.pt; name the folder that holds them")
    return files


def expected_layout(cfg: Config) -> dict[str, str]:
    """Shape and dtype of every tensor of a released checkpoint, by its official name.

    Names are those of the package's list; shapes of what is used, those of the configured model. Raises ValueError
    when the two have different tensors.
    """
    ours = layout_of(build(cfg.model, CLASSES).state_dict())
    layout = {}
    for key, (shape, dtype) in tables.official_keys().items():
        name = renamed(key)
        layout[key] = ours.pop(name, "") if name else f"{shape} {dtype}"
        if not layout[key]:
            raise ValueError(f"model.name={cfg.model.name} has no tensor {name}; the released models need {_RIGHT}")
    if ours:
        raise ValueError(
            f"model.name={cfg.model.name} has {next(iter(ours))} besides; the released models need {_RIGHT}"
        )
    return layout


_RIGHT = "model=clip_vit_b32"


def renamed(key: str) -> str | None:
    """Our name of an official tensor; None for those of the text tower."""
    for theirs, ours in RENAMED.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return None


def read_released(path: Path, layout: Mapping[str, str]) -> dict[str, Tensor]:
    """A released checkpoint under our names, checked; ValueError names the file and the tensor at fault.

    Tensors of the unused text tower may be absent, and nothing else.
    """
    state = state_dicts.load_state(path)
    unused = {key for key in layout if renamed(key) is None}
    used = {key: tensor for key, tensor in state.items() if key not in unused}
    check_layout(used, {k: v for k, v in layout.items() if k not in unused}, str(path))
    for key, tensor in used.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: tensor {key} holds NaN or infinity; download the file again")
    return {name: tensor.contiguous() for key, tensor in used.items() if (name := renamed(key))}


def _inputs(path: Path, layout: Mapping[str, str]) -> dict[str, Any]:
    """What an imported ingredient was made from; a file that was replaced has another time."""
    stat = path.stat()
    file = {"name": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    return {"released": file, "layout": storage.fingerprint(dict(layout))}


def _refuse_other(cfg: Config, index: int) -> None:
    manifest = manifests.manifest_of(cfg.run.ingredient(index))
    if manifest is not None and "released" not in manifest["inputs"]:
        raise ValueError(f"{cfg.run.ingredient(index)} was fine-tuned, not imported; choose another name=...")


def _convert(
    cfg: Config, files: Mapping[int, Path], layout: Mapping[str, str], inputs: Mapping[int, dict[str, Any]], index: int
) -> None:
    """One ingredient, its manifest last."""
    state = read_released(files[index], layout)
    folder = cfg.run.ingredient(index)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    model = tables.released_models()[index]
    recipe = None if model.recipe is None else asdict(Recipe(**{**cfg.recipe, **model.recipe}))
    facts = {"sha256": state_dicts.state_sha256(state), "recipe": recipe, "hyperparameters": model.hyperparameters}
    manifests.finish(folder, inputs[index], [path], **facts)


def _finish(cfg: Config, folder: Path) -> None:
    """Compare hashes, say who is missing, and write the pool's manifest."""
    found = {i: m for i in range(tables.MODELS) if (m := manifests.manifest_of(cfg.run.ingredient(i)))}
    sha256 = {i: m["sha256"] for i, m in found.items() if "released" in m["inputs"]}
    for line in duplicates(sha256):
        print(f"import-released: {line}")
    missing = {f"{i:03d}": f"model_{i}.pt is not in {folder}" for i in range(tables.MODELS) if i not in sha256}
    if missing:
        names = [f"model_{int(name)}.pt" for name in missing]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        print(f"import-released: {len(names)} of {tables.MODELS} are missing: {', '.join(names[:SHOWN])}{more}")
        print("import-released: with fewer models, soups and ensembles differ from the released ones")
    ingredients = {f"{i:03d}": digest for i, digest in sha256.items()}
    manifests.finish(cfg.run.ingredients, {"released": tables.MODELS}, [], ingredients=ingredients, missing=missing)
    print(f"import-released: {len(sha256)} models in {cfg.run.ingredients}; next: modelsoups experiment=released")


def duplicates(sha256: Mapping[int, str]) -> list[str]:
    """What to say about models of equal content; ValueError for a pair other than model_4 and model_5."""
    lines = []
    for digest in dict.fromkeys(sha256.values()):
        same = tuple(i for i, other in sha256.items() if other == digest)
        if same == tables.ALIKE:
            lines.append(
                "model_4 and model_5 are the same model, as released: 71 of the 72 are distinct; both stay in the "
                "pool, as in the paper's soups"
            )
        elif len(same) > 1:
            names = " and ".join(f"model_{i}.pt" for i in same)
            raise ValueError(f"{names} hold the same weights, which the released ones do not; download them again")
    if set(tables.ALIKE) <= set(sha256) and not lines:
        lines.append("model_4 and model_5 differ, although the released ones are the same model: is one a wrong copy?")
    return lines


# ---- the pool, as the stages read it ----


def number_of(name: str) -> int | None:
    """The number of a released model by any of its names: model_43, model_43.pt, 043; None for another name."""
    match = re.fullmatch(r"(?:model_(\d+)(?:\.pt)?|(\d{3}))", name)
    number = int(match[1] or match[2]) if match else None
    return number if number is not None and number < tables.MODELS else None
