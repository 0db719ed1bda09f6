"""What a sweep will cost, before anything is submitted: `modelsoups plan experiment=imagenet`.

Images, steps, GPU-hours and disk, from the draw's recipes. The speed is plan.images_per_second (of one GPU), or that of
the run's finished ingredients.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths
from modelsoups.experiment import draw
from modelsoups.recipes.recipe import Recipe
from modelsoups.recipes.search import size

CHECKPOINT = 3  # times the weights: they and AdamW's two moments; the one before is kept too


@dataclass(frozen=True)
class Cost:
    """images and steps of the whole sweep; hours of one GPU; bytes of the weights, and at most beside them."""

    ingredients: int
    images: int
    steps: int
    speed: float  # images a second of one GPU
    weights_bytes: int
    passing_bytes: int

    @property
    def gpu_hours(self) -> float:
        return self.images / self.speed / 3600


def run(cfg: Config) -> bool:
    """Print the cost of the experiment's sweep."""
    recipes = _recipes(cfg)
    speed, source = _speed(cfg)
    made = cost(cfg, recipes, _train_images(cfg), _weights_bytes(cfg), speed)
    gpus = cfg.cluster.nodes * cfg.cluster.ranks
    at_once = min(cfg.cluster.concurrent or len(recipes), len(recipes))
    print(f"plan: {made.ingredients} ingredients, {made.images:,} images, {made.steps:,} steps")
    print(f"plan: {made.gpu_hours:,.2f} GPU-hours at {made.speed:,.0f} images/s a GPU ({source})")
    print(
        f"plan: {made.gpu_hours / (gpus * at_once):,.2f} hours or more, with {at_once} ingredients at once on {gpus} "
        f"GPU{'s' if gpus > 1 else ''} each (cluster.nodes, ranks_per_node, concurrent)"
    )
    print(
        f"plan: {made.weights_bytes / 1e9:,.2f} GB of weights, and while it runs up to "
        f"{made.passing_bytes / 1e9:,.2f} GB of checkpoints"
    )
    return False


def _recipes(cfg: Config) -> list[Recipe]:
    if cfg.run.draw.exists():
        return draw.load_draw(cfg)
    search = draw.load_search(cfg.sweep.search)
    return [draw.recipe(search, cfg, i) for i in range(cfg.sweep.count or size(search))]


def cost(cfg: Config, recipes: list[Recipe], train: int, weights: int, speed: float) -> Cost:
    """The cost of these recipes on a training set of `train` images, with a model of `weights` bytes."""
    steps = [train // r.batch_size * r.epochs for r in recipes]
    images = [n * r.batch_size for n, r in zip(steps, recipes, strict=True)]
    at_once = min(cfg.cluster.concurrent or len(recipes), len(recipes))
    return Cost(
        ingredients=len(recipes),
        images=sum(images),
        steps=sum(steps),
        speed=speed,
        weights_bytes=(len(recipes) + 2) * weights,  # and the initial models
        passing_bytes=at_once * 2 * CHECKPOINT * weights,
    )


def _train_images(cfg: Config) -> int:
    if cfg.plan.train_images is not None:
        return cfg.plan.train_images
    folder = Path(cfg.data.dir) / cfg.data.train
    manifest = manifests.manifest_of(folder)
    if manifest is None:
        raise ValueError(f"{folder} is not there yet to count its images; give plan.train_images=...")
    return int(manifest["images"])


def _weights_bytes(cfg: Config) -> int:
    if cfg.plan.parameters is not None:
        return 4 * cfg.plan.parameters
    path = cfg.run.head(cfg.heads.init) / paths.MODEL
    if not path.exists():
        raise ValueError(f"{path} is not there yet to count its parameters; give plan.parameters=...")
    return path.stat().st_size


def _speed(cfg: Config) -> tuple[float, str]:
    """Images a second of one GPU, and where that is from."""
    if cfg.plan.images_per_second is not None:
        return cfg.plan.images_per_second, "as given"
    measured = []
    for path in sorted((cfg.run.root / "ingredients").glob("*")):
        manifest = manifests.manifest_of(path)
        if manifest and manifest.get("seconds"):
            ranks = manifests.training_ranks(manifest)
            measured.append(manifest["images"] / manifest["seconds"] / ranks)
    if not measured:
        raise ValueError(
            f"no ingredient of {cfg.run.root} is finished to measure its speed; give plan.images_per_second=... of one "
            "GPU, or finish one: `modelsoups finetune ingredient=0`"
        )
    return statistics.median(measured), f"median of {len(measured)} finished ingredients"
