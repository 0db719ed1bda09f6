"""Tables of invented sentences, and the configuration of a text data set of one's own."""

import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from modelsoups.config.data import DataConfig, TextDataConfig

OWN = """\
name: moods
library: text
dir: data/moods
root: texts
text:
  fields: {sentence: [sentence]}
  labels: {"1": happy, "0": sad}
  prompt: "sentence: {sentence}"
"""
TRAIN = [
    (f"the {noun} {verb} today", label)
    for noun in ("dog", "cat", "hen")
    for verb, label in (("sings", 1), ("cries", 0))
]
SETS = {"train": TRAIN, "holdout": [("a good hen", 1), ("a bad hen", 0)], "test": [("so fine", 1), ("so poor", 0)]}


def tsv(rows, header="sentence\tlabel"):
    return "".join(f"{line}\n" for line in [header, *(f"{text}\t{label}" for text, label in rows)])


def jsonl(rows):
    return "".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the folder texts/ with three TSVs; conf/data/moods.yaml describes them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/moods.yaml").write_text(OWN)
    (tmp_path / "texts").mkdir()
    for name, rows in SETS.items():
        (tmp_path / f"texts/{name}.tsv").write_text(tsv(rows))
    return tmp_path / "texts"


@pytest.fixture
def data(folder):
    """Return a function from overrides to the section `data` of the configuration."""
    text = TextDataConfig(
        fields={"sentence": ["sentence"]}, labels={"1": "happy", "0": "sad"}, prompt="sentence: {sentence}"
    )
    plain = DataConfig(name="moods", library="text", dir="data/moods", root="texts", text=text)

    def section(*overrides):
        made = OmegaConf.structured(plain)  # composing all of conf/ takes a hundred times longer
        for override in map(OverridesParser.create().parse_override, overrides):
            OmegaConf.update(made, override.key_or_group.removeprefix("data."), override.value())
        return OmegaConf.to_object(made)

    return section


@pytest.fixture
def rows():
    """Return the rows of the sets and the functions that write them as TSV and JSON Lines."""
    return SETS, tsv, jsonl
