"""The pools that the analyses compare (analyse.pools): ordinary runs in runs/<name>/pools/."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from modelsoups.analyses.members import pool_config
from modelsoups.config.schema import Config
from modelsoups.disk import manifests
from modelsoups.stages import finetune, heads, sweep
from modelsoups.workers.processes import workers_kept


def make_pools(cfg: Config) -> None:
    """Initial model, draw and fine-tunes of every pool, as far as they are not complete."""
    with workers_kept():
        for name in cfg.analyse.pools:
            made = pool_config(cfg, name)
            print(f"analyse: pool {name}")
            for init in ("zeroshot", "lp") if made.model == cfg.model else ():
                _copy_head(cfg.run.head(init), made.run.head(init))
            for stage in (heads, sweep, finetune):
                stage.run(made)


def _copy_head(source: Path, target: Path) -> None:
    """Copy the run's initial model; `heads` makes it again if the pool has other inputs."""
    if manifests.manifest_of(source) is not None and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy") as folder:
            shutil.copytree(source, Path(folder) / target.name)
            os.replace(Path(folder) / target.name, target)
