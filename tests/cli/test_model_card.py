"""The metadata of an exported model's card, as huggingface_hub reads it."""

from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard, ModelCardData

from modelsoups.cli.model_card import hub_id, results_of
from modelsoups.config.compose import load
from modelsoups.disk import storage

LINES = [
    {"experiment": {"sets": [{"name": "test", "title": "IconNet"}, {"name": "v2", "title": "IconNetV2"}]}},
    {"kind": "individual", "row": "000", "dataset": "test", "n": 7200, "accuracy": 0.5, "low": 0.4, "high": 0.6},
    {"row": "greedy", "dataset": "test", "n": 7200, "accuracy": 5198 / 7200, "low": 0.71, "high": 0.73},
    {"row": "greedy", "dataset": "v2", "n": 3600, "accuracy": 2400 / 3600, "low": 0.65, "high": 0.68},
    {"row": "greedy", "dataset": "mean of shifts", "accuracy": 0.6},
]


def test_the_scores_in_the_metadata_are_those_of_the_results_with_interval_and_seeds(tmp_path):
    storage.write_jsonl(tmp_path / "results.jsonl", LINES)
    config = load(["sweep.seed=3"])
    found = results_of(config, tmp_path / "results.jsonl", "image-classification")
    data = ModelCardData(model_name="miniature: greedy", eval_results=found)
    read = ModelCard(f"---\n{data}\n---\n").data  # as the hub does: the YAML is parsed and validated
    assert [result.metric_value for result in read.eval_results] == [5198 / 7200, 2400 / 3600]
    assert [result.dataset_name for result in read.eval_results] == ["IconNet", "IconNetV2"]
    first = {"interval_95": [0.71, 0.73], "n": 7200, "soup.seed": 0, "sweep.seed": 3}
    assert read.eval_results[0].metric_args == first


@pytest.mark.parametrize(
    ("library", "name", "tag", "expected"),
    [
        ("open_clip", "ViT-B-32", "openai", "timm/vit_base_patch32_clip_224.openai"),
        ("timm", "efficientnet_lite0", "ra_in1k", "timm/efficientnet_lite0.ra_in1k"),
        ("transformers", "google-bert/bert-base-uncased", "main", "google-bert/bert-base-uncased"),
        ("open_clip", "ViT-B-32", "/home/someone/ViT-B-32.pt", None),
        ("timm", "efficientnet_lite0", "/home/someone/lite0.safetensors", None),
        ("transformers", "/home/someone/bert", "main", None),
        ("iconclip", "iconclip", None, None),
    ],
)
def test_the_base_model_is_its_name_on_the_hub_and_never_a_path(library, name, tag, expected):
    assert hub_id(SimpleNamespace(library=library, name=name, tag=tag)) == expected
