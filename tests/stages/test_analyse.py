"""Every analysis end to end on pico pools: data, verdicts, figures, page; what cannot be made is named."""

import json

import numpy as np
import pytest
import torch
from pico import arguments

from modelsoups.analyses import figures
from modelsoups.analyses.analysis import corrected, correlated, judged
from modelsoups.analyses.bench import Bench, Point, Unavailable, between, pool_config
from modelsoups.analyses.pairs import TOO_HIGH
from modelsoups.analyses.registry import ANALYSES
from modelsoups.cli import commands
from modelsoups.config.compose import load
from modelsoups.experiment.ingredients import load_weights
from modelsoups.experiment.logits import forward
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict, markdown
from modelsoups.stats.scores import accuracy
from modelsoups.weights import state_dicts

BASE = {"weight_decay": 0.1, "label_smoothing": 0.0, "epochs": 1, "mixup": 0.0, "seed": 0, "aug": "minimal"}
THREE = ("minimal", "medium", "strong")
LONGER = (("stochastic", 1), ("stochastic", 3), ("fix", 1), ("fix", 4))
POOLS = {  # the fewest models that the analyses of each pool need; what fits no pool of the paper is in the first
    "standard_lp": [
        *({"lr": lr, "aug": aug} for lr in (1e-3, 3.3e-4) for aug in THREE),
        *({"lr": 1e-3, "aug": aug, "epochs": epochs} for aug, epochs in LONGER),
        {"lr": 1e-3, "optimizer": "adam"},
    ],
    "extreme_lp": [{"lr": 3.3e-3, "aug": "medium"}],
    "standard_zs": [{"lr": 1e-3}, {"lr": 1e-4}, {"lr": 1e-3, "seed": 1}],
    "extreme_zs": [{"lr": 1e-2}],
    "theory": [{"lr": 3.3e-4}, {"lr": 3.3e-4, "seed": 1}, {"lr": 3.3e-4, "aug": "strong", "mixup": 0.5}],
    "seeds": [{"lr": 6.7e-4, "seed": seed} for seed in (0, 1)],
    "trajectory": [{"lr": 3.3e-4, "aug": aug} for aug in ("minimal", "medium")],
    "trajectory_labels": [{"lr": 3.3e-4, "aug": aug} for aug in ("minimal", "medium")],
    "sam": [{"lr": 1e-3, "aug": "medium", "seed": s, "sam": r} for s, r in ((1, 0.0), (0, 0.05), (1, 0.05))],
    "distilled": [{"lr": 1e-3}, {"lr": 1e-3, "aug": "stochastic"}],
}
EXTRA = {
    "standard_zs": ["heads.init=zeroshot"],
    "extreme_zs": ["heads.init=zeroshot"],
    "trajectory": ["recipe.ema=[0.9]", "recipe.swa=[0.0]"],
    "trajectory_labels": [
        "model.library=timm",
        "model.name=test_resnet",
        "model.normalize_features=false",
        "recipe.ema=[0.9]",
    ],
    "distilled": ["recipe.teachers=['{pools}/standard_lp/ingredients/000','{pools}/standard_lp/ingredients/001']"],
}


def options(home, data):
    pools = {}
    for name, recipes in POOLS.items():
        search = home / f"{name}.jsonl"
        search.write_text("".join(json.dumps({**BASE, **recipe}) + "\n" for recipe in recipes))
        pools[name] = [f"sweep.search={search}", *EXTRA.get(name, [])]
    (home / "conf/experiment").mkdir(parents=True)
    lines = "\n".join(f"    {name}: {json.dumps(overrides)}" for name, overrides in pools.items())
    (home / "conf/experiment/pico.yaml").write_text(
        "# @package _global_\nname: pico\nsweep:\n  search: miniature_random\nrecipe:\n  batch_size: 64\n"
        "  warmup_steps: 2\n  min_crop: 0.9\n  flip: 0.0\nanalyse:\n  rates: [1.0e-3, 3.3e-4]\n  epochs: 1\n"
        f"  images: 48\n  equation_images: 24\n  grid: 2\n  alphas: [0.0, 0.5, 1.0]\n  orders: 2\n  pairs: 6\n"
        f"  pools:\n{lines}\n"
    )
    return ["experiment=pico", *arguments(home, data)]


@pytest.fixture(scope="module")
def home(tmp_path_factory, data):
    """The run's own models and the pools, and every analysis of them."""
    home = tmp_path_factory.mktemp("analyse")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        args = options(home, data)
        cfg = load(args)
        commands.run_stages(["heads", "sweep", "finetune", "evaluate", "analyse"], cfg_with_pipeline(args))
        yield cfg, args, home


@pytest.fixture(scope="module")
def bench(home):
    return Bench(home[0])


def cfg_with_pipeline(args):
    return load([*args, "analyse.in_pipeline=true"])


