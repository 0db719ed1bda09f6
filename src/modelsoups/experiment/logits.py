"""A cache of the logits of models on data sets, by the hashes of the weights and of the data.

All evaluation uses this cache. Logits are float32, projected to the classes of the data set (fewer
in ImageNet-R, ObjectNet and ImageNet-A) before an ensemble averages them, as in the authors' code.

Suffixes of tensor names: N images of a data set, B images of a batch, C classes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from xxhash import xxh3_128_digest

from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.sets import Sets
from modelsoups.stats import multilabel
from modelsoups.stats.scores import Logits
from modelsoups.tasks.task import Task

DIGEST = "xxh3_128"  # the tensor of a file that holds the XXH3 of its logits
AGAIN = "move it away and run the stage again to compute it"


def _digest(logits_NC: Tensor) -> Tensor:
    """The XXH3 of the logits, as 16 bytes."""
    content = logits_NC.detach().contiguous().view(torch.uint8).numpy().data
    return torch.frombuffer(bytearray(xxh3_128_digest(content)), dtype=torch.uint8)


class LogitsCache:
    """The cached logits of a run's models on its data sets, in files in runs/<name>/logits."""

    def __init__(self, files: Run, sets: Sets, task: Task, classifier: Callable[[int], Any]) -> None:
        """classifier: function from a number of classes to the network to load weights into."""
        self.files, self.sets, self.task, self.classifier = files, sets, task, classifier

    def path(self, name: str, sha256: str, images: int | None = None) -> Path:
        """Return the cache file of a model (by hash) and a data set, or `images` images of it."""
        whole = self.files.logits(sha256, name, self.sets[name].sha256)
        if self.task.view:  # another evaluation has other logits
            whole = whole.with_name(f"{whole.stem}-{self.task.view}{whole.suffix}")
        return whole if images is None else whole.with_name(f"{whole.stem}-{images}{whole.suffix}")

    def of(self, name: str, sha256: str, state: Mapping[str, Tensor] | None = None) -> Logits:
        """Return a model's logits on the data set `name`, from the cache or computed with `state`.

        sha256: hash of the model's weights. Raises ValueError if the logits are not cached and
        `state` is None.
        """
        path = self.path(name, sha256)

        def compute() -> Tensor:
            if state is None:
                way_out = "run `modelsoups evaluate` and `modelsoups soup` first"
                raise ValueError(f"{path} is missing; {way_out}")
            return self.forward(name, state)

        return Logits(name, self.cached(path, compute), torch.from_numpy(self.sets[name].labels_N))

    def cached(self, path: Path, compute: Callable[[], Tensor]) -> Tensor:
        """Return logits, (images, classes), from a file; if it is missing, compute and write them.

        Raises ValueError if the file is damaged.
        """
        if not path.exists():
            logits_NC = compute()
            storage.save_weights(path, {"logits": logits_NC, DIGEST: _digest(logits_NC)})
            return logits_NC
        try:
            found = safetensors.torch.load_file(path)
            logits_NC = found["logits"]
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); {AGAIN}") from error
        if DIGEST in found and not torch.equal(found[DIGEST], _digest(logits_NC)):  # earlier files have none
            raise ValueError(f"{path} has changed since it was written; {AGAIN}")
        return logits_NC

    @torch.inference_mode()
    def forward(self, name: str, state: Mapping[str, Tensor], of_N: Tensor | None = None) -> Tensor:
        """Compute the float32 logits, (images, classes), of a state dict on the data set `name`.

        of_N: boolean mask of the images to use, (images,); by default all are used.
        """
        dataset = self.sets[name]
        model = self.classifier(len(dataset.classes))
        model.load_state_dict(dict(state))
        model.eval()
        order_N = self.task.test_order(dataset, model)
        if of_N is not None and order_N is not None:
            of_N = of_N[order_N]
        rows, seen = [], 0
        for batch in self.task.test_batches(dataset, model):
            chosen = batch if of_N is None else batch[of_N[seen : seen + len(batch)]]
            seen += len(batch)
            if len(chosen):
                logits_BC = self.task.logits(model, chosen).float().cpu()
                rows.append(self.task.project(dataset, logits_BC))
        made_NC = in_order(torch.cat(rows), order_N if of_N is None or order_N is None else order_N[of_N])
        answers_NA = getattr(dataset, "answers_NA", None)  # sets of texts have none
        return made_NC if answers_NA is None else multilabel.merged(made_NC, torch.from_numpy(answers_NA))


def in_order(logits_NC: Tensor, order_N: Tensor | None) -> Tensor:
    """Return logits in the order of the data set; order_N: the order in which they were computed."""
    return logits_NC if order_N is None else logits_NC[order_N.argsort()]
