"""Which soups `modelsoups soup` chooses, and with which options."""

import pytest

from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool
from modelsoups.stages.soup import plan

AUTHORS = {"epochs": 5, "lr": 0.05, "batch_size": 256, "seed": 0}  # learned_bylayer.py


def own(pool: Pool, lr: float, *, strict: bool = False, sharpness: float = 1.0) -> Soup:
    """A user's method: some of its parameters are keys of the configuration."""
    raise NotImplementedError


def orders(*overrides):
    return {order.row: order for order in plan(Experiment(load(list(overrides))), 4)}


def test_the_released_protocol_adds_the_authors_learned_soup():
    made = orders("protocol=released")
    assert made["learned_tensors"].method == "learned_tensors"
    assert made["learned_tensors"].options == AUTHORS
    assert made["learned"].options == made["learned_layers"].options == {"seed": 0}  # the paper's: their defaults
    assert "learned_tensors" not in orders("protocol=paper")


def test_a_given_option_is_that_of_every_learned_soup():
    given = ["soup.learned_lr=0.2", "soup.learned_epochs=7", "soup.learned_batch_size=64", "soup.seed=3"]
    expected = {"lr": 0.2, "epochs": 7, "batch_size": 64, "seed": 3}
    for protocol in ("paper", "released"):
        made = orders(f"protocol={protocol}", *given, "soup.also=[learned_tensors,learned_free]")
        for row in ("learned", "learned_layers", "learned_tensors", "learned_free"):
            assert made[row].options == expected


@pytest.mark.parametrize(("protocol", "strict"), [("paper", False), ("released", True)])
def test_methods_of_soup_also_get_the_options_that_they_have(protocol, strict):
    also = "soup.also=[greedy_random,test_soup_orders:own,learned_tensors]"
    made = orders(f"protocol={protocol}", "soup.learned_lr=0.3", also)
    assert made["greedy_random"].options == {"strict": strict}
    assert made["own"].options == {"strict": strict, "lr": 0.3}
    for row in ("greedy", "greedy_ensemble", "greedy_replacement", "curve_001_greedy"):
        assert made[row].options == {"strict": strict}
    assert made["greedy_random_2"].options == {"strict": strict, "order_seed": 2}
    assert made["uniform"].options == made["best"].options == made["ensemble"].options == {}
