"""How a run uses its device: precision, compilation, transfers, determinism.

By default a GPU trains in bf16 (weights, optimizer, head and loss stay in float32) with a compiled network, a fused
optimizer and copies beside the computation; a CPU in float32 and uncompiled. Attention is PyTorch's
scaled_dot_product_attention in open_clip (nn.MultiheadAttention without weights) and in timm, flash attention in bf16.
No step makes the host wait for the GPU, other than not to run further ahead than AHEAD steps; losses and times are
fetched when they are there (`trainer`). Adafactor and Python's own checks at a checkpoint are exceptions.

Legend: B images of a batch, H height, W width.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from modelsoups.config.schema import FinetuneConfig
from modelsoups.data.gpu.augment import BatchPlan

AHEAD = 2  # steps that the host may be ahead of the GPU: enough to hide it, and batches that wait take memory
COMPILE_MODES = ("default", "reduce-overhead")  # the second with CUDA graphs


@dataclass(frozen=True)
class Device:
    """Where and how a run computes. compile is None or one of COMPILE_MODES."""

    torch: torch.device
    bf16: bool
    compile: str | None
    deterministic: bool
    augment: str

    @property
    def cuda(self) -> bool:
        return self.torch.type == "cuda"

    @property
    def deferred(self) -> bool:
        """Whether reading a number would make the host wait."""
        return self.cuda

    @property
    def name(self) -> str:
        """What results depend on beside the recipe, "" for the reference: float32 on a CPU."""
        words = {self.torch.type: self.cuda, "bf16": self.bf16, "compiled": self.compile, "augment=gpu": self._batched}
        return " ".join(word for word, holds in words.items() if holds)

    @property
    def _batched(self) -> bool:
        return self.augment == "gpu"

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.torch.type, torch.bfloat16)

    def compiled(self, network: nn.Module, parts: int = 1) -> nn.Module:
        """The network as training calls it; what is saved is the network itself.

        With batches in parts there are no CUDA graphs: their gradients lie where the next part's replay writes.
        """
        if self.compile is None:
            return network
        mode = None if self.compile == "default" or parts > 1 else self.compile
        compiled: nn.Module = torch.compile(network, mode=mode, dynamic=False)  # type: ignore[assignment]
        return compiled

    def layout(self, model: nn.Module) -> None:
        """Convolutional networks run faster on a GPU with channels last; a ViT has one convolution, and is left."""
        if self.cuda and convolutional(model):
            model.to(memory_format=torch.channels_last)

    @contextlib.contextmanager
    def determined(self) -> Iterator[None]:
        """Within, a GPU gives the same bits each time, by `finetune.deterministic=true`; a CPU always does."""
        if not (self.cuda and self.deterministic):
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            torch.backends.cudnn.benchmark = before[1]
            deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def device_of(settings: FinetuneConfig, device: torch.device) -> Device:
    """The configured use of a device; auto is bf16 and compiled on a GPU, float32 and not on a CPU."""
    cuda = device.type == "cuda"
    precision = settings.precision if settings.precision != "auto" else ("bf16" if cuda else "fp32")
    mode = settings.compile
    if mode == "auto":  # which needs a C compiler, for Triton's launchers
        mode = "default" if cuda and any(map(shutil.which, ("cc", "gcc", "clang"))) else "none"
    return Device(
        device,
        bf16=precision == "bf16",
        compile=None if mode == "none" else mode,
        deterministic=settings.deterministic,
        augment=settings.augment,
    )


def convolutional(model: nn.Module) -> bool:
    """Whether most of a model's parameters are in convolutions of images."""
    kernels = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    return 2 * kernels > sum(p.numel() for p in model.parameters())


def staged(
    batches: Iterable[tuple[Tensor | BatchPlan, Tensor]], device: torch.device, parts: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """(pixels_BCHW in uint8, labels_B) on the device, augmented there when they come with a plan.

    Copies to a GPU have a stream of their own, so that they run beside the step before: its kernels are queued when a
    batch is asked for, and not done.
    """
    if device.type != "cuda":
        for images, labels_B in batches:
            yield _pixels(images.to(device)), labels_B
        return
    copies, main, begun = torch.cuda.Stream(device), torch.cuda.current_stream(device), deque[torch.cuda.Event]()
    for images, labels_B in batches:
        with torch.cuda.stream(copies):
            images, labels_B = images.to(device, non_blocking=True), labels_B.to(device, non_blocking=True)
        main.wait_stream(copies)
        for tensor in (*_tensors(images), labels_B):
            tensor.record_stream(main)  # its memory belongs to the other stream
        begun.append(main.record_event())
        if len(begun) > AHEAD * parts:
            begun.popleft().synchronize()
        yield _pixels(images), labels_B


def _pixels(images: Tensor | BatchPlan) -> Tensor:
    return images.augmented() if isinstance(images, BatchPlan) else images


def _tensors(images: Tensor | BatchPlan) -> list[Tensor]:
    return images.tensors() if isinstance(images, BatchPlan) else [images]
