"""Search file -> the draw, one recipe a line, for review: `modelsoups sweep`.

Fine-tuning reads the draw, never the search file.
"""

from modelsoups.experiment.experiment import Experiment


def run(experiment: Experiment) -> bool:
    """Write runs/<name>/draw.jsonl; refuse to change one that exists (the sweep may have begun)."""
    return experiment.draw.write()
