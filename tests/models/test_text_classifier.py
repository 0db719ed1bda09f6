"""Scores and losses of text models equal a scorer's by hand; tied weights stay tied; gradients are autograd's."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from tiny_text import FAMILIES, MASKED, config, tiny

from modelsoups.disk import storage
from modelsoups.models import from_transformers
from modelsoups.models.text_classifier import build, tied
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.holdout import call_with
from modelsoups.soup.methods.learned import learned_layers, loss_by_alpha
from modelsoups.soup.pool import Pool, model_gradient
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import layer_of, mix

OPTIONS = ["equivalent", "not equivalent"]  # of 3 and 4 tokens
PAIR = ["sentence1", "sentence2"]
EXAMPLES = [
    {"sentence1": "The boat crossed the lake.", "sentence2": "a storm arrived!"},
    {"sentence1": "a dull story.", "sentence2": "x"},
    {"sentence1": "the children have eaten all the apples", "sentence2": "the film was a joy, warm and very funny."},
]
LABELS = torch.tensor([0, 1, 1])
T5 = ["t5", "t5_v1_1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def built(home, family, **text):
    return build(config(tiny(home, family), family, **{"max_length": 160, **text}), OPTIONS, "", PAIR)


def batch_of(model, examples=EXAMPLES):
    return model.collate(model.encode(examples))


@torch.inference_mode()
def masked_by_hand(place, example, masks):
    """Scores of both options, one at a time, by the owner's classes: no padding, no batch."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    mask = tokenizer.mask_token
    prompt = f"sentence1: {example['sentence1']} | sentence2: {example['sentence2']} | options: "
    prompt += "A) equivalent B) not equivalent | label:" + f" {mask}" * masks
    ids = tokenizer(prompt)["input_ids"]
    places = [i for i, one in enumerate(ids) if one == tokenizer.mask_token_id]
    assert len(places) == masks
    scores = []
    for answer in ("A) equivalent", "B) not equivalent"):
        text = f"label: {answer}"
        answer_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer_ids = answer_ids[len(tokenizer("label:", add_special_tokens=False)["input_ids"]) :]
        total = 0.0
        for position, token in zip(places, answer_ids, strict=False):
            logits_V = model(input_ids=torch.tensor([ids])).logits[0, position].double()
            total += float(logits_V[token] - logits_V.logsumexp(dim=0))
        scores.append(total / len(answer_ids))
    return scores


