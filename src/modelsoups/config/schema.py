"""The definition of every configuration key: its type, default, bounds, and a sentence that explains it.

The files in conf/ contain only what a data set, model, cluster or experiment changes. To add a key, add a line here.
`config.compose` composes and validates; `config.reference` prints the keys for `--help` and the docs.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from modelsoups.disk.paths import Run


def key(
    sentence: str,
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    choices: Sequence[str] = (),
    own: bool = False,
) -> Any:
    """Define a key of the configuration; without a default it is required. at_least does not apply to null.

    own: besides the choices, the key accepts module:object in the user's own file (`config.registry`).
    """
    about = {"sentence": sentence, "at_least": at_least, "choices": tuple(choices), "own": own}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)


@dataclass
class ModelConfig:
    """The pre-trained encoder."""

    name: str = key("name of the model in its library: any CLIP of open_clip, any backbone of timm")
    library: str = key(
        "where the model comes from; iconclip ships with this package",
        choices=("iconclip", "open_clip", "timm"),
        own=True,
    )
    tag: str | None = key(
        "pre-trained weights: a tag of open_clip or timm, or a file; null: none, a checkpoint contains them all", None
    )
    image_size: int = key("side of the input images in pixels", 224)
    normalize_features: bool = key("scale features to unit length, as CLIP does and timm's backbones do not", True)


@dataclass
class SourcesConfig:
    """Paths of ImageNet sets outside data.root; null: look in data.root."""

    train: str | None = key("ImageNet's training images, from which the hold-out is also taken", None)
    val: str | None = key("ImageNet's validation images", None)
    v2: str | None = key("ImageNetV2, matched frequency", None)
    r: str | None = key("ImageNet-R", None)
    sketch: str | None = key("ImageNet-Sketch", None)
    objectnet: str | None = key("ObjectNet (its licence forbids training or tuning on it)", None)
    a: str | None = key("ImageNet-A", None)
    v2_top_images: str | None = key("ImageNetV2, top images", None)
    v2_threshold: str | None = key("ImageNetV2, threshold 0.7", None)
    real: str | None = key("real.json with the ReaL labels; null: the copy that timm ships", None)
    multilabel: str | None = key("human_accuracy_v3.0.0.json; used only if its path is given", None)


@dataclass
class DataConfig:
    """The data sets of an experiment, and the folder of their prepared shards."""

    name: str = key("name of the data in reports and model cards")
    library: str = key(
        "how the sets are prepared: by the miniature's renderer, from ImageNet's files, or from class folders",
        choices=("iconnet", "imagenet", "folders"),
        own=True,
    )
    dir: str = key("folder of the prepared sets")
    seed: int = key("seed of the miniature's renderer; unused for files", 0, at_least=0)
    train: str = key("the set that models are trained on", "train")
    holdout: str = key("the set on which every choice is made", "holdout")
    test: str = key("the in-distribution test set", "test")
    shifts: list[str] = key("the test sets under distribution shift, whose mean is reported", [])
    extra: list[str] = key("more test sets, which do not count in the mean of the shifts", [])
    root: str | None = key("folder of the original files, as they were downloaded or unpacked", None)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    holdout_per_class: int = key("images of each class that are held out of the training set", 26, at_least=1)
    holdout_file: str | None = key(
        "the authors' imagenet_98_idxs.npy, which their released models need; null: split by hash of the file names",
        None,
    )
    train_resize: int | None = key(
        "shorter side of the training images in pixels, for smaller and faster shards; null: the original files",
        None,
        at_least=32,
    )
    check_counts: bool = key("reject a set with missing images", True)
    verify: bool = key("decode every image while preparing, which takes hours of CPU time on ImageNet", False)
    shard_images: int = key("images in a shard", 1000, at_least=1)
    workers: int | None = key("processes of `prepare`; null: one for each core", None, at_least=1)


@dataclass
class HeadsConfig:
    """The classification head before fine-tuning (section 3.1)."""

    init: str = key("linear probe, as in the paper (LP-FT), or the zero-shot head", "lp", choices=("lp", "zeroshot"))
    lp_epochs: int = key("epochs of the linear probe", 20, at_least=1)
    lp_lr: float = key("learning rate of the linear probe", 0.05)
    lp_batch_size: int = key("batch size of the linear probe", 512, at_least=1)
    lp_weight_decay: float = key("weight decay of the linear probe", 0.0)
    seed: int = key("seed of the linear probe's order of images", 0)


@dataclass
class SweepConfig:
    """The draw of recipes: recipe i is a pure function of the search file, the seed and i."""

    search: str = key("the search: the name of a file in sweeps/ without its suffix, or a path")
    seed: int = key("seed of the draw", 0, at_least=0)
    count: int | None = key("number of recipes; null: the number in the search file", None, at_least=1)


@dataclass
class FinetuneConfig:
    """How fine-tuning is computed; the hyperparameters are in the recipe."""

    parallel: int | None = key("processes in parallel; null: one per GPU or, without GPUs, per core", None, at_least=1)
    threads: int = key("threads of each process; results depend on it", 1, at_least=1)
    at_once: int | None = key(
        "images that fit on a GPU; a larger batch is split by gradient accumulation; null: no limit", None, at_least=2
    )
    decode: str = key(
        "decoder of training JPEGs: PIL, libjpeg-turbo (faster, within 3 of 255 levels of PIL) or nvJPEG on the GPU",
        "turbo",
        choices=("pil", "turbo", "gpu"),
    )
    skip_corrupt: int = key("undecodable images to skip before stopping with an error", 0, at_least=0)
    checkpoint_every: int = key("steps between checkpoints for resuming", 200, at_least=1)
    log_every: int = key("steps between lines of metrics.jsonl", 20, at_least=1)
    precision: str = key(
        "bf16 is autocast with float32 weights; auto: bf16 on a GPU, fp32 on a CPU",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    compile: str = key(
        "mode of torch.compile; auto: default on a GPU, none on a CPU",
        "auto",
        choices=("auto", "none", "default", "reduce-overhead"),
    )
    augment: str = key("where images are augmented; the random draws are the same", "cpu", choices=("cpu", "gpu"))
    deterministic: bool = key("slower training with bit-identical results on a GPU; on a CPU results always are", False)


@dataclass
class EvaluateConfig:
    """How models are evaluated."""

    batch_size: int = key("images in a batch", 128, at_least=1)
    wise_ft: list[float] = key("alphas of WiSE-FT towards the fine-tuned weights, 0 to 1 (appendix D)", [0.5, 0.75])


@dataclass
class SoupConfig:
    """Which soups are chosen, and with which options."""

    minimum: int = key("smallest number of complete ingredients; fewer is an error", 2, at_least=1)
    orders: int = key("random orders of the greedy soup", 3, at_least=1)
    learned_epochs: int = key("epochs of the learned soups", 3, at_least=1)
    learned_lr: float = key("learning rate of the learned soups", 0.1)
    learned_batch_size: int = key("batch size of the learned soups", 128, at_least=1)
    seed: int = key("seed of the learned soups and of the random order of Figure B.1", 0)
    write: list[str] = key("soups whose mixed weights are also written as .safetensors", ["greedy"])
    also: list[str] = key("more methods, one row each: names in the registry of methods, or module:function", [])


@dataclass
class AnalyseConfig:
    """The paper's figures and tables beyond Table 3."""

    which: list[str] = key("analyses to run, such as figure_2 or table_L3; empty: all that the models allow", [])
    in_pipeline: bool = key("also run the analyses when `modelsoups` runs without a stage", False)
    pools: dict[str, list[str]] = key("additional runs to compare: name -> the overrides of the run", {})
    rates: list[float] = key("the two learning rates of Figures 2 and F.1 and of appendix L", [3e-5, 1e-5])
    epochs: int = key("epochs of the models at these learning rates", 10, at_least=1)
    grid: int = key("points on a side of an error landscape", 11, at_least=2)
    images: int | None = key("images of each set that are used; null: all of them", 2000, at_least=1)
    equation_images: int | None = key("images for equation (1), which costs a dozen evaluations", 500, at_least=1)
    alphas: list[float] = key("interpolation coefficients", [i / 10 for i in range(11)])
    wise_ft: list[float] | None = key("interpolation coefficients of Figure D.1; null: analyse.alphas", None)
    orders: int = key("random orders of Figures B.1 and H.1 to H.4", 3, at_least=1)
    pairs: int = key("pairs of models, at most, in Figures 3 and 4", 66, at_least=1)


