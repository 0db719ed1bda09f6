"""Preparing text sets: hold-outs, repeated texts, counts, and what a later change does."""

import json

import pytest

from modelsoups.config.compose import load
from modelsoups.data.text import library, splits
from modelsoups.data.text.examples import Example, content_hash
from modelsoups.data.text.sets import TextSet
from modelsoups.disk import storage


def prepare(data, todo=None):
    return library.make(data, "paper", todo or library.names(data), 1)


def opened(data, name):
    return library.opened(storage.Path(data.dir) / name)


def many(folder, rows, count=50):
    """Write a training set of 2 * count examples, and no hold-out."""
    _, tsv, _ = rows
    train = [
        (f"{adverb} the bird number {i} sings", label)
        for i in range(count)
        for adverb, label in (("how", 1), ("if", 0))
    ]
    (folder / "train.tsv").write_text(tsv(train))
    (folder / "holdout.tsv").unlink()
    return train


def test_a_prepared_set_has_texts_labels_and_options(data, folder):
    assert prepare(data()) == {"train": 6, "holdout": 2, "test": 2}
    train = opened(data(), "train")
    assert (train.name, train.title, train.role, len(train)) == ("train", "moods train", "train", 6)
    assert (train.classes, train.templates, train.projection, train.scoring) == (["happy", "sad"], [], None, None)
    assert (train.labels_N.tolist(), train.labels_N.dtype) == ([0, 1, 0, 1, 0, 1], "int64")
    assert train.fields(1) == {"sentence": "the dog cries today"}
    assert train.keys_N[1] == content_hash(train.fields(1))
    assert (train.counts, train.prompt) == ({"happy": 3, "sad": 3}, "sentence: {sentence}")
    assert train.by_content
    manifest = storage.read_json(train.folder / "manifest.json")
    assert manifest["inputs"] == library.inputs(data(), "paper", "train")
    assert (manifest["images"], manifest["source"]) == (6, "texts/train.tsv")


def test_the_holdout_is_a_part_of_train_that_depends_on_texts_alone(data, folder, rows):
    train = many(folder, rows)
    given = data("data.holdout_fraction=0.2")
    assert prepare(given) == {"train": 80, "holdout": 20, "test": 2}
    rest, held = opened(given, "train"), opened(given, "holdout")
    assert held.counts == {"happy": 10, "sad": 10}
    assert not set(rest.keys_N) & set(held.keys_N)
    assert held.role == "holdout"
    examples = [Example(content_hash({"s": text}), 1 - label, {"s": text}, "") for text, label in train]
    one = {example.content for example in splits.holdout(examples, 0.2)[1]}
    assert one == {example.content for example in splits.holdout(examples[::-1], 0.2)[1]}
    more = [*examples, *(Example(content_hash({"s": str(i)}), 0, {"s": str(i)}, "") for i in range(20))]
    kept = one & {example.content for example in splits.holdout(more, 0.2)[1]}
    assert len(kept) >= 15  # new texts of one class move few of the old ones


