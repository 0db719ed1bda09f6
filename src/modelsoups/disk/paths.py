"""Defines the names and paths of all files that modelsoups writes for an experiment."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ASSETS = PACKAGE / "assets"

# Files of one ingredient's folder, in the order in which they are written.
RECIPE = "recipe.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"  # on the hold-out, if finetune.evaluate_every is set
CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint.prev.pt"
MODEL = "model.safetensors"  # also the Hugging Face name for weights in one file
FAILED = "failed.json"  # instead of the model, if the loss diverged
MANIFEST = "manifest.json"  # written last, in every folder that can be complete

# Files of a results folder.
RESULTS = "results.jsonl"
PROVENANCE = "provenance.json"
TABLE_3 = "table_3.csv"


def shipped(name: str) -> Path:
    """Return the folder conf, sweeps or slurm of the installed package or the source checkout."""
    return PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parents[1] / name


class Run:
    """The paths of an experiment's files: models and logits in `root`, its report in `results`."""

    def __init__(self, root: Path, results: Path) -> None:
        self.root, self.results = root, results
        self.draw = root / "draw.jsonl"
        self.draw_manifest = root / "draw.json"
        self.ingredients = root / "ingredients"
        self.slurm = root / "slurm"  # submitted scripts, output of jobs, requests to stop
        self.soups = root / "soups"
        self.wandb = root / "wandb"  # W&B's files, and the records of what has been logged
        self.pools = root / "pools"  # additional runs that the analyses compare
        self.analyses = results / "analysis"
        self.overrides = root / "overrides.json"  # of the command line: how to open the run again
        self.timings = root / "timings.json"
        self.log = root / "modelsoups.log"

    def head(self, init: str) -> Path:
        """Return the folder of the initial model (theta_0) with the head `init` (e.g. zeroshot)."""
        return self.root / "init" / init

    def ingredient(self, index: int) -> Path:
        return self.ingredients / f"{index:03d}"

    def logits(self, model_sha256: str, dataset: str, dataset_sha256: str) -> Path:
        return self.root / "logits" / model_sha256[:16] / f"{dataset}-{dataset_sha256[:12]}.safetensors"

    def point(self, key: str) -> Path:
        """Return the JSON file in which the analyses cache a measurement; `key` is a hash."""
        return self.root / "points" / key[:2] / f"{key}.json"

    def soup(self, name: str) -> Path:
        return self.soups / f"{name}.json"

    def mixed(self, name: str) -> Path:
        return self.soups / f"{name}.safetensors"
