"""Folders of the Trainer with FSDP, and of DeepSpeed: read where one file holds the weights, else refused."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from distributed import save

from modelsoups.checkpoints.formats import open_checkpoint

WEIGHTS = {"layer.weight": torch.randn(3, 2), "layer.bias": torch.randn(3)}


def trainer_folder(folder: Path) -> Path:
    """As accelerate's save_fsdp_model and save_fsdp_optimizer leave it."""
    save({"model": WEIGHTS}, folder / "pytorch_model_fsdp_0")
    save({"optimizer": {"state": {"layer.weight": {"step": torch.tensor(1.0)}}}}, folder / "optimizer_0")
    (folder / "trainer_state.json").write_text("{}")
    return folder


def model_states(path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The file of DeepSpeed's engine, runtime/engine.py, _save_checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "module": OrderedDict((name, tensor.to(dtype)) for name, tensor in WEIGHTS.items()),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [OrderedDict((name, tensor.shape) for name, tensor in WEIGHTS.items())],
        "frozen_param_shapes": None,
        "shared_params": {},
        "frozen_param_fragments": None,
        "lr_scheduler": {"total_num_steps": 10, "last_batch_iteration": 3},
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 4,
        "global_samples": 64,
        "dp_world_size": 2,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": 2}},
        "ds_version": "0.19.8",
    }
    torch.save(content, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as error:
        open_checkpoint(path)
    return str(error.value)


def test_the_trainer_with_fsdp(tmp_path: Path) -> None:
    found = open_checkpoint(trainer_folder(tmp_path / "checkpoint-500"))
    assert found.notes == ["took its pytorch_model_fsdp_0", "took its entry model"]
    assert [name for name in WEIGHTS if not torch.equal(found[name], WEIGHTS[name])] == []
    assert found.folder == tmp_path / "checkpoint-500"


def test_weights_beside_it_that_transformers_reads_come_first(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    torch.save({"other": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert set(open_checkpoint(tmp_path)) == {"other"}


def test_several_models_are_named(tmp_path: Path) -> None:
    trainer_folder(tmp_path)
    save({"model": WEIGHTS}, tmp_path / "pytorch_model_fsdp_1")
    assert "several distributed checkpoints (pytorch_model_fsdp_0, pytorch_model_fsdp_1)" in refusal(tmp_path)


def test_deepspeed_of_stage_2(tmp_path: Path) -> None:
    states = model_states(tmp_path / "global_step4" / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, states.parent / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (tmp_path / "zero_to_fp32.py").write_text("")
    for source in (tmp_path, states.parent, states):
        found = open_checkpoint(source)
        assert found.keys() == WEIGHTS.keys()
        assert torch.equal(found["layer.weight"], WEIGHTS["layer.weight"])
        assert any("module" in note for note in found.notes)


def test_deepspeed_takes_the_latest_step_and_tells_of_16_bits(tmp_path: Path) -> None:
    for step in (4, 8):
        model_states(tmp_path / f"global_step{step}" / "mp_rank_00_model_states.pt", torch.bfloat16)
    assert "several steps of DeepSpeed (global_step4, global_step8)" in refusal(tmp_path)
    (tmp_path / "latest").write_text("global_step8\n")
    notes = open_checkpoint(tmp_path).notes
    assert notes[0] == "took global_step8/mp_rank_00_model_states.pt"
    assert "zero_to_fp32.py writes the float32 ones" in notes[-1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", "ZeRO-3, where each process saves a part"),
        ("mp_rank_01_model_states.pt", "tensor parallelism, as mp_rank_01_model_states.pt"),
        ("layer_00-model_00-model_states.pt", "pipeline parallelism"),
        ("layer_0_expert_1_mp_rank_00_model_states.pt", "expert parallelism"),
    ],
)
def test_parts_of_the_weights_are_refused(tmp_path: Path, name: str, told: str) -> None:
    states = model_states(tmp_path / "global_step4" / "mp_rank_00_model_states.pt")
    model_states(states.with_name(name))
    for source in (tmp_path, states.parent, states):
        assert told in refusal(source)
    if name.startswith("zero"):
        states.unlink()
        assert "python zero_to_fp32.py . OUTPUT" in refusal(tmp_path)
        assert "python zero_to_fp32.py . OUTPUT" in refusal(states.with_name(name))


def test_deepspeed_s_consolidated_files(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")  # as zero_to_fp32.py writes it
    model_states(tmp_path / "global_step4" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    found = open_checkpoint(tmp_path)
    assert torch.equal(found["layer.weight"], WEIGHTS["layer.weight"])