def rows_of(cfg, name):
    return [json.loads(line) for line in (cfg.run.analyses / f"{name}.jsonl").read_text().splitlines()]


def test_every_analysis_is_made(home):
    cfg, _, _ = home
    made = json.loads((cfg.run.analyses / "provenance.json").read_text())
    assert made["not_possible"] == {}
    page = (cfg.run.analyses / "index.html").read_text()
    places = [page.index(f"<section id={name}>") for name in ANALYSES]
    assert places == sorted(places)
    for name in ANALYSES:
        assert rows_of(cfg, name), name
        table = name.startswith("table") or name == "selection"
        assert (cfg.run.analyses / f"{name}.png").exists() != table
    assert "claim" in page.lower()
    assert str(home[2]) not in page


def test_a_second_run_redoes_nothing(home, capsys):
    cfg, args, _ = home
    files = {p: p.stat().st_mtime_ns for p in [*cfg.run.root.rglob("*"), *cfg.run.analyses.rglob("*")] if p.is_file()}
    commands.run_stages(["analyse"], cfg_with_pipeline(args))
    assert "analyse: complete" in capsys.readouterr().out
    assert files == {p: p.stat().st_mtime_ns for p in files}


def test_made_again_from_the_cache_the_data_are_the_same(home, tmp_path, monkeypatch):
    """As after a kill before the manifest: no soup is measured again, and every number is the same."""
    cfg, args, _ = home
    points = {p: p.stat().st_mtime_ns for p in (cfg.run.root / "points").rglob("*.json")}
    monkeypatch.setattr(figures, "draw", lambda name, rows: None)  # the figures follow from these data
    again = load([*args, "analyse.in_pipeline=true", f"results={tmp_path}"])
    commands.run_stages(["analyse"], again)
    before = {p.name: p.read_bytes() for p in cfg.run.analyses.glob("*.jsonl")}
    assert {p.name: p.read_bytes() for p in again.run.analyses.glob("*.jsonl")} == before
    assert points == {p: p.stat().st_mtime_ns for p in (cfg.run.root / "points").rglob("*.json")}


def test_what_is_measured_of_a_soup_is_its_accuracy(home, bench):
    cfg, whole = home[0], bench.whole()
    one, two, _ = (m.ingredient for m in bench.pool("random"))
    (measured,) = whole.measure([between(one, two, 0.25)], "test", ["v2"])
    state = state_dicts.interpolate(load_weights(one), load_weights(two), 0.25)
    labels = whole.logits(one, "v2").labels_N
    assert measured["v2"].accuracy == accuracy(forward(cfg, "v2", state), labels)
    part = bench.individual(one)["v2"]
    assert len(part.correct_N) == 48
    picks = np.linspace(0, 95, 48).round().astype(int)
    assert (part.correct_N == whole.individual(one)["v2"].correct_N[picks]).all()


def test_some_of_a_sets_images_are_evaluated_as_all_of_them_are(home, bench):
    cfg, member = bench.cfg, bench.pool("random")[0]
    every_NC = forward(cfg, cfg.data.holdout, load_weights(member.ingredient))
    of_N = torch.arange(len(every_NC)) % 3 == 1
    some_nC = forward(cfg, cfg.data.holdout, load_weights(member.ingredient), of_N)
    torch.testing.assert_close(some_nC, every_NC[of_N], rtol=1e-5, atol=1e-4)


def test_landscapes_pass_through_the_three_models(home, bench):
    rows = [r for r in rows_of(home[0], "figure_2") if "landscape" in r]
    assert len({r["landscape"] for r in rows}) == 3
    start = next(r for r in rows if r["model"] == "theta_0")
    assert start["test_error"] == 1 - bench.individual(bench.start("standard_zs"))["test"].accuracy
    assert start["train_loss"] > 0


def test_models_are_found_by_their_recipe(bench):
    assert bench.find("lp", lr=1e-3, aug="strong").name == "standard_lp/002"
    assert bench.find("lp", lr=1e-3, aug="medium", sam=0.05, seed=1).name == "sam/002"
    assert bench.find("zeroshot", lr=1e-3, aug="minimal", seed=1).name == "standard_zs/002"
    with pytest.raises(Unavailable, match=r"no pool has a model from the lp head with .*lr=0\.5, aug=fix"):
        bench.find("lp", lr=0.5, aug="fix")
    with pytest.raises(Unavailable, match=r"analyse\.pools\.nobody"):
        bench.pool("nobody")


def test_equation_1_is_told_for_inner_points_with_both_betas(home):
    rows = rows_of(home[0], "figure_K1")
    assert {r["alpha"] for r in rows} == {0.5}
    for r in rows:
        assert r["plain"]["value"] == pytest.approx((r["plain"]["variance"] - r["plain"]["curvature"]) / 8)
        assert r["plain"]["beta"] == 1
    checked = [r for r in rows if r["dataset"] == "test"]
    exact, finite = ([r["exact"] for r in checked], [r["plain"]["curvature"] for r in checked])
    assert len(exact) > 2
    np.testing.assert_allclose(finite, exact, rtol=1e-4)


