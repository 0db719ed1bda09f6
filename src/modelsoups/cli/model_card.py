"""The model card (README.md) of an exported soup, rendered from model_card_template.md."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config
from modelsoups.disk import paths, provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.text_tables import escape_markdown, markdown
from modelsoups.soup.coefficients import Soup

TEMPLATE = Path(__file__).with_name("model_card_template.md")


def card(experiment: Experiment, soup: Soup, about: Mapping[str, Any]) -> str:
    """Return the model card of a soup as Markdown; special characters in names are escaped.

    about: of an image model, whether its features are scaled to unit length before the head
    (`normalize`); of a text model, what its inputs are made of (`export_text.prompt_facts`).
    """
    config = experiment.config
    library = config.model.library if config.model.library in ("timm", "transformers") else "open_clip"
    kind = "text-classification" if library == "transformers" else "image-classification"
    base, measured = hub_id(config.model), results_of(config, experiment.files.results / paths.RESULTS, kind)
    facts = ModelCardData(
        library_name=library,
        license="other",
        pipeline_tag=kind,
        tags=["model-soup", "merge", kind],
        model_name=f"{config.name}: {config.export.row}",
        eval_results=measured or None,
        base_model=[base] if base else None,
        base_model_relation="merge" if base else None,
    )
    recipes: dict[str, Recipe] = {}
    if config.pool == "finetuned":
        for index, recipe in enumerate(experiment.draw.recipes()):
            recipes[f"{index:03d}"] = recipe
    names = {"name": config.name, "row": config.export.row, "method": soup.method, "data": config.data.name}
    tag = f" ({provenance.public(config.model.tag)})" if config.model.tag else ""
    names["base"] = provenance.public(config.model.name) + tag
    made = ModelCard.from_template(
        facts,
        template_path=str(TEMPLATE),
        count=len(soup.ingredients),
        text=config.model.text,
        **{"normalize": config.model.normalize_features, **about},
        ingredients=_ingredients(soup, recipes),
        accuracy=_scores(experiment.files.results / paths.RESULTS, config.export.row),
        **dict(zip(names, map(escape_markdown, names.values()), strict=True)),
    )
    return str(made)


def hub_id(model: ModelConfig) -> str | None:
    """Return the pre-trained model's name on the Hugging Face hub; None for a file or folder, or if it has none."""
    found = model.name if model.library == "transformers" else ""
    if model.library == "open_clip" and model.tag:
        found = open_clip.get_pretrained_cfg(model.name, model.tag).get("hf_hub", "")
    elif model.library == "timm":
        with contextlib.suppress(RuntimeError):  # the tag is a file, or timm does not know it
            known = timm.get_pretrained_cfg(".".join(filter(None, [model.name, model.tag])))
            found = (known and known.hf_hub_id) or ""
            found += f"{known.architecture}.{known.tag}" if known and found.endswith("/") else ""
    found = found.strip("/") if not found.startswith("/") else ""
    return found if re.fullmatch(r"\w[\w.-]*/[\w.-]+", found) and not Path(found).exists() else None


def results_of(config: Config, path: Path, kind: str) -> list[EvalResult]:
    """Return the scores of the exported soup in results.jsonl, as they stand there, for the card's model-index.

    Each has its 95% interval, the number of examples and the seeds as arguments of the metric.
    """
    lines = storage.read_jsonl(path) if path.exists() else []
    about: dict[str, Any] = next((line["experiment"] for line in lines if "experiment" in line), {})
    titles = {known["name"]: known["title"] for known in about.get("sets", ())}
    metric = about.get("score", {}).get("name", "accuracy")
    seeds = {"soup.seed": config.soup.seed}
    if config.pool == "finetuned":
        seeds["sweep.seed"] = config.sweep.seed
    found = []
    for line in lines:
        if line.get("row") != config.export.row or line.get("accuracy") is None or "n" not in line:
            continue
        interval = {"interval_95": [line["low"], line["high"]]} if "low" in line else {}
        name = line["dataset"]
        told = {"dataset_type": f"{config.data.name}-{name}", "dataset_name": titles.get(name, name)}
        value = {"metric_type": metric, "metric_value": line["accuracy"]}
        found.append(EvalResult(task_type=kind, **told, **value, metric_args={**interval, "n": line["n"], **seeds}))
    return found


def _ingredients(soup: Soup, recipes: Mapping[str, Recipe]) -> str:
    """Return a Markdown table of each ingredient's coefficient and differing hyperparameters."""
    rows = [["ingredient", "coefficient"]]
    known = []
    for position, name in enumerate(soup.ingredients):
        values = [float(row[position]) for row in soup.coefficients.values()]
        rows.append([name, f"{sum(values) / len(values):.4g}"])
        known.append(recipes.get(name.split("-")[0]))
    shared = []
    written = {key for recipe in known if recipe for key in recipe.to_json()}
    for key in filter(written.__contains__, Recipe.names()):
        values_of = [str(asdict(recipe)[key]) if recipe else "" for recipe in known]
        distinct = set(values_of) - {""}
        if len(distinct) > 1:
            for row, value in zip(rows, [key, *values_of], strict=True):
                row.append(value)
        elif distinct:
            shared.append(f"{key} {distinct.pop()}")
    same = f"\nHyperparameters shared by all: {escape_markdown(', '.join(shared))}." if shared else ""
    return markdown(rows) + same


def _scores(path: Path, row: str) -> str:
    """Return a Markdown table of a soup's scores in results.jsonl, with 95% intervals."""
    lines = storage.read_jsonl(path) if path.exists() else []
    score = next((line["experiment"].get("score") for line in lines if "experiment" in line), None)
    headings = [score["unit"], f"{score['name']} (times 100)"] if score else ["images", "top-1 (%)"]
    rows = [["data set", *headings, "95% interval"]]
    for line in lines:
        if line.get("row") == row and line.get("accuracy") is not None:
            ends = f"{100 * line['low']:.2f} to {100 * line['high']:.2f}" if "low" in line else ""
            accuracy = f"{100 * line['accuracy']:.2f}"
            rows.append([line["dataset"], str(line.get("n", "")), accuracy, ends])
    if len(rows) == 1:
        return "Not measured yet: run `modelsoups report`, then export again."
    return markdown(rows) + "\nThe soup was chosen on the hold-out alone."
