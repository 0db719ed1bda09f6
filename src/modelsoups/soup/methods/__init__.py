"""Soup methods: functions that take a `Pool` and options and return a `Soup`, by name."""

from collections.abc import Callable

from modelsoups.config import registry
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.methods.greedy import greedy, greedy_ensemble, greedy_random, greedy_replacement
from modelsoups.soup.methods.individual import best, ensemble, second_best, uniform
from modelsoups.soup.methods.learned import learned, learned_free, learned_layers, learned_tensors
from modelsoups.soup.methods.mehl import mehl
from modelsoups.soup.methods.radin import radin
from modelsoups.soup.methods.soce import soce
from modelsoups.soup.methods.wise_ft import wise_ft
from modelsoups.soup.pool import Gradient, Pool, model_gradient

METHODS: dict[str, Callable[..., Soup]] = {
    "best": best,
    "second_best": second_best,
    "uniform": uniform,
    "greedy": greedy,
    "greedy_random": greedy_random,
    "greedy_replacement": greedy_replacement,
    "learned": learned,
    "learned_layers": learned_layers,
    "learned_tensors": learned_tensors,
    "learned_free": learned_free,
    "mehl": mehl,
    "radin": radin,
    "soce": soce,
    "ensemble": ensemble,
    "greedy_ensemble": greedy_ensemble,
    "wise_ft": wise_ft,
}
INDIVIDUAL = ("best", "second_best")  # methods that choose one model, which need not be one of those to mix

__all__ = ["INDIVIDUAL", "METHODS", "Gradient", "Pool", "method_of", "model_gradient"]


def method_of(name: str) -> Callable[..., Soup]:
    """Return the method of this name, or import "module:function"; ValueError for other names."""
    if ":" in name:
        return registry.function(name)
    if name not in METHODS:
        raise ValueError(f"no soup method {name}; expected module:function or one of {', '.join(METHODS)}")
    return METHODS[name]
