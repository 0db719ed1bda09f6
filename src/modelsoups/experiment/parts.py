"""The classes that `Experiment` imports only on use, since importing PyTorch takes seconds."""

from modelsoups.data.crops import CropStore
from modelsoups.experiment.imported import Imported
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.experiment.loading import loading_speed
from modelsoups.experiment.logits import LogitsCache
from modelsoups.experiment.soups import Soups

__all__ = ["CropStore", "Imported", "Ingredients", "LogitsCache", "Soups", "loading_speed"]
