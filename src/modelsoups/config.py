"""The schema of every configuration key, and load(): YAML files plus overrides to one validated Config.

The composed configuration is merged into the dataclasses below, so that a key which no dataclass declares is refused
even when it was added with `+` (Hydra alone accepts it silently).
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modelsoups.core.types import Recipe
from modelsoups.runs import Run


@dataclass
class ModelConfig:
    """The pre-trained encoder. library: iconclip (in the package), open_clip or timm (any name of theirs)."""

    name: str
    library: str
    tag: str | None = (
        None  # pretrained tag of open_clip or timm, or a file; null: no weights (a checkpoint brings them)
    )
    image_size: int = 224
    normalize_features: bool = True  # CLIP's heads see unit vectors; timm backbones do not


@dataclass
class SourcesConfig:
    """Where ImageNet's files lie that are not found under data.root; null: there."""

    train: str | None = None  # for the hold-out too
    val: str | None = None
    v2: str | None = None
    r: str | None = None
    sketch: str | None = None
    objectnet: str | None = None
    a: str | None = None
    v2_top_images: str | None = None
    v2_threshold: str | None = None
    real: str | None = None  # real.json; null: as timm ships it
    multilabel: str | None = None  # human_accuracy_v3.0.0.json, not found by itself


@dataclass
class DataConfig:
    """The data sets of an experiment and where their shards lie. What follows `extra` is for library=imagenet."""

    name: str
    library: str  # iconnet (rendered), imagenet (its files, in any form) or folders (a folder a class)
    dir: str  # shards, made by `prepare`
    seed: int = 0  # of rendering; unused for files
    train: str = "train"
    holdout: str = "holdout"
    test: str = "test"
    shifts: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)  # more test sets, not part of the mean over the shifts
    root: str | None = None  # a folder with the files as they were downloaded or unpacked
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    holdout_per_class: int = 26
    holdout_file: str | None = None  # the authors' imagenet_98_idxs.npy; null: by hash of the file names
    train_resize: int | None = None  # shorter side of training images in pixels; null: the original bytes
    check_counts: bool = True  # refuse a set that lacks images
    verify: bool = False  # decode every image while preparing
    shard_images: int = 1000
    workers: int | None = None  # processes of prepare; null: one a core


@dataclass
class HeadsConfig:
    """The classification head before fine-tuning. init: lp (linear probe, Kumar et al. 2022) or zeroshot."""

    init: str = "lp"
    lp_epochs: int = 20
    lp_lr: float = 0.05
    lp_batch_size: int = 512
    lp_weight_decay: float = 0.0
    seed: int = 0


@dataclass
class SweepConfig:
    """Which recipes: index i of the draw is a pure function of (search file, seed, i)."""

    search: str  # a file under sweeps/, or a path
    seed: int = 0
    count: int | None = None  # null: as many as the search file says


@dataclass
class FinetuneConfig:
    parallel: int | None = None  # runs side by side, one core each; null: one per core
    threads: int = 1  # of each run; results depend on it, so it is not the number of cores
    decode: str = "turbo"  # of training images: pil, or turbo, three times as fast; see data.decode
    skip_corrupt: int = 0  # images that cannot be decoded and training goes on without; one more is an error
    at_once: int | None = None  # images that fit a GPU; a larger share of a batch is taken in parts; null: all
    checkpoint_every: int = 200  # steps between checkpoints for resuming
    log_every: int = 20  # steps between lines of metrics.jsonl
    precision: str = "auto"  # fp32, bf16 (autocast; weights stay fp32); auto: bf16 on a GPU
    compile: str = "auto"  # none, default, reduce-overhead (torch.compile's modes); auto: default on a GPU
    augment: str = "cpu"  # gpu: drawn by the processes that decode, computed on the GPU
    deterministic: bool = False  # on a GPU, the same bits each time; a CPU gives them anyway


@dataclass
class EvaluateConfig:
    batch_size: int = 128
    wise_ft: list[float] = field(default_factory=lambda: [0.5, 0.75])  # alpha towards the fine-tuned weights


