"""A key is stated once, with the sentence that explains it."""

import dataclasses
from typing import get_type_hints

import pytest
import yaml

from modelsoups.config.compose import defaults, keys
from modelsoups.config.data import DataConfig
from modelsoups.config.key import key
from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config
from modelsoups.disk.paths import shipped
from modelsoups.recipes.recipe import Recipe

GROUPS = ("model", "data", "cluster")
FILES = [path for group in GROUPS for path in sorted((shipped("conf") / group).glob("*.yaml"))]


def test_every_key_has_a_sentence():
    for name, about in keys().items():
        sentence = about.metadata["sentence"]
        assert len(sentence.split()) >= 1, name
        assert sentence == sentence.strip().rstrip("."), name
    for about in dataclasses.fields(Recipe):
        assert about.metadata.get("sentence"), about.name


def test_every_field_of_the_schema_is_a_key():
    """A field that was declared without `key` would have no sentence and no place in the defaults."""
    for section, kind in get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            for about in dataclasses.fields(kind):
                nested = dataclasses.is_dataclass(get_type_hints(kind)[about.name])
                assert nested or f"{section}.{about.name}" in keys(), f"{section}.{about.name}"


def test_a_key_needs_a_sentence():
    with pytest.raises(TypeError):
        key()


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_files_state_no_default_again(path):
    default = defaults()[path.parent.name]
    for name, value in (yaml.safe_load(path.read_text()) or {}).items():
        assert name == "defaults" or value != default[name], f"{path}: {name}={value} is the default already"


def test_no_file_of_the_pipeline_holds_a_default():
    """conf/config.yaml sets nothing but Hydra's own keys; a key of ours has its default in the schema."""
    content = yaml.safe_load((shipped("conf") / "config.yaml").read_text())
    assert set(content) == {"defaults", "hydra"}
    assert {p.stem for p in shipped("conf").glob("*.yaml")} == {"config"}


def test_defaults_are_those_of_the_dataclasses():
    made = ModelConfig(name="x", library="timm")
    assert {k: v for k, v in defaults()["model"].items() if v != "???"} == {
        k: v for k, v in dataclasses.asdict(made).items() if k not in ("name", "library")
    }
    assert DataConfig(name="x", library="folders", dir="d").shifts is not defaults()["data"]["shifts"]
