"""What the pre-trainings of IconCLIP and IconViT share: batches, and a head for icons' names."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from modelsoups.miniature import sets
from modelsoups.miniature.pretraining.corpus import Corpus, corpus_of_icons
from modelsoups.miniature.pretraining.training import Losses, Pretraining, PretrainOptions
from modelsoups.miniature.render import LOOKS, render
from modelsoups.models.classifier import Normalisation

CPU = torch.device("cpu")


@dataclass
class IconOptions(PretrainOptions):
    """The options of a pre-training on icons; the defaults made the IconCLIP in this package."""

    shared_names: float = 0.7  # fraction of a batch whose names two or more designers drew
    auxiliary: float = 0.5  # weight of the name-classification loss


class IconPretraining(Pretraining):
    """A pre-training on rendered icons: a model, and a head that predicts an icon's name."""

    options_class = IconOptions
    options: IconOptions

    def __init__(self, options: IconOptions, corpus: Corpus | None = None) -> None:
        """corpus: the icons and their names; None: make it."""
        self.corpus = corpus or corpus_of_icons()
        super().__init__(options)

    def build(self) -> dict[str, nn.Module]:
        model, features, mean, std = self.build_model()
        self.normalisation = Normalisation(mean, std)
        self.names = nn.Linear(features, int(self.corpus.shared_name_of.max()) + 1, bias=False)
        return {"model": model, "names": self.names}

    @abstractmethod
    def build_model(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        """Write the model's configuration to options.out, and build the model from it.

        Returns the model in training mode, its number of features, and the pixels' mean and std.
        """

    @abstractmethod
    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> Losses:
        """Return the loss to minimise and two numbers to print, whose names are in `parts`."""

    def batch_losses(self) -> Losses:
        options, corpus = self.options, self.corpus
        g = sets.generator(f"pretrain {options.seed} step {self.step}")
        places_B = self._batch(g)
        look = LOOKS["easy"].towards(LOOKS["hard"], min(1.0, 2 * self.step / options.steps))
        pixels_BCHW = render(corpus.masks_GSS[places_B], look, g, corpus.masks_GSS)
        return self.losses(self.normalisation(pixels_BCHW, CPU), places_B, g)

    def _batch(self, g: Generator) -> Tensor:
        """Return random glyph indices, (B,): first names in several icon fonts, then others."""
        corpus, size = self.corpus, self.options.batch_size
        shared = round(size * self.options.shared_names)
        first_B = torch.randperm(len(corpus.shared), generator=g)[:shared]
        second_B = torch.randperm(len(corpus.single), generator=g)[: size - shared]
        return torch.cat([corpus.shared[first_B], corpus.single[second_B]])
