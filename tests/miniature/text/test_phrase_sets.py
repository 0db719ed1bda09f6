"""The sets of the text miniature: the same for one seed, without a text in two sets, and as a library."""

from dataclasses import replace

import pytest

from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.miniature.text import library, sets

TASKS = ("acceptability", "paraphrase")
DIGESTS = {"acceptability": "4045aa2ea6166e12", "paraphrase": "bc1fabe73aebd68b"}


@pytest.mark.parametrize("task", TASKS)
def test_generation_depends_on_the_seed_alone(task):
    made = sets.generate(task, 0)
    sets.generate.cache_clear()
    assert sets.generate(task, 0) == made
    assert sets.generate(task, 1)["validation"] != made["validation"]
    assert {name: len(examples) for name, examples in made.items()} == {n: s.count for n, s in sets.SETS.items()}


@pytest.mark.parametrize("task", TASKS)
def test_no_text_is_in_two_sets_and_labels_are_balanced(task):
    texts = [text for examples in sets.generate(task, 0).values() for one, _ in examples for text in one.values()]
    assert len(set(texts)) == len(texts)
    for examples in sets.generate(task, 0).values():
        share = sum(label for _, label in examples) / len(examples)
        assert 0.45 < share < 0.55


def test_the_generated_text_is_the_same_on_every_machine():
    digests = {task: storage.fingerprint(sets.generate(task, 0)) for task in TASKS}
    assert digests == DIGESTS


@pytest.mark.parametrize("task", TASKS)
def test_a_set_is_prepared_as_a_text_set(tmp_path, task):
    data = replace(load([f"data=phrases_{task}"]).data, dir=str(tmp_path))
    assert library.names(data) == ["train", "holdout", "validation", "words", "long"]
    assert library.make(data, "paper", ["words"], 1) == {"words": sets.SETS["words"].count}
    assert manifests.complete(tmp_path / "words", library.inputs(data, "paper", "words")) is not None
    made, (texts, label) = library.opened(tmp_path / "words"), sets.generate(task, 0)["words"][5]
    assert (made.fields(5), made.labels_N[5]) == (texts, label)
    assert (made.role, made.classes) == ("shift", list(sets.TASKS[task].options))


def test_soups_can_be_chosen_on_the_test_set(tmp_path):
    data = replace(load(["data=phrases_acceptability"]).data, dir=str(tmp_path), choose_on="validation")
    library.make(data, "paper", ["holdout", "validation"], 1)
    held, tested = (library.opened(tmp_path / name) for name in ("holdout", "validation"))
    assert (held.role, tested.role) == ("holdout", "test")
    assert held.keys_N.tolist() == tested.keys_N.tolist()


def test_wrong_names_options_and_fields_are_refused():
    data = load(["data=phrases_acceptability"]).data
    with pytest.raises(ValueError, match=r"data set dev: the generated texts have only train, holdout, validation"):
        library.names(replace(data, test="dev"))
    with pytest.raises(ValueError, match=r"data.text.labels has the options good; those of .* are acceptable, unacc"):
        library.names(replace(data, text=replace(data.text, labels={"1": "good"})))
    pair = load(["data=phrases_paraphrase"]).data
    with pytest.raises(ValueError, match=r"data.text.fields names sentence; the texts of .* are sentence1, sentence2"):
        library.names(replace(pair, text=replace(pair.text, fields=data.text.fields)))
