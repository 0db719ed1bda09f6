"""The definition of every configuration key: type, default, bounds, and an explanatory sentence.

The sections `model` and `data` are in the files of these names. The YAML files in conf/ contain
only values that differ from these defaults. To add a key, add a line here or there.
`config.compose` checks values; `config.reference` prints the keys for `--help` and the docs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.config.data import DataConfig
from modelsoups.config.key import key
from modelsoups.config.models import ModelConfig
from modelsoups.disk.paths import Run


@dataclass
class HeadsConfig:
    """Options of the classification head before fine-tuning (section 3.1 of the paper)."""

    init: str = key("lp: linear probe, as in the paper; zeroshot: CLIP's own head", "lp", choices=("lp", "zeroshot"))
    lp_epochs: int = key("epochs of the linear probe", 20, at_least=1)
    lp_lr: float = key("learning rate of the linear probe", 0.05)
    lp_batch_size: int = key("batch size of the linear probe", 512, at_least=1)
    lp_weight_decay: float = key("weight decay of the linear probe", 0.0)
    lp_loss: str = key(
        "loss of the linear probe: softmax, or recipe: the loss of the recipe that starts from the probe, so that"
        " recipe.loss=binary gets a probe of its own (J.2.3)",
        "softmax",
        choices=("softmax", "recipe"),
    )
    seed: int = key("seed of the order of examples in the linear probe's training", 0)


@dataclass
class SweepConfig:
    """Options of drawing hyperparameters; draw i depends only on the search file, seed and i."""

    search: str = key("search file: the name of a file in sweeps/ without its suffix, or a path")
    seed: int = key("seed of the draw of recipes", 0, at_least=0)
    count: int | None = key("number of models to fine-tune; null: the number in the search file", None, at_least=1)


@dataclass
class FinetuneConfig:
    """Options of how fine-tuning is computed; its hyperparameters are in the section `recipe`."""

    parallel: int | None = key("number of processes; null: one per GPU or, without GPUs, per core", None, at_least=1)
    threads: int = key("CPU threads of each process; results depend on their number", 1, at_least=1)
    at_once: int | None = key(
        "examples that fit on a GPU at once; larger batches use gradient accumulation; null: no limit", None, at_least=2
    )
    decode: str = key(
        "decoder of training JPEGs: PIL, libjpeg-turbo (faster; values differ by 3 of 255 at most) or, on GPU, nvJPEG",
        "turbo",
        choices=("pil", "turbo", "gpu"),
    )
    share: bool = key(
        "models that train side by side decode each image once; all then have the same order of images (from"
        " data.seed) and start in groups. It takes about 1 MB of memory for each image that is loaded ahead",
        False,
    )
    skip_corrupt: int = key("number of undecodable images to skip before stopping with an error", 0, at_least=0)
    checkpoint_every: int = key("training steps between checkpoints, from which training can resume", 200, at_least=1)
    log_every: int = key("training steps between lines of metrics.jsonl", 20, at_least=1)
    evaluate_every: int | None = key(
        "training steps between evaluations on the hold-out, which evaluations.jsonl lists; null: none",
        None,
        at_least=1,
    )
    precision: str = key(
        "precision of training: bf16 is autocast with float32 weights; auto: bf16 on a GPU, fp32 on a CPU",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    compile: str = key(
        "mode of torch.compile; auto: default on a GPU, none on a CPU",
        "auto",
        choices=("auto", "none", "default", "reduce-overhead"),
    )
    augment: str = key("device that augments images; both make the same random draws", "cpu", choices=("cpu", "gpu"))
    deterministic: bool = key("make GPU training reproducible to the bit, but slower; on CPUs it always is", False)


@dataclass
class EvaluateConfig:
    """Options of the evaluation of models, by default that of CLIP."""

    image_size: int | None = key("side of the images in pixels (J.2.2: 360); null: model.image_size", None, at_least=1)
    resize: int | None = key(
        "size in pixels to which images are resized, before the central square of evaluate.image_size is cropped"
        " (J.2.3: 550); null: evaluate.image_size",
        None,
        at_least=1,
    )
    resize_mode: str = key(
        "which sides become evaluate.resize: the shorter one, or both, which changes the aspect ratio (J.2.3)",
        "shortest",
        choices=("shortest", "squash"),
    )
    batch_size: int = key("examples in a batch", 128, at_least=1)
    wise_ft: list[float] = key("coefficients of the fine-tuned model in WiSE-FT, 0 to 1 (appendix D)", [0.5, 0.75])


@dataclass
class SoupConfig:
    """Options of `modelsoups soup`, which chooses the soups on the hold-out."""

    minimum: int = key("stop with an error if fewer ingredients than this are complete", 2, at_least=1)
    orders: int = key("number of greedy soups that take the ingredients in random order", 3, at_least=1)
    learned_epochs: int | None = key(
        "epochs of every learned soup; null: the method's own (paper: 3; learned_tensors with protocol=released: 5)",
        None,
        at_least=1,
    )
    learned_lr: float | None = key(
        "learning rate of every learned soup; null: the method's own (paper: 0.1; learned_tensors with"
        " protocol=released: 0.05)",
        None,
    )
    learned_batch_size: int | None = key(
        "batch size of every learned soup; null: the method's own (128; learned_tensors with protocol=released: 256)",
        None,
        at_least=1,
    )
    seed: int = key("seed of every soup method that has one, and of the random order of Figure B.1", 0)
    batchnorm: str = key(
        "running statistics of BatchNorm in soups: averaged, or re-estimated on training images; auto: re-estimated"
        " where recipe.batchnorm=live",
        "auto",
        choices=("auto", "averaged", "reestimated"),
    )
    write: list[str] = key("names of the soups whose weights are written as .safetensors", ["greedy"])
    also: list[str] = key("more soup methods: built-in names, or module:function in your own file", [])
    average: str | None = key(
        "average of the weights that soups and ensembles are made of, such as ema-0.999; the best individual"
        " model is then one of all averages (3.3.2); null: trained weights and averages serve for both",
        None,
    )
    initialization: bool = key("choose soups and ensembles from the initial model too, as for ALIGN (J.2.2)", False)


@dataclass
class AnalyseConfig:
    """Options of `modelsoups analyse`: the paper's figures and tables beyond Table 3."""

    which: list[str] = key("figures and tables to make, such as figure_2 or table_L3; empty: all possible", [])
    in_pipeline: bool = key("also run the analyses when `modelsoups` runs without a stage", False)
    pools: dict[str, list[str]] = key("additional runs to train and compare: {name: [overrides of the run]}", {})
    rates: list[float] = key("the two learning rates of Figures 2 and F.1 and of appendix L", [3e-5, 1e-5])
    epochs: int = key("epochs of the models with the learning rates analyse.rates", 10, at_least=1)
    grid: int = key("points on each side of the grid of an error landscape", 11, at_least=2)
    grid_images: int = key("images of each data set for the error landscapes of Figure 2", 2000, at_least=1)
    images: int | None = key(
        "images of each data set but the hold-out for the other analyses (Tables 4, L.1 to L.3, Figure L.3 and the"
        " selection always use all); null: all",
        None,
        at_least=1,
    )
    equation_images: int | None = key("images for the paper's equation (1), which is slow to evaluate", 500, at_least=1)
    alphas: list[float] = key("interpolation coefficients between two models", [i / 10 for i in range(11)])
    wise_ft: list[float] | None = key("interpolation coefficients of Figure D.1; null: analyse.alphas", None)
    orders: int = key("number of random orders of the models in Figures B.1 and H.1 to H.4", 3, at_least=1)
    pairs: int = key("largest number of pairs of models in Figures 3 and 4", 66, at_least=1)


