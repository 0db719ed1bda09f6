"""Converts the data sets to WebDataset shards, one folder a data set: `modelsoups prepare`."""

from modelsoups.disk import manifests
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.sets import Sets
from modelsoups.workers.processes import cores


def run(experiment: Experiment) -> bool:
    """Write the missing data sets; return whether any was. ValueError if options have changed."""
    sets = experiment.sets
    names, folder = sets.names(), sets.data.dir
    todo = [name for name in names if not _is_made(sets, name)]
    if not todo:
        print(f"prepare: complete, {len(names)} data sets in {folder}")
        return False
    if len(todo) < len(names):
        print(f"prepare: already complete: {', '.join(n for n in names if n not in todo)}")
    made = sets.make(todo, sets.data.workers or cores())
    if made:
        examples = f"{sum(made.values()):,} {experiment.unit}"
        print(f"prepare: wrote {', '.join(n for n in names if n in made)} ({examples}) to {folder}")
    return bool(made)


def _is_made(sets: Sets, name: str) -> bool:
    folder, inputs = sets.folder(name), sets.inputs(name)
    manifest = manifests.manifest_of(folder)
    if manifest is None:
        return False
    if manifest["inputs"] != inputs:
        raise ValueError(
            f"{folder} was prepared with {manifest['inputs']}, but now needs {inputs}; choose "
            "another data.dir=..., or move that folder away"
        )
    return True
