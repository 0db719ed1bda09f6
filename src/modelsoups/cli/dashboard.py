"""`modelsoups dashboard`: creates a Weights & Biases (W&B) workspace for the runs of a sweep."""

import os
import re
from typing import Any

from modelsoups import tracking
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe

MEAN = "accuracy/mean of shifts"  # written to the summary of a W&B run by tracking.results
RATES = ("lr", "weight_decay")  # keys of a recipe that are shown on logarithmic axes
DRAWN = (*RATES, "label_smoothing", "mixup", "aug", "epochs")
assert set(DRAWN) <= set(Recipe.names())


def run(experiment: Experiment) -> bool:
    """Create the W&B workspace and print its URL. Always return False: no file is written.

    Raises ValueError if W&B is offline, not installed, not logged in, or rejects the workspace.
    """
    config = experiment.config
    if config.wandb in ("offline", "disabled"):
        raise ValueError(f"wandb={config.wandb}: a workspace needs wandb=online; `wandb leet` shows offline runs")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError:
        way_out = "run `pip install modelsoups[wandb]`"
        raise ValueError(f"wandb-workspaces is not installed; {way_out}") from None
    try:
        entity = config.track.entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
        if entity is None:
            raise ValueError("the login has no default user or team")
        saved = workspace(experiment, entity).save()
    except Exception as error:  # the network, the server and the client each raise different types
        why = " ".join(str(error).split())[:300]
        way_out = "run `wandb login`, or set track.entity"
        raise ValueError(f"W&B rejected the workspace ({why}); {way_out}") from error
    print(f"dashboard: {saved.url}")
    return False


def workspace(experiment: Experiment, entity: str) -> Any:
    """Return an unsaved W&B workspace of user or team `entity`, with plots of a sweep's runs.

    It opens on the finished runs of this sweep, the best on the hold-out first, and the soups' table.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    config, unit = experiment.config, experiment.unit
    score = experiment.task.score_name.removeprefix("top-1 ")
    title = score[0].upper() + score[1:]
    points = f"correct hold-out {unit}" if score == "accuracy" else f"{score} times the number of hold-out {unit},"
    holdout, shifts = wr.SummaryMetric(f"accuracy/{config.data.holdout}"), wr.SummaryMetric(MEAN)
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), log=key in RATES) for key in DRAWN]
    axes += map(wr.ParallelCoordinatesPlotColumn, (holdout, shifts))
    sweep = [
        wr.ScatterPlot(title=f"{title}: hold-out, and mean of the distribution shifts", x=holdout, y=shifts),
        wr.ParallelCoordinatesPlot(title="Recipes", columns=axes),
        wr.ScatterPlot(title="Learning rate", x=wr.Config("lr"), y=holdout, log_x=True),
    ]
    tuning = [
        wr.LinePlot(title="Training loss", x="epoch", y=["loss"], smoothing_factor=0.6),
        wr.LinePlot(title="Learning rate", x="epoch", y=["lr"]),
        wr.LinePlot(title=f"{unit.capitalize()} per second", x="Step", y=[f"timing.{unit}_per_second"]),
    ]
    trace = f"Greedy soup: {points} of each candidate and of the best so far"
    figures = ["figures/figure_gains", "figures/figure_1", "figures/figure_B1", "figures/contact"]
    soups = [
        wr.WeavePanelSummaryTable(table_name="table_3"),
        wr.MediaBrowser(title="Figures", media_keys=figures),
        wr.LinePlot(title=trace, x="Step", y=["greedy/correct", "greedy/best"]),
    ]
    panels = {"Soups": soups, "Sweep": sweep, "Fine-tuning": tuning}
    sweep_alone = ws.Metric("Group") == tracking.group({"name": config.name})
    scores = [f"accuracy/{config.data.holdout}", MEAN]
    runs: dict[str, Any] = {
        "filters": [sweep_alone, ws.Metric("State") == "finished"],
        "order": [ws.Ordering(ws.Summary(scores[0]), ascending=False)],
        "pinned_columns": [f"summary:{name}" for name in scores],
    }
    return ws.Workspace(
        entity=entity,
        project=tracking.project({"project": config.track.project}),
        name=re.sub(r"[^A-Za-z0-9 _-]", "-", f"modelsoups {config.name}"),  # W&B: + is an emoji
        sections=[ws.Section(name=name, panels=shown, is_open=True) for name, shown in panels.items()],
        runset_settings=ws.RunsetSettings(**runs),
    )
