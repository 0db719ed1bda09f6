"""Token ids of prompts and pairs: equal to the tokenizer's own; only texts are cut; no special token in a text."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import FAMILIES, config, tiny

from modelsoups.models.text_classifier import build
from modelsoups.models.tokenization import shortened

OPTIONS = ["equivalent", "not equivalent"]
PAIR = ["sentence1", "sentence2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def built(home, family, **text):
    return build(config(tiny(home, family), family, **text), OPTIONS, "", PAIR)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_of_a_prompt_are_those_of_its_text(family, home):
    model = built(home, family, max_length=90)
    examples = [
        {"sentence1": "The boat crossed the lake.", "sentence2": "a storm!"},
        {"sentence1": "", "sentence2": "x"},
    ]
    for example, encoded in zip(examples, model.encode(examples), strict=True):
        assert list(encoded.ids[0]) == model.tokenizer(model.inputs.text(example))["input_ids"]
        assert not encoded.cut
        assert pickle.loads(pickle.dumps(encoded)) == encoded


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "texts", [("the small boat " * 90, "a storm"), ("é🙂" * 80, "the lake " * 30), ("!" * 400, "")]
)
def test_only_texts_are_cut_the_longest_first(family, texts, home):
    model = built(home, family, max_length=80)
    example = dict(zip(PAIR, texts, strict=True))
    (encoded,) = model.encode([example])
    assert encoded.cut
    assert 80 - 8 < len(encoded) <= 80
    whole = model.tokenizer(model.inputs.text(dict.fromkeys(PAIR, "")))["input_ids"]
    assert list(encoded.ids[0][-14:]) == whole[-14:]  # options, label, masks and what ends a sequence
    assert list(encoded.ids[0][:3]) == whole[:3]
    if texts[1] == "a storm":  # the shorter text is whole
        assert "a storm" in model.tokenizer.decode(encoded.ids[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_special_token_that_is_written_in_a_text_does_not_become_one(family, home):
    model = built(home, family, max_length=90)
    tokenizer = model.tokenizer
    words = {
        *tokenizer.all_special_tokens,
        "[MASK]",
        "[SEP]",
        "</s>",
        "<mask>",
        "<pad>",
        "\uff1c/s\uff1e",
    }  # full width, which T5 normalises
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    (plain,) = model.encode([dict.fromkeys(PAIR, "")])
    expected = [i for i in plain.ids[0] if i in special]
    for word in words:
        (encoded,) = model.encode([dict.fromkeys(PAIR, f"x{word} y")])
        assert [i for i in encoded.ids[0] if i in special] == expected, word


@settings(max_examples=60, deadline=None)
@given(one=st.text(max_size=90), two=st.text(max_size=90))
@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
def test_any_text_can_be_encoded(family, one, two, home):
    model = built_once(home, family)
    (encoded,) = model.encode([{"sentence1": one, "sentence2": two}])
    assert len(encoded) <= 80
    special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}
    (plain,) = model.encode([dict.fromkeys(PAIR, "")])
    assert [i for i in encoded.ids[0] if i in special] == [i for i in plain.ids[0] if i in special]


MODELS = {}


def built_once(home, family):
    if family not in MODELS:
        MODELS[family] = built(home, family, max_length=80)
    return MODELS[family]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_joined_pair_is_what_the_tokenizer_makes_of_two_texts(family, home):
    model = built(home, family, objective="head", max_length=64)
    (encoded,) = model.encode([{"sentence1": "The boat crossed.", "sentence2": "a storm"}])
    expected = model.tokenizer("The boat crossed.", "a storm", return_token_type_ids=True)
    assert list(encoded.ids[0]) == expected["input_ids"]
    if family == "bert":
        assert list(encoded.types) == expected["token_type_ids"]
    else:
        assert encoded.types is None
    (long,) = model.encode([{"sentence1": "the boat " * 60, "sentence2": "a storm"}])
    assert len(long) == 64
    assert long.cut
    assert list(long.ids[0][-3:-1]) == model.tokenizer("a storm", add_special_tokens=False)["input_ids"][-2:]


def test_towers_encode_the_texts_apart(home):
    model = built(home, "bert", objective="head", pairs="towers", max_length=16)
    first, second = model.encode(
        [{"sentence1": "the boat " * 40, "sentence2": "a"}, {"sentence1": "the film.", "sentence2": "x y"}]
    )
    assert first.cut
    assert not second.cut
    assert [list(ids) for ids in second.ids] == model.tokenizer(["the film.", "x y"])["input_ids"]
    batch = model.collate([first, second])
    assert batch.tensors["input_ids"].shape == (2, 2, 16)
    assert batch.tensors["attention_mask"].sum(dim=-1).tolist() == [[16, 3], [5, 4]]


def test_a_batch_is_padded_to_its_longest_and_can_be_indexed_and_moved(home):
    model = built(home, "bert")
    encoded = model.encode([{"sentence1": "the " * n, "sentence2": "a"} for n in (1, 5, 3)])
    batch = model.collate(encoded)
    assert len(batch) == 3
    assert batch.tensors["input_ids"].shape[1] == max(map(len, encoded))
    assert batch.tensors["input_ids"][0, -4:].tolist() == [model.tokenizer.pad_token_id] * 4
    for index in (torch.tensor([True, False, True]), torch.tensor([0, 2])):
        part = batch[index].to("cpu", non_blocking=True)
        assert len(part) == 2
        assert torch.equal(part.tensors["input_ids"], batch.tensors["input_ids"][[0, 2]])
        assert torch.equal(part.tensors["attention_mask"].sum(dim=1), torch.tensor([len(encoded[0]), len(encoded[2])]))
    assert len(batch[torch.zeros(3, dtype=torch.bool)]) == 0


def test_lengths_are_cut_from_the_longest():
    assert shortened([5, 3], 1) == [4, 3]
    assert shortened([5, 3], 3) == [3, 2]
    assert shortened([4, 4], 1) == [4, 3]
    assert shortened([2, 1], 9) == [0, 0]
    assert shortened([7], 0) == [7]
