"""Draws one recipe per line from a search file into draw.jsonl, for review: `modelsoups sweep`.

Fine-tuning reads only draw.jsonl, never the search file.
"""

from modelsoups.experiment.experiment import Experiment


def run(experiment: Experiment) -> bool:
    """Write runs/<name>/draw.jsonl and return whether it changed; ValueError if a recipe would."""
    return experiment.draw.write()
