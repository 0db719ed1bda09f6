"""The schema: a dataclass for every section of the configuration, with defaults, choices and least values.

Adding a key is a line here and, for its default in the pipeline, one in conf/. `config.load` composes and validates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsoups.disk.paths import Run


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
    decode: str = "turbo"  # of training images: pil, turbo, or gpu; see data.decoders
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
    wise_ft: list[float] | None = None
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
    """`modelsoups pretrain`: makes the miniature's pre-trained models anew; not part of the pipeline."""

    labels: bool = False  # IconViT, on names as labels, instead of IconCLIP, on captions
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
    "finetune.decode": ("pil", "turbo", "gpu"),
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
