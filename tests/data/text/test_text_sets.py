"""A prepared text set: opened in another process, and refused where its files have changed."""

import os
import pickle

import pytest

from modelsoups.data.shards import check_disjoint
from modelsoups.data.text import library
from modelsoups.disk import storage


@pytest.fixture
def train(data):
    given = data()
    library.make(given, "paper", library.names(given), 1)
    return storage.Path(given.dir) / "train"


def test_a_set_is_pickled_by_its_folder(train):
    one = library.opened(train)
    other = pickle.loads(pickle.dumps(one))
    assert len(pickle.dumps(one)) < 300
    assert (other.sha256, other.keys_N.tolist()) == (one.sha256, one.keys_N.tolist())


def test_messages_name_file_line_and_key(train):
    one = library.opened(train)
    assert one.where(2) == f"{train}/examples.jsonl line 3: example {one.keys_N[2]}"
    assert one.way_out == f"move {train} away and run `modelsoups prepare`"
    assert one.bytes == (train / "examples.jsonl").stat().st_size


def test_damage_is_refused(train):
    path = train / "examples.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"examples\.jsonl is truncated or changed \(\d+ bytes, not \d+\); move"):
        library.opened(train)
    path.write_bytes(content.replace(b'"label": 0', b'"label": 1', 1))
    os.utime(path, (0, 0))
    with pytest.raises(ValueError, match=r"examples\.jsonl has changed since it was written; move"):
        library.opened(train)
    path.unlink()
    with pytest.raises(ValueError, match=r"examples\.jsonl is missing; move"):
        library.opened(train)
    (train / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json contains other JSON"):
        library.opened(train)
    (train / "manifest.json").unlink()
    with pytest.raises(ValueError, match="contains no prepared data set"):
        library.opened(train)


def test_equal_examples_give_equal_bytes(train, data):
    given = data("data.dir=again")
    library.make(given, "paper", ["train"], 1)
    assert storage.Path("again/train/examples.jsonl").read_bytes() == (train / "examples.jsonl").read_bytes()


def test_sets_with_the_same_texts_are_refused_in_words_of_texts(train):
    one = library.opened(train)
    with pytest.raises(ValueError, match=r"share \d+ texts, first \w+; .* on different texts: remove them"):
        check_disjoint(one, one)
