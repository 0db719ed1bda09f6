"""The authors' released checkpoints: logits as by their own forward pass; whatever is not as released is named."""

import json

import pytest
import torch
from official import CLASSES, FIXTURE, IMAGES, images, random_state
from tiny import tiny_clip

from modelsoups.cli import import_released
from modelsoups.config.compose import load
from modelsoups.disk import manifests
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import build
from modelsoups.published import released, tables
from modelsoups.weights import state_dicts


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def layout():
    return import_released.expected_layout(load(["experiment=released"]).model)


def test_logits_are_those_of_the_official_forward_pass(state, layout, tmp_path):
    torch.save(state, tmp_path / "model_7.pt")
    ours = import_released.read_released(tmp_path / "model_7.pt", layout)
    model = build(load(["experiment=released"]).model, released.CLASSES).eval()
    model.load_state_dict(ours)
    with torch.inference_mode():
        logits_NC = model(images())
    official = json.loads(FIXTURE.read_text())
    assert logits_NC.shape == (IMAGES, 1000)
    assert official["largest"] > 10  # as large as those of trained models: the tolerance means something
    assert official["argmax"] == logits_NC.argmax(dim=1).tolist()
    torch.testing.assert_close(logits_NC[:, list(CLASSES)], torch.tensor(official["logits"]), rtol=0, atol=5e-5)


def test_with_plain_gelu_they_would_differ(state, layout):
    cfg = load(["experiment=released", "model.name=ViT-B-32"])
    model = build(cfg.model, released.CLASSES).eval()
    model.load_state_dict({released.our_name(k): v for k, v in state.items() if released.our_name(k)})
    with torch.inference_mode():
        logits_NC = model(images())
    official = torch.tensor(json.loads(FIXTURE.read_text())["logits"])
    assert (logits_NC[:, list(CLASSES)] - official).abs().max() > 0.05


# ---- importing, with tiny models of the same tensors ----


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    name, _, size = tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")
    return [name, "model.tag=null", size]


@pytest.fixture
def cfg(tiny, tmp_path):
    return load(["experiment=released", *tiny, f"runs={tmp_path / 'run'}", f"data.dir={tmp_path / 'data'}"])


def small_state(cfg, seed=0):
    """What a released checkpoint holds, in the tiny model's sizes, text tower included."""
    generator = torch.Generator().manual_seed(seed)
    layout = {k: v for k, v in import_released.expected_layout(cfg.model).items() if released.our_name(k)}
    shapes = {k: [int(n) for n in v[1 : v.index(")")].split(",") if n.strip()] for k, v in layout.items()}
    return {k: torch.randn(shape, generator=generator) for k, shape in shapes.items()} | {
        "model.logit_scale": torch.tensor(4.6)
    }


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


