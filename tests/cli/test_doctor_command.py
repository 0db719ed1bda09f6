"""`modelsoups doctor` on files, and BatchNorm before and after re-estimation on a real network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsoups.cli import commands
from modelsoups.cli.doctor import short

HOLDOUT = """
import torch
from modelsoups import soup
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(8, 3, bias=False)
    def forward(self, x):
        return self.head(x)
def holdout():
    return soup.Holdout(Model(), [(torch.eye(8)[:3], torch.arange(3))])
"""


def test_the_command_line_says_why_and_exits_with_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_holdout.py").write_text(HOLDOUT)
    for n in range(3):
        generator = torch.Generator().manual_seed(n)
        save_file({"head.weight": torch.eye(3, 8) + 0.05 * torch.randn(3, 8, generator=generator)}, f"{n}.safetensors")
        save_file({"head.weight": torch.randn(3, 8, generator=generator)}, f"r{n}.safetensors")
    good, bad = [f"{n}.safetensors" for n in range(3)], [f"r{n}.safetensors" for n in range(3)]
    commands.main(["doctor", *good, "--holdout", "my_holdout:holdout", "--heatmap", "map.png"])
    out = capsys.readouterr().out
    assert "accuracy at pairwise midpoints" in out
    assert "doctor: a soup of these checkpoints can succeed" in out
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as stopped:
        commands.main(["doctor", *bad])
    assert stopped.value.code == 1
    assert "FATAL initialization: r0.safetensors, r1.safetensors, r2.safetensors" in capsys.readouterr().out


def test_options_of_greedy_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("task_of_greedy.py").write_text(HOLDOUT.replace("arange(3))])", "arange(3))], batch_size=1)"))
    right, wrong = torch.eye(3, 8), torch.eye(3, 8)[[1, 2, 0]]
    for name, weight in {"a": right, "b": 3 * wrong, "c": 3 * wrong, "d": right}.items():
        save_file({"head.weight": weight.clone()}, f"{name}.safetensors")
    files = [f"{name}.safetensors" for name in "abcd"]
    options = ["--holdout", "task_of_greedy:holdout", "--strict", "--patience", "2", "--plot", "trace.svg"]
    commands.main(["mix", "greedy", *files, *options, "-o", "soup.safetensors"])
    out = capsys.readouterr().out
    assert "mix: c.safetensors: rejected early, refused" in out
    assert "b.safetensors" not in out, "two refusals in a row end it"
    assert "mix: evaluated 14 images; saved 4 of 18 (22%) by rejecting candidates early" in out
    assert Path("trace.svg").stat().st_size > 1000
    commands.main(
        [
            "mix",
            "greedy",
            *files,
            *options[:2],
            "--replacement",
            "--order-seed",
            "1",
            "--force",
            "-o",
            "other.safetensors",
        ]
    )
    for wrong_use in (
        ["uniform", *files, "--order-seed", "0"],
        ["uniform", *files, "--plot", "t.svg"],
        ["greedy", *files, *options[:2], "--patience", "0"],
    ):
        with pytest.raises(SystemExit) as stopped:
            commands.main(["mix", *wrong_use, "-o", "x.safetensors"])
        assert stopped.value.code == 1
        assert not Path("x.safetensors").exists()


def test_names_are_short_and_stay_different() -> None:
    assert short(["/run/ingredients/000/model.safetensors", "/run/ingredients/001/model.safetensors"]) == ["000", "001"]
    assert short(["a.pt", "b.pt"]) == ["a.pt", "b.pt"]
    assert short(["x/a.pt", "x/a.pt"]) == ["a.pt", "a.pt"]
    assert short(["/x/a/m.pt", "/x/b/c/m.pt"]) == ["a", "b/c"]


def test_angles_are_from_the_initialization_where_it_fits(tmp_path: Path, capsys) -> None:
    """Updates (1, 0) and (0, 1) of a start (9, 9) are 90 degrees apart; the weights are 6 (cosine 180 / 181)."""
    for name, row in {"init": (9.0, 9.0), "a": (10.0, 9.0), "b": (9.0, 10.0), "other": (1.0, 2.0, 3.0)}.items():
        save_file({"w": torch.tensor([row])}, tmp_path / f"{name}.safetensors")
    models = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    commands.main(["doctor", *models, "--init", str(tmp_path / "init.safetensors")])
    out = capsys.readouterr().out
    assert "angles between updates from the initialization, degrees" in out
    assert "90.000" in out
    with pytest.raises(SystemExit):
        commands.main(["doctor", *models, "--init", str(tmp_path / "other.safetensors")])
    out = capsys.readouterr().out
    assert "FATAL not from init" in out
    assert "angles between weights, degrees" in out
