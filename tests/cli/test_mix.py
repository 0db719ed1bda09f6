"""Soups as files: what they say about themselves, ties, refusals, folders, and the command line."""

import json
import os
from pathlib import Path

import pytest
import torch
from checkpoint_files import bits, files, state
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from modelsoups import soup
from modelsoups.cli import commands
from modelsoups.config import registry
from modelsoups.weights import digests as digest
from modelsoups.weights.state_dicts import mix


def test_a_uniform_soup_says_what_it_is(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    chosen = soup.uniform(paths)
    notes = soup.mix(chosen, tmp_path / "soup.safetensors", holdout_accuracy=0.75)
    assert "blocks.4.w" in notes[0]
    assert "not averaged" in notes[0]
    with safe_open(tmp_path / "soup.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["modelsoups"])
    assert metadata["coefficients"] == {"*": [1 / 3] * 3}
    assert metadata["holdout_accuracy"] == 0.75
    digests = soup.library.hashes(soup.library.open_all(paths))
    assert metadata["hashes"] == list(digests)
    card = (tmp_path / "soup.md").read_text()
    assert "0.7500" in card
    assert all(h in card for h in digests)
    assert bits(soup.mixed(chosen)) == bits(load_file(tmp_path / "soup.safetensors"))


def test_a_changed_ingredient_is_refused(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    os.utime(paths[1], (1, 1))  # else it may be written twice in one tick of the clock
    chosen = soup.uniform(paths)
    save_file(state(7), paths[1])
    with pytest.raises(ValueError, match=r"1\.safetensors: not the ingredient"):
        soup.mix(chosen, tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


class Tied(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        nn.init.constant_(self.embed.weight, value)


def test_tied_weights_stay_tied_if_they_are_everywhere(tmp_path: Path) -> None:
    for value in (1, 2):
        save_model(Tied(value), str(tmp_path / f"{value}.safetensors"))
        torch.save(Tied(value).state_dict(), tmp_path / f"{value}.pt")
    for suffix in ("safetensors", "pt"):
        out = tmp_path / f"soup-{suffix}.safetensors"
        soup.mix(soup.uniform([tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"]), out)
        model = Tied(0)
        load_model(model, str(out))
        assert model.head.weight.unique().tolist() == [1.5]
        assert soup.load(out).keys() == model.state_dict().keys()
        assert len(load_file(out)) == 1
    untied = {"embed.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)}
    soup.mix(soup.uniform([tmp_path / "1.pt", untied]), tmp_path / "two.safetensors", [tmp_path / "1.pt", untied])
    assert load_file(tmp_path / "two.safetensors")["head.weight"].unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.w": torch.tensor([1, 2, float("nan"), 4, 5])}, r"1\.safetensors: tensor blocks\.1\.w contains NaN"),
        ({"blocks.1.w": torch.ones(6)}, r"tensor blocks\.1\.w is \(6,\) float32, expected \(5,\) float32"),
        ({"blocks.1.w": torch.ones(5).half()}, r"is \(5,\) float16, expected \(5,\) float32"),
        ({"extra": torch.ones(5)}, "tensor extra is .*, expected no such tensor"),
    ],
)
def test_what_cannot_be_mixed_is_named_and_nothing_is_written(tmp_path: Path, change, message: str) -> None:
    paths = files(tmp_path, 2)
    save_file({**state(1), **change}, paths[1])
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        soup.mix(soup.uniform(paths), tmp_path / "soup.safetensors")
    assert set(tmp_path.iterdir()) == before


def test_a_hugging_face_folder_keeps_its_tokenizer(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file(state(ord(name)), tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "bert"}')
        (tmp_path / name / "vocab.txt").write_text("hello")
        (tmp_path / name / "modeling.py").write_text("raise SystemExit")
    notes = soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")
    assert any(note.startswith(f"modeling.py: code of {tmp_path / 'a'}, copied") for note in notes)
    assert {p.name for p in (tmp_path / "soup").iterdir()} == {
        "config.json",
        "vocab.txt",
        "modeling.py",
        "model.safetensors",
        "README.md",
    }
    with pytest.raises(ValueError, match="exists; give the name of a new folder"):
        soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, files(tmp_path, 2))
    commands.main(["mix", "uniform", a, b, "-o", str(tmp_path / "u.safetensors")])
    commands.main(["mix", "weights", a, b, "--coefficients", "2", "-1", "-o", str(tmp_path / "w.safetensors")])
    out = capsys.readouterr().out
    assert "wrote the uniform soup of 2 checkpoints" in out
    assert "the coefficients" not in out
    tiny = ["--coefficients", "1.001", "-1e-3", "-o", str(tmp_path / "t.safetensors")]
    commands.main(["mix", "weights", a, b, *tiny])  # argparse alone takes -1e-3 for an option
    assert bits(load_file(tmp_path / "t.safetensors")) == bits(mix([state(0), state(1)], {"*": [1.001, -1e-3]}))
    assert bits(load_file(tmp_path / "w.safetensors")) == bits(mix([state(0), state(1)], {"*": [2, -1]}))
    for wrong, message in [
        (["uniform", a, a], "is given twice"),
        (["uniform", a, f"{tmp_path}/../{tmp_path.name}/0.safetensors"], "is given twice, also as"),
        (["weights", a, b, "--coefficients", "1"], "expected 2 numbers"),
        (["weights", a, b, "--coefficients", "nan", "1"], "coefficient nan of group *; expected finite numbers"),
        (["uniform", a, str(tmp_path / "no.pt")], "no.pt cannot be read"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            commands.main(["mix", *wrong, "-o", str(tmp_path / "x.safetensors")])
        assert stopped.value.code == 1
        assert message in capsys.readouterr().err


EVALUATORS = """
import torch
from modelsoups import soup

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 2)
    def forward(self, x):
        return self.head(x)

def score(state):
    return -float((state["head.weight"] - torch.eye(2)).abs().sum())

def holdout():
    return soup.Holdout(Model(), [(torch.eye(2), torch.arange(2))])

def wrong():
    return 3
"""


def test_greedy_and_learned_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_evaluators.py").write_text(EVALUATORS)
    for name, sign in (("good", 1.0), ("bad", -1.0)):
        save_file({"head.weight": sign * torch.eye(2), "head.bias": torch.zeros(2)}, f"{name}.safetensors")
    files = ["good.safetensors", "bad.safetensors"]
    for option in ("--evaluate=my_evaluators:score", "--holdout=my_evaluators:holdout"):
        commands.main(["mix", "greedy", *files, option, "-o", "soup.safetensors"])
        assert torch.equal(load_file("soup.safetensors")["head.weight"], torch.eye(2))
    out = capsys.readouterr().out
    assert "mix: good.safetensors: 2 of 2 (100.0%), kept\n" in out
    assert "mix: from 2 of 2 (100.0%) to 2 of 2 (100.0%); no other checkpoint helped\n" in out
    commands.main(
        ["mix", "learned", *files, "--holdout=my_evaluators:holdout", "--by=layer", "-o", "learned.safetensors"]
    )
    assert load_file("learned.safetensors")["head.weight"].diagonal().min() > 0
    commands.main(["mix", "pruned", *files, "--holdout=my_evaluators:holdout", "-o", "pruned.safetensors"])
    assert torch.equal(load_file("pruned.safetensors")["head.weight"], torch.eye(2))
    save_file({"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)}, "init.safetensors")
    commands.main(["mix", "model_stock", *files, "--init=init.safetensors", "-o", "stock.safetensors"])
    assert not load_file("stock.safetensors")["head.weight"].any()  # opposite updates: the initialization
    for wrong, message in [
        (["model_stock"], "model_stock needs --init"),
        (["greedy"], "greedy needs --holdout or --evaluate"),
        (["learned", "--evaluate=my_evaluators:score"], "learned needs --holdout"),
        (["greedy", "--evaluate=my_evaluators:none"], "my_evaluators:none cannot be imported"),
        (["greedy", "--evaluate=my_evaluators"], "expected module:function"),
        (["greedy", "--holdout=my_evaluators:wrong"], "returned a int, expected a soup.Holdout"),
    ]:
        with pytest.raises(SystemExit):
            commands.main(["mix", wrong[0], *files, *wrong[1:], "-o", "x.safetensors"])
        assert message in capsys.readouterr().err
    assert not Path("x.safetensors").exists()


def test_newer_soups_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_newer.py").write_text(EVALUATORS)
    for name, sign in (("good", 1.0), ("bad", -1.0)):
        save_file({"head.weight": sign * torch.eye(2), "head.bias": torch.zeros(2)}, f"{name}.safetensors")
    files = ["good.safetensors", "bad.safetensors", "--holdout=my_newer:holdout"]
    commands.main(["mix", "mehl", *files, "--lr=0.5", "--block=1", "--plot=loss.svg", "-o", "mehl.safetensors"])
    assert load_file("mehl.safetensors")["head.weight"].diagonal().min() > 0
    assert "sum to" not in capsys.readouterr().out
    commands.main(["mix", "radin", *files, "--budget=1", "--plot=trace.svg", "-o", "radin.safetensors"])
    assert torch.equal(load_file("radin.safetensors")["head.weight"], torch.eye(2))
    assert "good.safetensors: 2 of 2 (100.0%), kept" in capsys.readouterr().out
    commands.main(["mix", "soce", *files, "--categories=2", "-o", "soce.safetensors"])
    assert torch.equal(load_file("soce.safetensors")["head.weight"], torch.eye(2))
    for wrong, message in [
        (["mehl", *files[:2]], "mehl needs --holdout"),
        (["soce", *files, "--block=2"], "--block is an option of mehl; soce has no such option"),
        (
            ["uniform", *files[:2], "--seed=2"],
            "--seed is an option of learned, mehl, radin, fisher; uniform has",
        ),
        (["mehl", *files, "--block=0"], "mehl: block=0; expected a number of models from 1 on"),
        (["radin", *files, "--budget=0"], "radin: budget=0, candidates=1000; expected at least 1"),
        (["soce", *files, "--categories=1"], "soce: categories=1; expected 2 to 10"),
    ]:
        with pytest.raises(SystemExit):
            commands.main(["mix", *wrong, "-o", "x.safetensors"])
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert not Path("x.safetensors").exists()


def test_methods_between_two_models_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """Blocks 0 and 1 of 0s and 4s. WiSE-FT with 1/4: 1; LiNeS with 1/4 and 1/2: 1 and 3. Fisher: see below."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"zero": 0.0, "tuned": 4.0}.items():
        save_file({f"blocks.{n}.w": torch.full((2,), value) for n in range(2)}, f"{name}.safetensors")
    for given in (["zero.safetensors", "tuned.safetensors"], ["tuned.safetensors", "--init=zero.safetensors"]):
        commands.main(["mix", "wise_ft", *given, "--alpha=0.25", "-o", "wise.safetensors"])
        assert [w.tolist() for w in load_file("wise.safetensors").values()] == [[1, 1], [1, 1]]
    assert "mix: tuned.safetensors times 0.25\n" in capsys.readouterr().out
    scales = ["--init=zero.safetensors", "--alpha=0.25", "--beta=0.5"]
    commands.main(["mix", "lines", "tuned.safetensors", *scales, "-o", "lines.safetensors"])
    assert [w.tolist() for _, w in sorted(load_file("lines.safetensors").items())] == [[1, 1], [3, 3]]
    assert "mix: tuned.safetensors times 0.25 to 0.75\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        commands.main(["mix", "wise_ft", "zero.safetensors", "tuned.safetensors", "--alpha=2", "-o", "x.safetensors"])
    assert "wise_ft: alpha=2.0; expected 0 (the initialization) to 1" in capsys.readouterr().err


def test_fisher_on_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """The same as in Python: its weights, the number of images, and statistics in place of averages."""
    monkeypatch.chdir(tmp_path)
    Path("my_fisher.py").write_text(EVALUATORS)
    paths = [f"{name}.safetensors" for name in "ab"]
    for sign, path in zip((1.0, -0.5), paths, strict=True):
        save_file({"head.weight": sign * torch.eye(2), "head.bias": torch.zeros(2)}, path)
    options = ["--holdout=my_fisher:holdout", "--coefficients", "1", "3", "--images=1", "--exact"]
    commands.main(["mix", "fisher", *paths, *options, "-o", "f.safetensors"])
    data = registry.result("my_fisher:holdout")
    chosen, merged = soup.fisher(paths, data, images=1, weights=[1, 3], exact=True)
    assert bits(load_file("f.safetensors")) == bits(soup.mixed(chosen) | merged)
    assert "wrote the fisher soup of 2 checkpoints" in capsys.readouterr().out


def test_a_soup_in_another_dtype_is_rounded_once(tmp_path: Path, capsys) -> None:
    """1 and 1 + 2 ** -10 (in float16): their mean needs 11 bits after the point, which float16 lacks."""
    for name, dtype, value in (("half", torch.float16, 1 + 2**-10), ("full", torch.float32, 1.0)):
        content = {"w": torch.tensor([value, 2.0], dtype=dtype), "n": torch.tensor([3])}
        save_file(content, tmp_path / f"{name}.safetensors")
    save_file({"w": torch.ones(2).half(), "n": torch.tensor([3])}, tmp_path / "one.safetensors")
    half, full, one = (str(tmp_path / f"{name}.safetensors") for name in ("half", "full", "one"))
    out = tmp_path / "out.safetensors"
    for sources in ([half, one], [half, full]):  # of one dtype, and of two
        commands.main(["mix", "uniform", *sources, "--dtype=float32", "-o", str(out)])
        made = load_file(out)
        assert (made["w"].dtype, made["w"][0].item()) == (torch.float32, 1 + 2**-11)
        assert made["n"].tolist() == [3]
    soup.mix(soup.uniform([full]), out, dtype="bfloat16")
    assert load_file(out)["w"].dtype == torch.bfloat16
    capsys.readouterr()
    with pytest.raises(SystemExit):
        commands.main(["mix", "uniform", half, full, "-o", str(tmp_path / "x.safetensors")])
    told = capsys.readouterr().err
    assert "(`modelsoups mix --dtype float32` accepts different dtypes): tensor w is (2,) float32, expected" in told
    save_file({"w": torch.tensor([1e5, 1.0])}, full)
    with pytest.raises(ValueError, match="tensor w overflows its dtype float16 when mixed; use smaller coeff"):
        soup.mix(soup.uniform([full]), tmp_path / "x.safetensors", dtype=torch.float16)
    assert not (tmp_path / "x.safetensors").exists()


def test_the_configuration_of_a_folder_names_the_written_dtype(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file(state(ord(name)), tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "bert", "torch_dtype": "float32"}')
    soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup", dtype="bfloat16")
    config = json.loads((tmp_path / "soup" / "config.json").read_text())
    assert config == {"model_type": "bert", "torch_dtype": "bfloat16"}
    written = load_file(tmp_path / "soup" / "model.safetensors")
    assert {t.dtype for t in written.values() if t.is_floating_point()} == {torch.bfloat16}


def test_a_file_is_read_once_and_its_change_is_noticed_by_content(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    chosen = soup.pruned(paths, lambda state: 0.0)  # methods that read everything note the content itself
    assert all(h.startswith(digest.KIND) for h in chosen.hashes)
    save_file(state(7), paths[1])
    with pytest.raises(ValueError, match=r"1\.safetensors: not the ingredient"):
        soup.mix(chosen, tmp_path / "soup.safetensors")
    assert not list(tmp_path.glob("*soup*"))


def test_an_input_is_not_overwritten_and_a_full_disk_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    before = paths[0].read_bytes()
    (tmp_path / "link.safetensors").symlink_to(paths[0])
    for out in (paths[0], tmp_path / "link.safetensors"):
        with pytest.raises(ValueError, match="would overwrite the input"):
            soup.mix(soup.uniform(paths), out)
    assert paths[0].read_bytes() == before
    soup.mix(soup.uniform(paths[:1]), tmp_path / "one.safetensors")  # K = 1: the same tensors
    assert bits(load_file(tmp_path / "one.safetensors")) == bits(load_file(paths[0]))
    with pytest.raises(OSError, match="could not write /proc/soup"):
        soup.mix(soup.uniform(paths), "/proc/soup.safetensors")


def test_the_initialization_has_the_names_of_the_checkpoints(tmp_path: Path, capsys) -> None:
    """It is saved otherwise: under a prefix, in another entry, with a buffer. The updates are at right angles."""
    start = {"a.weight": torch.tensor([[8.0, 8.0]])}
    for name, update in (("one", [[2.0, 0.0]]), ("two", [[0.0, 2.0]])):
        tuned = {"a.weight": start["a.weight"] + torch.tensor(update)}
        torch.save({"ema": tuned, "x": {"a.weight": torch.zeros(1, 2)}}, tmp_path / f"{name}.pt")
    torch.save({"model": {"net.a.weight": start["a.weight"], "net.ids": torch.arange(2)}}, tmp_path / "init.pt")
    models, out = [str(tmp_path / f"{name}.pt") for name in ("one", "two")], tmp_path / "s.safetensors"
    more = ["--init", str(tmp_path / "init.pt"), "--key", "ema"]
    commands.main(["mix", "model_stock", *models, *more, "-o", str(out)])
    assert {key: tensor.tolist() for key, tensor in load_file(out).items()} == {"a.weight": [[8, 8]]}
    capsys.readouterr()
    commands.main(["doctor", *models, *more])
    told = capsys.readouterr().out
    assert "angles between updates from the initialization" in told
    assert "90.000" in told
    assert "one, two: took its entry ema; there are also x (--key)" in told.replace(".pt", "")
    with pytest.raises(SystemExit):
        commands.main(["mix", "uniform", *models, "-o", str(tmp_path / "no.safetensors")])
    assert "several models: ema, x; choose one with --key NAME" in capsys.readouterr().err
