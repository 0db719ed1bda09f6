"""IconNet and IconCLIP: what a set is made of, that it is the same each time, and what pre-training has not seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from modelsoups.cli import pretrain
from modelsoups.disk import paths
from modelsoups.miniature import adversarial, icons, render, sets
from modelsoups.miniature.pretraining import captions, run
from modelsoups.miniature.pretraining import labels as by_labels
from modelsoups.miniature.pretraining.corpus import corpus_of_icons
from modelsoups.models import iconclip

CLASSES = len(sets.CLASSES)
CARD_SEED = captions.CARD_SEED


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chunk_bytes(name: str, seed: int, chunk: int = 0) -> bytes:
    return b"".join(image.tobytes() for _, image, _ in sets.render_chunk(name, seed, chunk))


# ---- icons


def test_every_class_has_glyphs_of_every_kind():
    for icon_set in sets.SETS.values():
        available = icons.by_class(icon_set.styles)
        assert all(available[c] for c in icon_set.label_of_class), icon_set.title
    assert min(map(len, icons.by_class(icons.IN_DISTRIBUTION))) >= 3


def test_names_of_concepts_are_unambiguous():
    table = json.loads((paths.ASSETS / "iconnet" / "concepts.json").read_text())
    names = [n for group in table.values() for synonyms in group.values() for n in synonyms]
    assert len(names) == len(set(names))


def test_masks_are_centred_and_fill_the_square():
    mask_SS = icons.masks(icons.by_class(("mdi_fill",))[sets.CLASSES.index("heart")][:1])[0]
    rows, columns = mask_SS.amax(dim=1).nonzero()[:, 0], mask_SS.amax(dim=0).nonzero()[:, 0]
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) >= 0.9 * icons.SIDE
    assert abs(int(rows[0] + rows[-1]) - icons.SIDE) <= 2


def test_missing_package_and_missing_font_say_what_to_install(monkeypatch, tmp_path):
    icons.fonts_dir.cache_clear()
    try:
        monkeypatch.setattr(icons, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match="pip install qtawesome"):
            icons.fonts_dir()
        spec = ModuleSpec("qtawesome", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setattr(icons, "find_spec", lambda name: spec)
        with pytest.raises(ValueError, match=r"phosphor-1.3.0.ttf.*pip install qtawesome"):
            icons._font_file("phosphor-1.3.0.ttf")
    finally:
        icons.fonts_dir.cache_clear()


# ---- what pre-training and clutter may not see


@pytest.mark.parametrize(
    ("name", "depicts"),
    [("book-open", True), ("bell-books", True), ("shopping-cart-2", True), ("notebook", False), ("bank", False)],
)
def test_names_that_depict_a_class(name, depicts):
    assert icons.depicts_class(name) is depicts


@pytest.fixture(scope="module")
def pool() -> icons.Pool:
    return icons.pretraining_pool()


def test_pool_has_no_held_out_glyph(pool):
    glyphs = icons.glyphs()
    for i in pool.indices:
        glyph = glyphs[i]
        assert glyph.style in icons.IN_DISTRIBUTION or not (
            glyph.concept in sets.CLASSES or icons.depicts_class(glyph.name)
        ), glyph
    evaluated = {i for s in sets.SETS.values() for group in icons.by_class(s.styles) for i in group}
    held_out = {i for i in evaluated if glyphs[i].style not in icons.IN_DISTRIBUTION}
    assert held_out
    assert not held_out & set(pool.indices)


def test_pool_has_no_near_duplicate_of_a_held_out_glyph(pool):
    own = {i for group in icons.by_class(icons.IN_DISTRIBUTION) for i in group}
    others = [i for i in pool.indices if i not in own]
    evaluated = [i for group in icons.by_class(icons.HELD_OUT) for i in group]
    assert pool.near_duplicates > 100
    assert not any(icons.similar(others, evaluated))
    assert all(icons.similar(evaluated[:5], evaluated))


def test_clutter_is_of_the_pool_and_of_no_class(pool):
    clutter = sets.clutter()
    assert len(clutter) == sets.CLUTTER
    assert set(clutter) <= set(pool.indices)
    assert not any(icons.depicts_class(icons.glyphs()[i].name) for i in clutter)


# ---- rendering


def test_same_generator_same_image_and_bytes_are_uint8():
    masks_BSS = icons.masks(icons.by_class(("fa6_solid",))[0][:1] * 3)
    look = replace(sets.LOOKS["r"], clutter=1.0)
    first, second = (render.render(masks_BSS, look, torch.Generator().manual_seed(7), masks_BSS) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (3, 3, 32, 32)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_render_refuses_clutter_without_masks():
    with pytest.raises(ValueError, match="needs masks"):
        render.render(torch.zeros(1, 48, 48, dtype=torch.uint8), render.Look(clutter=0.5), torch.Generator())


def test_looks_interpolate():
    half = run.EASY.towards(run.HARD, 0.5)
    assert half.turn == pytest.approx((run.EASY.turn + run.HARD.turn) / 2)
    assert half.noise[1] == pytest.approx((run.EASY.noise[1] + run.HARD.noise[1]) / 2)
    assert run.EASY.towards(run.HARD, 1.0) == run.HARD


# ---- sets


@pytest.mark.parametrize("name", list(sets.SETS))
def test_bytes_depend_on_name_and_seed_only(name):
    first = chunk_bytes(name, 100)
    for cache in (sets._plan, sets.clutter, adversarial.candidates, adversarial.order):
        cache.cache_clear()
    chunk_bytes("r" if name != "r" else "v2", 101)
    assert chunk_bytes(name, 100) == first
    assert chunk_bytes(name, 101) != first


@pytest.mark.parametrize("name", list(sets.SETS))
def test_sizes_keys_and_labels(name):
    last = sets.chunks(name) - 1
    chunk = sets.render_chunk(name, 100, last)
    assert last * sets.CHUNK + len(chunk) == sets.set_size(name)
    assert chunk[-1][0] == f"{name}-{sets.set_size(name) - 1:05d}"
    assert chunk[0][1].shape == (32, 32, 3)
    assert {label for _, _, label in chunk} <= set(sets.SETS[name].label_of_class.values())


def test_test_and_shifts_are_large_enough_for_half_a_point():
    assert sets.set_size("test") >= 7000
    assert all(sets.set_size(name) >= 3000 for name, s in sets.SETS.items() if s.role == "shift")


def test_train_and_holdout_split_one_pool_by_class():
    for name in ("train", "holdout"):
        counts = np.bincount(sets._plan(name, 100).classes, minlength=CLASSES)
        assert (counts == sets.SETS[name].per_class).all()
    train = {image.tobytes() for _, image, _ in sets.render_set("train", 100)}
    holdout = {image.tobytes() for _, image, _ in sets.render_set("holdout", 100)}
    assert len(train) == sets.set_size("train")
    assert not train & holdout


def test_unknown_set_and_chunk():
    with pytest.raises(ValueError, match="no IconNet set imagenet; there are train, holdout"):
        sets.set_size("imagenet")
    with pytest.raises(ValueError, match="no chunk 99"):
        sets.render_chunk("v2", 0, 99)


def test_projections():
    for name in ("r", "a"):
        indices = sets.SETS[name].projection["indices"]
        assert indices == sorted(set(indices))
        assert len(indices) == CLASSES // 2
    groups = sets.SETS["objectnet"].projection["groups"]
    flat = [c for group in groups for c in group]
    assert len(flat) == len(set(flat)) == CLASSES // 2
    assert sum(len(group) == 2 for group in groups) == len(sets.FOLDERS_OF_TWO)
    car, truck = sets.CLASSES.index("car"), sets.CLASSES.index("truck")
    label_of = sets.SETS["objectnet"].label_of_class
    assert label_of[car] == label_of[truck]
    assert groups[label_of[car]] == [car, truck]
    assert all(sets.SETS[name].projection is None for name in ("train", "holdout", "test", "v2", "sketch"))


def test_a_is_a_selection_and_seeds_choose_within_it():
    kept_CN = adversarial.kept()
    assert kept_CN.shape == (adversarial.CANDIDATES, sets.CHUNK)
    assert 0.05 < kept_CN.mean() < 0.6
    assert all(kept_CN[chunk, place] for chunk, place in adversarial.order(100))
    assert len(set(adversarial.order(100))) == sets.set_size("a")
    assert set(adversarial.order(100)) != set(adversarial.order(101))


# ---- IconCLIP


def test_tokenizer_round_trip():
    vocabulary = iconclip.bpe_vocabulary(["a bicycle", "an icon of a wine glass"])
    tokenize = iconclip.tokenizer(vocabulary)
    ids_NT = tokenize(["a bicycle", "a wine glass"])
    bpe = iconclip.SimpleTokenizer(context_length=iconclip.context_length())
    assert [[vocabulary[i] for i in row] for row in ids_NT.tolist()] == bpe(["a bicycle", "a wine glass"]).tolist()
    assert int(ids_NT.max()) == len(vocabulary) - 1  # the end of text, where CLIP reads
    with pytest.raises(ValueError, match="lacks words of 'a zebra'"):
        tokenize(["a zebra"])


def test_shipped_weights_are_small_and_see_better_than_chance():
    model, tokenize = iconclip.load_iconclip()
    assert (iconclip.FOLDER / iconclip.WEIGHTS).stat().st_size <= 5e6
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not model.training
    assert tokenize(sets.CLASSES).shape == (CLASSES, iconclip.context_length())
    accuracies = captions.zero_shot(iconclip.FOLDER, chunks=1)
    assert accuracies["test"] > 50
    assert 35 < accuracies["mean of shifts"] < accuracies["test"]
    assert accuracies["a"] < accuracies["r"] - 5


def test_card_says_how_the_weights_were_made():
    card = json.loads((iconclip.FOLDER / iconclip.CARD).read_text())
    assert card["images"] == card["options"]["steps"] * card["options"]["batch_size"]
    assert set(card["zero-shot accuracy"]) == {n for n, s in sets.SETS.items() if s.role in ("test", "shift")} | {
        "mean of shifts"
    }


def test_iconvit_tells_icons_apart_that_it_was_never_told_the_names_of():
    """Its features of test images, each against the mean of the other images of every class; chance is 1 of 80."""
    from modelsoups.config.compose import load
    from modelsoups.models.classifier import build

    assert (by_labels.FOLDER / by_labels.WEIGHTS).stat().st_size <= 2e6
    model = build(load(["model=iconvit"]).model, CLASSES).eval()
    _, images, labels = zip(*(row for c in range(4) for row in sets.render_chunk("test", CARD_SEED, c)), strict=True)
    images_BCHW = torch.stack([torch.from_numpy(i) for i in images]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features_BD = torch.nn.functional.normalize(
            model.features(run.normalise(images_BCHW, model.mean, model.std)), dim=1
        )
    labels_B = torch.tensor(labels)
    one_hot_BC = torch.nn.functional.one_hot(labels_B, CLASSES).float()
    others_BCD = (one_hot_BC.T @ features_BD)[None] - one_hot_BC[:, :, None] * features_BD[:, None]
    counts_BC = (one_hot_BC.sum(dim=0) - one_hot_BC).clamp(min=1)
    logits_BC = torch.einsum("bd,bcd->bc", features_BD, others_BCD / counts_BC[:, :, None])
    assert (logits_BC.argmax(dim=1) == labels_B).float().mean() > 0.3


def test_iconvit_card_says_how_the_weights_were_made():
    card = json.loads((by_labels.FOLDER / by_labels.CARD).read_text())
    assert card["made with"].startswith("modelsoups pretrain pretrain.labels=true")
    assert card["images"] == card["options"]["steps"] * card["options"]["batch_size"]


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(ValueError, match="modelsoups pretrain"):
        iconclip.load_iconclip(tmp_path)


def test_stage_passes_its_options_and_refuses_no_steps(monkeypatch):
    from modelsoups.config.compose import load

    seen = []
    monkeypatch.setattr(captions, "pretrain", seen.append)
    assert pretrain.run(load(["pretrain.out=elsewhere", "pretrain.seed=3"])) is False
    assert seen == [run.PretrainOptions(Path("elsewhere"), seed=3)]
    monkeypatch.setattr(by_labels, "pretrain", seen.append)
    assert pretrain.run(load(["pretrain.labels=true", "pretrain.steps=9"])) is False
    assert seen[1:] == [run.PretrainOptions(Path("runs/pretrain"), steps=9)]
    with pytest.raises(ValueError, match=r"pretrain.steps=0: expected at least 1"):
        pretrain.run(load(["pretrain.steps=0"]))


def test_contrastive_loss_counts_the_same_name_as_a_match():
    eye_BD = torch.eye(4)
    distinct = captions.contrastive_loss(eye_BD, eye_BD, torch.tensor(50.0), torch.arange(4))
    twins_BD = eye_BD[[0, 0, 1, 2]]
    twins = captions.contrastive_loss(twins_BD, twins_BD, torch.tensor(50.0), torch.tensor([0, 0, 1, 2]))
    assert float(distinct) == pytest.approx(0, abs=1e-6)
    assert float(twins) == pytest.approx(0.5 * np.log(2), abs=1e-6)  # two of four rows choose between two matches


@pytest.mark.parametrize("labels", [False, True])
def test_pretraining_resumes_to_the_same_weights(tmp_path: Path, capsys, labels: bool):
    def options(out: str, steps: int = 3, every: int = 100) -> run.PretrainOptions:
        fixed = {"batch_size": 16, "threads": 1, "shared_names": 1.0 if labels else 0.7}
        return run.PretrainOptions(tmp_path / out, steps=steps, checkpoint_every=every, **fixed)

    corpus = corpus_of_icons()
    made = by_labels.LabelsRun if labels else captions.CaptionsRun
    for folder in (tmp_path / "whole", tmp_path / "part"):
        shutil.copytree(by_labels.FOLDER if labels else iconclip.FOLDER, folder)
        if not labels:
            captions._write_config(folder, corpus.vocabulary)
    straight = made(options("whole"), corpus)
    for _ in range(3):
        straight.train_step()
    first = made(options("part"), corpus)
    first.train_step()
    first.save(1.0)
    second = made(options("part"), corpus)
    assert second.step == 1
    assert "going on from step 1" in capsys.readouterr().out
    for _ in range(2):
        second.train_step()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    with pytest.raises(ValueError, match="other options"):
        made(options("part", steps=4), corpus)
    whole = tmp_path / "whole"
    straight.write_weights(whole)
    read = timm.create_model(f"local-dir:{whole}", num_classes=0, pretrained=True) if labels else None
    loaded = read.state_dict() if read else iconclip.load_iconclip(whole)[0].state_dict()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight.half().float(), loaded[name].float()), name
