"""Where the modules of version 0.1 are now, for the message when one is imported."""

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

PUBLIC = {  # what the documentation of 0.1 named -> where it is now
    "core.types": "soup.coefficients (Soup, Ingredient), recipes.recipe (Recipe) and stats.scores (Logits)",
    "core.methods": "soup.methods, and Pool in soup.pool",
    "core.stats": "stats.intervals and stats.paired_tests",
    "core.weights": "weights.state_dicts",
    "core.holdout": "soup.holdout",
    "reporting.sections": "report.sections",
}
ROOMS = {"core": "soup, weights, checkpoints and stats", "analyse": "analyses", "reporting": "report",
         "pretraining": "miniature.pretraining", "runs": "disk", "evaluate": "experiment.logits",
         "finetune": "stages.finetune", "model": "models.classifier", "schema": "config.schema",
         "parallel": "workers", "released": "published and cli.import_released"}  # fmt: skip


class Moved(MetaPathFinder):
    """An import hook that raises an error for a module of version 0.1, and names its new module."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        if package == "modelsoups" and old in ROOMS:
            message = f"{name} has moved: {_places(old)}; see docs/architecture.md"
            raise ModuleNotFoundError(message, name=name)
        return None


def _places(old: str) -> str:
    known = [f"{name} -> {place}" for name, place in PUBLIC.items() if name.partition(".")[0] == old]
    return "; ".join(known) or ROOMS[old]
