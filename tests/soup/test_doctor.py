"""The doctor names the right cause on pools made to fail in each way, and passes healthy ones."""

import pytest
import torch
from torch import Tensor

from modelsoups.soup.diagnosis import Diagnosis
from modelsoups.soup.doctor import examine

State = dict[str, Tensor]


def base(seed: int = 0, classes: int = 5) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "blocks.0.weight": (32, 16),
        "blocks.1.weight": (32, 32),
        "norm.weight": (32,),
        "head.weight": (classes, 32),
    }
    return {k: torch.randn(s, generator=generator) for k, s in shapes.items()}


def tuned(start: State, seed: int, scale: float = 0.1) -> State:
    generator = torch.Generator().manual_seed(100 + seed)
    return {k: v + scale * torch.randn(v.shape, generator=generator) for k, v in start.items()}


def healthy(count: int = 4) -> dict[str, State]:
    return {f"m{n}": tuned(base(), n) for n in range(count)}


def changed(pool: dict[str, State], name: str, **tensors: Tensor) -> dict[str, State]:
    return {**pool, name: {**pool[name], **{k.replace("__", "."): v for k, v in tensors.items()}}}


def causes(found: Diagnosis) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(f.cause, f.who, f.fatal) for f in found.findings]


def test_a_healthy_pool_passes_with_right_angles_between_its_updates() -> None:
    found = examine(healthy(), base())
    assert found.findings == []
    assert found.healthy
    assert found.verdict() == "a soup of these checkpoints can succeed"
    assert found.angles_KK is not None
    off = found.angles_KK[~torch.eye(4, dtype=torch.bool)]
    assert off.min() > 80
    assert off.max() < 100
    assert examine(healthy()).findings == []


@pytest.mark.parametrize(
    ("pool", "cause", "who"),
    [
        ({**healthy(), "odd": {**tuned(base(), 9), "extra": torch.ones(1)}}, "keys", ("odd",)),
        ({**healthy(), "odd": tuned(base(classes=7), 9)}, "shapes", ("odd",)),
        ({**healthy(), "odd": {k: v.half() for k, v in tuned(base(), 9).items()}}, "dtypes", ("odd",)),
        (changed(healthy(), "m2", norm__weight=torch.full((32,), float("nan"))), "nan", ("m2",)),
        ({"a": base(), "b": base()}, "duplicates", ("a", "b")),
        ({f"m{n}": base(n) for n in range(4)}, "initialization", ("m0", "m1", "m2", "m3")),
        ({**healthy(), "odd": tuned(base(7), 9)}, "initialization", ("odd",)),
        (changed(healthy(), "m1", head__weight=base(8)["head.weight"]), "heads", ("m1",)),
        (
            {k: {**s, "head.weight": base(20 + n)["head.weight"]} for n, (k, s) in enumerate(healthy().items())},
            "heads",
            ("m0", "m1", "m2", "m3"),
        ),
    ],
)
def test_each_failure_is_named_with_who_it_concerns(pool: dict[str, State], cause: str, who: tuple[str, ...]) -> None:
    found = examine(pool)
    assert causes(found) == [(cause, who, True)]
    assert not found.healthy
    assert who[0] in found.verdict()


def permuted(pool: dict[str, State], name: str) -> dict[str, State]:
    return changed(pool, name, head__weight=pool[name]["head.weight"][[1, 2, 3, 4, 0]])


ADAPTER = {"blocks.0.lora_A.weight": torch.ones(2, 16), "blocks.0.lora_B.weight": torch.ones(32, 2)}


@pytest.mark.parametrize(
    ("pool", "cause", "who", "words"),
    [
        (
            {**healthy(), "odd": {f"net.{k}": v for k, v in tuned(base(), 9).items()}},
            "names",
            "odd",
            "begins with net.",
        ),
        (changed(healthy(), "m2", blocks__0__weight=torch.ones(16, 32)), "transposed", "m2", "transpose it back"),
        (
            changed(healthy(), "m1", blocks__1__weight=healthy()["m1"]["blocks.1.weight"].T),
            "transposed",
            "m1",
            "blocks.1.weight is transposed",
        ),
        (changed(healthy(), "m1", blocks__1__weight=base(9)["blocks.1.weight"]), "layer", "m1", "reinitialized"),
        (permuted(healthy(), "m3"), "class order", "m3", "5 classes of head.weight are in another order than in m0"),
        (
            {**healthy(), "twice": {k: 3 * v for k, v in tuned(base(), 9).items()}},
            "scale",
            "twice",
            "2.97 times the models' median norm",
        ),
        (
            changed(healthy(), "m2", blocks__0__weight=10 * healthy()["m2"]["blocks.0.weight"]),
            "scale",
            "m2",
            "10 times the models' median norm",
        ),
        ({**healthy(), "lora": ADAPTER}, "adapter", "lora", "merge each into its base"),
        (
            {**healthy(), "int8": {k: v.mul(9).to(torch.int8) for k, v in base().items()}},
            "quantized",
            "int8",
            "integers",
        ),
        ({**healthy(), "zero3": {k: torch.empty(0) for k in base()}}, "empty", "zero3", "no elements"),
        (changed(healthy(), "m0", norm__weight=torch.full((32,), float("inf"))), "nan", "m0", "norm.weight"),
    ],
)
def test_hostile_pools_are_named(pool: dict[str, State], cause: str, who: str, words: str) -> None:
    found = examine(pool)
    fatal = [f for f in found.findings if f.fatal]
    assert [(f.cause, f.who) for f in fatal] == [(cause, (who,))]
    assert words in found.verdict()


