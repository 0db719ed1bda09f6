"""What readers of results are not shown: accounts, tokens, folders of the machine."""

import sys

import pytest

from modelsoups.disk.provenance import public, record

COMMAND = "modelsoups report name=x cluster.setup=[export TOKEN=KEY, b] data.root=/home/alice/SECRET/images"


def test_results_have_no_account_no_token_and_no_folder_of_the_machine() -> None:
    config = {
        "cluster": {"account": "A"},
        "track": {"entity": "E"},
        "data": {"dir": "data/x", "root": "/home/a/images"},
    }
    config["overrides"] = ["cluster.account=A", "model.tag='~/clients/c.pt'", "recipe.lr=1e-4"]  # type: ignore[assignment]
    shown = public({"config": config, "command": COMMAND, "rows": {"000": {"command": COMMAND, "n": 3}}})
    assert shown["config"] == {
        "data": {"dir": "data/x", "root": "images"},
        "overrides": ["cluster.account=...", "model.tag='c.pt'", "recipe.lr=1e-4"],
    }
    assert shown["command"] == shown["rows"]["000"]["command"] == "modelsoups report name=x cluster.setup=..."
    assert shown["rows"]["000"]["n"] == 3
    for tag, name in (("/home/alice/clients/ViT-B-32.pt", "ViT-B-32.pt"), ("laion2b_s34b", "laion2b_s34b")):
        assert public(tag) == name
    assert public("https://hub/x/y and a/b/c.pt") == "https://hub/x/y and a/b/c.pt"


def test_a_recorded_command_has_no_value_of_a_cluster_and_no_folder_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["x", "report", "cluster.setup=[export TOKEN=KEY]", "+track.entity=E", "data.root=/home/me/GLUE"]
    )
    assert record()["command"] == "modelsoups report cluster.setup=... +track.entity=... data.root=GLUE"
    assert public(record()["command"]) == record()["command"]
