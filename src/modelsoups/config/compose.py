"""Composes the YAML files in conf/ and command-line overrides into a validated Config: `load`.

The composed configuration is merged into the dataclasses of schema.py. A key that no dataclass
declares is an error, even if it was added with `+`, which Hydra alone accepts silently.
"""

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modelsoups.config import limits
from modelsoups.config.schema import Config, TopLevel
from modelsoups.disk import yaml_files
from modelsoups.disk.paths import ASSETS, shipped
from modelsoups.recipes.recipe import Recipe, check_length, check_select

PATHS = (  # keys of files and folders
    *("runs", "results", "data.root", "data.dir", "data.holdout_file", "sweep.search"),
    *("export.out", "pretrain.out", "cluster.scratch"),
)

DRAWN = "drawn"  # recipe.batch_size=drawn: the search draws it, although it has a default

# ${asset:iconvit/model.safetensors} in a YAML file is the path of that file in the package's assets
OmegaConf.register_new_resolver("asset", lambda name: str(ASSETS / name), replace=True)
# ${last_part:google-bert/bert-base-uncased} is bert-base-uncased, for names of folders
OmegaConf.register_new_resolver(
    "last_part", lambda name: re.sub(r"[^\w.+-]", "-", re.split(r"[/:]", name.rstrip("/"))[-1]), replace=True
)


