"""The soup of two copies of a checkpoint file gives the same bits in the model that wrote it, loaded by its owner."""

import functools
import io
import warnings
from pathlib import Path

import owners
import pytest
import torch
from owners import row, soup_of_copies
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

from modelsoups import soup
from modelsoups.cli import commands

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
X = torch.linspace(-1, 1, 16).reshape(2, 8)
STATES = "mp_rank_00_model_states.pt"  # of DeepSpeed


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()


def gives_the_same(file: Path, model: nn.Module) -> None:
    """A fresh network with the soup's weights, strictly loaded, gives the model's outputs."""
    fresh = net(1)
    fresh.load_state_dict(load_file(file))
    assert torch.equal(fresh(X), model(X))


@row(
    "safetensors",
    "`.safetensors`, tied weights too",
    "`.safetensors`",
    "`safetensors.torch.load_model`",
    "truncated files",
)
def safetensors(tmp_path: Path) -> None:
    model = net()
    save_model(model, str(tmp_path / "a.safetensors"))
    fresh, out = net(1), soup_of_copies(tmp_path / "a.safetensors")
    load_model(fresh, str(out))
    assert torch.equal(fresh(X), model(X))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(out.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cut\.safetensors is truncated"):
        soup.uniform([cut])


@row(
    "`torch.save` of a state dict",
    "`.pt`, `.pth`, `.bin`, pickle protocols 2 to 5, and the format before torch 1.6",
    "`.safetensors`",
    "`load_state_dict`",
    "protocol 0, which torch.load cannot read; before torch 1.6, protocols above 2",
)
def torch_save(tmp_path: Path) -> None:
    model = net()
    for protocol in (2, 3, 4, 5):
        torch.save(model.state_dict(), tmp_path / f"{protocol}.pt", pickle_protocol=protocol)
        gives_the_same(soup_of_copies(tmp_path / f"{protocol}.pt"), model)
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    gives_the_same(soup_of_copies(tmp_path / "old.pth"), model)
    torch.save(model.state_dict(), tmp_path / "0.pt", pickle_protocol=0)
    with pytest.raises(ValueError, match="was saved with pickle protocol 0"):
        soup.uniform([tmp_path / "0.pt"])


@row(
    "nested checkpoints",
    "`model`, `state_dict`, `app.model`, ... at any depth, beside counters; `--key` if there are several",
    "`.safetensors`",
    "`load_state_dict`",
    "several models without `--key`: the message lists the entries",
)
def nested(tmp_path: Path) -> None:
    model, other = net(), net(2)
    content = {"app": {"model": model.state_dict()}, "epoch": 3, "optimizer": {"state": {0: {"step": X[0, 0]}}}}
    torch.save(content, tmp_path / "a.pt")
    gives_the_same(soup_of_copies(tmp_path / "a.pt"), model)
    for name in ("b.pt", "c.pt"):
        torch.save({"student": model.state_dict(), "teacher": other.state_dict()}, tmp_path / name)
    with pytest.raises(ValueError, match="several models: student, teacher; choose one with --key NAME"):
        soup.uniform([tmp_path / "b.pt"])
    paths = [str(tmp_path / name) for name in ("b.pt", "c.pt")]
    commands.main(["mix", "uniform", *paths, "--key", "teacher", "-o", str(tmp_path / "t.safetensors")])
    gives_the_same(tmp_path / "t.safetensors", other)


@row(
    "wrapped models",
    "names with prefixes of DataParallel, DDP, `torch.compile`, FSDP, activation checkpointing and AveragedModel",
    "`.safetensors`, with the model's own names",
    "`load_state_dict`",
    "",
)
def wrapped(tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    averaged = AveragedModel(net())
    averaged.update_parameters(net())
    inner = net()
    inner[0], inner[3] = checkpoint_wrapper(inner[0]), torch.compile(inner[3])
    kept = {f"_fsdp_wrapped_module.{key}": tensor for key, tensor in net().state_dict().items()}
    kinds = {"dp": nn.DataParallel(net()).state_dict(), "compiled": torch.compile(net()).state_dict()}
    kinds |= {"averaged": averaged.state_dict(), "inner": inner.state_dict(), "fsdp": kept}
    for name, state in kinds.items():
        assert list(state) != list(net().state_dict())
        torch.save(state, tmp_path / f"{name}.pt")
        gives_the_same(soup_of_copies(tmp_path / f"{name}.pt"), net())


@row(
    "TorchScript",
    "`torch.jit.save`, also OpenAI's CLIP; its code is not run",
    "`.safetensors`",
    "`load_state_dict`",
    "",
)
def torchscript(tmp_path: Path) -> None:
    model = net()
    torch.jit.save(torch.jit.trace(model, X), str(tmp_path / "a.pt"))
    gives_the_same(soup_of_copies(tmp_path / "a.pt"), model)


@row(
    "Lightning",
    "`.ckpt`: `state_dict` beside hyperparameters, loops and optimizers",
    "`.safetensors`",
    "`LightningModule.load_state_dict`",
    "hyperparameters that are Python objects other than a Namespace",
)
def lightning(tmp_path: Path) -> None:
    library = pytest.importorskip("lightning.pytorch")

    class Module(library.LightningModule):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = net()

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    module = Module()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = library.Trainer(max_steps=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), 2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = Module()
    fresh.load_state_dict(load_file(soup_of_copies(tmp_path / "a.ckpt")))
    assert torch.equal(fresh.model.eval()(X), module.model.eval()(X))
    torch.save({"state_dict": net().state_dict(), "hyper_parameters": functools.partial(print)}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"contains Python objects \(functools\.partial\)"):
        soup.uniform([tmp_path / "b.ckpt"])


@row(
    "timm's training checkpoints",
    "`.pth.tar` of `CheckpointSaver`: `state_dict`, and `--key state_dict_ema`",
    "`.safetensors`",
    "`timm.models.load_checkpoint`",
    "",
)
def timm(tmp_path: Path) -> None:
    library = pytest.importorskip("timm")
    model, average = (library.create_model("test_vit", num_classes=3) for _ in range(2))
    saver = library.utils.CheckpointSaver(model, torch.optim.SGD(model.parameters()), checkpoint_dir=str(tmp_path))
    saver.model_ema = library.utils.ModelEmaV3(average)
    saver._save(str(tmp_path / "a.pth.tar"), 1)
    out = soup_of_copies(tmp_path / "a.pth.tar")
    paths = [str(tmp_path / name) for name in ("a.pth.tar", "copy-a.pth.tar")]
    commands.main(["mix", "uniform", *paths, "--key", "state_dict_ema", "-o", str(tmp_path / "ema.safetensors")])
    images = torch.randn(1, 3, 160, 160)
    for file, expected in ((out, model), (tmp_path / "ema.safetensors", average)):
        fresh = library.create_model("test_vit", num_classes=3)
        library.models.load_checkpoint(fresh, str(file))
        assert torch.equal(fresh.eval()(images), expected.eval()(images))


@row(
    "open_clip's training checkpoints",
    "`epoch_*.pt`: `state_dict` of DDP beside the optimizer",
    "`.safetensors`",
    "`open_clip.load_checkpoint`",
    "",
)
def open_clip(tmp_path: Path) -> None:
    library = pytest.importorskip("open_clip")
    tower = {"width": 32, "layers": 1}
    text = {"context_length": 8, "vocab_size": 64, "heads": 2, **tower}
    vision = {"image_size": 32, "patch_size": 16, "head_width": 16, **tower}
    model, fresh = (library.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text) for _ in range(2))
    state = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "name": "x", "state_dict": state, "optimizer": {}}, tmp_path / "epoch_1.pt")
    library.load_checkpoint(fresh, str(soup_of_copies(tmp_path / "epoch_1.pt")))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(fresh.eval().encode_image(images), model.eval().encode_image(images))


