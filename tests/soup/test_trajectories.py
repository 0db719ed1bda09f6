"""Averages along a run: coefficients worked out by hand, and equal to simulated decay where that is exact."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from distributed import save
from safetensors.torch import load_file

from modelsoups import soup
from modelsoups.cli import commands
from modelsoups.soup.trajectories import CURVES, coefficients, steps_of


@pytest.mark.parametrize(
    ("schedule", "decay", "expected"),
    [
        ("uniform", None, [0.25, 0.25, 0.25, 0.25]),
        ("wma", None, [0.1, 0.2, 0.3, 0.4]),
        ("ema", 0.5, [0.125, 0.125, 0.25, 0.5]),
        ("1-x", None, [0.25, 0.25, 0.25, 0.25]),
        ("1-sqrt", None, [0.5, math.sqrt(0.5) - 0.5, math.sqrt(0.75) - math.sqrt(0.5), 1 - math.sqrt(0.75)]),
        ("cosine", None, [0.5 - math.sqrt(0.5) / 2, math.sqrt(0.5) / 2, math.sqrt(0.5) / 2, 0.5 - math.sqrt(0.5) / 2]),
        ([1.0, 0.6, 0.1], None, [0.0, 0.4, 0.5, 0.1]),
        (lambda x: 1 - x * x, None, [1 / 16, 3 / 16, 5 / 16, 7 / 16]),
    ],
)
def test_coefficients(schedule, decay, expected) -> None:
    found = coefficients([100, 200, 300, 400], schedule, decay)
    assert found == pytest.approx(expected, abs=1e-15)
    assert math.fsum(found) == pytest.approx(1, abs=1e-15)


def test_uneven_steps_take_the_curve_by_the_step() -> None:
    # the decay ends a mean interval, 150 steps, after 400; its length is 450
    assert coefficients([100, 200, 400], "1-x") == pytest.approx([100 / 450, 200 / 450, 150 / 450], abs=1e-15)
    assert coefficients([7], "1-sqrt") == [1.0]


@pytest.mark.parametrize("schedule", [*CURVES, [0.9, 0.9, 0.5, 0.25, 0.0]], ids=str)
def test_equal_to_simulated_decay_where_the_updates_are_the_same(tmp_path: Path, schedule) -> None:
    """SGD at a constant rate on a linear loss, whose gradient is that of the batch alone, whatever the weights."""
    torch.manual_seed(0)
    gradients = torch.randn(5, 4, 7, 3, dtype=torch.float64)  # 5 intervals of 4 steps
    rates = schedule if isinstance(schedule, list) else [CURVES[schedule](j / 6) for j in range(1, 6)]

    def run(factors, saved) -> torch.nn.Linear:
        model = torch.nn.Linear(3, 7, bias=False, dtype=torch.float64)
        torch.nn.init.constant_(model.weight, 0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        saved(0, model)
        for interval, factor in enumerate(factors):
            optimizer.param_groups[0]["lr"] = 0.1 * factor
            for gradient in gradients[interval]:
                optimizer.zero_grad()
                (model.weight * gradient).sum().backward()
                optimizer.step()
            saved(4 * (interval + 1), model)
        return model

    def keep(step, model) -> None:
        torch.save({"model": model.state_dict()}, tmp_path / f"step_{step}.pt")

    run([1.0] * 5, keep)
    decayed = run(rates, lambda step, model: None).weight.detach()
    files = sorted(tmp_path.glob("*.pt"), reverse=True)  # step_8, step_4, step_20, ...: the order is found
    chosen = soup.trajectory(files, schedule=schedule)
    assert [Path(name).stem for name in chosen.ingredients] == [f"step_{4 * j}" for j in range(6)]
    assert (soup.mixed(chosen)["weight"] - decayed).abs().max() < 1e-12


def test_the_last_ones_of_distributed_checkpoints_from_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    states = {step: {"w": torch.full((4,), float(step))} for step in (500, 1000, 1500, 2000)}
    for step, state in states.items():
        save({"model": state}, Path(f"checkpoint-{step}/pytorch_model_fsdp_0"))
    folders = sorted(map(str, Path().iterdir()))
    assert folders[0] == "checkpoint-1000"
    commands.main(["mix", "trajectory", *folders, "--schedule", "0.75,0.5", "--last", "3", "-o", "out.safetensors"])
    assert (
        "mix: step 1000: checkpoint-1000 times 0.25\nmix: step 1500: checkpoint-1500 times 0.25"
        in capsys.readouterr().out
    )
    assert load_file("out.safetensors")["w"].tolist() == [0.25 * 1000 + 0.25 * 1500 + 0.5 * 2000] * 4
    commands.main(["mix", "trajectory", *folders, "--schedule", "ema", "--decay=0.5", "--last=2", "-o", "ema"])
    assert soup.load("ema")["w"].tolist() == [1750.0] * 4
    assert (Path("ema") / "pytorch_model_fsdp_0" / ".metadata").exists()


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["run/checkpoint-1000", "run/checkpoint-500"], [1000, 500]),
        (["a/global_step20/mp_rank_00_model_states.pt", "a/global_step9/mp_rank_00_model_states.pt"], [20, 9]),
        (["epoch=1-step=90.ckpt", "epoch=12-step=1170.ckpt"], [90, 1170]),
        (["epoch=01-val_loss=0.42.ckpt", "epoch=02-val_loss=0.39.ckpt"], [1, 2]),
        (["iter_0000010/model.pt", "iter_0000200/model.pt"], [10, 200]),
        (["vit_b32-007.pt", "vit_b32-010.pt"], [7, 10]),
        (["ckpts/900/model.safetensors", "ckpts/1000/model.safetensors"], [900, 1000]),
        (["state 0", "state 1"], [0, 1]),
        (["run3/seed1/step100.pt", "run3/seed1/step20.pt"], [100, 20]),
        (["step2_sft/epoch-10.pt", "step2_sft/epoch-9.pt"], [10, 9]),
        (["one.pt"], [0]),
    ],
)
def test_steps_are_read_from_names(names, steps) -> None:
    assert steps_of(names) == steps


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.pt", "b.pt"], "differ in more than a number"),
        (["m-2024-05-01.pt", "m-2024-06-02.pt"], "differ in 2 numbers"),
        (["step_1.5k.pt", "step_2.5k.pt", "step_3k.pt"], "differ in more than a number"),
        (["run1/checkpoint-500", "run2/checkpoint-1000"], "different runs"),
        (["seed1-step100.pt", "seed2-step200.pt"], "different runs"),
        (["seed_1.pt", "seed_2.pt"], "different runs"),
        (["step100/seed1.pt", "step200/seed2.pt"], "different runs"),
        (["a-step100.pt", "b-step200.pt"], "different runs"),
        (["run1/model.pt", "run2/model.pt"], "different runs"),
        (["pool/m1/model.pt", "pool/m2/model.pt"], "different runs"),
        (["checkpoint-500", "checkpoint-0500", "checkpoint-1000"], "both have step 500"),
        (["checkpoint-500", "checkpoint-0500"], "differ in 0 numbers"),
        (["checkpoint-500", "last.ckpt"], "last.ckpt has no step in its name"),
    ],
)
def test_an_ambiguous_order_is_refused(names, why) -> None:
    with pytest.raises(ValueError, match=why) as error:
        steps_of(names)
    assert "--steps" in str(error.value)


def test_steps_can_be_given(tmp_path: Path) -> None:
    states = [{"w": torch.tensor([float(v)])} for v in (3, 1, 2)]
    chosen = soup.trajectory(states, schedule=[0.5, 0.25], steps=[30, 10, 20])
    assert chosen.ingredients == ("state 1", "state 2", "state 0")
    assert soup.mixed(chosen, [states[1], states[2], states[0]])["w"].item() == 0.5 * 1 + 0.25 * 2 + 0.25 * 3
    assert [step.get("step") for step in chosen.trace] == [None, 10, 20, 30]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"schedule": "sqrt"}, "no schedule sqrt; expected one of uniform, wma, ema, 1-x, cosine, 1-sqrt"),
        ({"schedule": "ema"}, "ema needs a decay"),
        ({"decay": 0.9}, "ema needs a decay"),
        ({"schedule": "ema", "decay": 1.0}, "expected 0 to below 1"),
        ({"schedule": [0.5]}, "1 weights for 3 checkpoints; expected 2"),
        ({"schedule": [0.5, 0.6]}, "do not rise"),
        ({"schedule": [1.5, 0.6]}, "do not rise"),
        ({"schedule": [0.5, math.nan]}, "do not rise"),
        ({"schedule": lambda x: -x}, "do not rise"),
        ({"last": 4}, "expected 1 to 3"),
        ({"steps": [1, 2]}, "expected 3 different numbers"),
        ({"steps": [1, 2, 2]}, "expected 3 different numbers"),
    ],
)
def test_options_out_of_range(options, why) -> None:
    states = [{"w": torch.tensor([float(v)])} for v in range(3)]
    with pytest.raises(ValueError, match=why):
        soup.trajectory(states, **options)


def test_other_methods_have_no_schedule(tmp_path: Path, capsys) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(SystemExit):
        commands.main(["mix", "uniform", str(tmp_path / "a.pt"), "--last", "1", "-o", str(tmp_path / "o.safetensors")])
    assert "--last is an option of trajectory; uniform has no such option" in capsys.readouterr().err


def test_aliases_and_the_mean_are_one_soup() -> None:
    states = [{"w": torch.randn(3)} for _ in range(4)]
    rows = [soup.trajectory(states, schedule=name).coefficients["*"] for name in ("LAWA", "pma", "uniform", "linear")]
    for one, other in itertools.pairwise(rows):
        assert one == pytest.approx(other, abs=1e-15)
