"""A soup as a folder that open_clip or timm loads as it is, with a model card: `modelsoups export export.row=greedy`.

A CLIP of open_clip's keeps its text tower; its classifier is in head.safetensors beside it, since a CLIP has no place
for one. A timm model holds its classifier. The folder is loaded again, by those libraries alone, before it counts as
complete, and must give the logits of our model.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from modelsoups.cli.model_card import card
from modelsoups.config.schema import Config
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.ingredients import load_pool
from modelsoups.experiment.sets import open_set
from modelsoups.experiment.soups import mixed, read_soup
from modelsoups.models.classifier import Classifier, build, load_clip
from modelsoups.soup.coefficients import Soup

TIMM_KEYS = ("classifier", "first_conv", "pool_size", "fixed_input_size")
CLOSE = 1e-4  # between logits of the same weights, computed by the same library


def run(cfg: Config) -> bool:
    """Write the folder, and push it where export.push says so; ValueError for a row that is not one model."""
    if cfg.export.push:
        _check_login(cfg.export.push)
    soup = _soup(cfg)
    folder = Path(cfg.export.out or cfg.run.root / "export" / cfg.export.row)
    if folder.exists() and any(folder.iterdir()) and manifests.manifest_of(folder) is None and not _ours(folder):
        raise ValueError(f"export.out={folder} holds other files; choose an empty folder")
    train = open_set(cfg.data.dir, cfg.data.train)
    inputs = {"soup": soup.to_json(), "model": asdict(cfg.model), "classes": list(train.classes), "data": cfg.data.name}
    made = manifests.complete(folder, inputs) is None
    if made:
        _write(cfg, soup, train, folder, inputs)
        print(f"export: {cfg.export.row} -> {folder}; README.md says how to load it")
    else:
        print(f"export: complete, {cfg.export.row} in {folder}")
    if cfg.export.push:
        _push(folder, cfg.export.push, cfg.export.private)
    return made


def _soup(cfg: Config) -> Soup:
    """The soup of export.row; an ingredient's id is a soup of one."""
    row = cfg.export.row
    known = {i.id: i for i in load_pool(cfg).ingredients}
    if row in known:
        return Soup("individual", (row,), (known[row].sha256,), {"*": [1.0]})
    if not cfg.run.soup(row).exists():
        there = sorted(p.stem for p in cfg.run.soups.glob("*.json") if p.name != manifests.MANIFEST)
        rows = ", ".join(name for name in there if not name.startswith("curve_"))
        raise ValueError(f"export.row={row}: no such row; there are {rows or 'no soups yet (modelsoups soup)'}, or an "
                         f"ingredient: {', '.join(known)}")  # fmt: skip
    soup = read_soup(cfg.run.soup(row))
    if soup.space == "logits":
        raise ValueError(f"export.row={row}: an ensemble is {len(soup.hashes)} models, not one; export a soup")
    return soup


