"""The parts of an opened run that need PyTorch, which takes seconds to import."""

from modelsoups.data.crops import CropStore
from modelsoups.experiment.imported import Imported
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.experiment.logits import LogitsCache
from modelsoups.experiment.soups import Soups

__all__ = ["CropStore", "Imported", "Ingredients", "LogitsCache", "Soups"]
