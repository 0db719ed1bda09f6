"""Adapters of transformers models: the soup on a base is what PEFT computes, under `from_pretrained`."""

import warnings
from pathlib import Path

import pytest
import torch

from modelsoups import soup

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[1, 5, 3, 8], [2, 2, 9, 7]])


def bert(folder: Path, head: bool, dtype: torch.dtype = torch.float32) -> Path:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=20, num_labels=3, **sizes)
    torch.manual_seed(0)
    model = (transformers.BertForSequenceClassification if head else transformers.BertModel)(config)
    model.to(dtype).save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def adapter(folder: Path, base: Path, kind: str, seed: int, **options: object) -> Path:
    """An adapter with random numbers in all that is trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(load(base, kind), peft.LoraConfig(r=3, lora_alpha=5, **options))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder)
    return folder


def load(folder: Path, kind: str) -> torch.nn.Module:
    torch.manual_seed(1)  # of a head that a base lacks
    return getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, **LABELS.get(kind, {})).eval()


LABELS = {"SequenceClassification": {"num_labels": 3}}


def outputs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def of_peft(base: Path, kind: str, folder: Path) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return outputs(peft.PeftModel.from_pretrained(load(base, kind), folder).eval())


SEQUENCES: dict[str, object] = {"task_type": "SEQ_CLS", "target_modules": ["query", "value", "dense"]}


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"bias": "all"}])
@pytest.mark.parametrize("head", [True, False])
def test_a_classifier_on_a_base_with_or_without_a_head(tmp_path: Path, head: bool, options: dict[str, object]) -> None:
    base, kind = bert(tmp_path / "base", head), "SequenceClassification"
    a = adapter(tmp_path / "a", base, kind, 1, **SEQUENCES, **options)
    soup.mix(soup.uniform([a]), tmp_path / "soup", base=base)
    torch.testing.assert_close(outputs(load(tmp_path / "soup", kind)), of_peft(base, kind, a), rtol=1e-5, atol=1e-5)
    soup.mix(soup.uniform([a]), tmp_path / "adapter")
    assert torch.equal(of_peft(base, kind, tmp_path / "adapter"), of_peft(base, kind, a))


def test_two_adapters_of_gpt2_with_conv1d_in_shards(tmp_path: Path) -> None:
    base, kind = gpt2(tmp_path / "base"), "CausalLM"
    names = {"task_type": "CAUSAL_LM", "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    folders = [adapter(tmp_path / f"{n}", base, kind, n, use_rslora=n == 1, **names) for n in (1, 2)]
    load(base, kind).save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    soup.mix(soup.uniform(folders), tmp_path / "full", base=tmp_path / "shards")
    soup.mix(soup.uniform(folders), tmp_path / "adapter")
    found = outputs(load(tmp_path / "full", kind))
    torch.testing.assert_close(found, of_peft(base, kind, tmp_path / "adapter"), rtol=1e-5, atol=1e-5)
    whole = load(base, kind).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [peft.PeftModel.from_pretrained(load(base, kind), f).merge_and_unload().state_dict() for f in folders]
    for name, tensor in load(tmp_path / "full", kind).state_dict().items():
        torch.testing.assert_close(tensor, (models[0][name] + models[1][name]) / 2, rtol=1e-5, atol=1e-6)
        assert name in whole


def test_a_bfloat16_base_keeps_its_dtype(tmp_path: Path) -> None:
    """Each weight is rounded once: half a unit in the last place, 2^-9, off the exact one."""
    base, kind = bert(tmp_path / "base", True, torch.bfloat16), "SequenceClassification"
    a, b = (adapter(tmp_path / f"{n}", base, kind, n, **SEQUENCES) for n in (1, 2))
    soup.mix(soup.uniform([a, b]), tmp_path / "soup", base=base)
    assert {t.dtype for t in soup.load(tmp_path / "soup").values() if t.is_floating_point()} == {torch.bfloat16}
    exact = bert(tmp_path / "exact", True)
    loaded = {k: t.float() for k, t in soup.load(base).items()}
    from safetensors.torch import save_file

    save_file(loaded, exact / "model.safetensors", {"format": "pt"})
    expected = soup.mixed(soup.uniform([a, b]), base=exact)
    for name, tensor in soup.load(tmp_path / "soup").items():
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2**-8, atol=1e-30)
