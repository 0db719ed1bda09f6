"""Evaluations on the hold-out every finetune.evaluate_every steps, and the choice of the best step.

For each run and each average of its weights, the paper evaluates the hold-out every 1,000 or 5,000
steps and takes the best checkpoint (section 3.3.2, appendix C); so does recipe.select=best. The
choice sees the hold-out alone. Its weights are part of the checkpoints that training resumes from.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelsoups.disk.paths import EVALUATIONS
from modelsoups.experiment.logits import in_order
from modelsoups.tasks.task import Task
from modelsoups.train.averages import MODEL, Averages
from modelsoups.train.metrics_file import append
from modelsoups.train.workspace import Workspace


@dataclass
class Best:
    """The step with the most points on the hold-out so far, the earliest of equal ones, and its weights."""

    step: int
    points: float
    score: float
    state: dict[str, Tensor]  # on the CPU, never changed in place


class Evaluations:
    """Evaluates a run's weights and their averages on the hold-out, and keeps the best ones if asked to."""

    def __init__(self, task: Task, workspace: Workspace, every: int | None, keeps: bool) -> None:
        """every: steps between evaluations, None for no evaluation; keeps: whether to keep the best weights."""
        self.task, self.workspace, self.every, self.keeps = task, workspace, every, keeps
        self.path = workspace.folder / EVALUATIONS
        self.best: dict[str, Best] = {}

    def due(self, step: int, total: int) -> bool:
        """Return whether to evaluate after this step: every `every` steps, and after the last one."""
        return self.every is not None and (step % self.every == 0 or step == total)

    def evaluate(self, step: int, model: nn.Module, averages: Averages) -> None:
        """Score the model and its averages on the hold-out; add a line each to evaluations.jsonl."""
        states: dict[str, Mapping[str, Tensor] | None] = {MODEL: None}
        states |= {name: average.state for name, average in averages.items() if average.count}
        modes = {module: module.training for module in model.modules()}  # not all alike if BatchNorm is frozen
        model.eval()
        for name, state in states.items():
            with exchanged(model, state):
                points, score = self._score(model)
            if self.keeps and (name not in self.best or points > self.best[name].points):
                self.best[name] = Best(step, points, score, saved(model.state_dict() if state is None else state))
            if self.workspace.ranks.first:
                self.workspace.check_lock()
                row = {"step": step, "weights": name, "points": points, "score": score}
                append(self.path, {**row, "examples": len(self.workspace.holdout)})
        for module, training in modes.items():
            module.training = training

    @torch.inference_mode()
    def _score(self, model: nn.Module) -> tuple[float, float]:
        """Return the model's points and score on the hold-out; each rank evaluates a share of the batches."""
        task, holdout, ranks = self.task, self.workspace.holdout, self.workspace.ranks
        mine: dict[int, Tensor] = {}
        for number, batch in enumerate(task.test_batches(holdout, model)):
            if number % ranks.world == ranks.rank:
                mine[number] = task.project(holdout, task.logits(model, batch).float().cpu())
        every = {number: rows for part in ranks.gathered(mine) for number, rows in part.items()}
        logits_NC = in_order(torch.cat([every[number] for number in sorted(every)]), task.test_order(holdout, model))
        labels_N = torch.from_numpy(holdout.labels_N)
        score = task.score(task.outcomes(logits_NC, labels_N))
        return float(task.points(logits_NC, labels_N)), float(score)

    # ---- the best step ----

    def chosen(self, name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights of the best step, or `state`, those of the last one, if none are kept."""
        return self.best[name].state if name in self.best else state

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return {weights: step, points and score of the best step, and the number of examples}."""
        examples = {"examples": len(self.workspace.holdout)} if self.best else {}
        numbers = {name: {**vars(best), **examples} for name, best in self.best.items()}
        return {name: {key: fact[key] for key in fact if key != "state"} for name, fact in numbers.items()}

    def checkpoint(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint stores, without copies of the weights."""
        return {name: dict(vars(best)) for name, best in self.best.items()}

    def restore(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        self.best = {name: Best(**best) for name, best in stored.items()}


@contextlib.contextmanager
def exchanged(model: nn.Module, state: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Give the model the weights `state` in the with block, None: its own; then restore its own."""
    if state is None:
        yield
        return
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.load_state_dict(dict(state))
    try:
        yield
    finally:
        model.load_state_dict(own)


def saved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of weights on the CPU."""
    return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in state.items()}
