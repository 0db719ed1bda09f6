"""The classes that `Experiment` imports late, since they need PyTorch, which takes seconds to load."""

from modelsoups.data.crops import CropStore
from modelsoups.experiment.imported import Imported
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.experiment.logits import LogitsCache
from modelsoups.experiment.soups import Soups

__all__ = ["CropStore", "Imported", "Ingredients", "LogitsCache", "Soups"]
