"""The whole pipeline on real input, small: same seed, same results; killed anywhere, it ends the same."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from pico import arguments, kill_when, modelsoups

RESULTS = "results/miniature/results.jsonl"
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("undisturbed")
    done = modelsoups(home, *arguments(home, data))
    assert done.returncode == 0, done.stderr
    return home


def test_the_pipeline_makes_everything_it_promises(undisturbed):
    made = {p.name for p in (undisturbed / "results/miniature").iterdir()}
    assert {"results.jsonl", "table_3.md", "table_3.tex", "table_3.csv", "index.html", "claims.md"} <= made
    rows = {json.loads(line).get("row") for line in (undisturbed / RESULTS).read_text().splitlines()}
    assert {"best", "second_best", "uniform", "greedy", "learned", "learned_layers", "ensemble"} <= rows
    assert (undisturbed / "runs/miniature/soups/greedy.safetensors").exists()


def test_a_second_run_redoes_nothing_and_says_so(undisturbed, data):
    files = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}
    done = modelsoups(undisturbed, *arguments(undisturbed, data))
    assert done.returncode == 0, done.stderr
    for stage in ("prepare", "heads", "sweep", "finetune", "evaluate", "soup", "report"):
        assert any(stage in line and "complete" in line for line in done.stdout.splitlines()), (stage, done.stdout)
    after = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file() and p.name != "pico.yaml"}
    assert after == {p: t for p, t in files.items() if p.name != "pico.yaml"}


def test_the_same_seed_gives_the_same_results_with_one_worker_as_with_two(undisturbed, data, tmp_path):
    done = modelsoups(tmp_path, *arguments(tmp_path, data), "finetune.parallel=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RESULTS).read_bytes() == (undisturbed / RESULTS).read_bytes()


def test_killed_in_every_stage_it_ends_the_same(undisturbed, data, tmp_path):
    """kill -9 of the whole process group at eight points, one after the other, in one run folder."""
    args = arguments(tmp_path, data)
    run = "runs/miniature"
    points = [
        f"{run}/init/*/.model.safetensors.*",
        f"{run}/init/zeroshot/manifest.json",
        f"{run}/ingredients/000/checkpoint.pt",
        f"{run}/ingredients/*/model.safetensors",
        f"{run}/logits/*/*.safetensors",
        f"{run}/soups/greedy_random_0.json",
        f"{run}/soups/wise_ft_best_0.5.json",
        "results/miniature/results.jsonl",
    ]
    killed = [kill_when(tmp_path, args, point) for point in points]
    assert sum(killed) >= 6, killed  # a point may pass between two looks, most do not
    done = modelsoups(tmp_path, *args)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RESULTS).read_bytes() == (undisturbed / RESULTS).read_bytes()
    for name in ("000", "001", "002"):
        weights = f"{run}/ingredients/{name}/model.safetensors"
        assert (tmp_path / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_one_ingredient_alone_is_the_same_as_in_the_sweep(undisturbed, data, tmp_path):
    args = arguments(tmp_path, data)
    for stage in ("heads", "sweep"):
        assert modelsoups(tmp_path, stage, *args).returncode == 0
    done = modelsoups(tmp_path, "finetune", *args, "ingredient=2")
    assert done.returncode == 0, done.stderr
    weights = "runs/miniature/ingredients/002/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (undisturbed / weights).read_bytes()
    assert not (tmp_path / "runs/miniature/ingredients/000").exists()
    too_few = modelsoups(tmp_path, "soup", *args)
    assert too_few.returncode == 1
    assert "1 complete ingredients, but soup.minimum=2" in too_few.stderr
    out_of_range = modelsoups(tmp_path, "finetune", *args, "ingredient=3")
    assert "ingredient=3" in out_of_range.stderr
    assert out_of_range.returncode == 1


def test_the_commands_of_the_tutorial_run(undisturbed, data, tmp_path):
    """As they stand in docs/tutorial.md, but on the pico data."""
    home = tmp_path / "home"
    shutil.copytree(undisturbed, home)
    small = arguments(home, data)
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) >= 7
    page = (home / "results/miniature/index.html").read_bytes()
    for words in commands:
        if words[0] == "modelsoups":
            done = modelsoups(home, *words[1:], *([] if words[1:2] in (["mix"], ["doctor"]) else small))
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        else:
            subprocess.run(words, cwd=home, check=True, stdout=subprocess.DEVNULL)
    assert (home / "mine.safetensors").exists()
    assert (home / "runs/other/draw.jsonl").exists()
    assert (home / "results/miniature/index.html").read_bytes() == page


METHOD = """
from pathlib import Path

from modelsoups.soup.methods import METHODS


def mine(pool):
    Path("calls", "{module}.mine").open("x")  # fails if it exists
    return METHODS["{method}"](pool)


def kept(pool):
    Path("calls", "{module}.kept").open("x")
    return METHODS["best"](pool)
"""


def test_soup_also_chooses_only_what_is_new(undisturbed, data, tmp_path):
    """Another function of the same name, or the same function whose file was edited."""
    home = tmp_path / "home"
    shutil.copytree(undisturbed, home)
    (home / "calls").mkdir()
    for module, method in (("first", "best"), ("second", "uniform"), ("second", "greedy")):
        (home / f"{module}.py").write_text(METHOD.format(module=module, method=method))
        (home / "calls" / f"{module}.mine").unlink(missing_ok=True)
        done = modelsoups(home, "soup", *arguments(home, data), f"soup.also=['{module}:mine','first:kept']")
        assert done.returncode == 0, done.stderr
        chosen, ours = (json.loads((home / f"runs/miniature/soups/{row}.json").read_text()) for row in ("mine", method))
        assert chosen["coefficients"] == ours["coefficients"]
        assert (home / "calls" / f"{module}.mine").exists()
    assert {path.name for path in (home / "calls").iterdir()} == {"first.mine", "first.kept", "second.mine"}
    (home / "none.py").write_text("def none(pool):\n    return None\n")
    done = modelsoups(home, "soup", *arguments(home, data), "soup.also=['none:none']")
    assert "soup.also: none:none returned a NoneType; expected a soup.Soup" in done.stderr


def test_ingredients_of_another_initial_model_are_not_souped(undisturbed, data, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(undisturbed, home)
    assert modelsoups(home, "heads", *arguments(home, data), "heads.lp_epochs=1").returncode == 0
    done = modelsoups(home, "soup", *arguments(home, data))
    assert done.returncode == 1
    assert "000 was fine-tuned from another initial model than runs/miniature/init/lp" in done.stderr


def test_the_page_follows_results_jsonl_with_and_without_the_run(undisturbed, data, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(undisturbed, home)
    results = home / "results/miniature"
    lines = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    next(x for x in lines if x.get("row") == "uniform" and x.get("dataset") == "test")["accuracy"] = 0.12345
    assert "12.35" not in (results / "index.html").read_text()
    (results / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = modelsoups(home, "report", *arguments(home, data))
    assert done.returncode == 0, done.stderr
    for name in ("index.html", "table_3.md", "table_3.tex", "summary.txt"):
        assert "12.35" in (results / name).read_text(), name
    shutil.rmtree(home / "runs")
    (home / "runs/miniature").mkdir(parents=True)
    (home / "runs/miniature/timings.json").write_text("{}")  # of an earlier report
    before = (results / "index.html").read_bytes()
    (results / "index.html").unlink()
    again = modelsoups(home, "report")
    assert "is not on this machine; using results/miniature/results.jsonl" in again.stdout, again.stderr
    assert (results / "index.html").read_bytes() == before
