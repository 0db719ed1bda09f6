"""Trains the extra models that analyses compare: the runs (pools) that analyse.pools defines.

A pool may have data of its own, which is then prepared first (appendix E).
"""

import shutil
from pathlib import Path

from modelsoups.analyses.members import open_pool
from modelsoups.analyses.registry import wanted
from modelsoups.disk import manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import finetune, heads, prepare, sweep
from modelsoups.workers.processes import workers_kept


def make_pools(experiment: Experiment) -> None:
    """Fine-tune the models of every pool in analyse.pools; complete models are skipped."""
    wanted(experiment.config.analyse.which)  # an unknown name is an error before any training
    with workers_kept():
        for name in experiment.config.analyse.pools:
            pool = open_pool(experiment, name)
            print(f"analyse: pool {name}")
            same_data = pool.config.data == experiment.config.data
            for init in ("zeroshot", "lp") if same_data and pool.config.model == experiment.config.model else ():
                _copy_head(experiment.files.head(init), pool.files.head(init))
            for stage in (heads, sweep, finetune) if same_data else (prepare, heads, sweep, finetune):
                stage.run(pool)


def _copy_head(source: Path, target: Path) -> None:
    """Copy an initial model's folder to `target` if that is missing, to save computing it again."""
    if manifests.manifest_of(source) is not None and not target.exists():
        with storage.new_folder(target, keep=True) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
