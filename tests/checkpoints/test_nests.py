"""Where the weights stand in the content of a training checkpoint: found if one can be meant, else all are named."""

import io
from pathlib import Path

import pytest
import torch

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.nests import chosen_state

A, B = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
ADAM = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
NAMED = {"state": {"w": {"exp_avg": torch.ones(2)}}}  # FSDP's, by name
PATH = Path("a.pt")


@pytest.mark.parametrize(
    ("content", "key", "taken", "note"),
    [
        ({"app": {"model": A, "optim": NAMED}}, None, A, "took its entry app.model"),
        ({"state_dict": {"model": A}, "epoch": 1}, None, A, "took its entry state_dict.model"),
        ({"epoch": 3, "optimizer": ADAM, "model": A}, None, A, "took its entry model"),
        ({"optimizer_states": NAMED, "weights": A, "loss": torch.tensor(1.0)}, None, A, "took its entry weights"),
        ({"a": {"b": {"c": {"d": A}}}}, None, A, "took its entry a.b.c.d"),
        ({"ema": B, "x": {"model": A}}, None, A, "took its entry x.model; there are also ema (--key)"),
        ({"ema": B, "x": {"model": A}}, "ema", B, "took its entry ema; there are also x.model (--key)"),
        ({"model_ema": B, "optimizer": NAMED}, None, B, "took its entry model_ema"),
        ({"app": {"model": A}}, "app.model", A, "took its entry app.model"),
        ({"a.b": A, "c": B}, "a.b", A, "took its entry a.b; there are also c (--key)"),
    ],
)
def test_weights_are_found_at_any_depth(content: dict, key: str | None, taken: dict, note: str) -> None:
    state, notes = chosen_state(content, PATH, key)
    assert state is taken
    assert notes == [note]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            {"state_dict": {"student": A, "teacher": B}},
            None,
            r"several models: state_dict\.student, state_dict\.teacher",
        ),
        ({"ema": A, "generator": B}, None, "several models: ema, generator; choose one with --key NAME"),
        ({"app": {"model": A}}, "model", r"no weights under model; there are weights under: app\.model"),
        ({"epoch": 1, "loss": torch.tensor(0.5)}, None, "no dict of tensors; there are weights under: nothing"),
        ({"optimizer": NAMED}, None, "no dict of tensors; there are weights under: nothing"),
        ({"a": A, "w": torch.ones(2)}, "b", "no weights under b; there are weights under: a"),
    ],
)
def test_what_cannot_be_told_is_named(content: dict, key: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"a.pt has .*{message}"):
        chosen_state(content, PATH, key)


def test_a_content_that_holds_itself_ends() -> None:
    content: dict = {"model": A}
    content |= {str(i): content for i in range(9)}
    assert chosen_state(content, PATH, None)[0] is A


def test_counters_and_extra_states_beside_the_weights_are_left_out(tmp_path: Path) -> None:
    beside = {"layer._extra_state": io.BytesIO(b"fp8"), "best": 0.5, "name": "x", "n": 3, "none": None}
    torch.save({**A, **beside}, tmp_path / "a.pt")
    for source in (tmp_path / "a.pt", {**A, **beside}):
        opened = open_checkpoint(source)
        assert list(opened) == ["w"]
        assert opened.notes == ["layer._extra_state, best, name, ... left out: not tensors"]
    settings = {**A, "net": {"lr": 1, "betas": (0.9, 0.99)}, "history": [1.0, {"n": None}]}
    torch.save(settings, tmp_path / "b.pt")
    for source in (tmp_path / "b.pt", settings):
        assert open_checkpoint(source).notes == ["net, history left out: not tensors"]
    for wrong in ({"net": {"w": torch.ones(1)}, **A}, {"array": [torch.ones(1)], **A}):
        with pytest.raises(ValueError, match=r"entry (net|array) is a (dict|list), not a tensor"):
            open_checkpoint(wrong)
