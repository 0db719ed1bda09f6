"""Every analysis end to end on pico pools: what is written, what is not made again, what cannot be made."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from modelsoups.analyses.registry import ANALYSES, wanted
from modelsoups.cli import commands, pipeline, pools
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment

COMMITTED = Path(__file__).parents[2] / "results/paper-miniature/analysis"


def files_in(*folders):
    """The time of each file's last change."""
    paths = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    return {p: p.stat().st_mtime_ns for p in paths}


def test_every_analysis_is_made(analysed, rows_of):
    cfg, _, home = analysed
    made = json.loads((cfg.run.analyses / "provenance.json").read_text())
    assert set(made["not_possible"]) == {"figure_E1", "robustness"}
    assert "needs models of two other data sets" in made["not_possible"]["figure_E1"]
    assert "needs ImageNet and its shifts, but data.library=iconnet" in made["not_possible"]["robustness"]
    page = (cfg.run.analyses / "index.html").read_text()
    possible = {analysis.name: analysis for analysis in wanted([]) if analysis.name not in made["not_possible"]}
    places = [page.index(f'<section id="{name}">') for name in possible]
    assert places == sorted(places)
    for name, analysis in possible.items():
        assert rows_of(name), name
        assert (cfg.run.analyses / f"{name}.png").exists() == (analysis.draw is not None)
        assert (analysis.draw is None) != (analysis.table is None)
    assert "claim" in page.lower()
    for text in (page, json.dumps(made)):  # both are made to be shared
        assert str(home) not in text


def test_a_second_run_redoes_nothing(analysed, capsys, monkeypatch):
    cfg, _, home = analysed
    monkeypatch.chdir(home)
    before = files_in(cfg.run.root, cfg.run.analyses)
    pipeline.run_stages(commands.modules_of(["analyse"]), cfg)
    assert "analyse: complete" in capsys.readouterr().out
    assert files_in(cfg.run.root, cfg.run.analyses) == before


def test_made_again_from_the_cache_the_data_are_the_same(analysed, tmp_path, monkeypatch):
    """As after a kill before the manifest: no soup is measured again, and every number is the same."""
    cfg, args, home = analysed
    points = files_in(cfg.run.root / "points")
    monkeypatch.chdir(home)
    for name, analysis in ANALYSES.items():  # the figures follow from these data
        monkeypatch.setitem(ANALYSES, name, dataclasses.replace(analysis, draw=None))
    again = load([*args, "analyse.in_pipeline=true", f"results={tmp_path}"])
    pipeline.run_stages(commands.modules_of(["analyse"]), again)
    before = {p.name: p.read_bytes() for p in cfg.run.analyses.glob("*.jsonl")}
    assert {p.name: p.read_bytes() for p in again.run.analyses.glob("*.jsonl")} == before
    assert files_in(cfg.run.root / "points") == points


def test_without_the_models_the_page_is_drawn_from_the_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/elsewhere/analysis"
    folder.mkdir(parents=True)
    for name in ("figure_4.jsonl", "table_4.jsonl", "manifest.json", "provenance.json"):
        shutil.copyfile(COMMITTED / name, folder / name)
    commands.main(["analyse", "name=elsewhere", "wandb=disabled"])
    assert "2 analyses drawn from the data in" in capsys.readouterr().out
    for name in ("table_4.jsonl", "table_4.md", "provenance.json"):
        assert (folder / name).read_bytes() == (COMMITTED / name).read_bytes()
    assert '<section id="figure_4">' in (folder / "index.html").read_text(encoding="utf-8")
    commands.main(["analyse", "name=elsewhere", "wandb=disabled"])
    assert "analyse: complete" in capsys.readouterr().out


def test_what_cannot_be_made_is_named_and_the_rest_is_made(analysed, tmp_path, capsys, monkeypatch):
    """The run's own three models alone: what needs a pool says which."""
    _, args, home = analysed
    monkeypatch.chdir(home)
    alone = load([*args, f"results={tmp_path}", "analyse.which=[figure_3,figure_4,figure_G4,table_L3,figure_H1]"])
    alone.analyse.pools.clear()
    pipeline.run_stages(commands.modules_of(["analyse"]), alone)
    said = capsys.readouterr().out
    assert "figure_G4 is not possible with these models: the analysis needs a pool of models: analyse.pools" in said
    missing = json.loads((alone.run.analyses / "provenance.json").read_text())["not_possible"]
    assert set(missing) == {"figure_G4", "table_L3", "figure_H1"}
    assert "Not possible with these models" in (alone.run.analyses / "index.html").read_text()


def test_the_released_accuracies_are_analysed_without_a_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["analyse", "experiment=released", "analyse.which=[figure_4,robustness]"]
    commands.main(command)
    said = capsys.readouterr().out
    assert "figure_4 is not possible with these models: the analysis needs the authors' models: run modelsoups" in said
    assert "1 analyses made, 1 not possible" in said
    folder = tmp_path / "results/released/analysis"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert '<section id="robustness">' in page
    assert (folder / "robustness.png").exists()
    claims = (folder / "claims.md").read_text(encoding="utf-8")
    assert "more accurate on ImageNet-R than its ImageNet accuracy predicts | beyond the paper | holds |" in claims
    commands.main(command)
    assert "analyse: complete" in capsys.readouterr().out


def test_a_wrong_name_of_an_analysis_is_told(analysed, capsys, monkeypatch):
    _, args, home = analysed
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit):
        pipeline.run_stages(commands.modules_of(["analyse"]), load([*args, "analyse.which=[figure_33]"]))
    assert "no analysis is named figure_33; did you mean figure_3?" in capsys.readouterr().err


def test_a_wrong_name_of_an_analysis_is_refused_before_a_pool_is_trained(data, tmp_path):
    experiment = Experiment(load([f"data.dir={data}", f"runs={tmp_path}", "analyse.which=[figure_33]"]))
    with pytest.raises(ValueError, match="did you mean figure_3"):
        pools.make_pools(experiment)
    assert not list(tmp_path.iterdir())


def test_without_a_stage_the_analyses_wait_until_they_are_wanted(monkeypatch):
    ran = []
    for stage in commands.STAGES:
        monkeypatch.setattr(f"modelsoups.stages.{stage}.run", lambda cfg, stage=stage: bool(ran.append(stage)))
    monkeypatch.setattr(pools, "make_pools", lambda cfg: None)
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), load([]))
    assert ran[-1] == "report"
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), load(["experiment=paper-miniature"]))
    assert ran[-1] == "analyse"
