"""Draws the hyperparameters of each model from a search file into draw.jsonl: `modelsoups sweep`.

Fine-tuning reads only draw.jsonl, never the search file.
"""

from modelsoups.experiment.experiment import Experiment


def run(experiment: Experiment) -> bool:
    """Write draw.jsonl; return whether it changed. ValueError if existing recipes would change."""
    return experiment.draw.write()