def test_pools_of_nothing_but_adapters_or_of_heads_that_begin_at_zero() -> None:
    found = examine({"a": ADAPTER, "b": ADAPTER})
    assert ({f.cause for f in found.findings}, found.healthy, found.angles_KK) == ({"adapter"}, False, None)
    zero = {k: {**s, "head.weight": torch.zeros(5, 32)} for k, s in healthy().items()}
    assert examine(zero).findings == []


def test_models_of_another_initialization_than_the_one_given() -> None:
    found = examine(healthy(), base(5))
    assert causes(found) == [("not from init", ("m0", "m1", "m2", "m3"), True)]
    found = examine(healthy(), {"blocks.0.weight": torch.ones(1)})
    assert causes(found) == [("not from init", ("all",), True)]


def test_doubts_are_named_but_not_fatal() -> None:
    pool = {**healthy(), "wild": tuned(base(), 9, scale=0.9)}
    assert causes(examine(pool)) == [("far", ("wild",), False)]
    twins = {**healthy(), "twin": healthy()["m0"]}
    assert ("duplicates", ("m0", "twin"), False) in causes(examine(twins))
    assert causes(examine({**healthy(), "same": base()}, base())) == [("untrained", ("same",), False)]
    frozen = {"bn.running_mean": torch.zeros(3), "bn.running_var": torch.ones(3)}
    normed = {k: {**s, **frozen} for k, s in healthy().items()}
    assert examine(normed).findings == [], "statistics that are equal everywhere fit the mixed weights"
    found = examine(changed(normed, "m1", bn__running_var=torch.full((3,), 2.0)))
    assert causes(found) == [("batchnorm", ("all",), False)]
    assert found.healthy


def test_pools_without_matrices_and_of_float8_are_examined() -> None:
    found = examine({"a": {"w": torch.ones(3)}, "b": {"w": torch.zeros(3)}})
    assert (causes(found), found.healthy) == ([("no matrices", ("all",), False)], True)
    eighth = {k: {n: t.to(torch.float8_e4m3fn) for n, t in s.items()} for k, s in healthy(2).items()}
    assert examine(eighth).findings == []
    nan = torch.full((32,), float("nan")).to(torch.float8_e4m3fn)
    assert causes(examine(changed(eighth, "m0", norm__weight=nan))) == [("nan", ("m0",), True)]


def test_error_barriers_and_weak_ingredients_at_midpoints() -> None:
    """Accuracy falls with the distance from m0 beyond some radius: midpoints of m0 and m1 are good, of m2 are not."""
    pool = healthy(3)

    def accuracy(state: State) -> float:
        for name, value in (("m0", 0.9), ("m1", 0.88), ("m2", 0.7)):
            if torch.equal(state["head.weight"], pool[name]["head.weight"]):
                return value
        near = (pool["m0"]["head.weight"] + pool["m1"]["head.weight"]) / 2
        return 0.92 if torch.allclose(state["head.weight"], near) else 0.3

    found = examine(pool, accuracy=accuracy)
    assert causes(found) == [("weak", ("m2",), False), ("barrier", ("midpoints",), True)]
    assert found.midpoints_KK is not None
    assert found.midpoints_KK[0].tolist() == pytest.approx([0.9, 0.92, 0.3])
    assert "50.0 percentage points less accurate than m0 and m2 on average (2 of 3 pairs)" in found.verdict()


def test_one_checkpoint_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 checkpoint: expected at least two"):
        examine({"a": base()})


def test_new_layers_that_transformers_initialized_at_random_in_each_run_are_named() -> None:
    """The failure of issue 5 of mlfoundations/model-soups: DistilBERT with a new classifier in each fine-tune."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    config = transformers.DistilBertConfig(vocab_size=64, dim=32, hidden_dim=64, n_layers=2, n_heads=2)
    torch.manual_seed(0)
    encoder = transformers.DistilBertModel(config).state_dict()

    def fine_tuned(seed: int) -> State:
        torch.manual_seed(seed)
        model = transformers.DistilBertForSequenceClassification(config)
        model.distilbert.load_state_dict(encoder)
        return tuned(model.state_dict(), seed, scale=0.002)

    random = {f"m{seed}": fine_tuned(seed) for seed in range(3)}
    found = {f.cause: f for f in examine(random).findings}
    assert "classifier.weight" in found["heads"].text
    assert "start all from one head" in found["heads"].text
    assert "pre_classifier.weight differs in all models" in found["layer"].text
    assert not found["layer"].fatal
    shared = fine_tuned(0)
    assert examine({f"m{seed}": tuned(shared, seed, scale=0.002) for seed in range(3)}).findings == []


def test_a_learning_rate_that_is_far_too_high_looks_like_another_initialization() -> None:
    found = examine({**healthy(), "high": tuned(base(), 9, scale=3.0)})
    (finding,) = [f for f in found.findings if f.cause == "initialization"]
    assert finding.who == ("high",)
    assert "or far too high a learning rate" in finding.text
