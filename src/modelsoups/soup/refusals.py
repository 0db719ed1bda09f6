"""Finds checkpoints that must not be averaged, by names, dtypes, shapes and config.json.

Tensors are not read, except rows of the classification heads, to compare the order of classes.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.layouts import grouped, layout_of
from modelsoups.checkpoints.states import State
from modelsoups.checkpoints.tensors import Checkpoint, Entry, InMemory, nbytes
from modelsoups.soup.adapters import different_bases
from modelsoups.soup.configs import config_difference
from modelsoups.weights.angles import ALIKE, head_of

# Factors as PEFT, kohya, diffusers and torchtune name them, of LoRA, IA3, VeRA, LoHa, LoKr and OFT.
ADAPTER = re.compile(
    r"(^|\.)lora_[ABab]\b|\.lora_(A|B|a|b|down|up|embedding_A|embedding_B|magnitude_vector)\b|_lora\.(down|up)\."
    r"|(^|\.)(hada_w|lokr_w|oft_|boft_|ia3_l|vera_lambda|prompt_embeddings$)"
)
# Names that quantizers give the numbers beside their weights; CLIP's logit_scale is none of them.
SCALE = re.compile(r"(?:^|[._])(SCB|scales?|scale_inv|scale_weight|absmax|quant_map|qzeros|zeros|zero_point)$")
NARROW = (torch.int8, torch.uint8, torch.int16, torch.int32)  # and float8
LARGEST_HEAD = 2**24  # numbers of a head up to which the order of its classes is compared
SAMPLE = 128  # rows of a head to look at; all if one of them is unlike the other head's
COPY = "{k: v.clone() for k, v in model.state_dict().items()}"
Problem = tuple[str, str]  # cause, as in the table of docs/soup.md; one sentence


def problems(checkpoints: Sequence[Checkpoint], heads: bool = True) -> list[Problem]:
    """Return the first problem of each kind: its cause (a word of the doctor) and a sentence on it.

    heads: whether to compare the order of the classes in the classification heads.
    """
    found: list[Problem] = []
    for cause, concerns, text in KINDS:
        if (one := next((c for c in checkpoints if concerns(c)), None)) is not None:
            found.append((cause, f"{one.name} {text}"))
    if found:
        return found
    if (different := different_bases(checkpoints)) is not None:
        return [("base", different)]
    if any(isinstance(c, Adapter) for c in checkpoints):
        return []  # their classes are compared by name and shape alone
    found = configs(checkpoints)
    if found and len(grouped({c.name: layout_of(c) for c in checkpoints})) > 1:
        return []  # other shapes say more, and mixing names them
    return found or (_class_order(checkpoints) if heads else [])


def configs(checkpoints: Sequence[Checkpoint]) -> list[Problem]:
    """Return a problem for the first checkpoint whose config.json differs from the first one's."""
    texts = (config_difference(checkpoints[0], other) for other in checkpoints[1:])
    odd = next(filter(None, texts), None)
    return [] if odd is None else [("config", odd)]


def refuse(checkpoints: Sequence[Checkpoint], force: bool = False, heads: bool = True) -> list[str]:
    """Raise ValueError for the first problem; if `force`, return all problems as notes instead."""
    found = problems(checkpoints, heads)
    if found and not force:
        raise ValueError(f"{found[0][1]} (--force or force=True averages them all the same)")
    return [f"forced, although {text}" for _, text in found]


def is_adapter(state: State) -> bool:
    """Return whether a state has LoRA factors without adapter_config.json, so of unknown scale."""
    return not isinstance(state, Adapter) and any(map(ADAPTER.search, state))


def is_quantized(state: State) -> bool:
    """Return whether most matrix values are integers, or integer or float8 weights have scales."""
    numbers = {True: 0, False: 0}
    narrow: set[str] = set()  # tensors and their modules
    for key, tensor in _entries(state):
        if len(tensor.shape) >= 2:
            numbers[tensor.dtype.is_floating_point] += math.prod(tensor.shape)
        if _is_narrow(tensor.dtype) and tensor.shape and not SCALE.search(key):
            narrow.update((key.rpartition(".")[0], key))
    return numbers[False] > numbers[True] or any(_module_of_scale(key) & narrow for key in state)


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype in NARROW or (dtype.is_floating_point and dtype.itemsize == 1)


def _entries(state: State) -> Iterable[tuple[str, Entry | Tensor]]:
    """Return (name, entry) of all tensors; entries have shape and dtype, and no values are read."""
    return (state.entries if isinstance(state, Checkpoint) else state).items()