SPOILED = {
    "foreign": (
        lambda s: {**s, "model.visual.extra": torch.zeros(2)},
        r"tensor model\.visual\.extra is .*, expected no such tensor",
    ),
    "missing": (
        lambda s: {k: v for k, v in s.items() if k != "model.visual.conv1.weight"},
        r"tensor model\.visual\.conv1\.weight is missing",
    ),
    "half the classes": (
        lambda s: {**s, "classification_head.weight": s["classification_head.weight"][:500]},
        r"tensor classification_head\.weight is \(500, 16\) float32, expected \(1000, 16\) float32",
    ),
    "half precision": (
        lambda s: {**s, "classification_head.bias": s["classification_head.bias"].half()},
        r"tensor classification_head\.bias is \(1000,\) float16, expected \(1000,\) float32",
    ),
    "NaN": (
        lambda s: {**s, "classification_head.bias": torch.full((1000,), float("nan"))},
        r"tensor classification_head\.bias contains NaN",
    ),
    "code": (lambda s: {**s, "evil": Evil()}, r"contains Python objects \((builtins\.)?print\), which can run code"),
    "wrapped": (lambda s: {"state_dict": s}, "has tensors only in its entry state_dict"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_is_not_as_released_is_refused_by_name(cfg, tmp_path, capsys, kind):
    spoil, message = SPOILED[kind]
    torch.save(small_state(cfg), tmp_path / "model_1.pt")
    torch.save(spoil(small_state(cfg, 2)), tmp_path / "model_2.pt")
    with pytest.raises(ValueError, match=rf"model_2\.pt.*{message}"):
        import_released.import_folder(cfg, tmp_path)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="has no imported models; run `modelsoups import-released DIR` first"):
        Experiment(cfg).ingredients.find()
    torch.save(small_state(cfg, 2), tmp_path / "model_2.pt")  # the right file: only what is missing is converted
    import_released.import_folder(cfg, tmp_path)
    assert [i.id for i in Experiment(cfg).ingredients.find().ingredients] == ["001", "002"]


def test_a_truncated_checkpoint_is_refused(cfg, tmp_path):
    torch.save(small_state(cfg), tmp_path / "model_7.pt")
    content = (tmp_path / "model_7.pt").read_bytes()
    (tmp_path / "model_7.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"model_7\.pt is truncated, empty or not a PyTorch checkpoint"):
        import_released.import_folder(cfg, tmp_path)


def test_the_import_says_who_is_missing_and_that_4_and_5_are_one(cfg, tmp_path, capsys):
    for index in (0, 4, 5):
        torch.save(small_state(cfg, min(index, 4)), tmp_path / f"model_{index}.pt")
    import_released.import_folder(cfg, tmp_path)
    said = capsys.readouterr().out
    assert "model_4 and model_5 have the same weights, as in the release" in said
    assert "69 of 72 models are missing: model_1.pt, model_2.pt, model_3.pt, model_6.pt" in said
    found = Experiment(cfg).ingredients.find()
    assert found.missing["001"] == f"model_1.pt is not in {tmp_path}"
    four, five = found.ingredients[1:]
    assert four.sha256 == five.sha256
    assert (four.recipe.lr, four.recipe.epochs) == (five.recipe.lr, five.recipe.epochs)
    assert Experiment(cfg).ingredients.initial()["initialization"].sha256 == found.ingredients[0].sha256
    assert found.ingredients[0].recipe is None
    before = {p: p.stat().st_mtime_ns for p in cfg.run.ingredients.rglob("*.safetensors")}
    import_released.import_folder(cfg, tmp_path)  # again: nothing is converted
    assert {p: p.stat().st_mtime_ns for p in cfg.run.ingredients.rglob("*.safetensors")} == before


def test_other_twins_are_a_wrong_copy(cfg, tmp_path):
    for index in (8, 9):
        torch.save(small_state(cfg), tmp_path / f"model_{index}.pt")
    with pytest.raises(ValueError, match=r"model_8\.pt and model_9\.pt have the same weights"):
        import_released.import_folder(cfg, tmp_path)


def test_released_recipes_come_with_their_models(cfg, tmp_path):
    torch.save(small_state(cfg), tmp_path / "model_43.pt")
    torch.save(small_state(cfg, 1), tmp_path / "model_32.pt")
    import_released.import_folder(cfg, tmp_path)
    recipe = {i.id: i.recipe for i in Experiment(cfg).ingredients.find().ingredients}["043"]
    assert recipe.lr == tables.released_models()[43].hyperparameters["lr"]
    assert recipe.batch_size == 512
    manifest = manifests.manifest_of(cfg.run.ingredient(43))
    assert manifest["sha256"] == state_dicts.state_sha256(
        state_dicts.load_state(cfg.run.ingredient(43) / "model.safetensors")
    )


def test_a_model_of_another_architecture_is_refused(tmp_path, tiny):
    cfg = load(["experiment=released", "model=iconclip"])
    with pytest.raises(ValueError, match=r"model\.name=.* the released models need model=clip_vit_b32"):
        import_released.expected_layout(cfg.model)
