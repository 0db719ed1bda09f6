"""The prompts: the paper's two to the character, and those of all four tasks frozen for both models."""

import pytest
from tiny_text import config, tiny

from modelsoups.models.prompts import Prompt, answers
from modelsoups.models.text_classifier import build

ONE, TWO = ["sentence"], ["sentence1", "sentence2"]
TASKS = {
    "mrpc": (TWO, ["equivalent", "not equivalent"]),
    "rte": (TWO, ["entailment", "not entailment"]),
    "cola": (ONE, ["acceptable", "unacceptable"]),
    "sst2": (ONE, ["positive", "negative"]),
}
TEXTS = {"sentence": "The boat is small.", "sentence1": "It rained.", "sentence2": "The street is wet."}
PAIR = "sentence1: It rained. | sentence2: The street is wet."
FROZEN = {
    "mrpc": f"{PAIR} | options: A) equivalent B) not equivalent | label:",
    "rte": f"{PAIR} | options: A) entailment B) not entailment | label:",
    "cola": "sentence: The boat is small. | options: A) acceptable B) unacceptable | label:",
    "sst2": "sentence: The boat is small. | options: A) positive B) negative | label:",
}
MASKS = {"mrpc": 4, "rte": 4, "cola": 3, "sst2": 3}


def test_the_two_prompts_that_the_paper_prints_are_equal_to_the_character(tmp_path):
    text = "sentence: {sentence}"
    t5 = build(config(tiny(tmp_path, "t5"), "t5"), ["positive", "negative"], text, ONE)
    expected = "sentence: The best movie I’ve ever seen! | options: A) positive B) negative | label:"  # noqa: RUF001
    assert t5.inputs.text({"sentence": "The best movie I’ve ever seen!"}) == expected  # noqa: RUF001
    assert answers(["positive", "negative"])[0] == "A) positive"
    bert = build(config(tiny(tmp_path, "bert"), "bert"), ["acceptable", "unacceptable"], text, ONE)
    expected = (
        "sentence: model soups are grammatical. | options: A) acceptable B) unacceptable | label: [MASK] [MASK] [MASK]"
    )
    assert bert.inputs.text({"sentence": "model soups are grammatical."}) == expected


@pytest.mark.parametrize("task", TASKS)
def test_the_prompts_of_all_tasks_and_both_models_are_frozen(task, tmp_path):
    fields, options = TASKS[task]
    middle = " | ".join(f"{name}: {{{name}}}" for name in fields)
    texts = {name: TEXTS[name] for name in fields}
    for prompt in (middle, ""):  # the default
        t5 = build(config(tiny(tmp_path, "t5"), "t5"), options, prompt, fields)
        assert t5.inputs.text(texts) == FROZEN[task]
        bert = build(config(tiny(tmp_path, "bert"), "bert"), options, prompt, fields)
        assert bert.inputs.text(texts) == FROZEN[task] + " [MASK]" * MASKS[task]


def test_the_texts_are_where_the_spans_say():
    prompt = Prompt.of("x {{ {b} y {a} z", ["a", "b"], ["yes", "no"])
    whole, spans = prompt.fill({"a": "one", "b": "{two}"})
    assert whole == "x { {two} y one z | options: A) yes B) no | label:"
    assert {name: whole[start:stop] for name, (start, stop) in spans.items()} == {"a": "one", "b": "{two}"}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{sentense}", "no field {sentense}; name the fields in braces: sentence"),
        ("{sentence.__class__}", "no field"),
        ("{sentence!r}", "no field"),
        ("{sentence:>9}", "no field"),
        ("{}", "no field"),
        ("{sentence", "malformed"),
        ("plain", "has no field"),
        ("{sentence} {sentence}", "twice"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(prompt, words):
    with pytest.raises(ValueError, match=r"data\.text\.prompt") as error:
        Prompt.of(prompt, ["sentence"], ["yes", "no"])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["yes"], "1 options; a prompt takes 2 to 26"),
        ([str(i) for i in range(27)], "27 options"),
        (["yes", " "], "' ' is empty"),
        (["yes", "no", "yes"], "'yes' is repeated"),
    ],
)
def test_options_that_cannot_be_told_apart_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        answers(options)
