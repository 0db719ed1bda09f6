"""What a report is made from: the per-image correctness of every row, read from a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsoups.data.imagenet import relabelled
from modelsoups.data.transforms import eval_crop
from modelsoups.disk import manifests as manifests_
from modelsoups.disk import storage
from modelsoups.experiment.logits import logits_of
from modelsoups.experiment.sets import is_prepared, missing_names, open_set, set_facts, test_names
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import SetInfo
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.stats import scores
from modelsoups.stats.scores import Logits

if TYPE_CHECKING:
    from modelsoups.config.schema import Config


@dataclass(frozen=True)
class RowCorrectness:
    """Which images one model or ensemble gets right: a bool array by data set, in the set's order.

    kind: initialization, individual, soup, ensemble or interpolation. inference: forward passes per
    image. weight: by data set, where images do not count the same (an accuracy averaged over
    classes); the weights of a set add up to 1.
    """

    name: str
    kind: str
    correct: dict[str, np.ndarray]
    soup: Soup | None = None
    recipe: Recipe | None = None
    inference: int = 1
    weight: dict[str, np.ndarray] = field(default_factory=dict)

    def accuracy(self, dataset: str) -> float:
        correct_N = self.correct[dataset]
        return float(correct_N @ self.weight[dataset] if dataset in self.weight else correct_N.mean())


@dataclass(frozen=True)
class Evidence:
    """All rows of one experiment.

    rows: by name, as "initialization", "best", "greedy", "greedy_random_0" or "wise_ft_best_0.5";
    individuals: every complete ingredient, by id; failed: ingredient id -> why it has no model;
    curve[k][method]: the row for the first k models in one random order (Figure B.1), for the
    methods best, uniform, greedy and ensemble.
    """

    name: str
    sets: list[SetInfo]
    rows: dict[str, RowCorrectness]
    individuals: dict[str, RowCorrectness]
    curve: dict[int, dict[str, RowCorrectness]]
    failed: dict[str, str]
    contact: dict[str, np.ndarray]  # title of a set -> a few uint8 images_BHWC
    timings: dict[str, float]  # stage -> seconds of the run that made it
    provenance: dict[str, Any]  # of the soups, with the configuration and `made_by`
    notes: list[str] = field(default_factory=list)  # for the reader, as which sets are missing


def collect(cfg: Config) -> Evidence:
    """Read every row of a finished run from the cache of logits; nothing is computed by a model."""
    from modelsoups.experiment.ingredients import initial_models, load_pool

    folder = load_pool(cfg)
    rows = {row: _row(cfg, row, "initialization", [i.sha256]) for row, i in initial_models(cfg).items()}
    curve: dict[int, dict[str, RowCorrectness]] = {}
    for path in sorted(p for p in cfg.run.soups.glob("*.json") if p.name != manifests_.MANIFEST):
        row = _soup_row(cfg, path)
        if path.stem.startswith("curve_"):
            _, k, method = path.stem.split("_", 2)
            curve.setdefault(int(k), {})[method] = row
        else:
            rows[path.stem] = row
    curve[len(folder.ingredients)] = {m: rows[m] for m in ("best", "uniform", "greedy", "ensemble")}
    manifest = manifests_.manifest_of(cfg.run.soups)
    assert manifest is not None, "report_inputs() has checked it"
    return Evidence(
        name=cfg.name,
        sets=[_info(cfg, name) for name in [cfg.data.holdout, cfg.data.test, *cfg.data.shifts, *cfg.data.extra]],
        rows=rows,
        individuals={i.id: _row(cfg, i.id, "individual", [i.sha256], recipe=i.recipe) for i in folder.ingredients},
        curve=curve,
        failed=folder.missing,
        contact={open_set(cfg.data.dir, n).title: _few(cfg, n) for n in _pictured(cfg)},
        timings=storage.read_json(cfg.run.timings) if cfg.run.timings.exists() else {},
        provenance={**manifest["provenance"], "config": asdict(cfg), **made_by(cfg, folder.ingredients)},
        notes=_notes(cfg),
    )


def report_inputs(cfg: Config) -> dict[str, Any]:
    """What a report depends on, cheap to compute; ValueError when the soups are not complete."""
    manifest = manifests_.manifest_of(cfg.run.soups)
    if manifest is None:
        raise ValueError(f"{cfg.run.soups} is not complete; run `modelsoups soup` first")
    return {"soups": storage.fingerprint(manifest["inputs"]), "made": manifest["provenance"]["time"], "name": cfg.name}


def made_by(cfg: Config, ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """What made each row that the soup stage did not make, and what the ingredients cost.

    The costs of imported ingredients are not known, so that `costs` is empty.
    """
    manifests: dict[Path, dict[str, Any] | None] = {}
    rows: dict[str, dict[str, Any]] = {}
    for ingredient in ingredients:
        path = Path(ingredient.path)
        if path.parent not in manifests:
            manifests[path.parent] = manifests_.manifest_of(path.parent)
        if manifest := manifests[path.parent]:
            file, by = f"ingredients/{path.parent.name}/{path.name}", manifest["provenance"]
            made = {key: by.get(key) for key in ("command", "commit", "time")}
            rows[ingredient.id] = {"file": file, "sha256": ingredient.sha256, **made}
    for path in cfg.run.soups.glob("*.json"):
        if path.name != manifests_.MANIFEST:
            sha256 = storage.read_json(path).get("sha256")
            rows[path.stem] = {"file": f"soups/{path.name}", "sha256": sha256}
    trained = [m for m in manifests.values() if m and "images" in m]
    costs = {
        "models": len(trained),
        "images": sum(m["images"] for m in trained),
        "seconds": round(sum(m["seconds"] for m in trained), 1),
        "process_seconds": round(sum(m["seconds"] * manifests_.training_ranks(m) for m in trained), 1),
    }
    return {"rows": dict(sorted(rows.items())), "costs": costs if trained else {}}


def _soup_row(cfg: Config, path: Path) -> RowCorrectness:
    from modelsoups.experiment.soups import read_soup

    soup = read_soup(path)
    if soup.space == "logits":
        return _row(cfg, path.stem, "ensemble", soup.hashes, soup=soup, inference=len(soup.hashes))
    kinds = {"wise_ft": "interpolation", "best": "individual", "second_best": "individual"}
    kind = kinds.get(soup.method, "soup")
    return _row(cfg, path.stem, kind, [storage.read_json(path)["sha256"]], soup=soup)


def _row(cfg: Config, name: str, kind: str, sha256s: Sequence[str], **more: Any) -> RowCorrectness:
    """One model, or the ensemble of several (mean of their logits), on every prepared set."""
    correct: dict[str, np.ndarray] = {}
    weight: dict[str, np.ndarray] = {}
    for dataset in [cfg.data.holdout, *test_names(cfg)]:
        logits = [logits_of(cfg, dataset, sha256) for sha256 in sha256s]
        logits_NC = scores.ensemble([x.logits_NC for x in logits])
        correct[dataset] = Logits(dataset, logits_NC, logits[0].labels_N).correct_N.numpy()
        if dataset == cfg.data.test:
            for other in _relabelled(cfg):
                correct[other], weight_N = relabelled.score(open_set(cfg.data.dir, other), logits_NC)
                if weight_N is not None:
                    weight[other] = weight_N
    return RowCorrectness(name, kind, correct, weight=weight, **more)


def _relabelled(cfg: Config) -> list[str]:
    """The prepared sets that give other labels to the images of the test set."""
    there = [name for name in cfg.data.extra if is_prepared(cfg, name)]
    return [name for name in there if open_set(cfg.data.dir, name).scoring is not None]


def _info(cfg: Config, name: str) -> SetInfo:
    if not is_prepared(cfg, name):
        facts = set_facts(cfg, name)
        return SetInfo(name, facts["title"], facts["role"], 0)
    dataset = open_set(cfg.data.dir, name)
    return SetInfo(name, dataset.title, dataset.role, len(dataset))


def _pictured(cfg: Config) -> list[str]:
    train = [cfg.data.train] if is_prepared(cfg, cfg.data.train) else []
    return list(dict.fromkeys([*train, cfg.data.holdout, *test_names(cfg)]))


def _notes(cfg: Config) -> list[str]:
    missing = [_info(cfg, name) for name in missing_names(cfg)]
    if not missing:
        return []
    titles = ", ".join(info.title for info in missing)
    lost = any(info.role == "shift" for info in missing)
    return [f"Not available: {titles}." + (" So there is no mean of the five shifts." if lost else "")]


def _few(cfg: Config, name: str) -> np.ndarray:
    """Twelve images spread over the set, uint8 images_BHWC."""
    dataset = open_set(cfg.data.dir, name)
    picks = np.linspace(0, len(dataset) - 1, 12).astype(int)
    crop = eval_crop(cfg.model.image_size)
    return np.stack([np.asarray(crop(dataset.image(int(i)))) for i in picks])