def test_what_cannot_be_made_is_named_and_the_rest_is_made(home, data, tmp_path, capsys):
    """The run's own three models alone: what needs a pool says which."""
    _, args, _ = home
    alone = load([*args, f"results={tmp_path}", "analyse.which=[figure_3,figure_4,figure_G4,table_L3,figure_H1]"])
    alone.analyse.pools.clear()
    commands.run_stages(["analyse"], alone)
    said = capsys.readouterr().out
    assert "figure_G4 cannot be made of these models: it needs the pool seeds (analyse.pools.seeds)" in said
    missing = json.loads((alone.run.analyses / "provenance.json").read_text())["not_possible"]
    assert set(missing) == {"figure_G4", "table_L3", "figure_H1"}
    assert "What these models do not allow" in (alone.run.analyses / "index.html").read_text()


def test_wrong_names_are_told(home, capsys):
    cfg, args, _ = home
    with pytest.raises(SystemExit):
        commands.run_stages(["analyse"], load([*args, "analyse.which=[figure_33]"]))
    assert "there is no figure_33; did you mean figure_3?" in capsys.readouterr().err
    cfg = load([*args])
    cfg.analyse.pools["bad"] = ["recipe.lrr=1"]
    with pytest.raises(ValueError, match=r"analyse\.pools\.bad: no such key: recipe\.lrr"):
        pool_config(cfg, "bad")


def test_without_a_stage_the_analyses_wait_until_they_are_wanted(monkeypatch):
    ran = []
    monkeypatch.setattr(commands, "_run", lambda stage, cfg: bool(ran.append(stage)))
    commands.run_stages(list(commands.STAGES), load([]))
    assert ran[-1] == "report"
    commands.run_stages(list(commands.STAGES), load(["experiment=paper-miniature"]))
    assert ran[-1] == "analyse"


def test_a_point_is_told_apart_by_weights_and_coefficients(bench):
    one, two, _ = (m.ingredient for m in bench.pool("random"))
    keys = [Point((one, two), c).key() for c in ((0.5, 0.5), (0.25, 0.75))] + [Point((two, one), (0.5, 0.5)).key()]
    assert len({str(key) for key in keys}) == 3


def test_claims_are_corrected_for_their_number():
    """Half widths of 1: p = 0.0000886 at 2 and 0.019 at 1.2, which two claims leave below 0.05 and three do not."""
    strong, weak, none = (
        judged("x", "here", 2.0, 1.0, 3.0),
        judged("y", "there", -1.2, -2.2, -0.2),
        ("z", "", HOLDS, ""),
    )
    assert (strong.verdict, weak.verdict) == (HOLDS, FAILS)
    found = corrected([weak, Verdict(*none), strong])
    assert [v.among_all for v in found] == [FAILS, HOLDS, HOLDS]
    assert found[0].holm == pytest.approx(weak.p)
    assert found[1].holm is None
    found = corrected([weak] * 3)
    assert [v.among_all for v in found] == [OPEN] * 3
    assert "| y | there | does not hold | -120.00 [-220.00, -20.00] points | 0.02 | 0.06 | not decided" in markdown(
        found
    )


def test_a_method_that_collapses_does_not_hide_the_others():
    """Two orders of two methods: greedy ends at 71, uniform at 40, 31 points below; at one model both have 20."""
    from modelsoups.analyses.figures_counts import curves

    ends = {"uniform": (20, 30, 40), "greedy": (20, 70, 71)}
    rows = [
        {"method": m, "k": k, "order": o, "test": y / 100}
        for m, ys in ends.items()
        for k, y in zip((1, 2, 3), ys, strict=True)
        for o in (0, 1)
    ]
    (panel,) = curves(rows).axes
    assert 69 < panel.get_ylim()[0] < 70
    assert [t.get_text() for t in panel.texts] == ["Uniform soup: below, 40.0 with all models"]
    even = curves([{**row, "test": 0.7 + row["test"] / 100} for row in rows]).axes[0]
    assert not even.texts


def test_rates_as_high_as_the_paper_leaves_out_are_left_out():
    """1e-4 beside 3e-5, and the miniature's 3.3e-3 beside 1e-3; 3e-5 and 1e-3 themselves stay."""
    assert 3e-5 < TOO_HIGH * 3e-5 < 1e-4
    assert 1e-3 < TOO_HIGH * 1e-3 < 3.3e-3


def test_few_models_say_nothing_of_a_correlation():
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert correlated("x", "here", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], pairs) == []
    assert len(correlated("x", "here", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [("a", "b"), ("c", "d"), ("e", "f")])) == 1
