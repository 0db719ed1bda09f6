"""Checkpoint files with a tensor of each dtype."""

from pathlib import Path

import torch
from safetensors.torch import save_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


def state(seed: int) -> dict[str, torch.Tensor]:
    """Return a state with a tensor of each dtype, drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 70), (5,), (), (0, 4), (2, 2), (1,)]
    return {
        f"blocks.{n}.w": (torch.randn(shape, generator=generator, dtype=torch.float64) * 9).to(dtype)
        for n, (dtype, shape) in enumerate(zip(DTYPES, shapes, strict=True))
    }


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[object, bytes]]:
    """Return each tensor's dtype, shape and bytes, which == compares bit for bit."""
    return {
        k: ((t.dtype, tuple(t.shape)), t.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        for k, t in tensors.items()
    }


def files(folder: Path, count: int, suffix: str = ".safetensors") -> list[Path]:
    """Write the states of seeds 0 to count - 1, and return their files."""
    for n in range(count):
        path = folder / f"{n}{suffix}"
        save_file(state(n), path) if suffix == ".safetensors" else torch.save(state(n), path)
    return [folder / f"{n}{suffix}" for n in range(count)]
