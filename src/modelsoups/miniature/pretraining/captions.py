"""Pre-training of IconCLIP on captioned icons. Its result ships with the package.

Contrastive learning between renderings of all glyphs of the pre-training pool and their names, as in CLIP, with four
departures without which so small a model learns little in so few images: pairs of the same name count as matches
(soft targets); most of a batch are names that two or more designers drew; renderings go from easy to hard over the
first half; and an auxiliary loss classifies those names from the image features (its head is thrown away).

Legend: B images of a batch, C colours, H height, W width, D features, N names, T tokens.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from modelsoups.disk import provenance, storage
from modelsoups.miniature import icons, sets
from modelsoups.miniature.pretraining.corpus import TEMPLATES, corpus_of_icons
from modelsoups.miniature.pretraining.run import PretrainOptions, Run, fixed, normalise, train
from modelsoups.models.classifier import Clip, zeroshot_weights
from modelsoups.models.iconclip import (
    CARD,
    CONFIG,
    FOLDER,
    VOCABULARY,
    WEIGHTS,
    Tokenizer,
    build,
    load_iconclip,
    tokenizer,
)
from modelsoups.stats import projection

CARD_SEED = 100  # of the data sets on which the card's accuracies are measured


class CaptionsRun(Run):
    """IconCLIP's image and text towers, and the auxiliary head."""

    parts, weights = ("loss", "names"), WEIGHTS

    def built(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        self.tokenize: Tokenizer = lru_cache_tokenizer(tokenizer(self.corpus.vocabulary))
        clip = build(self.options.out).train()
        return clip, clip.visual.output_dim, clip.visual.image_mean, clip.visual.image_std

    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What a step descends, and its two parts: the contrastive loss and the auxiliary one."""
        images_BD = self.model.encode_image(images_BCHW, normalize=True)
        texts_BD = self.model.encode_text(self.tokenize(self._captions(places_B, g)), normalize=True)
        loss = contrastive_loss(images_BD, texts_BD, self.model.logit_scale.exp(), self.corpus.name_of[places_B])
        auxiliary = self._auxiliary_loss(images_BD, self.corpus.shared_name_of[places_B])
        return loss + self.options.auxiliary * auxiliary, loss, auxiliary

    @torch.no_grad()
    def bounded(self) -> None:
        """CLIP's bound on its scale."""
        self.model.logit_scale.clamp_(0, math.log(100))

    def _captions(self, places_B: Tensor, g: Generator) -> list[str]:
        """The concept or the designer's own name, in a general template or in the style's own."""
        captions = []
        for place, (own_name, general, which) in zip(
            places_B.tolist(), torch.rand(len(places_B), 3, generator=g).tolist(), strict=True
        ):
            glyph = self.corpus.glyphs[place]
            name = glyph.name.replace("-", " ") if own_name < 0.5 else glyph.caption
            template = TEMPLATES[int(which * len(TEMPLATES))] if general < 0.6 else icons.STYLES[glyph.style].caption
            captions.append(template.format(name))
        return captions

    def _auxiliary_loss(self, images_BD: Tensor, shared_name_B: Tensor) -> Tensor:
        known = shared_name_B >= 0
        logits_BN = 20 * images_BD[known] @ F.normalize(self.names.weight, dim=1).T
        return F.cross_entropy(logits_BN, shared_name_B[known])


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Pre-train, or go on from the checkpoint in `out`; write the folder that load_iconclip reads; return its card."""
    torch.set_num_threads(options.threads)
    corpus = corpus_of_icons()
    options.out.mkdir(parents=True, exist_ok=True)
    _write_config(options.out, corpus.vocabulary)
    run = CaptionsRun(options, corpus)
    seconds = train(run, lambda: print(f"pretrain: zero-shot {_in_words(zero_shot(options.out, chunks=1))}"))
    return write_card(options, seconds)


def _write_config(folder: Path, vocabulary: list[int]) -> None:
    """The shipped model config with the size of this vocabulary, and the vocabulary."""
    config = storage.read_json(FOLDER / CONFIG)
    config["model_cfg"]["text_cfg"]["vocab_size"] = len(vocabulary)
    storage.write_json(folder / CONFIG, config)
    storage.write_text(folder / VOCABULARY, json.dumps(vocabulary) + "\n")


def lru_cache_tokenizer(tokenize: Tokenizer) -> Tokenizer:
    """The same tokenizer, remembering texts: BPE in Python is slow, and captions repeat."""
    one = lru_cache(maxsize=None)(lambda text: tokenize([text])[0])
    return lambda texts: torch.stack([one(t) for t in texts])  # type: ignore[return-value]


def contrastive_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor, names_B: Tensor) -> Tensor:
    """CLIP's symmetric loss, where all pairs of the same name are matches, in equal parts."""
    logits_BB = scale * images_BD @ texts_BD.T
    same_BB = (names_B[:, None] == names_B[None]).float()
    target_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB))


