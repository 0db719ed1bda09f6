"""The classes Encoder and Clip, errors for names and tags that a model library lacks, and `quiet`."""

import contextlib
import difflib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modelsoups.checkpoints.formats import SUFFIXES
from modelsoups.config.models import ModelConfig
from modelsoups.models.positions import PositionGrid


@dataclass(frozen=True)
class Encoder:
    """A pre-trained image encoder; mean and std (per channel) normalise its input pixels."""

    module: nn.Module
    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None  # the side of its images in pixels; None: any
    grid: PositionGrid | None = None  # of a vision transformer, which also takes other multiples of its patch
    convolutional: bool = False  # whether it also takes images of any other size


@dataclass(frozen=True)
class Clip:
    """A pre-trained CLIP, with image tower and text tower, and its tokenizer."""

    model: Any  # open_clip's CLIP: visual, encode_text, logit_scale
    tokenize: Callable[[list[str]], Tensor]

    def image_encoder(self, features: int) -> Encoder:
        """Return the image tower as an Encoder; `features` is the number of its features."""
        visual = self.model.visual
        side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        grid, trunk = None, getattr(visual, "trunk", None)  # of timm, such as a ConvNeXt
        if hasattr(visual, "positional_embedding"):  # a vision transformer of open_clip itself
            grid = PositionGrid("positional_embedding", side, visual.patch_size[0], leading=1)
        fixed = trunk is None or trunk.pretrained_cfg.get("fixed_input_size") or hasattr(visual.head, "pool")
        statistics = tuple(visual.image_mean), tuple(visual.image_std)
        return Encoder(visual, features, *statistics, side, grid, convolutional=not fixed)


def unknown_name(library: str, name: str, names: Iterable[str]) -> ValueError:
    """Return the error for a model name that the library lacks; it suggests similar names."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(near)}?" if near else f"{library}'s documentation lists them"
    return ValueError(f"model.name={name}: {library} has no such model; {hint}")


def unknown_tag(library: str, name: str, tag: str, tags: Iterable[str]) -> ValueError:
    """Return the error for a tag of weights that the library lacks; it lists the valid tags."""
    known = f"valid tags: {', '.join(tags) or 'none'}; or give a weight file ({', '.join(SUFFIXES)})"
    return ValueError(f"model.tag={tag}: {library} has no such weights for {name}; {known}")


def not_loaded(library: str, model: ModelConfig, error: Exception) -> ValueError:
    """Return the error for a model that the library has but failed to load, with the reason."""
    why = f"{library} could not load this model ({one_line(error)})"
    return ValueError(
        f"model.name={model.name} model.tag={model.tag}: {why}; if there is no network, set model.tag to a file"
    )


def one_line(error: Exception) -> str:
    """Return an error's message on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:297] + "..."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress open_clip's warning about missing weights inside the with block."""
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.root.setLevel(level)
