"""Pre-training of IconCLIP, a small CLIP, on rendered icons with captions.

As in CLIP, a contrastive loss matches images and captions, which are made from the icons' names. So
small a model needs four changes: all pairs with the same name count as matches; most of a batch has
names that two or more designers drew; images go from easy to hard over the first half of the steps;
and an auxiliary loss classifies those names (its head is dropped afterwards).

Shape letters: N names, T tokens.
"""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from modelsoups.disk import storage
from modelsoups.miniature import icons
from modelsoups.miniature.images import chunk_batch
from modelsoups.miniature.pretraining.corpus import TEMPLATES
from modelsoups.miniature.pretraining.icons import CPU, IconPretraining
from modelsoups.miniature.pretraining.training import Losses
from modelsoups.miniature.sets import CLASSES, SETS
from modelsoups.miniature.sets import TEMPLATES as PROMPTS
from modelsoups.models import iconclip
from modelsoups.models.classifier import Normalisation, zeroshot_weights
from modelsoups.stats import projection

CARD_SEED = 100  # seed of the data sets on which the card's accuracies are measured


class CaptionPretraining(IconPretraining):
    """The pre-training of IconCLIP: image tower, text tower and the head of the auxiliary loss."""

    steps, parts, weights = 7000, ("loss", "names"), iconclip.WEIGHTS

    def build_model(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        out, vocabulary = self.options.out, self.corpus.vocabulary
        config = storage.read_json(iconclip.FOLDER / iconclip.CONFIG)
        config["model_cfg"]["text_cfg"]["vocab_size"] = len(vocabulary)
        storage.write_json(out / iconclip.CONFIG, config)
        storage.write_text(out / iconclip.VOCABULARY, json.dumps(vocabulary) + "\n")
        tokenize = iconclip.tokenizer(vocabulary)
        self.tokens_T = cache(lambda text: tokenize([text])[0])  # BPE is slow, and captions repeat
        clip = iconclip.build(out).train()
        return clip, clip.visual.output_dim, clip.visual.image_mean, clip.visual.image_std

    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> Losses:
        """Return the total loss, the contrastive loss and the auxiliary classification loss."""
        images_BD = self.model.encode_image(images_BCHW, normalize=True)
        texts_BT = torch.stack(list(map(self.tokens_T, self._captions(places_B, g))))
        texts_BD = self.model.encode_text(texts_BT, normalize=True)
        scale = self.model.logit_scale.exp()
        loss = contrastive_loss(images_BD, texts_BD, scale, self.corpus.name_of[places_B])
        shared_name_B = self.corpus.shared_name_of[places_B]
        known = shared_name_B >= 0
        logits_BN = 20 * images_BD[known] @ F.normalize(self.names.weight, dim=1).T
        auxiliary = F.cross_entropy(logits_BN, shared_name_B[known])
        return loss + self.options.auxiliary * auxiliary, loss, auxiliary

    @torch.no_grad()
    def after_step(self) -> None:
        self.model.logit_scale.clamp_(0, math.log(100))  # as in CLIP

    def _captions(self, places_B: Tensor, g: Generator) -> list[str]:
        """Return a random caption per glyph: its concept or name in one of several templates."""
        captions = []
        glyphs = [self.corpus.glyphs[place] for place in places_B.tolist()]
        draws_B3 = torch.rand(len(places_B), 3, generator=g)
        for glyph, (own_name, general, which) in zip(glyphs, draws_B3.tolist(), strict=True):
            name = glyph.name.replace("-", " ") if own_name < 0.5 else glyph.caption
            template = icons.STYLES[glyph.style].caption
            if general < 0.6:
                template = TEMPLATES[int(which * len(TEMPLATES))]
            captions.append(template.format(name))
        return captions

    def report(self) -> None:
        print(f"pretrain: zero-shot {_in_words(zero_shot(self.options.out, chunks=1))}", flush=True)

    def facts(self) -> dict[str, Any]:
        glyphs, accuracies = icons.pretraining_glyphs(), zero_shot(self.options.out)
        print(f"pretrain: zero-shot {_in_words(accuracies)}", flush=True)
        return {
            "glyphs": len(glyphs.indices),
            "glyphs held out": glyphs.held_out,
            "near-duplicates left out": glyphs.near_duplicates,
            "zero-shot accuracy": accuracies,
            "data seed": CARD_SEED,
        }


def contrastive_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor, names_B: Tensor) -> Tensor:
    """Return CLIP's symmetric loss, with targets spread equally over all pairs of the same name."""
    logits_BB = scale * images_BD @ texts_BD.T
    same_BB = (names_B[:, None] == names_B[None]).float()
    target_BB = same_BB / same_BB.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB))


@torch.inference_mode()
def zero_shot(folder: Path, seed: int = CARD_SEED, chunks: int | None = None) -> dict[str, float]:
    """Return the zero-shot accuracy, in percent, of the IconCLIP in `folder` on each test set.

    chunks: 256-image chunks per set (None: all). Key "mean of shifts": mean over the shifted sets.
    """
    clip = iconclip.load_iconclip(folder)
    visual = clip.model.visual
    normalisation = Normalisation(visual.image_mean, visual.image_std)
    weights_CD = zeroshot_weights(clip, CLASSES, PROMPTS)
    accuracies, shifts = {}, []
    for name, icon_set in SETS.items():
        if icon_set.role not in ("test", "shift"):
            continue
        right = []
        for chunk in range(min(chunks or icon_set.chunks, icon_set.chunks)):
            pixels_BCHW, labels = chunk_batch(name, seed, chunk)
            features_BD = clip.model.encode_image(normalisation(pixels_BCHW, CPU), normalize=True)
            logits_BC = projection.project(features_BD @ weights_CD.T, icon_set.projection)
            right += (logits_BC.argmax(dim=1) == torch.tensor(labels)).tolist()
        accuracies[name] = round(100 * sum(right) / len(right), 2)
        if icon_set.role == "shift":
            shifts.append(accuracies[name])
    return {**accuracies, "mean of shifts": round(sum(shifts) / len(shifts), 2)}


def _in_words(accuracies: dict[str, float]) -> str:
    return "  ".join(f"{name} {accuracy:.1f}" for name, accuracy in accuracies.items())