@dataclass
class ClusterConfig:
    """A SLURM cluster. If a value is null, the cluster chooses."""

    partition: str | None = key("partition", None)
    account: str | None = key("account", None)
    qos: str | None = key("quality of service", None)
    time: str = key("time limit of a task of the sweep; an unfinished task continues in the next", "24:00:00")
    stage_time: str = key("time limit of prepare, heads, evaluate, soup and report", "08:00:00")
    nodes: int = key("nodes for one ingredient", 1, at_least=1)
    gpus_per_node: int = key("GPUs on a node; 0: train on CPUs", 1, at_least=0)
    ranks_per_node: int | None = key("training processes on a node; null: one for each GPU", None, at_least=1)
    cpus_per_node: int = key("cores of a node", 8, at_least=1)
    mem: str | None = key("memory of a node in sbatch's notation, such as 64G", None)
    concurrent: int | None = key("ingredients that train at the same time; null: no limit", None, at_least=1)
    notice: int = key("seconds before the time limit at which a task saves its state and is requeued", 120, at_least=0)
    options: list[str] = key("additional options of sbatch, each as --option=value", [])
    scratch: str | None = key("folder for runs and prepared data; null: the current folder", None)
    setup: list[str] = key("shell lines that run before Python, such as `module load cuda`", [])
    prefix: str = key("words before the Python command, such as `apptainer exec --nv image.sif`", "")
    python: str | None = key("the Python interpreter of the jobs; null: the one that runs submit", None)

    @property
    def ranks(self) -> int:
        """The number of training processes on a node."""
        return self.ranks_per_node or self.gpus_per_node or 1


