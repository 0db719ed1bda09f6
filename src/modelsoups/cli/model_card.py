"""README.md of an exported model: how to load it, what it is made of, how good it is, whose it is."""

from __future__ import annotations

from dataclasses import asdict

import yaml

from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.experiment.draw import load_draw
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Soup
from modelsoups.weights.state_dicts import EVERYTHING

CLIP = """import json
import open_clip, torch
from PIL import Image
from safetensors.torch import load_file

folder = "."  # this folder
model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
head = load_file(f"{folder}/head.safetensors")
labels = json.load(open(f"{folder}/labels.json"))
with torch.inference_mode():
    image = preprocess(Image.open("image.png").convert("RGB"))[None]
    features = model.encode_image(image, normalize=@normalize@)
    logits = features @ head["weight"].T + head["bias"]
print(labels[logits.argmax()])
"""
TIMM = """import json
import timm, torch
from PIL import Image

folder = "."  # this folder
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
labels = json.load(open(f"{folder}/labels.json"))
with torch.inference_mode():
    logits = model(preprocess(Image.open("image.png").convert("RGB"))[None])
print(labels[logits.argmax()])
"""
LICENCE = """This model is derived from {base}, and trained on {data}: their licences hold for it, and nobody has
checked here what they allow. The software that made it, modelsoups, is under the MIT licence."""


def card(cfg: Config, soup: Soup, normalize: bool) -> str:
    """The whole text; names from files are escaped, so that they appear as text."""
    library = "timm" if cfg.model.library == "timm" else "open_clip"
    facts = {"library_name": library, "license": "other", "pipeline_tag": "image-classification",
             "tags": ["model-soup", "image-classification"]}  # fmt: skip
    usage = (TIMM if library == "timm" else CLIP).replace("@normalize@", str(normalize))
    base = f"{cfg.model.name}" + (f" ({cfg.model.tag})" if cfg.model.tag else "")
    parts = [
        f"---\n{yaml.safe_dump(facts)}---\n# {_text(cfg.name)}: {_text(cfg.export.row)}",
        f"A {_text(soup.method)} soup of {len(soup.ingredients)} fine-tuned models of {_text(base)} on "
        f"{_text(cfg.data.name)}: the weights are averaged (Wortsman et al., *Model soups*, 2022), so it costs what "
        "one model costs. soup.json holds the coefficients, labels.json the class names.",
        f"## Use\n\n```python\n{usage}```",
        f"## Ingredients\n\n{_ingredients(cfg, soup)}",
        f"## Accuracy\n\n{_accuracy(cfg)}",
        "## Licence\n\n" + LICENCE.format(base=_text(base), data=_text(cfg.data.name)),
    ]
    return "\n\n".join(parts) + "\n"


def _ingredients(cfg: Config, soup: Soup) -> str:
    """A table: id, coefficient (its mean over layers, where they have their own), and what the recipes differ in."""
    recipes = {f"{i:03d}": recipe for i, recipe in enumerate(load_draw(cfg))} if cfg.pool == "finetuned" else {}
    mine = {name: recipes.get(name.split("-")[0]) for name in soup.ingredients}
    keys = [k for k in Recipe.names() if len({str(getattr(r, k)) for r in mine.values() if r}) > 1]
    rows = [["ingredient", "coefficient", *keys]]
    for position, (name, recipe) in enumerate(mine.items()):
        values = [row[position] for row in soup.coefficients.values()]
        mean = soup.coefficients[EVERYTHING][position] if len(values) == 1 else sum(values) / len(values)
        rows.append([name, f"{mean:.4g}", *(str(asdict(recipe)[k]) if recipe else "" for k in keys)])
    shared = next((r for r in mine.values() if r), None)
    same = [f"{k} {getattr(shared, k)}" for k in Recipe.names() if shared and k not in keys]
    return _table(rows) + (f"\nThe same for all: {_text(', '.join(same))}." if same else "")


def _accuracy(cfg: Config) -> str:
    """This row's line of every data set, with its 95% interval, from the report."""
    path = cfg.run.results / "results.jsonl"
    lines = storage.read_jsonl(path) if path.exists() else []
    mine = [line for line in lines if line.get("row") == cfg.export.row and "accuracy" in line]
    if not mine:
        return "Not reported yet: run `modelsoups report`, then export again."
    rows = [["data set", "images", "top-1 (%)", "95% interval"]]
    for line in mine:
        interval = f"{100 * line['low']:.2f} to {100 * line['high']:.2f}" if "low" in line else ""
        rows.append([line["dataset"], str(line.get("n", "")), f"{100 * line['accuracy']:.2f}", interval])
    return _table(rows) + "\nEvery choice was made on the hold-out alone."


def _table(rows: list[list[str]]) -> str:
    from modelsoups.report import text_tables

    return text_tables.markdown([[" ".join(cell.split()) for cell in row] for row in rows])


def _text(text: str) -> str:
    from modelsoups.report import text_tables

    return text_tables.escape_markdown(" ".join(text.split()))
