"""Evaluate the initial model and every ingredient on every data set: `modelsoups evaluate`."""

from __future__ import annotations

import functools

from modelsoups.config.schema import Config
from modelsoups.experiment.ingredients import initial_models, load_pool, load_weights
from modelsoups.experiment.logits import cache_path, decode_once, logits_of
from modelsoups.experiment.sets import evaluated, missing_names
from modelsoups.soup.coefficients import Ingredient
from modelsoups.workers.processes import run_tasks, worker_count


def run(cfg: Config) -> bool:
    """Evaluate the initial model and every complete ingredient on the hold-out, the test set and the shifts."""
    models = [*initial_models(cfg).values(), *load_pool(cfg).ingredients]
    tasks = [m for m in models if not _all_there(cfg, m.sha256)]
    names = ", ".join(evaluated(cfg))
    if missing := missing_names(cfg):
        print(
            f"evaluate: not available: {', '.join(missing)}; `modelsoups prepare` adds them once their files are there"
        )
    if not tasks:
        print(f"evaluate: complete, {len(models)} models on {names}")
        return False
    print(f"evaluate: {len(tasks)} of {len(models)} models on {names}")
    decode_once(cfg, evaluated(cfg))
    for _ in run_tasks(functools.partial(_evaluate, cfg), tasks, worker_count(cfg.finetune.parallel), "evaluate"):
        pass
    return True


def _all_there(cfg: Config, sha256: str) -> bool:
    return all(cache_path(cfg, sha256, name).exists() for name in evaluated(cfg))


def _evaluate(cfg: Config, model: Ingredient) -> None:
    state = load_weights(model)
    for name in evaluated(cfg):
        logits_of(cfg, name, model.sha256, state)
