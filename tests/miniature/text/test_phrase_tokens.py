"""The tokenizer of PhraseBERT: words and endings are pieces, and other words are not unknown."""

import pytest

from modelsoups.config.compose import load
from modelsoups.miniature.pretraining import phrases
from modelsoups.miniature.text import sets, tokens


def test_the_shipped_tokenizer_is_that_of_the_lexicon(tmp_path):
    tokens.write(tmp_path)
    for name in (tokens.TOKENIZER, tokens.TOKENIZER_CONFIG):
        assert (tmp_path / name).read_bytes() == (phrases.FOLDER / name).read_bytes()


def test_words_are_one_piece_or_two():
    tokenizer = tokens.tokenizer()
    assert tokenizer.encode("The dogs chased Anna.").tokens == [
        *("[CLS]", "the", "dog", "##s", "chase", "##d", "anna", ".", "[SEP]")
    ]
    assert "[UNK]" not in tokenizer.encode("Zebras yodel at 7:30!").tokens
    letters = {piece for piece in tokens.vocabulary() if len(piece.removeprefix("##")) == 1 and piece.isalpha()}
    for task in sets.TASKS:
        examples = [one for name in ("validation", "words") for one in sets.generate(task, 0)[name][:200]]
        for texts, _ in examples:
            for text in texts.values():
                assert not (set(tokenizer.encode(text).tokens) & letters) - {"a"}, text


@pytest.mark.parametrize("task", sets.TASKS)
def test_the_prompt_has_no_unknown_word(task):
    from modelsoups.models.text_classifier import build

    config = load(["experiment=text-miniature", f"data=phrases_{task}"])
    text = config.data.text
    network = build(config.model, list(text.labels.values()), text.prompt, list(text.fields))
    ids = network.encode([sets.generate(task, 0)["train"][0][0]])[0].ids[0]
    shown = network.tokenizer.convert_ids_to_tokens(list(ids))
    assert "[UNK]" not in shown
    assert shown[-4:-1] == ["[MASK]"] * 3
    assert shown[1] == "sentence"
