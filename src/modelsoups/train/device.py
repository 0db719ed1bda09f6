"""Use of the training device: precision, torch.compile, copies to the GPU, determinism.

By default, a GPU trains with autocast to bf16 (weights, optimizer state, head and loss stay in
float32), torch.compile, a fused optimizer, and copies of the next batch during the current step; a
CPU trains in float32 without torch.compile. In bf16, open_clip and timm use flash attention. Python
queues at most two steps (AHEAD) on the GPU. Otherwise it waits for the GPU only to check the loss
before a checkpoint, and inside Adafactor.
"""

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
from modelsoups.models.token_batches import TokenBatch

Batch = Tensor | BatchPlan | TokenBatch
AHEAD = 2  # steps that the host may be ahead of the GPU; more would only take memory for waiting batches


@dataclass(frozen=True)
class Device:
    torch: torch.device
    bf16: bool
    compile: str | None  # torch.compile's mode: default, or reduce-overhead (with CUDA graphs)
    deterministic: bool
    augment: str

    @property
    def cuda(self) -> bool:
        return self.torch.type == "cuda"

    @property
    def deferred(self) -> bool:
        """Return whether reading a tensor's value makes Python wait for a GPU."""
        return self.cuda

    @property
    def name(self) -> str:
        """Return what differs from float32 on a CPU: "cuda bf16 compiled", or "" if nothing."""
        gpu = self.augment == "gpu"
        words = {self.torch.type: self.cuda, "bf16": self.bf16, "compiled": self.compile, "augment=gpu": gpu}
        return " ".join(filter(words.get, words))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for a forward pass: autocast to bfloat16 if `bf16`, else nothing."""
        return torch.autocast(self.torch.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def compiled(self, network: nn.Module, parts: int = 1) -> nn.Module:
        """Return torch.compile(network), or network if `compile` is None; parts: micro-batches."""
        if self.compile is None:
            return network
        # No CUDA graphs for batches in parts: replaying the next part overwrites the gradients.
        mode = None if self.compile == "default" or parts > 1 else self.compile
        compiled: nn.Module = torch.compile(network, mode=mode, dynamic=False)  # type: ignore[assignment]
        return compiled

    @contextlib.contextmanager
    def determined(self) -> Iterator[None]:
        """Make GPU operations deterministic in the with block if finetune.deterministic is set."""
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
    """Return the Device that `settings` describe; "auto": bf16 and torch.compile only on a GPU."""
    cuda = device.type == "cuda"
    precision = settings.precision if settings.precision != "auto" else ("bf16" if cuda else "fp32")
    mode = settings.compile
    if mode == "auto":  # Triton needs a C compiler
        mode = "default" if cuda and any(map(shutil.which, ("cc", "gcc", "clang"))) else "none"
    compiled = None if mode == "none" else mode
    return Device(device, precision == "bf16", compiled, settings.deterministic, settings.augment)


def train_mode(model: nn.Module, batchnorm: str) -> nn.Module:
    """Put a model into training mode, except its BatchNorm layers if batchnorm is "frozen"; return it."""
    model.train()
    if batchnorm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    return model


def staged(
    batches: Iterable[tuple[Batch, Tensor]], device: torch.device, parts: int = 1
) -> Iterator[tuple[Tensor | TokenBatch, Tensor]]:
    """Yield the batches on the device: tokens or uint8 pixels, (B, C, H, W), and labels, (B).

    A BatchPlan (images with planned augmentations) is augmented on the device. Copies to a GPU run
    in a separate stream, during the previous step. parts: micro-batches per step.
    """
    if device.type != "cuda":
        for images, labels_B in batches:
            yield _inputs(images.to(device)), labels_B
        return
    copies, main, begun = torch.cuda.Stream(device), torch.cuda.current_stream(device), deque[torch.cuda.Event]()
    for images, labels_B in batches:
        with torch.cuda.stream(copies):
            images, labels_B = images.to(device, non_blocking=True), labels_B.to(device, non_blocking=True)
        main.wait_stream(copies)
        for tensor in (*_tensors(images), labels_B):
            tensor.record_stream(main)  # otherwise the copy stream could reuse the memory too early
        begun.append(main.record_event())
        if len(begun) > AHEAD * parts:
            begun.popleft().synchronize()
        yield _inputs(images), labels_B


def _inputs(batch: Batch) -> Tensor | TokenBatch:
    return batch.augmented() if isinstance(batch, BatchPlan) else batch


def _tensors(batch: Batch) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    return batch.tensors() if isinstance(batch, BatchPlan) else list(batch.tensors.values())
