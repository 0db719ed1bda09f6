"""Pre-trained weights from files: OpenAI's archives and names; the wrong GELU and foreign tensors are refused."""

from pathlib import Path

import open_clip
import pytest
import torch
from tiny import CONFIG, tiny_clip
from torch import nn

from modelsoups.checkpoints.torchscript import is_archive, load_archive
from modelsoups.config.models import ModelConfig
from modelsoups.models.classifier import build, load_clip


class Leaf(nn.Module):
    def forward(self, x):
        return x


def as_modules(state):
    """A tree of modules with these tensors by name, as OpenAI's archives hold them."""
    root = Leaf()
    for key, tensor in state.items():
        *path, name = key.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, Leaf())
            module = getattr(module, part)
        module.register_parameter(name, nn.Parameter(tensor.clone(), requires_grad=False))
    return root


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(1)
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")[0].partition("=")[2]


def loaded(name, path):
    return load_clip(ModelConfig(name, "open_clip", str(path), 32))


def same(clip, found):
    state, other = clip.state_dict(), found.model.state_dict()
    return state.keys() == other.keys() and all(torch.allclose(state[k], other[k], atol=1e-3) for k in state)


@pytest.mark.filterwarnings("ignore")  # of torch.jit: it is old, and so are OpenAI's archives
def test_openais_archive_is_read_without_running_it(clip, name, tmp_path):
    state = {k: v.half() for k, v in clip.state_dict().items() if "attn_mask" not in k}
    module = as_modules(state)
    module.input_resolution, module.context_length, module.vocab_size = 32, 16, 49408
    path = tmp_path / "ViT.pt"
    torch.jit.script(module).save(str(path))
    assert is_archive(path)
    archive = load_archive(path)
    assert archive.keys() >= state.keys()
    assert all(torch.equal(archive[k], state[k]) for k in state)
    assert same(clip, loaded(name, path))


def test_a_damaged_file_is_named(clip, name, tmp_path):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    content = (tmp_path / "clip.pt").read_bytes()
    disks = content.rindex(b"PK\x06\x07") + 16  # "this archive spans several disks": Python's own check of a zip raises
    for damaged in (content[:5000], content[:disks] + b"\x07" + content[disks + 1 :], b"", b"hello"):
        (tmp_path / "clip.pt").write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"clip\.pt (is truncated, empty or not a PyTorch checkpoint|cannot be read)"
        ):
            loaded(name, tmp_path / "clip.pt")


def test_openais_state_dict_with_its_extra_numbers(clip, name, tmp_path):
    extra = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(16),
        "vocab_size": torch.tensor(49408),
    }
    torch.save({k: v.half() for k, v in clip.state_dict().items()} | extra, tmp_path / "clip.pt")
    assert same(clip, loaded(name, tmp_path / "clip.pt"))
    plain = name + "-plain"
    Path(plain.partition(":")[2]).mkdir(exist_ok=True)
    config = Path(name.partition(":")[2]) / "open_clip_config.json"
    (Path(plain.partition(":")[2]) / config.name).write_text(config.read_text().replace('"quick_gelu": true, ', ""))
    with pytest.raises(
        ValueError, match=r"OpenAI's weights in .*clip\.pt were trained with QuickGELU, which .* does not"
    ):
        loaded(plain, tmp_path / "clip.pt")


def test_plain_vit_b32_with_openais_tag_is_refused():
    with pytest.raises(ValueError, match=r"set model\.name=ViT-B-32-quickgelu"):
        build(ModelConfig("ViT-B-32", "open_clip", "openai", 224), 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "visual.more": torch.zeros(1)}, r"tensor visual\.more is .*, expected no such tensor"),
        (lambda s: {k: v for k, v in s.items() if k != "ln_final.bias"}, r"tensor ln_final\.bias is missing"),
        (lambda s: {**s, "visual.proj": torch.zeros(16, 8)}, r"visual\.proj is \(16, 8\) float32, expected \(16, 16\)"),
    ],
)
def test_foreign_weights_are_refused_by_name(clip, name, tmp_path, change, message):
    torch.save(change(clip.state_dict()), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"w\.pt, read for model\.name=.*{message}"):
        loaded(name, tmp_path / "w.pt")


def test_names_tags_and_sizes_that_do_not_exist(name, tmp_path):
    for model, message in [
        (ModelConfig("ViT-B-33", "open_clip", "openai", 224), "open_clip has no such model; did you mean ViT-B-32"),
        (
            ModelConfig("ViT-B-32", "open_clip", "laion", 224),
            "open_clip has no such weights for ViT-B-32; valid tags: openai",
        ),
        (ModelConfig("vit_base_patch32", "timm", None, 224), "timm has no such model; did you mean"),
        (ModelConfig("vit_tiny_patch16_224", "timm", "mine", 224), "timm has no such weights for vit_tiny_patch16_224"),
        (ModelConfig("vit_tiny_patch16_224", "timm", None, 256), r"image_size=256: .* takes images of 224 pixels"),
        (ModelConfig("vit_tiny_patch16_224", "timm", f"{tmp_path}/no.pt", 224), r"no\.pt: no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(model, 10)


def test_a_timm_backbone_from_its_own_checkpoint(tmp_path):
    import timm

    torch.manual_seed(2)
    original = timm.create_model("vit_tiny_patch16_224", num_classes=21843)
    torch.save(original.state_dict(), tmp_path / "vit.pth")
    model = build(ModelConfig("vit_tiny_patch16_224", "timm", str(tmp_path / "vit.pth"), 224, False), 10)
    assert torch.equal(
        model.encoder.state_dict()["blocks.3.mlp.fc1.weight"], original.state_dict()["blocks.3.mlp.fc1.weight"]
    )
    assert model.head.weight.shape == (10, 192)
