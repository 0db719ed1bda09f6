"""Pre-training of IconCLIP on captioned icons: `modelsoups pretrain`. Its result ships with the package.

Contrastive learning between renderings of all glyphs of the pre-training pool and their names, as in CLIP, with four
departures without which so small a model learns little in so few images: pairs of the same name count as matches
(soft targets); most of a batch are names that two or more designers drew; renderings go from easy to hard over the
first half; and an auxiliary loss classifies those names from the image features (its head is thrown away).

Every step draws from a generator of its own, so that a run which resumes from its checkpoint sees the same batches.

Legend: B images of a batch, C colours, H height, W width, D features, N names, T tokens.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from modelsoups import runs
from modelsoups.core import metrics
from modelsoups.data.iconnet import icons, sets
from modelsoups.data.iconnet.iconclip import (
    CARD,
    CONFIG,
    FOLDER,
    VOCABULARY,
    WEIGHTS,
    Tokenizer,
    bpe_vocabulary,
    build,
    load_iconclip,
    tokenizer,
)
from modelsoups.data.iconnet.render import Look, render
from modelsoups.model import Clip, zeroshot_weights
from modelsoups.schema import Config

EASY = Look(scale=(0.75, 0.98), turn=5, shift=0.04, rich=0.5, white=0.25, dark=0.5, inverted=0.35, contrast=(0.5, 1.0),
            occluded=0, blur=0, noise=(0, 0.03))  # fmt: skip
HARD = Look(scale=(0.45, 0.98), turn=30, perspective=0.2, shift=0.14, rich=0.5, white=0.25, dark=0.5, inverted=0.35,
            contrast=(0.2, 1.0), stripes=0.25, clutter=0.3, occluded=0.25, blur=0.3, noise=(0, 0.18))  # fmt: skip
TEMPLATES = ("{}", "a {}", "an icon of a {}", "a {} icon", "a picture of a {}")
CARD_SEED = 100  # of the data sets on which the card's accuracies are measured


@dataclass
class PretrainOptions:
    """How to pre-train; the defaults are those of the shipped weights (see card.json)."""

    out: Path
    seed: int = 0
    steps: int = 7000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 300
    shared_names: float = 0.7  # share of a batch whose name two or more designers drew
    auxiliary: float = 0.5  # weight of the name-classification loss
    threads: int = 2
    checkpoint_every: int = 500
    log_every: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"pretrain.steps={self.steps}: expected at least 1")


def run(cfg: Config) -> bool:
    """Pre-train into cfg.pretrain.out. False: no run of the pipeline was added to, so there is no time to keep."""
    given = {} if cfg.pretrain.steps is None else {"steps": cfg.pretrain.steps}
    out, seed = Path(cfg.pretrain.out), cfg.pretrain.seed
    if cfg.pretrain.labels:
        from modelsoups import pretrain_labels

        pretrain_labels.pretrain(PretrainOptions(out, seed=seed, **{"steps": pretrain_labels.STEPS, **given}))
    else:
        pretrain(PretrainOptions(out, seed=seed, **given))
    return False


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Pre-train, or go on from the checkpoint in `out`; write the folder that load_iconclip reads; return its card."""
    torch.set_num_threads(options.threads)
    corpus = corpus_of_icons()
    options.out.mkdir(parents=True, exist_ok=True)
    _write_config(options.out, corpus.vocabulary)
    seconds = train(
        Run(options, corpus), lambda: print(f"pretrain: zero-shot {_in_words(zero_shot(options.out, chunks=1))}")
    )
    return write_card(options, seconds)


def train(run: Run, on_checkpoint: Callable[[], None] = lambda: None) -> float:
    """The steps that are left, with a line and a checkpoint now and then; the seconds of all steps."""
    options, start, begun = run.options, run.step, time.monotonic()
    while run.step < options.steps:
        losses = run.train_step()
        done = run.step
        if done % options.log_every == 0 or done == options.steps:
            each = (time.monotonic() - begun) / (done - start)
            left = each * (options.steps - done) / 60
            shown = "  ".join(f"{name} {value:.3f}" for name, value in zip(run.parts, losses, strict=True))
            print(f"pretrain: step {done}/{options.steps}  {shown}  "
                  f"{options.batch_size / each:.0f} images/s  {left:.1f} min left", flush=True)  # fmt: skip
        if done % options.checkpoint_every == 0 and done < options.steps:
            run.save(time.monotonic() - begun)
            run.write_weights(options.out)
            on_checkpoint()
    run.write_weights(options.out)
    return run.seconds_before + time.monotonic() - begun


@dataclass(frozen=True)
class Corpus:
    """The glyphs of pre-training, their captions, and the name each counts as."""

    masks_GSS: Tensor
    glyphs: list[icons.Glyph]
    name_of: Tensor  # by glyph
    shared: Tensor  # places of glyphs whose name two or more designers drew
    single: Tensor  # of the others
    shared_name_of: Tensor  # by glyph: the class of the auxiliary loss, or -1
    vocabulary: list[int]