def _module_of_scale(key: str) -> set[str]:
    """Return what a tensor may scale, {"a", "a.weight"} for "a.weight_scale"; empty if nothing."""
    found = SCALE.search(key)
    if found is None or key.endswith("logit_scale"):
        return set()
    before = key[: found.start()]
    return {before, before.rpartition(".")[0]} if before else {""}


def is_placeholder(state: State) -> bool:
    """Return whether a weight or most tensors have no elements, as in DeepSpeed's ZeRO-3 files."""
    empty = [key for key, tensor in _entries(state) if tuple(tensor.shape) == (0,)]
    return any(key.rpartition(".")[2] == "weight" for key in empty) or 2 * len(empty) > len(state)


KINDS: tuple[tuple[str, Callable[[State], bool], str], ...] = (
    (
        "adapter",
        is_adapter,
        "is an adapter (LoRA), whose factors must not be averaged: give its folder, with adapter_config.json",
    ),
    ("quantized", is_quantized, "is quantized: its weights cannot be averaged, so use the unquantized model"),
    (
        "empty",
        is_placeholder,
        "has weights with no elements, as DeepSpeed's ZeRO-3 saves them: save the gathered weights"
        " (stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py)",
    ),
)


def check_not_shared(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ValueError if two state dicts share their memory, so that they are one model twice."""
    seen: dict[tuple[tuple[str, int], ...], str] = {}
    for checkpoint in checkpoints:
        held = [(k, e) for k, e in checkpoint.entries.items() if e.dtype.is_floating_point and nbytes(e)]
        if not held or not all(isinstance(e, InMemory) for _, e in held):
            continue
        places = tuple((k, e.held.data_ptr()) for k, e in held if isinstance(e, InMemory))
        earlier = seen.setdefault(places, checkpoint.name)
        if earlier != checkpoint.name:
            text = f"{checkpoint.name} and {earlier} share their memory, so they are the same model"
            raise ValueError(f"{text}: model.state_dict() gives references; keep copies, {COPY}")


def _class_order(checkpoints: Sequence[Checkpoint]) -> list[Problem]:
    """Return a problem for the first checkpoint with the first one's head rows in another order."""
    first = checkpoints[0]
    if any(entry.dtype.is_complex for entry in first.entries.values()):
        return []  # mixing refuses them
    head = head_of(first)
    if head is None or not 0 < math.prod(first.entries[head].shape) <= LARGEST_HEAD:
        return []
    expected = first.entries[head]
    rows_SD = _some_rows(expected)
    for other in checkpoints[1:]:
        if head not in other.entries or other.entries[head].shape != first.entries[head].shape:
            continue
        if not len(_unlike(rows_SD, _some_rows(other.entries[head]))):
            continue
        if moved := moved_rows(expected.tensor(), other[head]):
            text = f"{other.name} has {moved} classes of {head} in another order than {first.name}"
            return [("class order", f"{text}: put the rows of both in the same order")]
    return []


def _some_rows(head: Entry) -> Tensor:
    """Return up to SAMPLE rows that are spread over the head; no other rows are read."""
    count, size = head.shape
    rows = range(count) if count <= SAMPLE else [count * position // SAMPLE for position in range(SAMPLE)]
    parts = [head.block(row * size, (row + 1) * size) for row in rows]
    return torch.from_numpy(np.stack(parts)).view(head.dtype)


def _unlike(a_CD: Tensor, b_CD: Tensor) -> Tensor:
    """Return the indices of rows that have a low cosine between two heads; numpy is faster here."""
    a, b = a_CD.float().numpy(), b_CD.float().numpy()
    lengths_C = np.sqrt(np.einsum("cd,cd->c", a, a) * np.einsum("cd,cd->c", b, b))
    return torch.from_numpy(np.flatnonzero(np.einsum("cd,cd->c", a, b) < ALIKE * lengths_C))


def moved_rows(expected_CD: Tensor, got_CD: Tensor) -> int:
    """Return how many rows of `expected_CD` are elsewhere in `got_CD`; 0 if that is not certain.

    Two rows are equal if fewer than one in a thousand pairs of random rows reach their cosine. Rows
    that are equal at the same position are not compared with others.
    """
    size = expected_CD.shape[1]
    alike = max(ALIKE, math.sqrt(1 - 10 ** (-6 / max(size - 1, 1))))
    odd_C = _unlike(expected_CD, got_CD)
    if len(odd_C) < 2:
        return 0
    a_CD, b_CD = (torch.nn.functional.normalize(t.float(), dim=1) for t in (expected_CD, got_CD[odd_C]))
    best_C, places_C = (b_CD @ a_CD.T).max(dim=1)
    return len(odd_C) if len(places_C.unique()) == len(odd_C) and float(best_C.median()) >= alike else 0
