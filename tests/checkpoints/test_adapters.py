"""What an adapter's folder says about its base's weights, and what is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import PREFIX, rank_one, write_adapter
from safetensors.torch import load_file

from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.formats import open_checkpoint


def opened(folder: Path) -> Adapter:
    found = open_checkpoint(folder, adapters_too=True)
    assert isinstance(found, Adapter)
    return found


def scales(folder: Path) -> dict[str, float]:
    return {module: update.scale for module, update in opened(folder).updates.items()}


def test_scales_are_those_of_the_configuration(tmp_path: Path) -> None:
    """alpha / r, alpha / sqrt(r) for rsLoRA, 8 where PEFT's default stands, and the first pattern that matches."""
    factors = {}
    for module, rank in (("a.q", 4), ("a.k", 4), ("b.q", 2), ("b.k", 4)):
        factors |= {f"{module}.lora_A.weight": torch.ones(rank, 3), f"{module}.lora_B.weight": torch.ones(5, rank)}
    patterns = {"rank_pattern": {"b.q": 2}, "alpha_pattern": {r"a\.k": 6, "k": 100, "b": 77}}
    found = scales(write_adapter(tmp_path / "0", factors, r=4, lora_alpha=2, **patterns))
    assert found == {"a.q": 0.5, "a.k": 1.5, "b.q": 1.0, "b.k": 25.0}
    found = scales(write_adapter(tmp_path / "1", factors, r=4, lora_alpha=2, use_rslora=True, **patterns))
    assert found == {"a.q": 1.0, "a.k": 3.0, "b.q": pytest.approx(math.sqrt(2)), "b.k": 50.0}
    folder = write_adapter(tmp_path / "2", {"q.lora_A.weight": torch.ones(8, 3), "q.lora_B.weight": torch.ones(5, 8)})
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert scales(folder) == {"q": 1.0}


def test_old_files_and_wrapped_names_are_read(tmp_path: Path) -> None:
    factors = {
        **rank_one([1, 2], [3, 4]),
        "q.lora_magnitude_vector.weight": [5.0, 6.0],
        "q.base_layer.bias": [7.0, 8.0],
    }
    adapter = opened(write_adapter(tmp_path / "a", factors, use_dora=True))
    magnitude = adapter.updates["q"].magnitude
    assert magnitude is not None
    assert magnitude.tensor().tolist() == [5, 6]
    assert adapter.whole == {"q.bias": PREFIX + "q.base_layer.bias"}
    torch.save(load_file(tmp_path / "a" / "adapter_model.safetensors"), tmp_path / "a" / "adapter_model.bin")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    assert opened(tmp_path / "a").updates["q"].down.tensor().tolist() == [[1, 2]]


PLAIN = rank_one([1, 2], [3, 4])
TWO = {"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.ones(3, 2)}


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        (PLAIN, {"peft_type": "IA3"}, r"adapters of type IA3 are not supported, only LORA"),
        (PLAIN, {"peft_type": "PROMPT_TUNING"}, "type PROMPT_TUNING"),
        (PLAIN, {"peft_type": None}, "type None"),
        (
            PLAIN,
            {"use_qalora": True},
            r"adapter_config\.json: use_qalora is set, which changes what an adapter computes",
        ),
        (PLAIN, {"layer_replication": [[0, 2]]}, "layer_replication is set"),
        (PLAIN, {"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        (PLAIN, {"target_parameters": ["experts"]}, "target_parameters is set"),
        (PLAIN, {"of_next_year": 0.5}, "of_next_year is set"),
        (PLAIN, {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4 also changes the base"),
        (PLAIN, {"r": 2}, "q has factors of rank 1, but 2 in adapter_config.json"),
        (PLAIN, {"r": "x"}, "r of q is 'x'; expected a number"),
        (PLAIN, {"lora_alpha": True}, "lora_alpha of q is True; expected a number"),
        (PLAIN, {"r": 1.5}, "r of q is 1.5; expected a whole number"),
        (PLAIN, {"rank_pattern": [1]}, "rank_pattern is not a dict, as PEFT writes it"),
        (PLAIN, {"modules_to_save": 3}, "modules_to_save is not a list"),
        (PLAIN, {"alpha_pattern": {"(": 1}}, r"alpha_pattern '\(' is not a regular expression"),
        (PLAIN, {"use_dora": True}, "use_dora is True, contrary to the tensors of q"),
        ({**PLAIN, "q.lora_magnitude_vector": [1.0]}, {}, "use_dora is False, contrary to the tensors of q"),
        ({"q.lora_A.weight": [[1.0]]}, {}, "q.lora_B.weight is missing"),
        ({**TWO, "q.lora_B.weight": torch.ones(3, 1)}, {"r": 2}, "whose ranks differ"),
        ({**TWO, "q.lora_B.weight": torch.ones(3, 0)}, {"r": 2}, "are not matrices: gather them before saving"),
        ({**TWO, "q.lora_A.weight": torch.ones(2, 3).char()}, {"r": 2}, "quantized adapters are not supported"),
        (
            {**PLAIN, "e.token_adapter.trainable_tokens_delta": [1.0]},
            {},
            "trainable_tokens_delta is not a known LoRA tensor",
        ),
        ({**PLAIN, "q.lora_A.default.weight": [[1.0]]}, {}, "lora_A.default.weight is not a known LoRA tensor"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, tensors: Any, config: Any, words: str) -> None:
    folder = write_adapter(tmp_path / "a", tensors, **config)
    with pytest.raises(ValueError, match=words) as raised:
        opened(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_keys_without_effect_are_no_reason_to_refuse(tmp_path: Path) -> None:
    more = {"use_qalora": False, "layer_replication": None, "eva_config": {"rho": 2}, "lora_dropout": 0.1, "new": []}
    assert scales(write_adapter(tmp_path / "a", PLAIN, init_lora_weights="eva", **more)) == {"q": 1.0}


def test_files_that_are_no_adapter_of_peft(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", PLAIN)
    with pytest.raises(ValueError, match=r"cannot be read: File name too long"):
        opened(tmp_path / ("a" * 300))
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config\.json is not valid JSON"):
        opened(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config\.json is not a configuration of PEFT"):
        opened(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ValueError, match=r"has an adapter_config\.json, but no adapter_model\.safetensors"):
        opened(folder)