def test_equal_texts_stay_together(data, folder, rows):
    _, tsv, _ = rows
    many(folder, rows)
    with open(folder / "train.tsv", "a") as file:
        file.write(tsv([(f"again {i // 3}", i // 3 % 2) for i in range(60)], header="").lstrip())
    given = data("data.holdout_fraction=0.3")
    prepare(given)
    first = [{key.partition("-")[0] for key in opened(given, name).keys_N} for name in ("train", "holdout")]
    assert not first[0] & first[1]
    keys = opened(given, "train").keys_N.tolist()
    assert len(set(keys)) == len(keys)
    assert any(key.endswith("-3") for key in keys)
    assert opened(given, "train").notes[0].endswith("examples repeat the texts of another in this set")


def test_a_limit_takes_examples_of_train_after_the_holdout(data, folder, rows):
    many(folder, rows)
    whole, small = data("data.dir=whole"), data("data.limit=30")
    prepare(whole)
    assert prepare(small) == {"train": 30, "holdout": 20, "test": 2}
    kept, all_keys = opened(small, "train").keys_N.tolist(), opened(whole, "train").keys_N.tolist()
    assert kept == [key for key in all_keys if key in set(kept)]
    assert opened(small, "holdout").sha256 == opened(whole, "holdout").sha256
    assert library.inputs(small, "paper", "train") != library.inputs(whole, "paper", "train")
    assert library.inputs(small, "paper", "test") == library.inputs(whole, "paper", "test")


def test_choose_on_validation_gives_the_test_set_again(data, folder, rows):
    many(folder, rows)
    given = data("data.choose_on=validation", "data.test=validation")
    (folder / "test.tsv").rename(folder / "dev.tsv")
    assert prepare(given) == {"train": 100, "holdout": 2, "validation": 2}
    held, test = opened(given, "holdout"), opened(given, "validation")
    assert (held.role, test.role) == ("holdout", "test")
    assert held.keys_N.tolist() == test.keys_N.tolist()
    assert (held.by_content, test.by_content) == (False, True)
    assert held.notes == ["soups are chosen on the examples of validation, on which they are reported too"]


def repeat(folder, place, text):
    with open(folder / f"{place}.tsv", "a") as file:
        file.write(f"{text}\n")


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        (
            "holdout",
            "the dog sings today\t1",
            r"train\.tsv line 2 and .*holdout\.tsv line 4 have the same texts, one of 1",
        ),
        ("test", "the dog sings today \t1", r"train\.tsv line 2 and .*test\.tsv line 4 .* that train and test share"),
        ("test", "a bad hen\t0", r"holdout\.tsv line 3 and .*test\.tsv line 4 .* that holdout and test share"),
        ("train", "the dog sings today\t0", r"line 2 and .*line 8 have the same texts and different labels, one of 1"),
        ("train", "the dog sings today\t1", None),
        ("night", "the dog sings today\t1", None),
    ],
)
def test_a_text_in_two_sets_or_with_two_labels_is_refused(data, folder, capsys, place, text, said):
    (folder / "night.tsv").write_text("sentence\tlabel\nalone\t0\n")
    repeat(folder, place, text)
    given = data("data.shifts=[night]")
    if said is None:
        prepare(given)
        assert f"prepare: {place}: 1 of {7 if place == 'train' else 2} examples" in capsys.readouterr().out
        return
    with pytest.raises(ValueError, match=said):
        prepare(given)
    assert not storage.Path(given.dir).exists()


def test_official_sets_keep_and_count_repeated_texts(data, folder):
    repeat(folder, "test", "the dog sings today\t1")
    repeat(folder, "test", "the hen cries today\t1")
    repeat(folder, "train", "the dog sings today\t0")
    given = data("data.text.official=true")
    prepare(given)
    train, test = opened(given, "train"), opened(given, "test")
    both = [content_hash({"sentence": f"the {what} today"}) for what in ("dog sings", "hen cries")]
    assert test.overlaps == {"train": both}
    assert test.notes == [f"2 of 4 examples have texts that train has too: {both[0]}, {both[1]}"]
    assert train.notes[1] == f"1 texts have two labels in this set: {both[0]}"
    assert not test.by_content


def test_official_counts_are_compared_with_the_files(data, folder):
    given = ["data.text.examples={train: 5, test: 2, holdout: 9}"]
    with pytest.raises(
        ValueError, match=r"train\.tsv has 6 examples, 1 more than the official 5; .*check_counts=false"
    ):
        prepare(data(*given))
    (folder / "holdout.tsv").unlink()  # a hold-out that is split off has no official count
    assert prepare(data(*given, "data.text.examples.train=6", "data.holdout_fraction=0.4"))
    (folder / "test.tsv").rename(folder / "val.tsv")
    with pytest.raises(ValueError, match=r"val\.tsv has 2 examples, 1 fewer than the official 3"):
        prepare(data("data.test=dev", "data.text.examples={validation: 3}", "data.holdout_fraction=0.4"))
    (folder / "val.tsv").rename(folder / "test.tsv")
    with pytest.raises(ValueError, match=r"has 2 examples, 1,198 fewer than the official 1,200"):
        prepare(data("data.text.examples.test=1200"))
    assert prepare(data("data.text.examples.test=1200", "data.check_counts=false", "data.holdout_fraction=0.4"))


def test_a_set_without_a_class_is_refused(data, folder):
    (folder / "test.tsv").write_text("sentence\tlabel\nso fine\t1\n")
    with pytest.raises(ValueError, match="test has no example of 'sad' among its 1"):
        prepare(data())
    (folder / "holdout.tsv").unlink()
    with pytest.raises(ValueError, match=r"holdout has no example of 'happy'.* data\.holdout_fraction"):
        prepare(data("data.holdout_fraction=0.01"))


def test_one_file_for_two_sets_is_refused(data, folder):
    (folder / "test.tsv").rename(folder / "dev.tsv")
    with pytest.raises(ValueError, match=r"dev\.tsv is the file of both val and dev"):
        library.names(data("data.holdout=val", "data.test=dev"))


def test_a_changed_prompt_or_option_is_another_set(data, folder):
    one = library.inputs(data(), "paper", "test")
    assert library.inputs(data("data.text.prompt='text: {sentence}'"), "paper", "test") != one
    assert library.inputs(data("data.text.labels.0=gloomy"), "paper", "test") != one
    prepare(data())
    prepare(data("data.dir=other", "data.text.prompt='text: {sentence}'"))
    assert TextSet(storage.Path("other/test")).sha256 != opened(data(), "test").sha256


def test_every_task_of_glue_composes_with_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for task, folder in (("mrpc", "MRPC"), ("rte", "RTE"), ("cola", "CoLA"), ("sst2", "SST-2")):
        config = load(["experiment=glue", f"data=glue_{task}", "model=iconvit", "data.root=GLUE"])
        assert (config.task, config.data.name, config.data.text.folders[0]) == ("text", f"glue_{task}", folder)
        assert config.data.dir == f"data/glue_{task}/heldout"
        assert set(config.data.text.examples) == {"train", "validation"}
        assert len(set(config.data.text.labels.values())) == 2


MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
FILES = {
    "mrpc": ("MRPC", MRPC + '1\t1\t2\tHe said " no .\t" No , " he said .\n0\t3\t4\tIt rains .\tIt snows .\n'),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n"),
    "cola": ("CoLA", "gj04\t1\t\tI ran.\ngj04\t0\t*\tI ran the.\n"),
    "sst2": ("SST-2", "sentence\tlabel\na dull film \t0\ntruly moving \t1\n"),
}


@pytest.mark.parametrize("task", FILES)
def test_the_quirks_of_glues_files(tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    folder, content = FILES[task]
    (tmp_path / "GLUE" / folder).mkdir(parents=True)
    (tmp_path / f"GLUE/{folder}/train.tsv").write_text(content, encoding="utf-8")
    (tmp_path / f"GLUE/{folder}/dev.tsv").write_text(content, encoding="utf-8")
    given = ["experiment=glue", f"data=glue_{task}", "model=iconvit", "data.root=GLUE", "data.choose_on=validation"]
    with pytest.raises(ValueError, match=r"train\.tsv has 2 examples, .* fewer than the official"):
        prepare(load(given).data)
    data = load([*given, "data.check_counts=false"]).data
    assert prepare(data) == {"train": 2, "holdout": 2, "validation": 2}
    found = opened(data, "validation")
    assert found.classes[found.labels_N[0]] == {
        "mrpc": "equivalent", "rte": "entailment", "cola": "acceptable", "sst2": "negative"
    }[task]  # fmt: skip
    assert (
        json.dumps(found.fields(0))
        == {
            "mrpc": '{"sentence1": "He said \\" no .", "sentence2": "\\" No , \\" he said ."}',
            "rte": '{"sentence1": "A.", "sentence2": "B."}',
            "cola": '{"sentence": "I ran."}',
            "sst2": '{"sentence": "a dull film"}',
        }[task]
    )
