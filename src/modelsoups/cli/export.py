"""Exports a soup as a folder for open_clip, timm or transformers, with a model card: `modelsoups export`.

An exported CLIP includes its text tower. Its classifier is in a separate file, head.safetensors,
because open_clip's format has no classifier; a timm model includes its classifier. The export
fails unless the library loads the folder and computes the same logits as the soup. Text models: see
`export_text`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from modelsoups.cli import export_text
from modelsoups.cli.model_card import card
from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, storage, temporary
from modelsoups.experiment.experiment import Experiment
from modelsoups.models import iconclip
from modelsoups.models.classifier import Classifier, build, load_clip
from modelsoups.soup.coefficients import Soup

TIMM_KEYS = ("classifier", "first_conv", "pool_size", "fixed_input_size")
CLOSE = 1e-4  # largest relative difference between the logits before and after the export
CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "head.safetensors")
TIMM_FILES = ("config.json", paths.MODEL)
FACTS = ("labels.json", "soup.json", "README.md")
UNFINISHED = re.compile(r"\.tmp\w{6}|\..+\.\d+\.tmp")  # of safetensors, and of versions before


def run(experiment: Experiment) -> bool:
    """Export the soup export.row, and upload it if export.push is set.

    Return whether files were written. Raises ValueError if export.row is an ensemble or does not
    exist, or if the output folder contains other files.
    """
    config = experiment.config
    row, repository = config.export.row, config.export.push
    if repository and huggingface_hub.get_token() is None:
        raise ValueError(f"export.push={repository}: not logged in to the Hugging Face hub; run `hf auth login`")
    soup = _soup(experiment, row)
    folder = Path(config.export.out or experiment.files.root / "export" / row)
    if manifests.manifest_of(folder) is None and _holds_other_files(folder):
        raise ValueError(f"export.out={folder} contains other files; choose an empty folder")
    classes = list(experiment.sets.train.classes)
    inputs = {"soup": soup.to_json(), "model": asdict(config.model), "classes": classes, "data": config.data.name}
    if config.model.library == "transformers":
        inputs["prompt"] = config.data.text.prompt
    made = manifests.complete(folder, inputs) is None
    if made:
        state = experiment.soups.mixed(soup)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        (folder / manifests.MANIFEST).unlink(missing_ok=True)
        files, facts = _write(config, state, classes, folder)
        storage.write_json(folder / "labels.json", classes)
        storage.write_json(folder / "soup.json", soup.to_json())
        storage.write_text(folder / "README.md", card(experiment, soup, facts))
        manifests.finish(folder, inputs, [folder / name for name in (*files, *FACTS)])
        print(f"export: wrote {row} to {folder}; README.md explains how to load it")
    else:
        print(f"export: complete, {row} is already in {folder}")
    if repository:
        _push(folder, repository, config.export.private)
    return made


def _soup(experiment: Experiment, row: str) -> Soup:
    """Return the soup named `row`; for an ingredient such as 003, a soup of that model alone."""
    run = experiment.files
    known = {i.id: i for i in experiment.ingredients.find().ingredients}
    if row in known:
        return Soup("individual", (row,), (known[row].sha256,), {"*": [1.0]})
    if not run.soup(row).exists():
        files = [path for path in run.soups.glob("*.json") if not path.name.startswith(("curve_", manifests.MANIFEST))]
        rows = ", ".join(sorted(path.stem for path in files)) or "none yet (run `modelsoups soup`)"
        there = f"available soups: {rows}; ingredients: {', '.join(known)}"
        raise ValueError(f"export.row={row}: no such soup or ingredient; {there}")
    soup = experiment.soups.read(row)
    if soup.space == "logits":
        way_out = "choose a soup instead"
        raise ValueError(f"export.row={row} is an ensemble of {len(soup.hashes)} models; {way_out}")
    return soup


def _holds_other_files(folder: Path) -> bool:
    """Return whether a folder has files other than those of a finished or interrupted export.

    Hidden files do not count, as safetensors first writes to a hidden file (.tmpXXXXXX).
    """
    ours = {*CLIP_FILES, *TIMM_FILES, *export_text.FILES, *FACTS, manifests.MANIFEST}
    there = folder.iterdir() if folder.exists() else ()
    return any(path.name not in ours and not path.name.startswith(".") for path in there)


def _remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of an interrupted export; keep all other hidden files."""
    temporary.tidy(folder)
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def _write(
    config: Config, state: dict[str, Tensor], classes: list[str], folder: Path
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Write the model with these weights; return file names, and what the model card tells of it.

    Raises ValueError if its outputs, when it is loaded again, differ from the original's.
    """
    if config.model.library == "transformers":
        text = export_text.build_for(config.model, config.data, classes)
        text.load_state_dict(state)
        files = export_text.write(text, folder)
        exported = export_text.load(config.model, config.data, classes, folder)
        _check_same(lambda: export_text.sample(text), exported, folder)
        return files, export_text.prompt_facts(text)
    model = build(config.model, len(classes)).eval()
    model.load_state_dict(state)
    return _write_model(config.model, model, classes, folder), {"normalize": model.normalize}


def _write_model(config: ModelConfig, model: Classifier, classes: list[str], folder: Path) -> tuple[str, ...]:
    """Write the model for open_clip or timm, load it again to check, and return the file names.

    Raises ValueError if the loaded model's logits on random images differ from the original's.
    """
    if config.library == "timm":
        _write_timm(config.name, model, classes, folder)
        exported: Callable[[Tensor], Tensor] = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    else:
        _write_clip(config, model, folder)
        exported = _load_clip(folder, model.normalize)
    side = model.image_size
    images_BCHW = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    _check_same(lambda: model(images_BCHW), lambda: exported(images_BCHW), folder)
    return TIMM_FILES if config.library == "timm" else CLIP_FILES


@torch.inference_mode()
def _check_same(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], folder: Path) -> None:
    """Raise ValueError unless both functions return nearly the same logits."""
    ours_BC = ours()
    apart = float((ours_BC - theirs()).abs().max() / ours_BC.abs().max().clamp(min=1.0))
    if not apart <= CLOSE:
        raise ValueError(f"{folder} is unusable: logits differ from the soup's by {apart:.2g} of the largest logit")


def _write_clip(config: ModelConfig, model: Classifier, folder: Path) -> None:
    """Write both CLIP towers in open_clip's format, and the classifier to head.safetensors."""
    clip = load_clip(config).model
    clip.visual.load_state_dict(model.encoder.state_dict())
    if config.library == "iconclip":
        architecture = storage.read_json(iconclip.FOLDER / "open_clip_config.json")["model_cfg"]
    else:
        architecture = dict(open_clip.get_model_config(config.name))
        architecture.pop("hf_hub_id", None)
    preprocess = {"mean": list(model.mean), "std": list(model.std), "interpolation": "bicubic"}
    content = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    storage.write_json(folder / "open_clip_config.json", content)
    storage.save_weights(folder / "open_clip_model.safetensors", _plain(clip.state_dict()))
    storage.save_weights(folder / "head.safetensors", _plain(model.head.state_dict()))


def _load_clip(folder: Path, normalize: bool) -> Callable[[Tensor], Tensor]:
    clip, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    head = load_file(folder / "head.safetensors")

    def logits(images_BCHW: Tensor) -> Tensor:
        features_BD = clip.encode_image(images_BCHW, normalize=normalize)
        return F.linear(features_BD, head["weight"], head["bias"])

    return logits


def _write_timm(name: str, model: Classifier, classes: list[str], folder: Path) -> None:
    """Write encoder and head in timm's format; ValueError if timm's model cannot have this head."""
    if model.normalize:
        raise ValueError("model.normalize_features=true cannot be exported: timm models do not normalize features")
    whole: Any = timm.create_model(name, pretrained=False, num_classes=len(classes))
    classifier = whole.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.in_features != model.head.in_features:
        raise ValueError(f"model.name={name} cannot be exported: its classifier is not one linear layer")
    whole.load_state_dict(model.encoder.state_dict(), strict=False)
    classifier.load_state_dict(model.head.state_dict())
    pretrained = {key: value for key, value in whole.pretrained_cfg.items() if key in TIMM_KEYS}
    pretrained |= {"input_size": [3, model.image_size, model.image_size], "mean": list(model.mean)}
    pretrained |= {"std": list(model.std), "interpolation": "bicubic", "crop_pct": 1.0, "num_classes": len(classes)}
    content = {"architecture": name, "num_classes": len(classes), "num_features": whole.num_features}
    content |= {"label_names": classes, "pretrained_cfg": pretrained}
    storage.write_json(folder / "config.json", content)
    storage.save_weights(folder / paths.MODEL, _plain(whole.state_dict()))


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}


def _push(folder: Path, repository: str, private: bool) -> None:
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        left = [manifests.MANIFEST, ".*"]
        done = hub.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=left)
    except Exception as error:  # the network and the server each raise different types
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"export.push={repository}: upload failed ({why}); the files are in {folder}") from error
    print(f"export: pushed, {json.dumps(str(done))}")
