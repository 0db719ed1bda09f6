"""The soups of a run: their files, their averaged weights, and the models to choose from."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.states import state_sha256
from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.batchnorm import is_reestimated, reestimated
from modelsoups.experiment.ingredients import Ingredients, load_weights
from modelsoups.experiment.logits import LogitsCache
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.pool import Gradient, Pool, model_gradient
from modelsoups.weights.mixing import mix_in_memory

STATES_IN_MEMORY = 4 * 2**30  # bytes of checkpoints cached per process
SMALL = 2**22  # bytes of hold-out logits up to which those of every candidate are cached
CURVE = (1, 2, 4, 8, 16, 24, 36, 48, 72)  # numbers of models in Figure B.1
EXTRAS = ("inputs", "sha256")  # keys in a soup's file besides those of Soup


class Soups:
    """The soups of one run, each a file runs/<name>/soups/<row>.json."""

    def __init__(self, files: Run, ingredients: Ingredients, logits: LogitsCache, batchnorm: str = "auto") -> None:
        """batchnorm: the key soup.batchnorm."""
        self.files, self.ingredients, self.logits, self.batchnorm = files, ingredients, logits, batchnorm
        self._states: dict[str, dict[str, Tensor]] = {}  # by sha256
        self._used = 0  # bytes in self._states

    def write(self, row: str, soup: Soup, **extras: str) -> None:
        """Write soups/<row>.json. extras: `inputs` (hash of all inputs), `sha256` (of weights)."""
        storage.write_json(self.files.soup(row), {**soup.to_json(), **extras})

    def read(self, row: str) -> Soup:
        """Read soups/<row>.json. Raises ValueError if the file is missing or malformed."""
        path = self.files.soup(row)
        if not path.exists():
            raise ValueError(f"{path} is missing; run `modelsoups soup` first")
        content = storage.read_object(path)
        try:
            return Soup.from_json({k: v for k, v in content.items() if k not in EXTRAS})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def extras(self, row: str) -> dict[str, str]:
        """Return the hashes `inputs` and `sha256` in soups/<row>.json; {} if there is no file."""
        path = self.files.soup(row)
        content = storage.read_object(path) if path.exists() else {}
        return {key: content[key] for key in EXTRAS if key in content}

    def mixed(self, soup: Soup) -> dict[str, Tensor]:
        """Return the averaged weights of a soup, as a state dict.

        Checkpoints are read tensor by tensor, so memory for one model is enough. Raises ValueError
        if an ingredient is missing or has changed since the soup was chosen.
        """
        known = {i.id: i for i in [*self.ingredients.find().ingredients, *self.ingredients.initial().values()]}
        for name, sha256 in zip(soup.ingredients, soup.hashes, strict=True):
            if name not in known or known[name].sha256 != sha256:
                raise ValueError(f"soup {soup.method}: ingredient {name} is missing or changed; run `modelsoups soup`")
        mixed = mix_in_memory([self.ingredients.open(known[name]) for name in soup.ingredients], soup.coefficients)
        several = len(soup.ingredients) > 1 and self.is_reestimated([known[name] for name in soup.ingredients])
        return reestimated(self.logits, mixed) if several else mixed

    def is_reestimated(self, ingredients: Sequence[Ingredient]) -> bool:
        """Return whether soups of these models get BatchNorm statistics of their own."""
        path = ingredients[0].path
        if Path(path).exists():
            return is_reestimated(self.batchnorm, ingredients, list(open_checkpoint(path)))
        # The weights were deleted after their soups were made.
        network = self.logits.classifier(len(self.logits.sets.holdout.classes))
        return is_reestimated(self.batchnorm, ingredients, list(network.state_dict()))

    def pool(self, ingredients: Sequence[Ingredient], chosen_on: str | None = None) -> Pool:
        """Return what a soup method chooses from: these ingredients and their hold-out logits.

        chosen_on: name of the data set to choose on, by default the hold-out.
        """
        sets = self.logits.sets
        name = chosen_on or sets.data.holdout
        fresh = self.is_reestimated(ingredients)
        return Pool(
            ingredients=tuple(ingredients),
            logits=tuple(self.logits.of(name, i.sha256).logits_NC for i in ingredients),
            labels_N=torch.from_numpy(sets[name].labels_N),
            state=lambda i: self._state(ingredients[i]),
            evaluate=lambda state: self._evaluated(name, reestimated(self.logits, state) if fresh else state),
            gradient=functools.partial(self._gradient, name),
            points=self.logits.task.points_on(sets[name]),
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )

    def _evaluated(self, name: str, state: Mapping[str, Tensor]) -> Tensor:
        """Return a candidate's logits, (images, classes); small ones are cached, as methods share candidates."""
        dataset = self.logits.sets[name]
        if 4 * len(dataset) * len(dataset.classes) > SMALL:
            return self.logits.forward(name, state)
        return self.logits.of(name, state_sha256(state), state).logits_NC

    def _state(self, ingredient: Ingredient) -> dict[str, Tensor]:
        """Return an ingredient's state dict; up to STATES_IN_MEMORY bytes of weights are cached."""
        if ingredient.sha256 in self._states:
            return self._states[ingredient.sha256]
        state = load_weights(ingredient)
        size = Path(ingredient.path).stat().st_size
        if self._used + size <= STATES_IN_MEMORY:
            self._states[ingredient.sha256], self._used = state, self._used + size
        return state

    def _gradient(self, name: str, state: Mapping[str, Tensor], beta: float, index_B: Tensor) -> Gradient:
        dataset = self.logits.sets[name]
        model = self.logits.classifier(len(dataset.classes))
        inputs_B = self.logits.task.inputs(dataset, model, index_B)
        labels_B = torch.from_numpy(dataset.labels_N)[index_B].to(next(model.parameters()).device)
        return model_gradient(model, state, beta, inputs_B, labels_B)


def curve_points(count: int) -> list[int]:
    """Return the x axis of Figure B.1, numbers of models, below `count`: 1, 2, 4, 8, ..."""
    return [k for k in CURVE if k < count]
