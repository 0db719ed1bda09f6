"""Small models with adapters that PEFT itself made and saved, and what they mean, worked out in float64.

`meaning` reads the files alone and knows nothing of modelsoups; formulas: LoRA (arXiv:2106.09685),
rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353).
"""

import json
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

State = dict[str, Tensor]


class Net(nn.Module):
    """An embedding, linear layers of which one is square, attention, a convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(72, 3)  # of five words

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = torch.tanh(self.fc2(torch.tanh(self.fc1(self.words(tokens_BT)))))
        x_BTD = self.norm(x_BTD + self.attn(x_BTD, x_BTD, x_BTD, need_weights=False)[0])
        return self.head(self.conv(x_BTD[:, None]).flatten(1))


class Transposed(nn.Module):
    """GPT-2's Conv1D, whose weights are stored transposed, square and not."""

    def __init__(self) -> None:
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.c1, self.c2 = Conv1D(8, 6), Conv1D(8, 8)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.c2(torch.tanh(self.c1(self.words(tokens_BT))))


LINEAR = ["fc1", "fc2", "head"]
KINDS: dict[str, dict[str, Any]] = {  # options of LoraConfig
    "LoRA": {"target_modules": LINEAR},
    "LoRA of embedding and convolution": {"target_modules": ["words", "conv", "fc1"]},
    "LoRA of Conv1D (fan_in_fan_out)": {"target_modules": ["c1", "c2"], "fan_in_fan_out": True},
    "rsLoRA": {"target_modules": LINEAR, "use_rslora": True},
    "ranks and alphas by layer": {
        "target_modules": LINEAR,
        "rank_pattern": {"fc1": 3, "^head": 1},
        "alpha_pattern": {"fc2": 5},
    },
    "bias=all": {"target_modules": ["fc1", "fc2"], "bias": "all"},
    "bias=lora_only": {"target_modules": LINEAR, "bias": "lora_only"},
    "lora_bias": {"target_modules": LINEAR, "lora_bias": True},
    "modules_to_save": {"target_modules": ["fc1", "fc2"], "modules_to_save": ["head", "norm"]},
    "DoRA": {"target_modules": LINEAR, "use_dora": True},
    "DoRA of embedding and convolution": {"target_modules": ["words", "conv"], "use_dora": True},
    "DoRA of Conv1D (fan_in_fan_out)": {"target_modules": ["c1", "c2"], "fan_in_fan_out": True, "use_dora": True},
    "rsLoRA with DoRA": {"target_modules": LINEAR, "use_dora": True, "use_rslora": True},
}


def model_of(kind: str) -> nn.Module:
    """The base model of a kind, the same each time."""
    torch.manual_seed(0)
    return (Transposed if "Conv1D" in kind else Net)().eval()


def save_adapter(folder: Path, kind: str, seed: int, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """An adapter as PEFT saves it, with random numbers in everything that training would change."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(**{"r": 2, "lora_alpha": 6, **KINDS[kind], **options})
        model = peft.get_peft_model(model_of(kind), config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
                    assert "original_module" not in name
        model.save_pretrained(folder)
    if dtype != torch.float32:
        file = folder / "adapter_model.safetensors"
        save_file({k: t.to(dtype) for k, t in load_file(file).items()}, file)
    return folder


def meaning(base: State, folder: Path) -> State:
    """All tensors of the base with an adapter merged into it, in float64."""
    config = json.loads((folder / "adapter_config.json").read_text())
    file = load_file(folder / "adapter_model.safetensors")
    plain = {k.removeprefix("base_model.model."): t.double() for k, t in file.items()}
    made = {name: tensor.double() for name, tensor in base.items()}
    for name, tensor in plain.items():
        if "lora_" not in name:
            made[name.replace("base_layer.", "")] = tensor
    for name in plain:
        if match := re.fullmatch(r"(.+)\.lora_(embedding_)?A(\.weight)?", name):
            _merge(made, plain, config, match[1], bool(match[2]))
    return made


def _merge(made: State, plain: State, config: dict[str, Any], module: str, embedding: bool) -> None:
    end, extra = ("", "embedding_") if embedding else (".weight", "")
    a, b = (plain[f"{module}.lora_{extra}{x}{end}"] for x in "AB")
    key, target = module.split(".base_layer.")[0], module.replace("base_layer.", "")
    rank = next((v for k, v in config["rank_pattern"].items() if re.match(rf"(.*\.)?({k})$", key)), config["r"])
    alpha = next((v for k, v in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({k})$", key)), None)
    alpha = config["lora_alpha"] if alpha is None else alpha
    assert a.shape[0] == rank
    scale = alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank
    name = f"{target}.weight" if f"{target}.weight" in made else f"{target}.in_proj_weight"
    weight = made[name]
    turned = embedding or config["fan_in_fan_out"]
    delta = b.flatten(1) @ a.flatten(1) * scale
    whole = weight + (delta.T if turned else delta).reshape(weight.shape)
    if (magnitude := plain.get(f"{module}.lora_magnitude_vector")) is not None:
        by_output = whole.T if turned else whole.flatten(1)
        by_output = by_output * (magnitude.flatten() / by_output.norm(dim=1))[:, None]
        whole = (by_output.T if turned else by_output).reshape(weight.shape)
    made[name] = whole
    if (bias := plain.get(f"{module}.lora_B.bias")) is not None:
        made[f"{target}.bias"] = made[f"{target}.bias"] + scale * bias


def weighted(base: State, folders: Sequence[Path], weights: Sequence[float]) -> State:
    """theta_0 + sum_i w_i (theta_i - theta_0), in float64."""
    made = {name: tensor.double() for name, tensor in base.items()}
    for folder, weight in zip(folders, weights, strict=True):
        for name, tensor in meaning(base, folder).items():
            made[name] = made[name] + weight * (tensor - base[name].double())
    return made


def error(found: State, expected: State, base: State) -> float:
    """The largest error of a tensor, relative to its change from the base; infinite for other names."""
    if found.keys() != expected.keys():
        return math.inf
    worst = 0.0
    for name, tensor in expected.items():
        change = float((tensor - base[name].double()).norm())
        off = float((found[name].double() - tensor).norm())
        worst = max(worst, off / change if change else (math.inf if off else 0.0))
    return worst


def loaded(kind: str, folder: Path) -> nn.Module:
    """The base with an adapter, as PEFT loads it; a key that is missing or unexpected is an error."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected).*")
        return peft.PeftModel.from_pretrained(model_of(kind), folder).eval()
