"""Soups of what training runs leave: distributed checkpoints and `checkpoint-*` folders, loaded by their owners."""

import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import owners
import pytest
import torch
import torch.distributed.checkpoint as dcp
from distributed import by_processes, save
from owners import row
from safetensors.torch import load_file
from torch import Tensor, nn

from modelsoups import soup

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
X = torch.linspace(-1, 1, 16).reshape(2, 8)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 13), nn.LayerNorm(13), nn.ReLU(), nn.Linear(13, 5)).eval()


def soup_of_copies(folder: Path) -> Path:
    """The soup of a folder and its copy."""
    shutil.copytree(folder, f"{folder}-copy")
    soup.mix(soup.uniform([folder, Path(f"{folder}-copy")]), f"{folder}-soup")
    return Path(f"{folder}-soup")


def sharded(seed: int) -> nn.Module:
    """A network of which each process has a part (FSDP)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = net(seed)
    fully_shard(model, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    return model


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a network that is sharded."""
    return {name: tensor.full_tensor() for name, tensor in model.state_dict().items()}


def check_same(found: dict[str, Tensor], expected: nn.Module) -> None:
    state = expected.state_dict()
    assert found.keys() == state.keys()
    assert [name for name, tensor in state.items() if not torch.equal(found[name], tensor)] == []


@row(
    "distributed checkpoints (DCP)",
    "`.metadata` beside `*.distcp`; weights as they are or nested, such as `{'model': ..., 'optim': ...}`",
    "folder of the same kind, with the weights under the same keys; or `.safetensors`",
    "`torch.distributed.checkpoint.load`",
    "folders without their `.metadata`, and [more](#distributed-checkpoints)",
)
def plain(tmp_path: Path) -> None:
    arounds: dict[str, Callable[[dict[str, Tensor]], dict[str, object]]] = {
        "bare": lambda state: dict(state),
        "nested": lambda state: {"model": state},
        "deep": lambda state: {"app": {"model": state}},
    }
    for name, around in arounds.items():
        optimizer = {"optim": {"step": torch.ones(1)}} if name != "bare" else {}
        folder = save({**around(net().state_dict()), **optimizer}, tmp_path / name)
        found = net(1).state_dict()
        dcp.load(around(found), checkpoint_id=soup_of_copies(folder))
        check_same(found, net())
        soup.mix(soup.uniform([folder]), tmp_path / f"{name}.safetensors")
        check_same(load_file(tmp_path / f"{name}.safetensors"), net())
    (folder / ".metadata").unlink()
    with pytest.raises(ValueError, match=r"without its \.metadata"):
        soup.uniform([folder])


@row(
    "FSDP's distributed checkpoints",
    "as DCP: a file of each process, with its shards",
    "folder that any number of processes load",
    "`torch.distributed.checkpoint.load` in two processes, which saved it, and in three",
    "flat parameters (`LOCAL_STATE_DICT`)",
)
def fsdp(tmp_path: Path) -> None:
    def saving() -> None:
        dcp.save({"model": sharded(0).state_dict()}, checkpoint_id=tmp_path / "a")

    def loading() -> None:
        model = sharded(1)
        state = {"model": model.state_dict()}
        dcp.load(state, checkpoint_id=tmp_path / "a-soup")
        model.load_state_dict(state["model"])
        check_same(whole(model), net())

    by_processes(2, saving)
    assert len(list((tmp_path / "a").glob("*.distcp"))) == 2
    soup_of_copies(tmp_path / "a")
    for processes in (2, 3):
        by_processes(processes, loading)
    save({"model": {"layer.flat_param": torch.ones(4)}}, tmp_path / "flat")
    with pytest.raises(ValueError, match="FSDP's flat parameters"):
        soup.uniform([tmp_path / "flat"])


@row(
    "`checkpoint-*` of the Trainer with FSDP",
    "the DCP folder `pytorch_model_fsdp_0` of accelerate; the optimizer's is left out",
    "folder with `pytorch_model_fsdp_0`, configuration and tokenizer",
    "accelerate's `load_fsdp_model` in two processes",
    "several `pytorch_model_fsdp_*`",
)
def trainer_fsdp(tmp_path: Path) -> None:
    fsdp_utils = pytest.importorskip("accelerate.utils.fsdp_utils")
    from torch.distributed.fsdp import StateDictType

    kind = StateDictType.SHARDED_STATE_DICT
    plugin = SimpleNamespace(state_dict_type=kind, state_dict_config=None, fsdp_version=2)
    accelerator = SimpleNamespace(process_index=0, num_processes=2, wait_for_everyone=lambda: None)
    fsdp_utils.logger = SimpleNamespace(info=print)  # accelerate's own needs an Accelerator
    folder = tmp_path / "checkpoint-500"

    def saving() -> None:
        fsdp_utils.save_fsdp_model(plugin, accelerator, sharded(0), str(folder))

    def loading() -> None:
        model = sharded(1)
        fsdp_utils.load_fsdp_model(plugin, accelerator, model, f"{folder}-soup")
        check_same(whole(model), net())

    by_processes(2, saving)
    save({"optimizer": {"step": torch.ones(1)}}, folder / "optimizer_0")
    for name in ("config.json", "trainer_state.json"):
        (folder / name).write_text("{}")
    out = soup_of_copies(folder)
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "pytorch_model_fsdp_0"}
    by_processes(2, loading)
    shutil.copytree(folder / "pytorch_model_fsdp_0", folder / "pytorch_model_fsdp_1")
    with pytest.raises(ValueError, match=r"several distributed checkpoints .*_fsdp_0, pytorch_model_fsdp_1"):
        soup.uniform([folder])


@row(
    "`checkpoint-*` along one run of the Trainer",
    "`mix trajectory`: in the order of their steps, which their names tell",
    "folder",
    "`from_pretrained`",
    "names without a step, if `--steps` is missing",
)
def trajectory(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=9, **shape))
    examples = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor(n % 2)} for n in range(4)]
    options = {"max_steps": 10, "save_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    Trainer(model, TrainingArguments(str(tmp_path / "run"), **options), train_dataset=examples).train()
    folders = sorted((tmp_path / "run").glob("checkpoint-*"))  # 1, 10, 2, ...
    assert [folder.name for folder in folders[:3]] == ["checkpoint-1", "checkpoint-10", "checkpoint-2"]
    soup.mix(soup.trajectory(folders, schedule="1-sqrt", last=3), tmp_path / "soup")
    mean = BertForSequenceClassification.from_pretrained(tmp_path / "soup").state_dict()
    states = [BertForSequenceClassification.from_pretrained(f"{folders[0].parent}/checkpoint-{n}") for n in (8, 9, 10)]
    one, two = 1 - math.sqrt(1 / 3), 1 - math.sqrt(2 / 3)  # of the learning rate, after a third and two
    weights = (1 - one, one - two, two)
    for name, tensor in mean.items():
        parts = [c * state.state_dict()[name].double() for c, state in zip(weights, states, strict=True)]
        torch.testing.assert_close(tensor, sum(parts).to(tensor.dtype), rtol=1e-6, atol=1e-9)
    for number, folder in enumerate(folders[:2]):
        folder.rename(folder.with_name(["best", "last"][number]))
    with pytest.raises(ValueError, match=r"give the steps.*--steps"):
        soup.trajectory([folders[0].with_name(name) for name in ("best", "last")])


@owners.of(__name__)
def test_the_owner_loads_the_soup(each: owners.Row, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each.check(tmp_path)
