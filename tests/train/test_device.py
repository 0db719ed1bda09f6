"""How a run uses its device, as far as a CPU can show it: precision, compilation, attention, memory format, batches."""

import pytest
import torch
from torch import nn

from modelsoups.config.compose import load
from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import FinetuneConfig
from modelsoups.data.gpu import augment
from modelsoups.models.classifier import build
from modelsoups.train.device import device_of, staged, train_mode

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_a_gpu_is_used_fully_by_default_and_a_cpu_as_the_reference(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/gcc")
    cpu, gpu = (device_of(FinetuneConfig(), d) for d in (CPU, GPU))
    assert (cpu.bf16, cpu.compile, cpu.name) == (False, None, "")
    assert (gpu.bf16, gpu.compile, gpu.name) == (True, "default", "cuda bf16 compiled")
    plain = FinetuneConfig(precision="fp32", compile="none", augment="gpu")
    assert device_of(plain, GPU).name == "cuda augment=gpu"
    assert device_of(FinetuneConfig(precision="bf16", compile="reduce-overhead"), CPU).name == "bf16 compiled"
    monkeypatch.setattr("shutil.which", lambda name: None)  # no C compiler, which Triton needs
    assert device_of(FinetuneConfig(), GPU).name == "cuda bf16"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.precision=fp16", r"finetune\.precision=fp16: expected one of auto, fp32, bf16"),
        ("finetune.compile=true", r"finetune\.compile=true: expected one of auto, none, default, reduce-overhead"),
        ("finetune.augment=kornia", r"finetune\.augment=kornia: expected one of cpu, gpu"),
    ],
)
def test_other_values_are_refused(override, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        load([override])


@pytest.fixture(scope="module")
def iconclip():
    return build(load().model, 7).train()


def test_bf16_keeps_weights_gradients_and_logits_in_float32(iconclip):
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = iconclip(images).detach()
    with device_of(FinetuneConfig(precision="bf16"), CPU).autocast():
        features, logits = iconclip.features(images), iconclip(images)
    assert logits.dtype == torch.float32
    assert not torch.equal(features.float(), iconclip.features(images))  # computed in bf16
    assert torch.allclose(logits, exact, atol=0.05 * float(exact.abs().max()))
    logits.sum().backward()
    assert {p.grad.dtype for p in iconclip.parameters() if p.grad is not None} == {torch.float32}
    with device_of(FinetuneConfig(), CPU).autocast():
        assert torch.equal(iconclip(images), exact)


@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_attention_is_scaled_dot_product_attention(library, iconclip, monkeypatch):
    model = iconclip if library == "open_clip" else build(ModelConfig("vit_tiny_patch16_224", "timm"), 3).train()
    calls, attention = [], nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or attention(*a, **k)
    )
    model(torch.zeros(2, 3, model.image_size, model.image_size))
    blocks = len(iconclip.encoder.transformer.resblocks) if library == "open_clip" else 12
    assert len(calls) == blocks


def test_batches_come_augmented_whether_planned_or_not():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    whole = augment.Drawn(box=(0, 0, 8, 8))
    mirrored = augment.Drawn(box=(0, 0, 8, 8), flip=True, operations=[augment.Operation("Invert")])
    plan = augment.plan_batch(list(pixels), [whole, mirrored], 8, (0.5, 0.5, 0.5))
    (same, _), (made, found) = staged([(pixels, labels), (plan, labels)], CPU)
    assert torch.equal(same, pixels)
    assert torch.equal(found, labels)
    assert torch.equal(made[0], pixels[0])
    assert torch.equal(made[1], 255 - pixels[1].flip(-1))


def test_a_compiled_network_gives_the_same_and_is_not_what_is_saved(iconclip):
    compiled = torch.compile(iconclip, backend="eager", dynamic=False)  # what Dynamo traces, without a C++ compiler
    images = torch.randn(4, 3, 32, 32)
    assert torch.allclose(compiled(images), iconclip(images), atol=1e-6)
    assert device_of(FinetuneConfig(), CPU).compiled(iconclip) is iconclip
    torch._dynamo.reset()


def test_frozen_batchnorm_keeps_its_statistics_in_training():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    for batchnorm, moves in (("frozen", False), ("live", True)):
        before = model[1].running_mean.clone()
        train_mode(model, batchnorm)(torch.randn(8, 3, 4, 4) + 5)
        assert torch.equal(before, model[1].running_mean) != moves
        assert model[2].training