def own_conf(overrides: Sequence[str]) -> list[str]:
    """Return the override that adds ./conf to Hydra's search path; [] if no override asks for a file in it.

    Only an option that is not shipped, such as cluster=mine, asks for ./conf: the folder may belong
    to another project. Raises ValueError for a file of these groups that is too large or too deep.
    """
    folder = Path("conf").resolve()
    if not folder.is_dir() or folder == shipped("conf"):
        return []
    asked = False
    for group, name in _options(overrides):
        if (shipped("conf") / group / f"{name}.yaml").exists() or not (folder / group).is_dir():
            continue
        asked = True
        if (own := folder / group / f"{name}.yaml").exists():
            yaml_files.read_yaml(own)
    if not asked:
        return []
    for group in _groups():
        for file in sorted((folder / group).rglob("*.yaml")):  # of those that it names in its defaults
            yaml_files.check_size(file)
    return [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def _options(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (group, option) for each override that chooses options: ("cluster", "mine") for cluster=mine."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if group and (shipped("conf") / group).is_dir():
            yield from ((group, name) for name in re.split(r"[\[\](),'\"\s]+", value) if name)


def _groups() -> set[str]:
    return {path.name for path in shipped("conf").iterdir() if path.is_dir()}


def quoted(text: str) -> str:
    """Return a text as a value in an override, which Hydra reads as this text."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"\\+$", lambda end: 2 * end[0], escaped)
    return f"'{escaped}'"


def load(overrides: Sequence[str] = ()) -> Config:
    """Compose conf/ and Hydra overrides to a checked Config; ValueError names the wrong key."""
    check_overrides(overrides)
    outer = GlobalHydra.instance().hydra  # the multirun's, if this is one of its jobs
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
            composed = compose("config", overrides=[*own_conf(overrides), *map(settable, overrides)])
    except yaml.YAMLError as error:
        raise ValueError(yaml_files.told(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_line(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer
    return dataclasses.replace(validate(composed), overrides=tuple(overrides))


def settable(override: str) -> str:
    """Turn "+key=value" into "++key=value": Hydra rejects "+" for a key that already exists.

    An override of a mapping or its entries, such as data.text.files.train=a.tsv, gets "++" as well.
    """
    if override.startswith("+") and not override.startswith("++"):
        return f"+{override}"
    return f"++{override}" if _is_in_mapping(override.partition("=")[0]) else override


def _is_in_mapping(key: str) -> bool:
    """Return whether a dotted key is (in) a mapping that users fill, such as analyse.pools."""
    return any(f"{key}.".startswith(f"{name}.") for name, about in keys().items() if _is_mapping(about))


def _is_mapping(about: Field[Any]) -> bool:
    return about.default_factory is not MISSING and isinstance(about.default_factory(), dict)


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise ValueError, with similar keys, if an override (even with `+`) sets an unknown key."""
    parsed = list(map(_parsed, overrides))
    groups = _groups()
    for override in parsed:
        key = override.key_or_group
        if key in groups or key.split(".")[0].split("/")[0] == "hydra":
            continue
        valid = _keys(_schema())
        if key not in valid and not _is_in_mapping(key):
            raise ValueError(f"no such key: {key}; {_nearest(key, valid, groups)}")
        if override.is_delete():
            raise ValueError(f"~{key}: keys cannot be deleted; set another value")


def _parsed(override: str) -> Override:
    """Return what Hydra reads in an override; ValueError, if it helps with how to quote the value."""
    parser = OverridesParser.create()
    try:
        return parser.parse_override(override)
    except HydraException as error:
        key, found, value = override.partition("=")
        quoted = f"{key}='{value}'" if found else ""
        try:
            parser.parse_override(quoted)
        except HydraException:
            raise ValueError(f"{override}: not an override of the form key=value: {_one_line(error)}") from error
        way_out = f'quote the value for Hydra, and all of it for the shell: "{quoted}"'
        raise ValueError(f"{override}: its value has characters with a special meaning in Hydra; {way_out}") from error


def _in_home(merged: Any) -> None:
    """Replace a ~ with which a path begins by the home folder, as a shell would have done."""
    for name in PATHS:
        value = OmegaConf.select(merged, name)
        if isinstance(value, str) and re.match(r"~\w*(/|$)", value):
            OmegaConf.update(merged, name, os.path.expanduser(value))


def validate(composed: DictConfig) -> Config:
    """Convert what Hydra composed to a Config; ValueError for an unknown key or a bad value."""
    schema = _schema()
    for label, option in (OmegaConf.select(composed, "data.text.labels") or {}).items():
        if isinstance(option, bool):
            raise ValueError(f"data.text.labels.{label}: YAML reads yes and no as {option}; write 'yes' and 'no'")
    sections = {k: v for k, v in composed.items() if k != "hydra"}
    given: Any = OmegaConf.to_container(composed.recipe)
    sections["recipe"] = {k: v for k, v in given.items() if v != DRAWN}
    try:
        merged = OmegaConf.merge(schema, sections)
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        valid = _keys(schema)
        if error.full_key and error.full_key not in valid and not _is_in_mapping(error.full_key):
            raise ValueError(f"no such key: {error.full_key}; {_nearest(error.full_key, valid, set())}") from error
        raise ValueError(f"{error.full_key}: {_one_line(error)}") from error
    _in_home(merged)
    for name, about in keys().items():
        if not name.startswith("recipe."):  # `Recipe.check` checks these, below
            _check(name, OmegaConf.select(merged, name), about)
    if merged.finetune.decode == "gpu" and merged.finetune.augment != "gpu":
        raise ValueError("finetune.decode=gpu needs finetune.augment=gpu: decoded images stay on the GPU")
    if not re.fullmatch(r"[\w.+-]+", merged.name) or merged.name.startswith("."):
        raise ValueError(f"name={merged.name}: expected a folder name of letters, digits, _ . + and -")
    for line in merged.cluster.options:
        if not line.startswith("-"):
            raise ValueError(f"cluster.options: {line} is not an option of sbatch; expected --option=value")
    limits.check(sections["cluster"], merged.cluster)
    for alpha in merged.evaluate.wise_ft:
        if not 0 <= alpha <= 1:
            raise ValueError(f"evaluate.wise_ft={list(merged.evaluate.wise_ft)}: expected numbers from 0 to 1")
    known = [k for k in Recipe.names() if given.get(k, "???") not in ("???", DRAWN)]
    fixed: Any = OmegaConf.to_container(OmegaConf.masked_copy(merged.recipe, known))
    _check_recipe(fixed, merged)
    if merged.cluster.scratch is not None:
        merged.runs, merged.data.dir = (str(Path(merged.cluster.scratch) / p) for p in (merged.runs, merged.data.dir))
    names = [f.name for f in fields(Config) if f.name not in ("recipe", "overrides")]
    parts: dict[str, Any] = {name: OmegaConf.select(merged, name) for name in names}
    parts = {k: OmegaConf.to_object(v) if isinstance(v, DictConfig) else v for k, v in parts.items()}
    return Config(recipe=fixed, **parts)


def _check_recipe(fixed: dict[str, Any], merged: Any) -> None:
    """Raise ValueError if a hyperparameter that all recipes share is wrong, alone or beside another key."""
    for key, value in fixed.items():
        Recipe.check(key, value)
    if fixed.get("epochs") is not None and fixed.get("steps") is not None:
        check_length(fixed["epochs"], fixed["steps"])
    check_select(fixed.get("select", "last"), merged.finetune.evaluate_every)
    resize, side = merged.evaluate.resize, merged.evaluate.image_size or merged.model.image_size
    if resize is not None and resize < side:
        raise ValueError(f"evaluate.resize={resize}: expected at least the {side} pixels of the crop")


def _check(name: str, value: Any, about: Field[Any]) -> None:
    """Raise ValueError if the value of the key `name` is none of its choices or is too small."""
    choices, own = about.metadata["choices"], about.metadata["own"]
    if choices and value not in choices and not (own and ":" in str(value)):
        more = ", or your own module:object" if own else ""
        raise ValueError(f"{name}={value}: expected one of {', '.join(choices)}{more}")
    least = about.metadata["at_least"]
    if least is not None and value is not None and value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")


@functools.cache
def keys() -> dict[str, Field[Any]]:
    """Return {dotted key such as "soup.seed": its dataclass field}, in the order of Config."""
    return dict([*_keys_below(Config, ""), *_keys_below(Recipe, "recipe.")])


def _keys_below(section: Any, prefix: str) -> Iterator[tuple[str, Field[Any]]]:
    kinds = get_type_hints(section)
    for about in fields(section):
        if is_dataclass(kind := kinds[about.name]):
            yield from _keys_below(kind, f"{prefix}{about.name}.")
        elif about.metadata:
            yield prefix + about.name, about


def defaults() -> dict[str, Any]:
    """Return all defaults as nested dicts; "???" marks required keys and drawn hyperparameters."""
    tree: dict[str, Any] = {}
    for name, about in keys().items():
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        made = about.default_factory() if about.default_factory is not MISSING else about.default
        drawn = not about.metadata.get("same", True)  # a key of the recipe that the search may draw
        node[last] = "???" if made is MISSING or drawn else made
    return tree


ConfigStore.instance().store("defaults", defaults())


@functools.cache
def _schema() -> DictConfig:
    """Return the types of all keys as an OmegaConf schema. Cached: callers must not change it."""
    sections = {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}
    nodes: dict[str, Any] = {name: OmegaConf.structured(kind) for name, kind in sections.items()}
    nodes["recipe"] = OmegaConf.structured(Recipe)
    OmegaConf.set_readonly(nodes["recipe"], False)  # Recipe is frozen, but is filled here
    schema = OmegaConf.structured(TopLevel)
    for name, node in nodes.items():
        OmegaConf.update(schema, name, node, force_add=True)
    return schema


def _keys(schema: DictConfig) -> list[str]:
    """Return all dotted keys and all sections below the top level, such as data.sources."""
    keys: list[str] = []
    for name in map(str, schema):
        node = schema._get_node(name)
        if isinstance(node, DictConfig) and is_dataclass(OmegaConf.get_type(node)):
            below = _keys(node)
            keys += [f"{name}.{k}" for k in dict.fromkeys([*(k.split(".")[0] for k in below), *below])]
        else:
            keys.append(name)
    return keys


def _nearest(key: str, valid: list[str], groups: set[str]) -> str:
    section = key.split(".")[0]
    same = [k for k in valid if k.split(".")[0] == section]
    if same:
        near = difflib.get_close_matches(key, same, n=1, cutoff=0.85)
    else:
        near = [k for k in valid if k.rpartition(".")[2] == key]  # its section is missing, such as for seed
        near = near or difflib.get_close_matches(key, [*valid, *sorted(groups)], n=1, cutoff=0.7)
    choices = same or sorted({k.split(".")[0] for k in valid} | groups)
    return (f"did you mean {' or '.join(near)}? " if near else "") + f"Valid keys: {', '.join(choices)}"


def _one_line(error: BaseException) -> str:
    if "is not a ListConfig" in str(error):
        return "expected a list, such as [a,b]"
    if re.search(r"Key .* is incompatible with \(str\)", str(error)):
        return "the keys of this mapping are texts; write them in quotation marks, such as {'1': positive}"
    text = str(error).split(" search path:")[0]
    if missing := re.search(r"Could not find '(\w+)/(.+?)'\s+Available options in '\w+':(.*)Config$", text, re.DOTALL):
        group, name, options = missing.groups()
        return f"{group}={name}: there is no conf/{group}/{name}.yaml; choose from {', '.join(options.split())}"
    return " ".join(text.removesuffix("Config").split("full_key:")[0].split())
