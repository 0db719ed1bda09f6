"""A run is found again by its name, with the overrides that it was made with."""

import pytest

from modelsoups.config.recall import keep_overrides, open_run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(*overrides, stage="sweep"):
    config = open_run(overrides)
    config.run.root.mkdir(parents=True, exist_ok=True)
    keep_overrides(config.run, config.overrides, stage)
    return config


def test_a_name_alone_opens_the_run_as_it_was_made(capsys):
    config = made("name=d2", "model=clip_vit_b32", "data.seed=3", "recipe.lr=1e-4")
    again = open_run(["name=d2"])
    assert (again.model, again.data, again.recipe) == (config.model, config.data, config.recipe)
    assert again.overrides == ("model=clip_vit_b32", "data.seed=3", "recipe.lr=1e-4", "name=d2")
    assert capsys.readouterr().err == ""


def test_an_experiment_is_found_by_its_name():
    made("experiment=imagenet")
    assert open_run(["name=imagenet"]).model.name == "ViT-B-32-quickgelu"


def test_an_override_that_contradicts_the_run_is_named(capsys):
    made("name=d2", "data.seed=3")
    config = open_run(["name=d2", "data.seed=4", "heads.init=zeroshot"])
    assert (config.data.seed, config.heads.init) == (4, "zeroshot")
    said = capsys.readouterr().err
    assert "runs/d2 was made with data.seed=3; this command sets data.seed=4" in said
    assert "heads.init=lp; this command sets heads.init=zeroshot" in said


def test_a_stored_override_that_no_longer_exists_is_named_with_its_file():
    config = made("name=d2")
    config.run.overrides.write_text('{"overrides": ["name=d2", "finetune.gone=1"]}')
    with pytest.raises(ValueError, match=r"finetune\.gone.*stored in runs/d2/overrides\.json"):
        open_run(["name=d2"])


def test_options_of_one_command_are_not_kept():
    made(
        "name=d2",
        "ingredient=1",
        "submit.dry_run=true",
        "cluster.partition=gpu",
        "soup.orders=4",
        "analyse.which=[figure_2]",
    )
    again = open_run(["name=d2"])
    assert (again.ingredient, again.submit.dry_run, again.cluster.partition) == (None, False, None)
    assert (again.soup.orders, again.analyse.which) == (4, open_run(["name=new"]).analyse.which)


def test_a_later_command_does_not_change_what_a_run_is_made_of():
    made("name=d2", "recipe.epochs=4", "data.seed=3")
    made("name=d2", "recipe.epochs=9", "data.seed=5", "soup.orders=4", stage="report")
    again = open_run(["name=d2"])
    assert (again.recipe["epochs"], again.data.seed, again.soup.orders) == (4, 3, 4)
    made("name=d2", "recipe.epochs=9", "data.seed=5", stage="prepare")
    assert (open_run(["name=d2"]).recipe["epochs"], open_run(["name=d2"]).data.seed) == (4, 5)
    made("name=d2", "recipe.epochs=9")  # sweep: it refuses a draw that differs
    assert open_run(["name=d2"]).recipe["epochs"] == 9


def test_the_protocol_is_settled_by_prepare_and_sweep():
    made("name=d2", stage="prepare")
    made("name=d2", "protocol=released", stage="soup")
    assert open_run(["name=d2"]).protocol == "paper"
    made("name=d2", "protocol=released", stage="prepare")
    assert open_run(["name=d2"]).protocol == "released"


def test_another_run_is_not_seen():
    made("name=d2", "data.seed=3")
    assert open_run(["name=d3"]).data.seed == 0
