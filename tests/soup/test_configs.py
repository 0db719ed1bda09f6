"""Configurations beside the weights: which differences a soup cannot bridge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelsoups import soup
from modelsoups.cli import commands

BERT = {"model_type": "bert", "transformers_version": "5.0", "hidden_act": "gelu", "id2label": {"0": "cat", "1": "dog"}}


def folders(home: Path, *changes: dict[str, Any]) -> list[Path]:
    for n, change in enumerate(changes):
        (home / str(n)).mkdir()
        start = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
        save_file({"w": start + 0.01 * n}, home / str(n) / "model.safetensors")
        config = {k: v for k, v in {**BERT, **change}.items() if v is not None}
        (home / str(n) / "config.json").write_text(json.dumps(config))
    return [home / str(n) for n in range(len(changes))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"id2label": {"0": "dog", "1": "cat"}},
            r'1 has id2label\.0 "dog" in its configuration, .*has "cat".*2 keys',
        ),
        ({"hidden_act": "relu"}, '1 has hidden_act "relu" in its configuration, .*0 has "gelu": equal weights then'),
        ({"text_config": {"rope_theta": 5}}, r"1 has text_config\.rope_theta 5 in its configuration, .*0 has nothing"),
    ],
)
def test_what_the_weights_mean_must_be_the_same(tmp_path: Path, change: dict[str, Any], words: str, capsys) -> None:
    paths = folders(tmp_path, {}, change)
    with pytest.raises(ValueError, match=words):
        soup.mix(soup.uniform(paths), tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
    inside = [path / "model.safetensors" for path in paths]
    with pytest.raises(ValueError, match="in its configuration"):
        soup.mix(soup.uniform(inside), tmp_path / "soup.safetensors")
    with pytest.raises(SystemExit):
        commands.main(["doctor", *map(str, paths)])
    assert "FATAL config" in capsys.readouterr().out
    assert "forced, although" in soup.mix(soup.uniform(paths), tmp_path / "soup", force=True)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_dropout_prob": 0.3, "_name_or_path": "mine", "torch_dtype": "float16", "problem_type": "regression"},
        {"transformers_version": "4.0", "new_default": 1},  # each version writes its own defaults
        {"model_type": None, "lr": 0.1},  # somebody's own config.json
    ],
)
def test_training_versions_and_other_files_of_this_name_are_no_reason(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = folders(tmp_path, {}, change)
    soup.mix(soup.uniform(paths), tmp_path / "soup")
    mean = torch.stack([soup.load(path)["w"].double() for path in paths]).mean(dim=0).float()
    assert torch.equal(soup.load(tmp_path / "soup")["w"], mean)


def test_other_shapes_are_said_before_another_configuration(tmp_path: Path) -> None:
    paths = folders(tmp_path, {}, {"vocab_size": 3})
    save_file({"w": torch.ones(3, 8)}, paths[1] / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor w is \(3, 8\) float32, expected \(8, 8\) float32"):
        soup.mix(soup.uniform(paths), tmp_path / "soup")