@dataclass
class SubmitConfig:
    """Options of `modelsoups submit`."""

    dry_run: bool = key("print the jobs and their scripts, and submit nothing", False)


@dataclass
class PlanConfig:
    """Options of `modelsoups plan`; null values are read from the run folder or the data."""

    images_per_second: float | None = key("training throughput of one GPU", None, at_least=0.001)
    train_images: int | None = key("images of the training set", None, at_least=1)
    parameters: int | None = key("parameters of the classifier", None, at_least=1)


@dataclass
class PretrainConfig:
    """Options of `modelsoups pretrain`, which retrains the miniature's pre-trained models."""

    labels: bool = key("train IconViT on labels instead of IconCLIP on captions", False)
    out: str = key("folder of the result", "runs/pretrain")
    seed: int = key("seed of the pre-training", 0)
    steps: int | None = key("training steps; null: the number for the shipped weights", None)


@dataclass
class ExportConfig:
    """Options of `modelsoups export`, which writes a soup as a folder for open_clip or timm."""

    row: str = key("what to export: a soup in runs/<name>/soups, or an ingredient such as 003", "greedy")
    out: str | None = key("the folder to write; null: runs/<name>/export/<row>", None)
    push: str | None = key("repository of the Hugging Face hub, user/name; needs a login there", None)
    private: bool = key("create a new repository as private", True)


@dataclass
class TrackConfig:
    """Options of Weights & Biases; the key wandb turns it on and off."""

    project: str = key("W&B project", "modelsoups")
    entity: str | None = key("W&B user or team; null: that of the login", None)
    artifacts: bool = key("also log the soups and their ingredients as artifacts", False)


@dataclass
class TopLevel:
    """The keys outside any section."""

    name: str = key("name of the experiment, and of its folders of runs and results")
    runs: str = key("folder of the run", "runs/${name}")
    results: str = key("folder of the results", "results/${name}")
    ingredient: int | None = key("fine-tune only this ingredient; null: all that are not complete", None, at_least=0)
    protocol: str = key(
        "what to follow if the authors' code and the paper differ: the paper (crop ObjectNet's border, let ties join"
        " the greedy soup), or their released code",
        "paper",
        choices=("paper", "released"),
    )
    task: str = key("what the models learn", "images", choices=("images",), own=True)
    pool: str = key(
        "source of the ingredients: this run's fine-tuning, or `modelsoups import-released`",
        "finetuned",
        choices=("finetuned", "imported"),
    )
    wandb: str = key(
        "Weights & Biases; auto: online with a login, otherwise offline in runs/<name>/wandb",
        "auto",
        choices=("auto", "online", "offline", "disabled"),
    )


@dataclass(kw_only=True)
class Config(TopLevel):
    """The complete configuration of a command."""

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
    overrides: tuple[str, ...] = ()  # the overrides that were given to load()

    @property
    def run(self) -> Run:
        return Run(Path(self.runs), Path(self.results))