@torch.inference_mode()
def zero_shot(folder: Path, seed: int = CARD_SEED, chunks: int | None = None) -> dict[str, float]:
    """Zero-shot accuracy, in percent, of a folder's model on the test set and the shifts (or their first chunks)."""
    model, tokenize = load_iconclip(folder)
    mean, std = model.visual.image_mean, model.visual.image_std
    clip = Clip(model, tokenize, model.visual.output_dim, tuple(mean), tuple(std))
    weights_CD = zeroshot_weights(clip, sets.CLASSES, sets.TEMPLATES)
    accuracies = {}
    for name, icon_set in sets.SETS.items():
        if icon_set.role not in ("test", "shift"):
            continue
        correct = total = 0
        for chunk in range(sets.chunks(name) if chunks is None else min(chunks, sets.chunks(name))):
            _, images, labels = zip(*sets.render_chunk(name, seed, chunk), strict=True)
            images_BCHW = torch.stack([torch.from_numpy(i) for i in images]).permute(0, 3, 1, 2)
            features_BD = model.encode_image(normalise(images_BCHW, mean, std), normalize=True)
            logits_BC = projection.project(features_BD @ weights_CD.T, icon_set.projection)
            correct += int((logits_BC.argmax(dim=1) == torch.tensor(labels)).sum())
            total += len(labels)
        accuracies[name] = round(100 * correct / total, 2)
    shifts = [a for name, a in accuracies.items() if sets.SETS[name].role == "shift"]
    return {**accuracies, "mean of shifts": round(sum(shifts) / len(shifts), 2)}


def _in_words(accuracies: dict[str, float]) -> str:
    return "  ".join(f"{name} {accuracy:.1f}" for name, accuracy in accuracies.items())


def write_card(options: PretrainOptions, seconds: float) -> dict[str, Any]:
    """Measure the finished weights and write card.json beside them."""
    pool, accuracies = icons.pretraining_pool(), zero_shot(options.out)
    card = {
        "made with": f"modelsoups pretrain pretrain.seed={options.seed} pretrain.steps={options.steps}",
        "options": fixed(options),
        "images": options.steps * options.batch_size,
        "seconds": round(seconds),
        "glyphs": len(pool.indices),
        "glyphs held out": pool.held_out,
        "near-duplicates left out": pool.near_duplicates,
        "zero-shot accuracy": accuracies,
        "data seed": CARD_SEED,
        "provenance": provenance.provenance(),
    }
    storage.write_json(options.out / CARD, card)
    print(f"pretrain: done in {seconds / 60:.1f} min; zero-shot {_in_words(accuracies)}", flush=True)
    return card


def install(folder: Path, into: Path = FOLDER) -> None:
    """Copy a finished folder's four files to where load_iconclip looks, the weights last."""
    for name in (CONFIG, VOCABULARY, CARD, WEIGHTS):
        with storage.atomic(into / name) as tmp:
            shutil.copyfile(folder / name, tmp)
