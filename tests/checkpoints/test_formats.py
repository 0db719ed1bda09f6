"""Every layout of checkpoint as a lazy state: files made by the libraries that own the formats, and damaged ones."""

import argparse
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from modelsoups import soup
from modelsoups.checkpoints.formats import open_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).bfloat16(), "n": torch.tensor(7)}


def same(got, state=STATE) -> bool:
    return got.keys() == state.keys() and all(
        torch.equal(got[k], v) and got[k].dtype == v.dtype for k, v in state.items()
    )


def test_safetensors_and_pytorch_files(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pt")
    assert same(open_checkpoint(tmp_path / "a.safetensors"))
    assert same(open_checkpoint(str(tmp_path / "a.pt")))
    assert same(open_checkpoint(STATE))
    assert open_checkpoint(tmp_path / "a.safetensors")["b"].dtype == torch.bfloat16


def test_a_timm_checkpoint_as_its_saver_writes_it(tmp_path: Path) -> None:
    """CheckpointSaver writes epoch, arch, state_dict, optimizer, args (a Namespace) and state_dict_ema."""
    from timm.utils import CheckpointSaver

    model = timm.create_model("test_vit", num_classes=3)
    args = argparse.Namespace(model="test_vit", lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(model, optimizer, args=args, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(0, 0.5)
    (file,) = tmp_path.glob("checkpoint-0*")
    opened = open_checkpoint(file)
    assert same(opened, model.state_dict())
    assert opened.notes == ["took its entry state_dict"]


def test_lightning_nesting_ema_and_the_wrappers_prefixes(tmp_path: Path) -> None:
    wrapped = {f"module._orig_mod.{k}": v for k, v in STATE.items()}
    ema = {k: v + 1 for k, v in STATE.items()}
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": wrapped,
        "ema": ema,
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, tmp_path / "last.ckpt")
    opened = open_checkpoint(tmp_path / "last.ckpt")
    assert same(opened)
    assert opened.notes == [
        "took its entry state_dict; there are also ema (--key)",
        "prefix module. removed",
        "prefix _orig_mod. removed",
    ]
    assert same(open_checkpoint(tmp_path / "last.ckpt", key="ema"), ema)
    with pytest.raises(
        ValueError, match=r"last\.ckpt has no weights under emma; there are weights under: state_dict, ema"
    ):
        open_checkpoint(tmp_path / "last.ckpt", key="emma")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_found_in_both_formats(tmp_path: Path) -> None:
    model = Tied()
    save_model(model, str(tmp_path / "t.safetensors"))
    torch.save(model.state_dict(), tmp_path / "t.pt")
    for name in ("t.safetensors", "t.pt"):
        opened = open_checkpoint(tmp_path / name)
        assert same(opened, model.state_dict())
        assert len(opened.tied) == 1


def shards(folder: Path, **changes: str) -> Path:
    folder.mkdir()
    save_file({"a.weight": STATE["a.weight"]}, folder / "model-1.safetensors")
    save_file({k: STATE[k] for k in ("b", "n")}, folder / "model-2.safetensors")
    index = {"a.weight": "model-1.safetensors", "b": "model-2.safetensors", "n": "model-2.safetensors", **changes}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_shards_with_their_index(tmp_path: Path) -> None:
    folder = shards(tmp_path / "hf")
    assert same(open_checkpoint(folder))
    assert same(open_checkpoint(folder / "model.safetensors.index.json"))
    assert open_checkpoint(folder).folder == folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": "../model-2.safetensors"}, r"shard \.\./model-2\.safetensors is not the name of a weights file"),
        ({"b": "/etc/passwd"}, "shard /etc/passwd is not the name"),
        ({"b": "model-3.safetensors"}, r"shard model-3\.safetensors is missing"),
        ({"b": "model-1.safetensors"}, r"shard model-1\.safetensors does not match: tensor b is missing in the file"),
        ({"c": "model-1.safetensors"}, r"shard model-1\.safetensors does not match: tensor c is missing in the file"),
    ],
)
def test_shards_that_do_not_match_are_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_checkpoint(shards(tmp_path / "hf", **changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_damaged_indices_are_named(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=r"index\.json|lists no tensors"):
        open_checkpoint(index)


def test_folders_and_files_without_weights_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    for source, message in [
        (tmp_path, "no weights in this folder"),
        (tmp_path / "a.pt", "has no dict of tensors"),
        (tmp_path / "b.onnx", "unknown format"),
        (tmp_path / "b.pt", "cannot be read"),
        ({"a": 3}, "entry a is a int"),
        ({}, "contains no tensors"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_checkpoint(source)


def test_a_file_cut_off_while_it_is_open_is_named(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    opened = open_checkpoint(tmp_path / "a.safetensors")
    with open(tmp_path / "a.safetensors", "r+b") as file:
        file.truncate(file.seek(0, 2) - 4)
    with pytest.raises(ValueError, match=r"a\.safetensors ends too early"):
        dict(opened)


@pytest.mark.parametrize("shard_size", ["1GB", "4KB"])
def test_a_folder_as_transformers_saves_it(tmp_path: Path, shard_size: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    models = [transformers.BertForMaskedLM(config) for _ in range(2)]  # whose head is tied to its embedding
    for name, model in zip("ab", models, strict=True):
        model.save_pretrained(tmp_path / name, max_shard_size=shard_size)
        (tmp_path / name / "vocab.txt").write_text("hello")
    opened = open_checkpoint(tmp_path / "a")
    assert all(torch.equal(opened[k], models[0].state_dict()[k]) for k in opened)
    assert (len(opened.files) > 1) == (shard_size == "4KB")
    notes = soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")
    assert notes is not None
    assert (tmp_path / "soup" / "vocab.txt").exists()
    mixed = transformers.BertForMaskedLM.from_pretrained(tmp_path / "soup").state_dict()
    first, second = (m.state_dict() for m in models)
    assert all(torch.allclose(mixed[k], (first[k] + second[k]) / 2) for k in mixed if mixed[k].is_floating_point())


def test_a_torchvision_file_with_batchnorm(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.mobilenet_v3_small(num_classes=3)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    assert same(open_checkpoint(tmp_path / "net.pth"), model.state_dict())
    (note,) = soup.mix(soup.uniform([tmp_path / "net.pth"]), tmp_path / "soup.safetensors")
    assert note == "there is only one checkpoint, so nothing is averaged"
    model.load_state_dict(soup.load(tmp_path / "soup.safetensors"))


def test_a_model_itself_is_not_a_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"expected a path or a state dict \(model\.state_dict\(\)\), not a Linear"):
        open_checkpoint(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("key", ["author", "source", "modelspec.title", "model_name"])
def test_what_metadata_say_is_no_tied_tensor(tmp_path: Path, key: str) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata={key: "w"})
    assert list(open_checkpoint(tmp_path / "a.safetensors")) == ["w"]
    save_file({"w": torch.ones(2)}, tmp_path / "b.safetensors", metadata={"head.weight": "w", "v": "w"})
    assert sorted(open_checkpoint(tmp_path / "b.safetensors")) == ["head.weight", "v", "w"]


def test_a_key_is_never_left_unused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "folder" / "model.safetensors")
    index = {"weight_map": {"w": "model.safetensors"}}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps(index))
    for name in ("folder", "folder/model.safetensors", "x.safetensors.index.json"):
        with pytest.raises(ValueError, match="leave the key ema out"):
            open_checkpoint(tmp_path / name, key="ema")
    (tmp_path / "bin").mkdir()
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}}, tmp_path / "bin" / "pytorch_model.bin")
    assert open_checkpoint(tmp_path / "bin", key="ema")["w"].tolist() == [0, 0]