@dataclass
class ClusterConfig:
    """Options of the SLURM jobs; if partition, account, qos or mem is null, SLURM chooses."""

    partition: str | None = key("SLURM partition", None)
    account: str | None = key("SLURM account", None)
    qos: str | None = key("SLURM quality of service", None)
    time: str = key("time limit of a fine-tuning job; if it is reached, the job is requeued and continues", "24:00:00")
    stage_time: str = key("time limit of the jobs of prepare, heads, evaluate, soup and report", "08:00:00")
    nodes: int = key("nodes that train one ingredient together", 1, at_least=1)
    gpus_per_node: int = key(
        "GPUs of a job on each node; 0: train on CPUs, with finetune.threads for all cores", 1, at_least=0
    )
    ranks_per_node: int | None = key("training processes on each node; null: one for each GPU", None, at_least=1)
    cpus_per_node: int = key("CPU cores of a job on each node", 8, at_least=1)
    mem: str | None = key("memory of a job on each node, in sbatch's notation, such as 64G", None)
    concurrent: int | None = key("ingredients that train at the same time; null: no limit", None, at_least=1)
    notice: int = key("seconds before the time limit at which a job saves a checkpoint and requeues", 120, at_least=0)
    options: list[str] = key("additional options of sbatch, each as --option=value", [])
    cpu_options: list[str] | None = key(
        "options in place of cluster.options for the jobs of prepare and report, which ask for no GPU, such as"
        " --partition=cpu; null: cluster.options",
        None,
    )
    scratch: str | None = key("folder for runs and prepared data; null: the current folder", None)
    setup: list[str] = key("shell lines that run before Python, such as `module load cuda`", [])
    prefix: str = key("words before the Python command, such as `apptainer exec --nv image.sif`", "")
    python: str | None = key("the Python interpreter of the jobs; null: the one that runs submit", None)

    @property
    def ranks(self) -> int:
        """Return the number of training processes on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1


@dataclass
class SubmitConfig:
    """Options of `modelsoups submit`."""

    dry_run: bool = key("print the jobs and their scripts, and submit nothing", False)
    portion: int | None = key(
        "ingredients to submit at most, where a cluster limits a user's jobs; the jobs after the sweep are submitted"
        " with the last ones; null: all",
        None,
        at_least=1,
    )


@dataclass
class PlanConfig:
    """Options of `modelsoups plan`; a null value is measured from the run and the prepared data."""

    images_per_second: float | None = key("training examples per second on one GPU", None, at_least=0.001)
    train_images: int | None = key("number of examples in the training set", None, at_least=1)
    parameters: int | None = key("number of parameters of encoder and head", None, at_least=1)


@dataclass
class PretrainConfig:
    """Options of `modelsoups pretrain`, which retrains the small models in this package."""

    model: str = key(
        "model to pre-train: IconCLIP on icons with captions, IconViT on icons with labels, or PhraseBERT on texts",
        "iconclip",
        choices=("iconclip", "iconvit", "phrase_bert"),
    )
    labels: bool = key("older name of pretrain.model=iconvit", False)
    out: str = key("folder to which the pre-trained weights are written", "runs/pretrain")
    seed: int = key("seed of the pre-training", 0)
    steps: int | None = key("training steps; null: as many as for the weights in this package", None)


@dataclass
class ExportConfig:
    """Options of `modelsoups export`, which writes a soup for open_clip, timm or transformers."""

    row: str = key("what to export: a soup in runs/<name>/soups, or an ingredient such as 003", "greedy")
    out: str | None = key("folder to write; null: runs/<name>/export/<row>", None)
    push: str | None = key("Hugging Face repository to upload to, as user/name; needs a login", None)
    private: bool = key("make a new Hugging Face repository private", True)


@dataclass
class TrackConfig:
    """Options of logging to Weights & Biases (W&B); the key `wandb` turns it on and off."""

    project: str | None = key("name of the W&B project; null: WANDB_PROJECT, or else modelsoups", None)
    entity: str | None = key("W&B user or team; null: WANDB_ENTITY, or else the default of the login", None)
    artifacts: bool = key("also log the soups and their ingredients as W&B artifacts", False)


@dataclass
class TopLevel:
    """The configuration keys outside of all sections, such as `name`."""

    name: str = key("name of the run, and of its folders in runs/ and results/")
    runs: str = key("folder of the run: models, logits and soups", "runs/${name}")
    results: str = key("folder of the results: report, tables and figures", "results/${name}")
    ingredient: int | None = key("number of the only ingredient to fine-tune; null: all unfinished", None, at_least=0)
    protocol: str = key(
        "where the paper and the authors' code differ: do as the paper (crop ObjectNet's border, "
        "add a model with equal accuracy to the greedy soup), or as their released code",
        "paper",
        choices=("paper", "released"),
    )
    task: str = key(
        "learning task: classification of images or of texts", "images", choices=("images", "text"), own=True
    )
    pool: str = key(
        "source of the models: fine-tuned by this run, imported by `modelsoups import-released`, or none: the run has"
        " only the models of analyse.pools (appendix E)",
        "finetuned",
        choices=("finetuned", "imported", "none"),
    )
    wandb: str = key(
        "logging to Weights & Biases; auto: online with a login, otherwise offline in runs/<name>/wandb",
        "auto",
        choices=("auto", "online", "offline", "disabled"),
    )


@dataclass(kw_only=True)
class Config(TopLevel):
    """The complete, checked configuration of one command: all sections and top-level keys."""

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
