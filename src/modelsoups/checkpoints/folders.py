"""Find the files with a model's weights in a folder, by the file names that libraries use.

A folder may contain several models: sentence-transformers lists subfolders in modules.json,
diffusers in model_index.json; open_clip's file may lie beside transformers' or our
head.safetensors.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from modelsoups.disk.opening import text_of

INDEX = ".index.json"
# The weights of one model: the name that is written, and older names of the same weights.
WEIGHTS = (
    ("model.safetensors", "pytorch_model.bin"),  # transformers, timm, sentence-transformers
    ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("head.safetensors",),  # the classifier beside a CLIP that `modelsoups export` writes
)


def weights_of(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return {prefix of tensor names: weights file} for the model or models in a folder.

    A subfolder's file has a prefix such as "2_Dense/"; the prefix of the folder's own file, or of
    the only file, is empty. A file may be an index of shards. `suffixes` of checkpoint files are
    for error messages. Raises ValueError, naming the files found, if there are no weights, or if a
    subfolder of the model has weights under unknown file names only.
    """
    found: dict[str, Path] = {}
    for place in [folder, *subfolders(folder)]:
        below = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
        here = list(weights_in(place))
        for position, (name, file) in enumerate(here):
            found[below + (f"{name}/" if position else "")] = file
        odd = [] if here or place == folder else _checkpoints_in(place, suffixes)
        if odd:
            known = ", ".join(names[0] for names in WEIGHTS)
            raise ValueError(f"{place} contains {odd[0]}, but no weights with a known name ({known}); rename it")
    if not found:
        raise ValueError(_nothing_in(folder, suffixes))
    return {"": next(iter(found.values()))} if len(found) == 1 else found


def written_as(file: Path) -> str:
    """Return the name of the .safetensors file to which a soup of these weights is written."""
    name = file.name.removesuffix(INDEX)
    return next(names[0] for names in WEIGHTS if name in names)


def subfolders(folder: Path) -> list[Path]:
    """Return the subfolders that belong to a model, and all folders in these, sorted by path.

    Raises ValueError if an index such as modules.json is not JSON or names a folder elsewhere.
    """
    found = set()
    for index in ("modules.json", "model_index.json", "router_config.json"):
        for name in _named_by(folder / index):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{folder / index} names the folder {name}, which lies outside of {folder}; refused")
            if path.parts and (folder / path).is_dir():
                found |= {folder / path, *(p for p in (folder / path).rglob("*") if p.is_dir())}
    hidden = [p for p in found if any(part.startswith((".", "checkpoint-")) for part in p.relative_to(folder).parts)]
    return sorted(found - set(hidden))


def _named_by(index: Path) -> Iterator[str]:
    """Yield the subfolder names in an index file; none if it is missing or of another kind."""
    if not index.is_file():
        return
    try:
        content = json.loads(text_of(index))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{index} is not valid JSON, so the model's subfolders are not known; save it again"
        ) from error
    if index.name == "modules.json" and isinstance(content, list):  # [{"idx": 1, "path": "1_Pooling"}]
        entries = [entry.get("path") for entry in content if isinstance(entry, dict)]
    elif index.name == "model_index.json" and isinstance(content, dict):  # {"vae": ["diffusers", "AutoencoderKL"]}
        entries = [name for name, value in content.items() if isinstance(value, list)]
    else:  # {"types": {"query_0_Dense": "sentence_transformers..."}}
        types = content.get("types") if isinstance(content, dict) else None
        entries = list(types) if isinstance(types, dict) else []
    yield from (entry for entry in entries if isinstance(entry, str))


def weights_in(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield (file name in a soup, existing file or index of shards) for each model's weights."""
    for names in WEIGHTS:
        files = [place / (name + end) for name in names for end in ("", INDEX)]
        if there := next((file for file in files if file.exists()), None):
            yield names[0], there


def _checkpoints_in(place: Path, suffixes: Sequence[str]) -> list[str]:
    return sorted(p.name for p in place.iterdir() if p.suffix in suffixes and p.is_file())


def _nothing_in(folder: Path, suffixes: Sequence[str]) -> str:
    """Return an error text: this folder has no known weights file, and what to give instead."""
    if (folder / "adapter_config.json").exists():
        what = "an adapter (LoRA or another of PEFT), not a whole model"
        return f"{folder}: no weights in this folder but {what}; give the base model too (--base, soup.on_base)"
    known = ", ".join(name for names in WEIGHTS for name in names)
    why = f"{folder}: no weights in this folder under a known name ({known}, or one of them plus {INDEX})"
    if files := _checkpoints_in(folder, suffixes):
        shown = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
        every = f"{folder}/*{Path(files[0]).suffix}"
        return f"{why}; it contains {len(files)} checkpoints ({shown}): give the files, for example {every}"
    below = sorted(p.name for p in folder.iterdir() if p.is_dir() and any(weights_in(p)))
    if below:
        shown = ", ".join(below[:3]) + (", ..." if len(below) > 3 else "")
        return f"{why}; its subfolders {shown} contain weights: give one of these"
    return why
