"""Every path: the files of the package, and the files of a run."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ASSETS = PACKAGE / "assets"


def shipped(name: str) -> Path:
    """The folder conf, sweeps or slurm: inside an installed package, or at the top of a source checkout."""
    return PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parents[1] / name


class Run:
    """Every path of one experiment. `root` holds what a run makes, `results` what people look at."""

    def __init__(self, root: Path, results: Path) -> None:
        self.root, self.results = root, results
        self.draw = root / "draw.jsonl"
        self.draw_manifest = root / "draw.json"
        self.ingredients = root / "ingredients"
        self.slurm = root / "slurm"  # scripts as submitted, output of jobs, requests to stop
        self.soups = root / "soups"
        self.wandb = root / "wandb"  # what has been logged to W&B, and its own files
        self.pools = root / "pools"  # further runs that the analyses compare
        self.analyses = results / "analysis"
        self.overrides = root / "overrides.json"  # of the command line: how to open the run again
        self.timings = root / "timings.json"
        self.log = root / "modelsoups.log"

    def head(self, init: str) -> Path:
        """Folder of an initial model: encoder and head before fine-tuning (theta_0)."""
        return self.root / "init" / init

    def ingredient(self, index: int) -> Path:
        return self.ingredients / f"{index:03d}"

    def logits(self, model_sha256: str, dataset: str, dataset_sha256: str) -> Path:
        return self.root / "logits" / model_sha256[:16] / f"{dataset}-{dataset_sha256[:12]}.safetensors"

    def point(self, key: str) -> Path:
        """What was measured of one soup in the analyses."""
        return self.root / "points" / key[:2] / f"{key}.json"

    def soup(self, name: str) -> Path:
        return self.soups / f"{name}.json"

    def mixed(self, name: str) -> Path:
        return self.soups / f"{name}.safetensors"
