"""Adapters of every kind against PEFT's own merging: `python benchmarks/adapters.py`, with peft installed.

Small models get adapters that PEFT made and saved, with random numbers in everything that training changes. The right
values are worked out in float64 by `tests/peft_adapters.py`, which reads the files alone. The error is that of the
worst tensor, relative to its change from the base model. Ours is measured twice: the adapter that is written, and the
full model (`--base`). PEFT's are merge_and_unload of one adapter, and add_weighted_adapter followed by it, which gets
the best of "cat", "linear" and "svd" (of the summed rank). Writes results/benchmarks/adapters.md.
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from modelsoups import soup
from modelsoups.disk import provenance, storage
from modelsoups.soup.coefficients import Soup

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import peft_adapters as made

try:
    import peft
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run `pip install peft`")

OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "adapters.md"
COMBINATIONS = ("cat", "linear", "svd")
WEIGHTS = {"one adapter, weight 1": (1.0,), "two, 0.5 each": (0.5, 0.5), "two, 0.7 and -0.2": (0.7, -0.2)}
HEADER = """`python benchmarks/adapters.py` (peft {peft}, torch {torch}, {commit})

Error of the worst tensor, relative to its change from the base model; float32. "refused": says so in one line and
writes nothing. A dash: the method fails with an exception. PEFT's `add_weighted_adapter` is the best of "cat",
"linear" and "svd" of the summed rank.

"""


def attempt(measure: Callable[[], float], refusal: str) -> str:
    """The error as text, or what stands for an exception."""
    try:
        found = measure()
    except (ValueError, RuntimeError, NotImplementedError, TypeError, AttributeError, KeyError):
        return refusal
    return "other tensors" if math.isinf(found) else f"{found:.1e}"


class Case:
    """One kind of adapters in a folder, with their base model."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind, self.root = kind, root
        self.base = {k: t.clone() for k, t in made.model_of(kind).state_dict().items()}
        save_file(self.base, root / "base.safetensors")
        self.folders = [made.save_adapter(root / f"{seed}", kind, seed) for seed in (1, 2)]

    def ours(self, weights: Sequence[float], full: bool) -> float:
        folders = self.folders[: len(weights)]
        expected = made.weighted(self.base, folders, weights)
        opened = soup.uniform(folders)
        chosen = Soup("weights", opened.ingredients, opened.hashes, {"*": list(weights)})
        out = Path(tempfile.mkdtemp(dir=self.root)) / ("soup.safetensors" if full else "soup")
        soup.mix(chosen, out, base=self.root / "base.safetensors" if full else None)
        found = load_file(out) if full else made.meaning(self.base, out)
        return made.error(found, expected, self.base)

    def merged_by_peft(self) -> float:
        model = made.loaded(self.kind, self.folders[0]).merge_and_unload()
        return made.error(model.state_dict(), made.meaning(self.base, self.folders[0]), self.base)

    def weighted_by_peft(self, weights: Sequence[float], combination: str) -> float:
        folders = self.folders[: len(weights)]
        model = made.loaded(self.kind, folders[0])
        for n, folder in enumerate(folders[1:]):
            model.load_adapter(folder, f"more{n}")
        names = ["default", *(f"more{n}" for n in range(len(folders) - 1))]
        rank = sum(max(u.rank for u in a.updates.values()) for a in self._opened(folders))
        more = {"svd_rank": rank} if combination == "svd" else {}
        model.add_weighted_adapter(names, list(weights), "sum", combination_type=combination, **more)
        model.set_adapter("sum")
        whole = copy.deepcopy(model).merge_and_unload()
        return made.error(whole.state_dict(), made.weighted(self.base, folders, weights), self.base)

    def _opened(self, folders: Sequence[Path]) -> list[soup.library.adapters.Adapter]:
        opened = soup.library.open_all(folders, adapters_too=True)
        return [c for c in opened if isinstance(c, soup.library.adapters.Adapter)]


def best(texts: Sequence[str]) -> str:
    """The smallest of several errors; a text if there are no numbers."""
    numbers = [text for text in texts if text[0].isdigit()]
    return min(numbers, key=float) if numbers else texts[0]


def row(case: Case, weights: Sequence[float]) -> list[str]:
    ours = [attempt(lambda full=full: case.ours(weights, full), "refused") for full in (False, True)]  # type: ignore[misc]
    merged = attempt(case.merged_by_peft, "-") if len(weights) == 1 else ""
    ways = [attempt(lambda way=way: case.weighted_by_peft(weights, way), "-") for way in COMBINATIONS]  # type: ignore[misc]
    return [*ours, merged, best(ways)]


def table() -> str:
    parts = []
    for title, weights in WEIGHTS.items():
        columns = ["ours: adapter", "ours: full model", "PEFT: add_weighted_adapter"]
        if len(weights) == 1:
            columns.insert(2, "PEFT: merge_and_unload")
        lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for kind in made.KINDS:
            with tempfile.TemporaryDirectory() as root:
                cells = [cell for cell in row(Case(kind, Path(root)), weights) if cell]
            print(f"adapters: {title}, {kind}: {', '.join(cells)}", flush=True)
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    warnings.simplefilter("ignore")
    head = HEADER.format(peft=peft.__version__, torch=torch.__version__, commit=str(provenance.record()["commit"])[:9])
    storage.write_text(OUT, head + table())


if __name__ == "__main__":
    main()
