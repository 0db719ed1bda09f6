"""The text task: batches of similar lengths, and the order in which examples are evaluated."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from text_runs import options, write

from modelsoups.config.compose import load
from modelsoups.data.order import Share
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import prepare
from modelsoups.tasks import text
from modelsoups.tasks.text import batches_by_length, check_recipe
from modelsoups.train import throughput

RECIPE = Recipe(1e-3, 0.0, 2, 0.0, 0.0, "minimal", 7, 4, 0, 1.0)
LENGTHS = torch.randint(5, 60, (1003,), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    write(home)
    transformers.utils.logging.disable_progress_bar()
    made = Experiment(load(options(home)))
    prepare.run(made)
    return made


def test_flops_are_counted_in_one_pass_of_two_short_examples(experiment):
    model, calls = experiment.classifier(2), []
    model.register_forward_hook(lambda *_, **__: calls.append(1))
    example = experiment.task.example(model)
    forward = throughput.forward_flops(model, example)
    count, tokens = example["input_ids"].shape
    assert (count, len(calls)) == (2, 1)
    assert tokens < 40  # the prompt alone
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "layer" in n)
    assert forward == pytest.approx(2 * matrices * tokens, rel=0.5)  # and attention, and the masks' vocabulary


def test_batches_depend_on_seed_and_step_alone_and_see_each_example_once_an_epoch():
    batches = list(batches_by_length(LENGTHS, RECIPE, 0))
    per_epoch = 1003 // 4
    assert len(batches) == 2 * per_epoch
    for first in (1, per_epoch, per_epoch + 3):
        rest = list(batches_by_length(LENGTHS, RECIPE, first))
        assert all(map(torch.equal, rest, batches[first:]))
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        assert len(torch.cat(epoch).unique()) == 4 * per_epoch
    other = batches_by_length(LENGTHS, Recipe(**{**vars(RECIPE), "seed": 8}), 0)
    assert not all(map(torch.equal, other, batches))


def test_the_texts_of_a_batch_have_similar_lengths_and_batches_come_in_random_order():
    batches = list(batches_by_length(LENGTHS, RECIPE, 0))
    spreads = [int(LENGTHS[index_B].max() - LENGTHS[index_B].min()) for index_B in batches]
    assert sum(spreads) / len(spreads) < 3  # of lengths from 5 to 59
    means = torch.tensor([float(LENGTHS[index_B].float().mean()) for index_B in batches])
    assert abs(float(torch.corrcoef(torch.stack([means[:-1], means[1:]]))[0, 1])) < 0.2


def test_ranks_share_a_batch():
    whole = list(batches_by_length(LENGTHS, RECIPE, 3))
    shares = [list(batches_by_length(LENGTHS, RECIPE, 3, Share(rank, 2))) for rank in (0, 1)]
    for index_B, one, two in zip(whole, *shares, strict=True):
        assert sorted(torch.cat([one, two]).tolist()) == sorted(index_B.tolist())


def test_logits_come_in_the_order_of_the_data_set(experiment):
    dataset, task = experiment.sets["validation"], experiment.task
    model = experiment.classifier(2)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    logits_NC = experiment.logits.forward("validation", state)
    with torch.inference_mode():
        alone = [task.logits(model, model.collate(model.encode([dataset.fields(i)]))) for i in range(len(dataset))]
    assert (logits_NC - torch.cat(alone)).abs().max() < 1e-4
    lengths = [len(model.encode([dataset.fields(i)])[0]) for i in range(len(dataset))]
    assert len(set(lengths)) > 3
    chosen_N = torch.arange(len(dataset)) % 3 == 0
    assert torch.equal(experiment.logits.forward("validation", state, chosen_N), logits_NC[chosen_N])


def test_the_score_is_the_data_sets(experiment):
    labels_N = torch.tensor([0, 0, 1, 1, 1, 0])
    logits_NC = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 1, 0, 0]), 2).float()
    # 2 of 3 right in either class: (2 * 2 - 1 * 1) / sqrt(3 * 3 * 3 * 3) = 1/3
    assert experiment.task.points(logits_NC, labels_N) == pytest.approx(6 / 3)
    assert experiment.task.score_name == "Matthews correlation"


@pytest.mark.parametrize("wrong", [{"mixup": 0.2}, {"aug": "strong"}, {"label_smoothing": 0.1}, {"teachers": ("a",)}])
def test_what_only_images_know_is_refused(wrong):
    check_recipe(RECIPE)
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"recipe\.{name}=.*texts are trained without it; set recipe\.{name}="):
        check_recipe(Recipe(**{**vars(RECIPE), **wrong}))
    assert value != text.WITHOUT[name]


def test_a_model_starts_from_what_its_objective_needs(experiment):
    task = experiment.task
    asked = SimpleNamespace(text=SimpleNamespace(objective="mlm"))
    assert task.initial_models(asked, "zeroshot") == ["zeroshot"]
    with pytest.raises(ValueError, match=r"heads\.init=lp: .*objective=mlm starts from zeroshot"):
        task.initial_models(asked, "lp")
    asked.text.objective = "head"
    with pytest.raises(ValueError, match=r"heads\.init=zeroshot: .* set heads\.init=lp"):
        task.initial_models(asked, "zeroshot")
