"""Writes a soup of a text model as a folder for transformers, with the prompt in prompt.json.

A linear head on an encoder is in head.safetensors, because transformers has no such class.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from modelsoups.config.data import DataConfig
from modelsoups.config.models import ModelConfig
from modelsoups.disk import storage
from modelsoups.models import from_transformers, prompts
from modelsoups.models.text_classifier import TextClassifier, TextEncoder, build
from modelsoups.models.tokenization import PromptInputs

HEAD, PROMPT = "head.safetensors", "prompt.json"
FILES = (*from_transformers.FILES, HEAD, PROMPT)


def build_for(model: ModelConfig, data: DataConfig, options: Sequence[str]) -> TextClassifier:
    """Return the classifier for a data set's options, prompt and fields."""
    return build(model, options, data.text.prompt, list(data.text.fields))


def write(model: TextClassifier, folder: Path) -> tuple[str, ...]:
    """Write the model, its tokenizer, prompt.json and a head, if any; return the file names."""
    files = [PROMPT]
    if isinstance(model, TextEncoder):
        storage.save_weights(folder / HEAD, {k: t.detach().contiguous() for k, t in model.head.state_dict().items()})
        files.append(HEAD)
        module = model.encoder
    else:
        module = model.model
    storage.write_json(folder / PROMPT, prompt_facts(model))
    return (*from_transformers.save(module, model.tokenizer, folder), *files)


def prompt_facts(model: TextClassifier) -> dict[str, Any]:
    """Return what an input is made of: with a head its fields, else prompt, answers and masks."""
    if not isinstance(model.inputs, PromptInputs):
        inputs = model.inputs
        towers = len(inputs.fields) == 2 and not inputs.pair
        return {"fields": inputs.fields, "towers": towers, "types": inputs.typed}
    return {
        "prompt": model.inputs.template(),
        "fields": model.inputs.prompt.fields,
        "answers": prompts.answers(model.options),
        "answer_tokens": model.answers,
        "masks": len(model.inputs.tail),
    }


def load(config: ModelConfig, data: DataConfig, options: Sequence[str], folder: Path) -> Callable[[], Tensor]:
    """Return a function that computes the scores of `sample` by the model in an exported folder."""
    text = build_for(replace(config, name=str(folder), tag="main"), data, options)
    if isinstance(text, TextEncoder):
        text.head.load_state_dict(load_file(folder / HEAD))
    return lambda: sample(text)


def sample(model: TextClassifier) -> Tensor:
    """Return a model's scores for three short examples, which consist of its options."""
    texts = ["It is so.", *model.options[:2]]
    names = model.inputs.prompt.fields if isinstance(model.inputs, PromptInputs) else model.inputs.fields
    examples = [dict.fromkeys(names, text) for text in texts]
    scores_BC: Tensor = model(**model.collate(model.encode(examples)).tensors)
    return scores_BC
