"""Logits of models on data sets, cached by the hashes of both.

Everything that is measured goes through this cache: individuals, soups and ensembles. Logits are float32 and
projected to the data set's own classes (R, ObjectNet, A), so that an ensemble averages what the authors' code averages.

Legend: N images of a set, B of a batch, C classes, H height, W width.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.sets import Sets
from modelsoups.stats.scores import Logits
from modelsoups.tasks.task import Task


class LogitsCache:
    """The logits of a run's models, in runs/<name>/logits."""

    def __init__(
        self,
        files: Run,
        sets: Sets,
        task: Task,
        classifier: Callable[[int], Any],
    ) -> None:
        """classifier builds the run's network for a number of classes."""
        self.files, self.sets, self.task, self.classifier = files, sets, task, classifier

    def path(self, name: str, sha256: str, images: int | None = None) -> Path:
        """The file of a model's logits on a data set, or on a part of its images."""
        whole = self.files.logits(sha256, name, self.sets[name].sha256)
        return whole if images is None else whole.with_name(f"{whole.stem}-{images}{whole.suffix}")

    def of(self, name: str, sha256: str, state: Mapping[str, Tensor] | None = None) -> Logits:
        """Logits of the model with these weights on a data set, from the cache if they are there.

        Without `state` the cache must hold them: ValueError names the missing file and the stage
        that makes it.
        """
        path = self.path(name, sha256)

        def compute() -> Tensor:
            if state is None:
                raise ValueError(f"{path} is missing; run `modelsoups evaluate` and `modelsoups soup` first")
            return self.forward(name, state)

        return Logits(name, self.cached(path, compute), torch.from_numpy(self.sets[name].labels_N))

    def cached(self, path: Path, compute: Callable[[], Tensor]) -> Tensor:
        """The logits_NC in a file of the cache, computed and written there where it is missing.

        ValueError names a damaged file.
        """
        if not path.exists():
            logits_NC = compute()
            storage.save_weights(path, {"logits": logits_NC})
            return logits_NC
        try:
            return safetensors.torch.load_file(path)["logits"]
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and run the stage again") from error

    @torch.inference_mode()
    def forward(self, name: str, state: Mapping[str, Tensor], of_N: Tensor | None = None) -> Tensor:
        """Projected logits_NC, float32 on the CPU, of a state dict of the run's network.

        of_N: which images, as booleans; all by default.
        """
        dataset = self.sets[name]
        model = self.classifier(len(dataset.classes))
        model.load_state_dict(dict(state))
        model.eval()
        rows, seen = [], 0
        for batch in self.task.test_batches(dataset, model):
            chosen = batch if of_N is None else batch[of_N[seen : seen + len(batch)]]
            seen += len(batch)
            if len(chosen):
                logits_BC = self.task.logits(model, chosen).float().cpu()
                rows.append(self.task.project(dataset, logits_BC))
        return torch.cat(rows)