@dataclass
class SoupConfig:
    minimum: int = 2  # complete ingredients needed; fewer is an error
    orders: int = 3  # random orders of the greedy soup
    learned_epochs: int = 3
    learned_lr: float = 0.1
    learned_batch_size: int = 128
    seed: int = 0
    write: list[str] = field(default_factory=lambda: ["greedy"])  # soups also written as .safetensors
    also: list[str] = field(default_factory=list)  # more methods of core.methods, without options


@dataclass
class AnalyseConfig:
    """The paper's figures and tables beyond Table 3; see conf/analyse.yaml."""

    which: list[str] = field(default_factory=list)  # empty: every analysis
    in_pipeline: bool = False
    pools: dict[str, list[str]] = field(default_factory=dict)  # name -> the overrides that make a run of it
    rates: list[float] = field(default_factory=lambda: [3e-5, 1e-5])
    epochs: int = 10
    grid: int = 11
    images: int | None = 2000
    equation_images: int | None = 500
    alphas: list[float] = field(default_factory=lambda: [i / 10 for i in range(11)])
    orders: int = 3
    pairs: int = 66


@dataclass
class ClusterConfig:
    """A SLURM cluster as `modelsoups submit` uses it; see conf/submit.yaml. null leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "24:00:00"  # of one task of the sweep, as sbatch writes it
    stage_time: str = "08:00:00"  # of the other stages
    nodes: int = 1  # of one ingredient
    gpus_per_node: int = 1
    ranks_per_node: int | None = None  # null: one a GPU
    cpus_per_node: int = 8
    mem: str | None = None
    concurrent: int | None = None  # ingredients at once
    notice: int = 120  # seconds before the time limit
    options: list[str] = field(default_factory=list)  # further lines for sbatch
    scratch: str | None = None  # folder that relative `runs` and `data.dir` lie in
    setup: list[str] = field(default_factory=list)  # shell lines before Python
    prefix: str = ""  # of the Python command: a container's
    python: str | None = None  # null: the Python that submits

    @property
    def ranks(self) -> int:
        """Training processes of a node."""
        return self.ranks_per_node or self.gpus_per_node or 1


@dataclass
class SubmitConfig:
    """`modelsoups submit`."""

    dry_run: bool = False  # print what would be submitted, and do nothing


@dataclass
class PlanConfig:
    """`modelsoups plan`; null takes what the run folder and the data say."""

    images_per_second: float | None = None  # of one GPU
    train_images: int | None = None
    parameters: int | None = None  # of the classifier


@dataclass
class PretrainConfig:
    """`modelsoups pretrain`: makes the miniature's CLIP anew; not part of the pipeline."""

    out: str = "runs/pretrain"
    seed: int = 0
    steps: int | None = None  # null: as the shipped weights were made


@dataclass
class ExportConfig:
    """`modelsoups export`."""

    row: str = "greedy"  # a soup of runs/<name>/soups, or an ingredient (003)
    out: str | None = None  # folder; null: runs/<name>/export/<row>
    push: str | None = None  # repository of the Hugging Face hub: user/name
    private: bool = True


@dataclass
class TrackConfig:
    """Where in Weights & Biases; see `wandb`."""

    project: str = "modelsoups"
    entity: str | None = None  # null: the login's own
    artifacts: bool = False  # also log the soups, and the ingredients they are made of, as artifacts


@dataclass
class TopLevel:
    """The keys outside any section."""

    name: str  # of the experiment: names its run and results folders
    runs: str
    results: str
    ingredient: int | None  # finetune this one alone; null: every one of the draw that is not complete
    protocol: str  # paper, or released: as the authors' code does where it deviates from the paper
    pool: str  # finetuned (by this run) or imported (`modelsoups import-released`; heads, sweep, finetune do nothing)
    wandb: str  # auto (online with a login, else offline), online, offline or disabled


