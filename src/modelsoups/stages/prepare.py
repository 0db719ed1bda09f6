"""Converts the data sets to WebDataset shards, one folder a data set: `modelsoups prepare`."""

from modelsoups.experiment.experiment import Experiment
from modelsoups.workers.processes import cores


def run(experiment: Experiment) -> bool:
    """Write the missing data sets; return whether any was. ValueError if options have changed."""
    sets = experiment.sets
    names, folder = sets.names(), sets.data.dir
    todo = [name for name in names if not sets.is_current(name)]
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