def _ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what an export that was killed has left."""
    return {p.name.lstrip(".").split(".")[0] for p in folder.iterdir()} <= {Path(n).stem for n in _NAMES}


_NAMES = ("open_clip_config.json", "open_clip_model.safetensors", "head.safetensors", "config.json",
          paths.MODEL, "labels.json", "soup.json", "README.md", manifests.MANIFEST)  # fmt: skip


def _write(cfg: Config, soup: Soup, train: ShardSet, folder: Path, inputs: dict[str, Any]) -> None:
    state = mixed(cfg, soup)
    model = build(cfg.model, len(train.classes))
    model.load_state_dict(state)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifests.MANIFEST).unlink(missing_ok=True)
    is_timm = cfg.model.library == "timm"
    files = _write_timm(cfg, model, train, folder) if is_timm else _write_clip(cfg, model, folder)
    _check(model, _load_timm(folder) if is_timm else _load_clip(folder, model.normalize), folder)
    storage.write_json(folder / "labels.json", list(train.classes))
    storage.write_json(folder / "soup.json", soup.to_json())
    storage.write_text(folder / "README.md", card(cfg, soup, model.normalize))
    manifests.finish(folder, inputs, [folder / name for name in [*files, "labels.json", "soup.json", "README.md"]])


def _write_clip(cfg: Config, model: Classifier, folder: Path) -> list[str]:
    """Both towers as open_clip saves a CLIP, and the classifier beside them."""
    clip = load_clip(cfg.model).model
    clip.visual.load_state_dict(model.encoder.state_dict())
    preprocess = {"mean": list(model.mean), "std": list(model.std), "interpolation": "bicubic"}
    content = {"model_cfg": _clip_config(cfg), "preprocess_cfg": preprocess}
    storage.write_json(folder / "open_clip_config.json", content)
    storage.save_weights(folder / "open_clip_model.safetensors", _plain(clip.state_dict()))
    storage.save_weights(folder / "head.safetensors", _plain(model.head.state_dict()))
    return ["open_clip_config.json", "open_clip_model.safetensors", "head.safetensors"]


def _clip_config(cfg: Config) -> dict[str, Any]:
    if cfg.model.library == "iconclip":
        from modelsoups.models.iconclip import FOLDER

        return dict(storage.read_json(FOLDER / "open_clip_config.json")["model_cfg"])
    import open_clip

    found = dict(open_clip.get_model_config(cfg.model.name))
    return {k: v for k, v in found.items() if k != "hf_hub_id"}


def _load_clip(folder: Path, normalize: bool) -> Any:
    import open_clip

    clip, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    head = load_file(folder / "head.safetensors")

    def logits(images_BCHW: Tensor) -> Tensor:
        features_BD = clip.encode_image(images_BCHW, normalize=normalize)
        return F.linear(features_BD, head["weight"], head["bias"])

    return logits


def _write_timm(cfg: Config, model: Classifier, train: ShardSet, folder: Path) -> list[str]:
    """The backbone with our head as its own classifier, as timm saves a model."""
    import timm

    if model.normalize:
        raise ValueError("model.normalize_features=true: a timm model cannot hold this head; it is not exported")
    name = cfg.model.name
    whole: Any = timm.create_model(name, pretrained=False, num_classes=len(train.classes))
    classifier = whole.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.in_features != model.head.in_features:
        raise ValueError(f"model.name={name}: its classifier is not one linear layer on its features; not exported")
    whole.load_state_dict(model.encoder.state_dict(), strict=False)
    classifier.load_state_dict(model.head.state_dict())
    pretrained = {
        **{k: v for k, v in whole.pretrained_cfg.items() if k in TIMM_KEYS},
        "input_size": [3, model.image_size, model.image_size], "mean": list(model.mean), "std": list(model.std),
        "interpolation": "bicubic", "crop_pct": 1.0, "num_classes": len(train.classes),
    }  # fmt: skip
    content = {"architecture": name, "num_classes": len(train.classes), "num_features": whole.num_features,
               "label_names": list(train.classes), "pretrained_cfg": pretrained}  # fmt: skip
    storage.write_json(folder / "config.json", content)
    storage.save_weights(folder / paths.MODEL, _plain(whole.state_dict()))
    return ["config.json", paths.MODEL]


def _load_timm(folder: Path) -> Any:
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}


@torch.inference_mode()
def _check(model: Classifier, exported: Any, folder: Path) -> None:
    """Refuse an export whose logits of a few random images are not the model's."""
    side = model.image_size
    images_BCHW = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    ours_BC, theirs_BC = model(images_BCHW), exported(images_BCHW)
    apart = float((ours_BC - theirs_BC).abs().max() / ours_BC.abs().max().clamp(min=1.0))
    if not apart <= CLOSE:
        raise ValueError(f"{folder} gives other logits than the soup (by {apart:.2g} of the largest); not exported")


# ---- the Hugging Face hub ----


def _check_login(repository: str) -> None:
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise ValueError(f"export.push={repository}: not logged in to the Hugging Face hub; run `hf auth login`")


def _push(folder: Path, repository: str, private: bool) -> None:
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=[manifests.MANIFEST])
    except Exception as error:  # from the network or the server, each with its own kinds
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"export.push={repository}: {said}; the folder is complete: {folder}") from error
    print(f"export: pushed, {json.dumps(str(done))}")
