"""Estimates what a sweep costs before it is submitted: `modelsoups plan experiment=imagenet`.

Training examples (such as images), steps, GPU-hours and disk space are computed from the
hyperparameters of all models. The speed of a GPU is plan.images_per_second or, if that is null, the
median over finished models. If the training set is prepared, its loading is timed on one core of this
machine, to say whether loading or the GPU will limit the runs.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

from modelsoups.config.schema import ClusterConfig
from modelsoups.disk import manifests, paths
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe

CHECKPOINTS = 2 * 3  # sizes of the weights: two files, each with weights and AdamW's two moments


@dataclass(frozen=True)
class Cost:
    """The cost of a sweep: fine-tuning `ingredients` models, `at_once` of them in parallel."""

    ingredients: int
    at_once: int
    examples: int
    steps: int
    weights_bytes: int  # of all ingredients and the initial models
    checkpoint_bytes: int  # at most, while the sweep runs


def run(experiment: Experiment) -> bool:
    config, files, unit = experiment.config, experiment.files, experiment.unit
    recipes = experiment.draw.planned()
    speed, source = _speed(config.plan.images_per_second, files.ingredients)
    train = _train_examples(config.plan.train_images, experiment.sets.folder(config.data.train))
    initial = files.head(config.heads.init) / paths.MODEL
    weights = _weights_bytes(config.plan.parameters, initial)
    total = cost(recipes, config.cluster.concurrent, train, weights, unit)
    if files.draw.exists() and recipes != experiment.draw.drawn():
        print(f"plan: for the recipes in {files.draw}; with these options, `sweep` would draw others")
    gpus = config.cluster.nodes * config.cluster.ranks
    hours = total.examples / speed / 3600
    print(f"plan: {total.ingredients} ingredients, {total.examples:,} training {unit}, {total.steps:,} steps")
    print(f"plan: {hours:,.2f} GPU-hours at {speed:,.0f} {unit}/s per GPU ({source})")
    print(
        f"plan: at least {hours / (gpus * total.at_once):,.2f} hours, with {total.at_once} "
        f"ingredients in parallel (cluster.concurrent) on {gpus} GPU{'s' if gpus > 1 else ''} each "
        "(cluster.nodes, cluster.ranks_per_node)"
    )
    weights_gb, checkpoints_gb = (f"{size / 1e9:,.2f} GB" for size in (total.weights_bytes, total.checkpoint_bytes))
    print(f"plan: disk space of {weights_gb} for weights and, during the sweep, up to {checkpoints_gb} for checkpoints")
    prepared = manifests.manifest_of(experiment.sets.folder(config.data.train)) is not None
    if prepared and config.cluster.gpus_per_node:
        print(f"plan: {_limit(config.cluster, experiment.loading_speed(recipes[0]), speed, unit)}")
    return False


def _limit(cluster: ClusterConfig, loaded: float, trained: float, unit: str) -> str:
    """Return whether loading or the GPUs will limit the runs, given examples/s of one core and of one GPU."""
    loaders = max(1, cluster.cpus_per_node - cluster.ranks)  # the other cores drive the GPUs
    loading, training = loaded * loaders, trained * cluster.ranks
    cores = f"{loaders} of cluster.cpus_per_node={cluster.cpus_per_node}"
    said = (
        f"a node trains {training:,.0f} {unit}/s and loads {loading:,.0f} on {cores} cores, if they are like this one"
    )
    if loading >= training:
        return f"{said}; loading keeps up"
    slower = f"loading limits, so fine-tuning takes {training / loading:,.1f} times as long"
    return f"{said}; {slower}: see data.train_format, finetune.augment and finetune.decode"


def cost(recipes: list[Recipe], concurrent: int | None, train: int, weights: int, unit: str) -> Cost:
    """Return a sweep's cost; train: number of training examples, weights: bytes of one model."""
    examples = steps = 0
    for recipe in recipes:
        if recipe.batch_size > train:
            raise ValueError(f"recipe.batch_size={recipe.batch_size} is more than the {train} training {unit}")
        own_steps = recipe.total_steps(train)
        steps += own_steps
        examples += own_steps * recipe.batch_size
    at_once = min(concurrent or len(recipes), len(recipes))
    files = sum(1 + len(recipe.ema) + len(recipe.swa) for recipe in recipes)
    all_weights = (files + 2) * weights  # with two initial models
    return Cost(len(recipes), at_once, examples, steps, all_weights, at_once * CHECKPOINTS * weights)


def _train_examples(given: int | None, folder: Path) -> int:
    if given is not None:
        return given
    manifest = manifests.manifest_of(folder)
    if manifest is None:
        way_out = "run `modelsoups prepare`, or set plan.train_images=..."
        raise ValueError(f"data set {folder} is not prepared; {way_out}")
    return int(manifest["images"])


def _weights_bytes(parameters: int | None, path: Path) -> int:
    if parameters is not None:
        return 4 * parameters
    if not path.exists():
        way_out = "run `modelsoups heads`, or set plan.parameters=..."
        raise ValueError(f"the initial model {path} is missing; {way_out}")
    return path.stat().st_size


def _speed(given: float | None, ingredients: Path) -> tuple[float, str]:
    """Return the examples per second of one GPU, and the source of this number in words."""
    if given is not None:
        return given, "plan.images_per_second"
    measured = []
    for path in sorted(ingredients.glob("*")):
        manifest = manifests.manifest_of(path)
        if manifest and manifest.get("seconds"):
            ranks = manifests.training_ranks(manifest)
            measured.append(manifest["images"] / manifest["seconds"] / ranks)
    if not measured:
        raise ValueError(
            f"{ingredients} has no finished ingredient to measure the speed from; set "
            "plan.images_per_second=... (of one GPU), or finish one: `modelsoups finetune "
            "ingredient=0`"
        )
    return statistics.median(measured), f"the median of {len(measured)} finished ingredients"
