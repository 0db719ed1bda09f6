"""Times how fast one core loads training examples."""

import itertools
import time
from typing import Any

from modelsoups.config.schema import FinetuneConfig
from modelsoups.data.order import WHOLE
from modelsoups.recipes.recipe import Recipe
from modelsoups.tasks.task import Task, TrainingData
from modelsoups.workers.processes import cores

LOADED = 512  # examples whose loading is timed, at least one batch


def loading_speed(task: Task, train: Any, model: Any, recipe: Recipe, given: FinetuneConfig) -> float:
    """Return how many training examples one core reads, decodes and augments in a second of CPU time.

    With finetune.augment=gpu, up to the copy to the GPU. A first batch, which is not timed, fills caches.
    """
    data = TrainingData(train, 0, WHOLE, None, given.decode, given.augment, side_by_side=cores())
    batches = max(1, LOADED // recipe.batch_size)
    next(iter(task.train_batches(model, recipe, data)))
    begin = time.process_time()
    seen = sum(len(labels_B) for _, labels_B in itertools.islice(task.train_batches(model, recipe, data), batches))
    return seen / (time.process_time() - begin)
