"""Pre-training of PhraseBERT: the same bytes twice, resumable, its text, and the shipped weights."""

import re

import pytest
import torch

from modelsoups.disk import storage
from modelsoups.miniature.pretraining import phrases
from modelsoups.miniature.pretraining.phrases import PhraseOptions, PhrasePretraining
from modelsoups.miniature.pretraining.training import CARD, pretrain
from modelsoups.miniature.text import tokens
from modelsoups.miniature.text.grammar import Draws


def options(out, **given) -> PhraseOptions:
    return PhraseOptions(out, **{"steps": 3, "batch_size": 8, **given})


def test_two_short_pretrainings_write_the_same_bytes_and_transformers_opens_them(tmp_path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    for name in ("one", "two"):
        pretrain(PhrasePretraining, options(tmp_path / name))
    written = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    made, found = AutoModelForMaskedLM.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert made.config.vocab_size == len(tokens.vocabulary())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert tokenizer.tokenize("The dogs slept.") == ["the", "dog", "##s", "slept", "."]
    assert tokenizer.mask_token_id == tokenizer.convert_tokens_to_ids("[MASK]") == tokens.SPECIAL.index("[MASK]")


def test_an_interrupted_pretraining_continues_to_the_same_weights(tmp_path):
    straight, first = (PhrasePretraining(options(tmp_path / name)) for name in ("whole", "part"))
    for _ in range(2):
        straight.train_step()
    first.train_step()
    first.save(1.0)
    second = PhrasePretraining(options(tmp_path / "part"))
    second.train_step()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_the_labels_of_the_tasks_options_are_random_and_those_of_the_others_follow_from_the_odd_words():
    draws, seen = Draws("texts"), {}
    for _ in range(1500):
        one = phrases.text(draws)
        is_task = "acceptable" in one.text or "equivalent" in one.text
        kind = (is_task, one.text.startswith("sentence1"), bool(one.odd))
        seen.setdefault(kind, []).append(re.search(r"label: (A|B)\) ", one.text)[1])
    for (is_task, is_pair, is_odd), letters in seen.items():
        share = letters.count("A") / len(letters)
        if is_task:
            assert 0.2 < share < 0.8
        elif is_odd:
            assert share == 0
        elif not is_pair:
            assert share == 1  # a pair can also differ in its roles, its number or its tense


def test_odd_words_are_marked_by_their_tokens():
    one = phrases.Text("The dogs sleeps.", [(9, 15)])
    encoded = tokens.tokenizer().encode(one.text)
    assert [piece for piece, odd in zip(encoded.tokens, one.marks(encoded.offsets), strict=True) if odd] == [
        "sleep",
        "##s",
    ]


def test_masks_are_those_of_bert_and_whole_labels(tmp_path):
    made = PhrasePretraining(options(tmp_path))
    text = "sentence: the dog slept. | options: A) yes B) no | label: A) yes"
    ids_BT = torch.tensor([made.tokenizer.encode(text).ids] * 4000)
    label_BT = made.is_label(ids_BT)
    assert made.tokenizer.decode(ids_BT[0][label_BT[0]].tolist()) == "a ) yes"
    inputs_BT, masked_BT = made.mask(ids_BT, label_BT, torch.Generator().manual_seed(0))
    assert masked_BT[label_BT].float().mean().item() == pytest.approx(phrases.MASKED_LABELS, abs=0.03)
    assert torch.equal(masked_BT[label_BT].view(4000, 3).all(dim=1), masked_BT[label_BT].view(4000, 3).any(dim=1))
    special_BT = ids_BT < len(tokens.SPECIAL)
    assert not masked_BT[special_BT].any()
    word_BT = ~special_BT & ~label_BT
    assert masked_BT[word_BT].float().mean().item() == pytest.approx(phrases.MASKED, abs=0.01)
    changed = (inputs_BT != ids_BT)[word_BT & masked_BT].float().mean().item()
    assert changed == pytest.approx(1 - phrases.SAME, abs=0.02)
    assert torch.equal(inputs_BT[~masked_BT], ids_BT[~masked_BT])


def test_the_card_says_how_the_weights_were_made():
    card = storage.read_json(phrases.FOLDER / CARD)
    assert card["made with"].startswith("modelsoups pretrain pretrain.model=phrase_bert pretrain.seed=0 pretrain.steps")
    assert card["options"]["steps"] == PhrasePretraining.steps
    assert sum(path.stat().st_size for path in phrases.FOLDER.iterdir()) < 2e6