@dataclass
class Config(TopLevel):
    model: ModelConfig
    data: DataConfig
    heads: HeadsConfig
    sweep: SweepConfig
    recipe: dict[str, Any]  # the keys of Recipe that are fixed; the search draws the others
    finetune: FinetuneConfig
    evaluate: EvaluateConfig
    soup: SoupConfig
    analyse: AnalyseConfig
    cluster: ClusterConfig
    submit: SubmitConfig
    plan: PlanConfig
    pretrain: PretrainConfig
    track: TrackConfig
    export: ExportConfig
    overrides: tuple[str, ...] = ()  # the command line's, as load() got them

    @property
    def run(self) -> Run:
        return Run(Path(self.runs), Path(self.results))


CHOICES = {
    "pool": ("finetuned", "imported"),
    "wandb": ("auto", "online", "offline", "disabled"),
    "model.library": ("iconclip", "open_clip", "timm"),
    "data.library": ("iconnet", "imagenet", "folders"),
    "protocol": ("paper", "released"),
    "heads.init": ("lp", "zeroshot"),
    "finetune.decode": ("pil", "turbo"),
    "finetune.precision": ("auto", "fp32", "bf16"),
    "finetune.compile": ("auto", "none", "default", "reduce-overhead"),
    "finetune.augment": ("cpu", "gpu"),
}
AT_LEAST = {
    "finetune.parallel": 1,
    "finetune.threads": 1,
    "finetune.at_once": 2,
    "finetune.skip_corrupt": 0,
    "ingredient": 0,
    "finetune.checkpoint_every": 1,
    "finetune.log_every": 1,
    "evaluate.batch_size": 1,
    "cluster.nodes": 1,
    "cluster.gpus_per_node": 0,
    "cluster.ranks_per_node": 1,
    "cluster.cpus_per_node": 1,
    "cluster.concurrent": 1,
    "cluster.notice": 0,
    "plan.images_per_second": 0.001,
    "plan.train_images": 1,
    "plan.parameters": 1,
    "sweep.count": 1,
    "sweep.seed": 0,
    "data.seed": 0,
    "data.holdout_per_class": 1,
    "data.train_resize": 32,
    "data.shard_images": 1,
    "data.workers": 1,
    "heads.lp_epochs": 1,
    "heads.lp_batch_size": 1,
    "soup.minimum": 1,
    "soup.orders": 1,
    "soup.learned_epochs": 1,
    "soup.learned_batch_size": 1,
    "analyse.epochs": 1,
    "analyse.grid": 2,
    "analyse.images": 1,
    "analyse.equation_images": 1,
    "analyse.orders": 1,
    "analyse.pairs": 1,
}


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed package, or at the top of a source checkout."""
    return _shipped("conf")


def sweeps_dir() -> Path:
    return _shipped("sweeps")


def slurm_dir() -> Path:
    """The sbatch scripts that `modelsoups submit` fills in."""
    return _shipped("slurm")


def own_conf() -> list[str]:
    """The override that lets Hydra find files of yours, conf/cluster/mine.yaml, in the folder you work in."""
    folder = Path("conf").resolve()
    return [f"hydra.searchpath=['file://{folder}']"] if folder.is_dir() and folder != conf_dir() else []


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parents[1] / name


def load(overrides: Sequence[str] = ()) -> Config:
    """Compose conf/config.yaml with Hydra overrides and validate; ValueError in one line names the key at fault."""
    check_overrides(overrides)
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", overrides=[*own_conf(), *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_line(error)) from error
    return dataclasses.replace(validate(composed), overrides=tuple(overrides))


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of keys that do not exist, with or without `+`, and name the nearest ones that do."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"not an override of the form key=value: {_one_line(error)}") from error
    groups = {d.name for d in conf_dir().iterdir() if d.is_dir()}
    for override in parsed:
        key = override.key_or_group
        if key in groups or key.split(".")[0].split("/")[0] == "hydra":
            continue
        valid = _keys(_schema())
        if key not in valid:
            raise ValueError(f"no such key: {key}; {_nearest(key, valid, groups)}")
        if override.is_delete():
            raise ValueError(f"~{key}: keys cannot be deleted; set another value")


def validate(composed: DictConfig) -> Config:
    """Merge a composed configuration into the schema and check values; see load()."""
    schema = _schema()
    try:
        merged = OmegaConf.merge(schema, {k: v for k, v in composed.items() if k != "hydra"})
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        if error.full_key and error.full_key not in (valid := _keys(schema)):
            raise ValueError(f"no such key: {error.full_key}; {_nearest(error.full_key, valid, set())}") from error
        raise ValueError(f"{error.full_key}: {_one_line(error)}") from error
    for key, allowed in CHOICES.items():
        if (value := OmegaConf.select(merged, key)) not in allowed:
            raise ValueError(f"{key}={value}: expected one of {', '.join(allowed)}")
    for key, least in AT_LEAST.items():
        if (value := OmegaConf.select(merged, key)) is not None and value < least:
            raise ValueError(f"{key}={value}: expected at least {least}")
    if not re.fullmatch(r"[\w.+-]+", merged.name) or merged.name.startswith("."):
        raise ValueError(f"name={merged.name}: expected a folder name of letters, digits, _ . + and -")
    for line in merged.cluster.options:
        if not line.startswith("-"):
            raise ValueError(f"cluster.options: {line} is not an option of sbatch; expected --option=value")
    for alpha in merged.evaluate.wise_ft:
        if not 0 <= alpha <= 1:
            raise ValueError(f"evaluate.wise_ft={list(merged.evaluate.wise_ft)}: expected numbers from 0 to 1")
    given = [k for k in Recipe.names() if not OmegaConf.is_missing(composed.recipe, k)]  # merged has defaults for ???
    fixed: Any = OmegaConf.to_container(OmegaConf.masked_copy(merged.recipe, given))
    for key, value in fixed.items():
        Recipe.check(key, value)
    if merged.cluster.scratch is not None:
        merged.runs, merged.data.dir = (str(Path(merged.cluster.scratch) / p) for p in (merged.runs, merged.data.dir))
    names = [f.name for f in fields(Config) if f.name not in ("recipe", "overrides")]
    parts: dict[str, Any] = {name: OmegaConf.select(merged, name) for name in names}
    parts = {k: OmegaConf.to_object(v) if isinstance(v, DictConfig) else v for k, v in parts.items()}
    return Config(recipe=fixed, **parts)


def _schema() -> DictConfig:
    sections = {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}
    nodes: dict[str, Any] = {name: OmegaConf.structured(kind) for name, kind in sections.items()}
    nodes["recipe"] = OmegaConf.structured(Recipe)
    OmegaConf.set_readonly(nodes["recipe"], False)  # Recipe is frozen, and composition must be able to fill it
    schema = OmegaConf.structured(TopLevel)
    for name, node in nodes.items():
        OmegaConf.update(schema, name, node, force_add=True)
    return schema


def _keys(schema: DictConfig) -> list[str]:
    """Every key with its dots; a section inside a section counts as a key too, for it can be set as a whole."""
    keys: list[str] = []
    for name in map(str, schema):
        node = schema._get_node(name)
        if isinstance(node, DictConfig):
            below = _keys(node)
            keys += [f"{name}.{k}" for k in dict.fromkeys([*(k.split(".")[0] for k in below), *below])]
        else:
            keys.append(name)
    return keys


def _nearest(key: str, valid: list[str], groups: set[str]) -> str:
    section = key.split(".")[0]
    same = [k for k in valid if k.split(".")[0] == section]
    near = difflib.get_close_matches(key, same or [*valid, *sorted(groups)], n=1, cutoff=0.85)
    choices = same or sorted({k.split(".")[0] for k in valid} | groups)
    return (f"did you mean {near[0]}? " if near else "") + f"Valid keys: {', '.join(choices)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split(" search path:")[0].removesuffix("Config").split("full_key:")[0].split())
