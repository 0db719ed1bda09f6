"""The sweep as a W&B workspace, defined here and created by `modelsoups dashboard`: needs a login."""

from __future__ import annotations

import re
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.recipes.recipe import Recipe

MEAN = "accuracy/mean of shifts"  # as tracking.results names them in a run's summary
RATES = ("lr", "weight_decay")  # of a recipe, on logarithmic axes
DRAWN = ("lr", "weight_decay", "label_smoothing", "mixup", "aug", "epochs")
assert set(DRAWN) <= set(Recipe.names())


def run(cfg: Config) -> bool:
    """Create the workspace and print its address; ValueError when W&B is not installed, or not logged in."""
    if cfg.wandb in ("offline", "disabled"):
        raise ValueError(f"wandb={cfg.wandb}: a workspace lies on W&B's server; see offline runs with `wandb leet`")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise ValueError("wandb-workspaces is not installed: pip install modelsoups[wandb]") from None
    try:
        entity = cfg.track.entity or wandb.Api().default_entity
        if entity is None:
            raise ValueError("no default entity")
        saved = workspace(cfg, entity).save()
    except Exception as error:  # from the network, the server or the client, each with its own kinds
        said = " ".join(str(error).split())
        raise ValueError(
            f"W&B did not take the workspace ({said[:300]}); `wandb login`, and see track.entity"
        ) from error
    print(f"dashboard: {saved.url}")
    return False


def workspace(cfg: Config, entity: str) -> Any:
    """The definition: hold-out against shifts, recipes, losses, the greedy soup's trace and the soups' tables."""
    import wandb_workspaces.workspaces as ws

    sections = {"Sweep": _sweep(cfg), "Fine-tuning": _losses(), "Soups": _soups()}
    return ws.Workspace(
        entity=entity,
        project=cfg.track.project,
        name=re.sub(r"[^A-Za-z0-9 _-]", "-", f"modelsoups {cfg.name}"),  # it takes a + for an emoji
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(filters=[ws.Metric("Group") == cfg.name]),
    )


def _sweep(cfg: Config) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    holdout = wr.SummaryMetric(f"accuracy/{cfg.data.holdout}")
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), log=key in RATES) for key in DRAWN]
    columns += [wr.ParallelCoordinatesPlotColumn(metric) for metric in (holdout, wr.SummaryMetric(MEAN))]
    return [
        wr.ScatterPlot(title="Hold-out against the mean of the shifts", x=holdout, y=wr.SummaryMetric(MEAN)),
        wr.ParallelCoordinatesPlot(title="Recipes", columns=columns),
        wr.ScatterPlot(title="Learning rate", x=wr.Config("lr"), y=holdout, log_x=True),
    ]


def _losses() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title="Training loss", x="epoch", y=["loss"], smoothing_factor=0.6),
        wr.LinePlot(title="Learning rate", x="epoch", y=["lr"]),
        wr.LinePlot(title="Images a second", x="Step", y=["timing.images_per_second"]),
    ]


def _soups() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    trace: list[Any] = ["greedy/correct", "greedy/best"]
    return [
        wr.LinePlot(title="Greedy soup: each candidate, and the best so far (correct)", x="Step", y=trace),
        wr.MediaBrowser(title="Figures", media_keys=["figures/figure_1", "figures/figure_B1", "figures/contact"]),
        wr.WeavePanelSummaryTable(table_name="table_3"),
    ]
