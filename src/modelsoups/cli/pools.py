"""The further pools that the analyses compare (analyse.pools): ordinary runs in runs/<name>/pools/."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from modelsoups.analyses.bench import pool_config
from modelsoups.config.schema import Config
from modelsoups.disk import manifests
from modelsoups.stages import finetune, heads, sweep
from modelsoups.workers.processes import workers_kept


def make_pools(cfg: Config) -> None:
    """Make every pool that is not complete; a pool whose making was killed continues where its stages do."""
    with workers_kept():
        for name in cfg.analyse.pools:
            make_pool(cfg, name)


def make_pool(cfg: Config, name: str) -> Config:
    """Initial model, draw and fine-tunes of a further pool; its configuration."""
    made = pool_config(cfg, name)
    print(f"analyse: pool {name}")
    for init in ("zeroshot", "lp") if made.model == cfg.model else ():
        _copy_head(cfg, made, init)
    for stage in (heads, sweep, finetune):
        stage.run(made)
    return made


def _copy_head(cfg: Config, made: Config, init: str) -> None:
    """The run's own initial model, where it has one; `heads` looks whether it is of the pool's inputs."""
    source, target = cfg.run.head(init), made.run.head(init)
    if manifests.manifest_of(source) is not None and not target.exists():
        with tempfile.TemporaryDirectory(dir=_made(target.parent), prefix=".copy") as beside:
            shutil.copytree(source, Path(beside) / init)
            os.replace(Path(beside) / init, target)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