def corpus_of_icons() -> Corpus:
    everything = icons.glyphs()
    pool = icons.pretraining_pool().indices
    glyphs = [everything[i] for i in pool]
    designers = defaultdict(set)
    for g in glyphs:
        designers[g.caption].add(g.designer)
    names = {name: n for n, name in enumerate(sorted(designers))}
    shared_names = {name: n for n, name in enumerate(sorted(k for k, v in designers.items() if len(v) > 1))}
    shared_name_of = torch.tensor([shared_names.get(g.caption, -1) for g in glyphs])
    captions = {style.caption for style in icons.STYLES.values()}
    texts = {g.caption for g in glyphs} | {g.name.replace("-", " ") for g in glyphs} | set(sets.CLASSES)
    texts |= {t.format("icon") for t in (*TEMPLATES, *sets.TEMPLATES, *captions)}
    return Corpus(
        icons.masks(pool),
        glyphs,
        torch.tensor([names[g.caption] for g in glyphs]),
        (shared_name_of >= 0).nonzero()[:, 0],
        (shared_name_of < 0).nonzero()[:, 0],
        shared_name_of,
        bpe_vocabulary(sorted(texts)),
    )


def _write_config(folder: Path, vocabulary: list[int]) -> None:
    """The shipped model config with the size of this vocabulary, and the vocabulary."""
    config = runs.read_json(FOLDER / CONFIG)
    config["model_cfg"]["text_cfg"]["vocab_size"] = len(vocabulary)
    runs.write_json(folder / CONFIG, config)
    runs.write_text(folder / VOCABULARY, json.dumps(vocabulary) + "\n")


class Run:
    """Model, auxiliary head and optimizer, and the step they have come to."""

    parts = "loss", "names"  # of the loss, as they are printed

    def __init__(self, options: PretrainOptions, corpus: Corpus) -> None:
        self.options, self.corpus = options, corpus
        torch.manual_seed(options.seed)
        self.model, features, self.mean, self.std = self.built()
        self.names = nn.Linear(features, int(corpus.shared_name_of.max()) + 1, bias=False)
        weights = [*self.model.parameters(), *self.names.parameters()]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": options.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.98))
        self.step, self.seconds_before = 0, 0.0
        self._load()

    def built(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        """The model in training mode, the size of its image features, and its images' mean and standard deviation."""
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

    def train_step(self) -> tuple[float, float]:
        """One step; the two parts of its loss."""
        o, c = self.options, self.corpus
        g = sets.generator(f"pretrain {o.seed} step {self.step}")
        places_B = self._batch(g)
        look = EASY.towards(HARD, min(1.0, 2 * self.step / o.steps))
        images_BCHW = render(c.masks_GSS[places_B], look, g, c.masks_GSS)
        whole, one, other = self.losses(normalise(images_BCHW, self.mean, self.std), places_B, g)
        self.optimizer.zero_grad()
        whole.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        lr = o.lr * min(1, (self.step + 1) / o.warmup_steps) * 0.5 * (1 + math.cos(math.pi * self.step / o.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.bounded()
        self.step += 1
        return one.item(), other.item()

    @torch.no_grad()
    def bounded(self) -> None:
        """CLIP's bound on its scale."""
        self.model.logit_scale.clamp_(0, math.log(100))

    def _batch(self, g: Generator) -> Tensor:
        shared = round(self.options.batch_size * self.options.shared_names)
        parts = ((self.corpus.shared, shared), (self.corpus.single, self.options.batch_size - shared))
        return torch.cat([places[torch.randperm(len(places), generator=g)[:count]] for places, count in parts])

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

    @property
    def _checkpoint(self) -> Path:
        return self.options.out / "checkpoint.pt"

    def save(self, seconds: float) -> None:
        state = {
            "options": fixed(self.options),
            "step": self.step,
            "seconds": self.seconds_before + seconds,
            "model": self.model.state_dict(),
            "names": self.names.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with runs.atomic(self._checkpoint) as tmp:
            torch.save(state, tmp)

    def _load(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        if state["options"] != fixed(self.options):
            raise ValueError(f"{self._checkpoint} was made with other options; remove it or choose another `out`")
        self.model.load_state_dict(state["model"])
        self.names.load_state_dict(state["names"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        print(f"pretrain: going on from step {self.step}", flush=True)

    def write_weights(self, folder: Path) -> None:
        state = {k: v.detach().half().contiguous() for k, v in self.model.state_dict().items()}
        runs.save_weights(folder / WEIGHTS, state)


def fixed(options: PretrainOptions) -> dict[str, Any]:
    """The options that the result depends on."""
    free = ("out", "checkpoint_every", "log_every")
    return {k: v for k, v in asdict(options).items() if k not in free}


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


def normalise(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    mean_C11, std_C11 = (torch.tensor(x).view(-1, 1, 1) for x in (mean, std))
    return (images_BCHW.float() / 255 - mean_C11) / std_C11


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
            logits_BC = metrics.project(features_BD @ weights_CD.T, icon_set.projection)
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
        "provenance": runs.provenance(),
    }
    runs.write_json(options.out / CARD, card)
    print(f"pretrain: done in {seconds / 60:.1f} min; zero-shot {_in_words(accuracies)}", flush=True)
    return card


def install(folder: Path, into: Path = FOLDER) -> None:
    """Copy a finished folder's four files to where load_iconclip looks, the weights last."""
    for name in (CONFIG, VOCABULARY, CARD, WEIGHTS):
        with runs.atomic(into / name) as tmp:
            shutil.copyfile(folder / name, tmp)