@torch.inference_mode()
def text_to_text_by_hand(place, example):
    """Scores of both options, one token at a time, each with its own encoder pass."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    prompt = f"sentence1: {example['sentence1']} | sentence2: {example['sentence2']} | options: "
    ids = torch.tensor([tokenizer(prompt + "A) equivalent B) not equivalent | label:")["input_ids"]])
    scores = []
    for answer in ("A) equivalent", "B) not equivalent"):
        answer_ids, written, total = tokenizer(answer)["input_ids"], [model.config.decoder_start_token_id], 0.0
        assert answer_ids[-1] == tokenizer.eos_token_id
        for token in answer_ids:
            logits_V = model(input_ids=ids, decoder_input_ids=torch.tensor([written])).logits[0, -1].double()
            total += float(logits_V[token] - logits_V.logsumexp(dim=0))
            written.append(token)
        scores.append(total / len(answer_ids))
    return scores


def by_hand(home, family, model):
    if family in T5:
        return [text_to_text_by_hand(home / family, one) for one in EXAMPLES]
    return [masked_by_hand(home / family, one, model.longest) for one in EXAMPLES]


# ---- scores and losses ----


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_those_of_a_scorer_by_hand_and_padding_does_not_change_them(family, home):
    model = built(home, family)
    expected = torch.tensor(by_hand(home, family, model))
    with torch.inference_mode():
        alone = torch.cat([model(**batch_of(model, [one]).tensors) for one in EXAMPLES])
        together = model(**batch_of(model).tensors)
        losses = model(LABELS, **batch_of(model).tensors)
    assert alone.dtype == torch.float32
    assert (alone - expected).abs().max() < 1e-6 * expected.abs().max()
    assert (together - alone).abs().max() < 1e-5
    assert (losses + together.gather(1, LABELS[:, None])[:, 0]).abs().max() < 1e-5
    assert (expected[:, 0] - expected[:, 1]).abs().min() > 1e-3  # the options differ clearly


def test_the_loss_of_text_to_text_is_the_owner_s(home):
    model = built(home, "t5")
    batch = batch_of(model, EXAMPLES[:1])
    labels = torch.tensor([model.answers[1]])
    theirs = model.model(**batch.tensors, labels=labels).loss
    assert torch.allclose(model(torch.tensor([1]), **batch.tensors)[0], theirs, atol=1e-6)


def test_text_to_text_needs_one_encoder_pass_for_all_options(home):
    model, passes = built(home, "t5"), []
    model.model.get_encoder().register_forward_hook(lambda *_: passes.append(1))
    model(**batch_of(model).tensors)
    model(LABELS, **batch_of(model).tensors)
    assert len(passes) == 2


@pytest.mark.parametrize("family", MASKED)
def test_the_vocabulary_s_head_computes_the_masks_only(family, home):
    model, shapes = built(home, family), []
    output = model.model.get_output_embeddings()
    output.register_forward_hook(lambda module, args, result: shapes.append(tuple(result.shape)))
    model(LABELS, **batch_of(model).tensors)
    assert shapes == [(3, model.longest, output.out_features)]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_head_gets_the_mean_or_the_first_of_the_tokens(family, pooling, home):
    model = built(home, family, objective="head", pooling=pooling)
    assert model.vocabulary == 2
    encoder = transformers.AutoModel.from_pretrained(home / family).eval()
    rows = []
    for one in EXAMPLES:
        types = {"return_token_type_ids": family == "bert"}
        inputs = model.tokenizer(one["sentence1"], one["sentence2"], return_tensors="pt", **types)
        with torch.inference_mode():
            hidden_TD = encoder(**inputs).last_hidden_state[0]
        rows.append(hidden_TD.mean(dim=0) if pooling == "mean" else hidden_TD[0])
    with torch.inference_mode():
        features_BD = model.features(**batch_of(model).tensors)
        logits_BC = model(**batch_of(model).tensors)
    assert (features_BD - torch.stack(rows)).abs().max() < 1e-5
    assert torch.allclose(model.head(torch.stack(rows)), logits_BC, atol=1e-5)
    losses_B = model(LABELS, **batch_of(model).tensors)
    assert torch.allclose(losses_B, F.cross_entropy(logits_BC, LABELS, reduction="none"), atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_towers_give_the_difference_and_the_product_of_their_features(normalize, home):
    cfg = config(tiny(home, "bert"), "bert", objective="head", pairs="towers")
    cfg.normalize_features = normalize
    model = build(cfg, OPTIONS, "", PAIR)
    expected = []
    for one in EXAMPLES:
        both = []
        for text in one.values():
            with torch.inference_mode():
                hidden = model.encoder(**model.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            mean = hidden.mean(dim=0)
            both.append(mean / mean.norm() if normalize else mean)
        expected.append(torch.cat([(both[0] - both[1]).abs(), both[0] * both[1]]))
    with torch.inference_mode():
        assert (model.features(**batch_of(model).tensors) - torch.stack(expected)).abs().max() < 1e-5
    assert model.head.in_features == 64


def test_one_text_needs_no_towers(home):
    model = build(config(tiny(home, "bert"), "bert", objective="head", pairs="towers"), OPTIONS, "", ["sentence"])
    batch = batch_of(model, [{"sentence": "the boat"}])
    assert batch.tensors["input_ids"].shape == (1, 4)
    assert model(**batch.tensors).shape == (1, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_autocast_gives_float32_scores(family, home):
    model = built(home, family)
    batch = batch_of(model)
    with torch.inference_mode():
        exact = model(**batch.tensors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(**batch.tensors)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() < 0.3
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(LABELS, **batch.tensors)
    loss.mean().backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


# ---- tied weights ----

TIED = {
    "bert": 2,
    "roberta": 2,
    "distilbert": 1,
    "modernbert": 1,
    "t5": 3,
    "t5_v1_1": 2,  # the two embeddings of encoder and decoder; its output is its own
}


def scores(model):
    with torch.inference_mode():
        return model(**batch_of(model).tensors)


def moved(model, seed):
    """The state of the model after a step of training of every parameter."""
    torch.manual_seed(seed)
    state = model.state_dict()
    return {k: v + 0.02 * torch.randn_like(v) if v.is_floating_point() else v.clone() for k, v in state.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_has_a_tied_tensor_once_and_loads(family, home, tmp_path):
    model = built(home, family)
    assert len(tied(model)) == TIED[family]
    state = moved(model, 0)
    assert list(state) == [name for name, _ in model.named_parameters()]
    storage.save_weights(tmp_path / "model.safetensors", state)  # safetensors refuses shared tensors
    read = load_file(tmp_path / "model.safetensors")
    model.load_state_dict(read)
    assert len(tied(model)) == TIED[family]
    loaded = scores(model)
    other = built(home, family)
    assert not torch.allclose(scores(other), loaded)
    assert torch.allclose(call_with(other, read, batch_of(other).tensors), loaded, atol=1e-6)
    for again in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        again.load_state_dict(read)
        assert torch.equal(scores(again), loaded)
        assert len(tied(again)) == TIED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mix_of_two_models_is_written_as_their_owner_s_model(family, home, tmp_path):
    model = built(home, family)
    states = [moved(model, 0), moved(model, 1)]
    mixed = mix(states, {"*": [0.5, 0.5]})
    for key, tensor in mixed.items():
        assert torch.allclose(tensor, (states[0][key] + states[1][key]) / 2, atol=1e-6)
    model.load_state_dict(mixed)
    files = from_transformers.save(model.model, model.tokenizer, tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    cfg = config(tmp_path, family, max_length=160)
    again = build(cfg, OPTIONS, "", PAIR)
    assert torch.allclose(scores(again), scores(model), atol=1e-6)
    assert len(tied(again)) == TIED[family]
    auto = transformers.AutoModelForSeq2SeqLM if family in T5 else transformers.AutoModelForMaskedLM
    theirs = auto.from_pretrained(tmp_path)
    assert {name for name, _ in theirs.named_parameters()} == {name for name, _ in model.model.named_parameters()}
    cfg.tag = None
    empty = build(cfg, OPTIONS, "", PAIR)  # random weights, as for imported models
    assert len(tied(empty)) == TIED[family]
    empty.load_state_dict(mixed)
    assert torch.allclose(scores(empty), scores(model), atol=1e-6)


def test_a_state_in_which_tied_tensors_differ_is_refused(home):
    model = built(home, "t5")
    state = {**moved(model, 0), "model.lm_head.weight": torch.zeros_like(model.model.lm_head.weight)}
    with pytest.raises(RuntimeError, match=r"lm_head\.weight and model\.shared\.weight differ"):
        model.load_state_dict(state)


def test_a_step_of_training_moves_both_ends_of_a_tied_tensor(home):
    model = built(home, "bert")
    torch.optim.SGD(model.parameters(), 0.1).zero_grad()
    model(LABELS, **batch_of(model).tensors).mean().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    whole = dict(model.named_parameters(remove_duplicate=False))
    for name, first in tied(model).items():
        assert whole[name] is whole[first]


# ---- learned soups ----


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_the_gradient_of_a_soup_learned_by_layer_is_autograd_s(family, home):
    model = built(home, family)
    states = [moved(model, 0), moved(model, 1), moved(model, 2)]
    groups = list(dict.fromkeys(map(layer_of, states[0])))
    assert any("layer.1" in group or "block.1" in group for group in groups)
    torch.manual_seed(5)
    alpha_GK = torch.rand(len(groups), 3, dtype=torch.float64).softmax(dim=1)
    coefficients = dict(zip(groups, alpha_GK.tolist(), strict=True))
    stack, batch = Stack(states), batch_of(model)
    loss, by_beta, by_weights = model_gradient(model, stack.mixed(coefficients), 1.5, batch.tensors, LABELS)
    found_GK = loss_by_alpha(stack, groups, by_weights)

    leaf_GK = alpha_GK.clone().requires_grad_()
    rows = dict(zip(groups, leaf_GK, strict=True))
    whole = {k: sum(rows[layer_of(k)][i].float() * s[k] for i, s in enumerate(states)) for k in states[0]}
    buffers = dict(model.named_buffers())
    logits_BC = torch.func.functional_call(model, {**buffers, **whole}, (), batch.tensors)
    expected = F.cross_entropy(1.5 * logits_BC, LABELS)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert found_GK.abs().max() > 1e-3
    assert (found_GK - leaf_GK.grad).abs().max() < 1e-5 * float(leaf_GK.grad.abs().max())
    assert by_beta != 0


def test_a_soup_is_learned_by_layer_on_a_tiny_bert(home):
    model = built(home, "bert")
    states, batch = [moved(model, 0), moved(model, 1)], batch_of(model)

    def evaluate(state):
        model.load_state_dict(dict(state))
        return scores(model)

    pool = Pool(
        ingredients=tuple(Ingredient(f"{i:03d}", "", f"{i}", None) for i in range(2)),
        logits=tuple(evaluate(state) for state in states),
        labels_N=LABELS,
        state=lambda i: states[i],
        evaluate=evaluate,
        gradient=lambda state, beta, index_B: model_gradient(
            model, state, beta, batch[index_B].tensors, LABELS[index_B]
        ),
    )
    soup = learned_layers(pool, epochs=3, batch_size=3)
    losses = [line["loss"] for line in soup.trace]
    assert losses[-1] < losses[0]
    assert torch.isfinite(evaluate(mix(states, soup.coefficients))).all()