@row(
    "DeepSpeed, ZeRO 0 to 2",
    "what `zero_to_fp32.py` writes; else the entry `module` of `mp_rank_00_model_states.pt`, of the step that `latest`"
    " names; give the run's folder, the step's folder or the file",
    "`.safetensors`, or a folder with `model.safetensors`; never DeepSpeed's own format",
    "`load_state_dict` (of a handmade file, because DeepSpeed is not among the tests' packages)",
    "ZeRO-3, and tensor, pipeline or expert parallelism, where no file has all weights; several steps without `latest`",
)
def deepspeed(tmp_path: Path) -> None:
    model = net()
    content = {"module": model.state_dict(), "optimizer": None, "ds_version": "0.19.8", "ds_config": {}}
    for run in ("a", "b"):
        for step in (4, 8):
            folder = tmp_path / run / f"global_step{step}"
            folder.mkdir(parents=True)
            torch.save(content if step == 8 else {"module": net(1).state_dict()}, folder / STATES)
            torch.save({}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
        with pytest.raises(ValueError, match="several steps of DeepSpeed"):
            soup.uniform([tmp_path / run])
        (tmp_path / run / "latest").write_text("global_step8")
    for place in ("", "global_step8", f"global_step8/{STATES}"):
        soup.mix(soup.uniform([tmp_path / "a" / place, tmp_path / "b" / place]), tmp_path / "soup.safetensors")
        gives_the_same(tmp_path / "soup.safetensors", model)
    soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")
    gives_the_same(tmp_path / "soup" / "model.safetensors", model)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # of zero_to_fp32.py
    gives_the_same(soup_of_copies(tmp_path / "pytorch_model.bin"), model)
    empty = {key: torch.empty(0) if tensor.ndim else tensor for key, tensor in model.state_dict().items()}
    torch.save({"module": empty, "ds_version": "0.14"}, tmp_path / "zero3.pt")
    with pytest.raises(ValueError, match="has weights with no elements, as DeepSpeed's ZeRO-3 saves them"):
        soup_of_copies(tmp_path / "zero3.pt")
    (folder / f"zero_pp_rank_0_{STATES}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ZeRO-3, where each process saves a part.* run its zero_to_fp32\.py"):
        soup.uniform([tmp_path / "b"])
    (folder / f"zero_pp_rank_0_{STATES}").rename(folder / "mp_rank_01_model_states.pt")
    with pytest.raises(ValueError, match="tensor parallelism"):
        soup.uniform([tmp_path / "b"])


@row("quantized weights", "float8 without scales", "`.safetensors`", "`load_file`", "int8, int4, float8 beside scales")
def quantized(tmp_path: Path) -> None:
    plain = {"a.weight": torch.randn(8, 8).to(torch.float8_e4m3fn)}
    save_file(plain, tmp_path / "a.safetensors")
    assert torch.equal(
        load_file(soup_of_copies(tmp_path / "a.safetensors"))["a.weight"].float(), plain["a.weight"].float()
    )
    whole = torch.randint(-9, 9, (8, 8), dtype=torch.int8)
    for name, state in {"scaled": {**plain, "a.weight_scale": torch.ones(1)}, "int8": {"a.weight": whole}}.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match="is quantized: its weights cannot be averaged"):
            soup_of_copies(tmp_path / f"{name}.safetensors")


@row(
    "anything else",
    "",
    "",
    "",
    "whole modules (`torch.save(model)`), pickles with code, Git LFS pointers, HDF5, GGUF, ONNX, Flax, TensorFlow,"
    " Orbax, NumPy: each with a message that says what to do",
)
def anything_else(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "module.pt")
    array = io.BytesIO()
    array.write(b"\x93NUMPY")
    contents = {"lfs.bin": b"version https://git-lfs.github.com/spec/v1\n", "m.h5": b"\x89HDF\r\n", "m.gguf": b"GGUF"}
    contents |= {"m.onnx": b"x", "m.msgpack": b"x", "m.npz": array.getvalue(), "m.pkl": b"\x80\4N."}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for folder, inside in (("tf", "tf_model.h5"), ("orbax", "_CHECKPOINT_METADATA")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / inside).write_bytes(b"x")
    for name in ("module.pt", *contents, "tf", "orbax"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
            soup.uniform([tmp_path / name])
        assert "delete" not in str(error.value)


@owners.of(__name__)
def test_the_soup_of_copies_is_the_model(each: owners.Row, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each.check(tmp_path)
