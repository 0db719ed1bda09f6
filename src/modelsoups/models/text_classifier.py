"""Text classifiers: a model of transformers that scores the options of a task.

A masked language model (BERT) and a text-to-text model (T5) get the prompts of `prompts` and have
no added parameters; the score of an option is the mean log-probability of its tokens. Any other
encoder gets a linear head. Tied weights are one tensor: state_dict() has it once, and
load_state_dict() takes such a state.

Shape letters: B examples, C options, D features, L tokens of the longest option, T of the longest
input, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.config.models import ModelConfig
from modelsoups.models import prompts, token_batches
from modelsoups.models.from_transformers import Pretrained, has_types, load
from modelsoups.models.prompts import Prompt
from modelsoups.models.token_batches import Encoded, TokenBatch
from modelsoups.models.tokenization import Example, PairInputs, PromptInputs, Tokens


class TextClassifier(nn.Module):
    """A text classifier: its options, its tokenizer, and how examples become batches of tokens."""

    vocabulary: int  # number of outputs of one prediction: tokens or, for a head, classes
    answers_CL: Tensor  # not of a head, as is weights_CL
    weights_CL: Tensor

    def __init__(self, options: Sequence[str], inputs: PromptInputs | PairInputs) -> None:
        super().__init__()
        self.options, self.inputs = list(options), inputs
        self.tokenizer, self.max_length = inputs.tokens.tokenizer, inputs.max_length
        self.register_state_dict_post_hook(_drop_tied)
        self.register_load_state_dict_pre_hook(_add_tied)

    def set_answers(self, ids: Sequence[Sequence[int]]) -> None:
        """Store the token ids of the options, and the weights of the mean over an option's tokens.

        The tensors, (C, L), are padded with zeros. They are no part of the state dict.
        """
        self.answers = [list(row) for row in ids]
        self.longest = max(map(len, self.answers))
        padding = [self.longest - len(row) for row in self.answers]
        rows = [[*row, *[0] * more] for row, more in zip(self.answers, padding, strict=True)]
        weights = [[1 / len(row)] * len(row) + [0.0] * more for row, more in zip(self.answers, padding, strict=True)]
        self.register_buffer("answers_CL", torch.tensor(rows), persistent=False)
        self.register_buffer("weights_CL", torch.tensor(weights), persistent=False)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return the token ids of examples, {field: text}; texts that are too long are cut.

        Raises ValueError if most tokens are unknown to the tokenizer.
        """
        return self.inputs.encode(examples)

    def collate(self, encoded: Sequence[Encoded]) -> TokenBatch:
        """Return a batch that is padded to its longest example."""
        return token_batches.padded(encoded, self.tokenizer.pad_token_id)

    def forward(self, labels_B: Tensor | None = None, **tensors: Tensor) -> Tensor:
        """Return the options' scores, (B, C) in float32; with labels each example's loss, (B,)."""
        raise NotImplementedError


class MaskedLanguageModel(TextClassifier):
    """A masked language model: as many masks as the longest option has tokens follow the prompt.

    Of an option of n tokens, the first n masks count. The loss is the cross-entropy of the right
    option's tokens, over the vocabulary, averaged over its tokens.
    """

    def __init__(self, pretrained: Pretrained, options: Sequence[str], tokens: Tokens, inputs: PromptInputs) -> None:
        super().__init__(options, inputs)
        self.model = pretrained.module
        self.vocabulary = int(self.model.config.vocab_size)
        self.set_answers(answer_tokens(options, tokens, after="label:"))
        # The vocabulary's head then computes the masks only, instead of every position.
        masks = partial(_only_masks, self.longest, len(tokens.after))
        self.model.base_model.register_forward_hook(masks, with_kwargs=True)

    def forward(self, labels_B: Tensor | None = None, **tensors: Tensor) -> Tensor:
        log_BLV = self.model(**tensors).logits.float().log_softmax(dim=-1)
        places_L = torch.arange(self.longest, device=log_BLV.device)
        scores_BC = (log_BLV[:, places_L, self.answers_CL] * self.weights_CL).sum(dim=-1)
        return scores_BC if labels_B is None else -scores_BC.gather(1, labels_B[:, None])[:, 0]


class SequenceToSequence(TextClassifier):
    """A text-to-text model that writes the right option, with its end-of-text token."""

    def __init__(self, pretrained: Pretrained, options: Sequence[str], tokens: Tokens, inputs: PromptInputs) -> None:
        super().__init__(options, inputs)
        self.model = pretrained.module
        self.vocabulary = int(self.model.config.vocab_size)
        self.set_answers([[*ids, *tokens.after] for ids in answer_tokens(options, tokens)])

    def forward(self, labels_B: Tensor | None = None, **tensors: Tensor) -> Tensor:
        encoded = self.model.get_encoder()(**tensors)
        if labels_B is not None:
            return -self._score(encoded, tensors, self.answers_CL[labels_B], self.weights_CL[labels_B])
        scores, count = [], len(tensors["input_ids"])
        for option, answer in enumerate(self.answers):  # one after the other, each without padding
            answers_BL = self.answers_CL[option, : len(answer)].expand(count, -1)
            weights_BL = self.weights_CL[option, : len(answer)].expand(count, -1)
            scores.append(self._score(encoded, tensors, answers_BL, weights_BL))
        return torch.stack(scores, dim=1)

    def _score(self, encoded: Any, tensors: dict[str, Tensor], answers_BL: Tensor, weights_BL: Tensor) -> Tensor:
        """Return the weighted sum of the log-probabilities of each example's answer, (B,)."""
        inputs_BL = self.model.prepare_decoder_input_ids_from_labels(labels=answers_BL)
        output = self.model(
            encoder_outputs=encoded,
            attention_mask=tensors["attention_mask"],
            decoder_input_ids=inputs_BL,
            use_cache=False,
        )
        log_BLV = output.logits.float().log_softmax(dim=-1)
        picked_BL = log_BLV.gather(2, answers_BL[..., None])[..., 0]
        return (picked_BL * weights_BL).sum(dim=1)


class TextEncoder(TextClassifier):
    """An encoder and a linear head on the mean of its tokens' features, or on the first token's.

    A pair of texts is one sequence or, as two towers u and v, the features |u - v| and u * v.
    """

    def __init__(self, pretrained: Pretrained, options: Sequence[str], inputs: PairInputs, config: ModelConfig) -> None:
        super().__init__(options, inputs)
        self.encoder = pretrained.module
        self.pooling, self.normalize = config.text.pooling, config.normalize_features
        self.vocabulary = len(options)
        width = int(self.encoder.config.hidden_size)
        self.head = nn.Linear(width * (1 if inputs.pair else len(inputs.fields)), len(options))

    def features(self, **tensors: Tensor) -> Tensor:
        """Return the features that the head gets, (B, D)."""
        shape = tensors["input_ids"].shape  # (B, T), or (B, 2, T)
        flat = {name: tensor.flatten(0, -2) for name, tensor in tensors.items()}
        hidden_BTD = self.encoder(**flat).last_hidden_state
        pooled_BD = pooled(hidden_BTD, flat["attention_mask"], self.pooling)
        if self.normalize:
            pooled_BD = F.normalize(pooled_BD.float(), dim=-1)
        if len(shape) == 2:
            return pooled_BD
        u_BD, v_BD = pooled_BD.view(*shape[:-1], -1).unbind(dim=1)
        return torch.cat([(u_BD - v_BD).abs(), u_BD * v_BD], dim=-1)

    def forward(self, labels_B: Tensor | None = None, **tensors: Tensor) -> Tensor:
        """Return the logits, (B, C), or with labels each example's cross-entropy, (B,).

        The head is excluded from autocast, because large logits would lose precision in bf16.
        """
        features_BD = self.features(**tensors)
        if features_BD.is_meta:  # only shapes are computed, and autocast does not exist there
            return self.head(features_BD)
        with torch.autocast(features_BD.device.type, enabled=False):
            logits_BC = self.head(features_BD.to(self.head.weight.dtype))
        return logits_BC if labels_B is None else F.cross_entropy(logits_BC, labels_B, reduction="none")


def build(model: ModelConfig, options: Sequence[str], prompt: str, fields: Sequence[str]) -> TextClassifier:
    """Return the classifier for model.text.objective in evaluation mode, on the CPU.

    options: the texts of the classes. prompt: data.text.prompt; "": "name: {name} | ..." for all
    fields. fields: the names of an example's texts. Raises ValueError if the model, its tokenizer
    or the prompt is unusable; the message names the key.
    """
    text, pretrained = model.text, load(model)
    tokens = Tokens(pretrained.tokenizer, model.name)
    if text.objective == "head":
        towers, typed = text.pairs == "towers", has_types(pretrained.module)
        pairs = PairInputs(tokens, fields, text.max_length, towers, typed)
        return TextEncoder(pretrained, options, pairs, model).eval()
    whole = Prompt.of(prompt, fields, options)
    if text.objective == "seq2seq":
        inputs = PromptInputs(tokens, whole, text.max_length)
        return SequenceToSequence(pretrained, options, tokens, inputs).eval()
    mask = pretrained.tokenizer.mask_token_id
    if mask is None:
        way_out = "set model.text.objective=head"
        raise ValueError(f"model.name={model.name}: its tokenizer has no mask token; {way_out}")
    longest = max(map(len, answer_tokens(options, tokens, after="label:")))
    inputs = PromptInputs(tokens, whole, text.max_length, tail=[mask] * longest)
    return MaskedLanguageModel(pretrained, options, tokens, inputs).eval()


def answer_tokens(options: Sequence[str], tokens: Tokens, after: str = "") -> list[list[int]]:
    """Return the token ids of the options, "A) positive", as they follow the text `after`.

    Raises ValueError if an option has unknown tokens or the tokens of another option.
    """
    answers = prompts.answers(options)
    if after:
        start = tokens.ids([after])[0]
        rows = [ids[len(start) :] for ids in tokens.ids([f"{after} {answer}" for answer in answers])]
    else:
        rows = tokens.ids(answers)
    for position, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        if not row or tokens.tokenizer.unk_token_id in row:
            unknown = f"the tokenizer of model.name={tokens.name} does not know all of the option {answer!r}"
            way_out = "give it another text, or use this model's own tokenizer"
            raise ValueError(f"data.text.labels: {unknown}; {way_out}")
        if row in rows[:position]:
            same = answers[rows.index(row)]
            raise ValueError(f"data.text.labels: the options {same!r} and {answer!r} have the same tokens")
    return rows


def pooled(hidden_BTD: Tensor, mask_BT: Tensor, pooling: str) -> Tensor:
    """Return the mean of the tokens' features without padding, or the first token's, (B, D)."""
    if pooling == "first":
        return hidden_BTD[:, 0]
    weights_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)


def _only_masks(count: int, after: int, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Keep of an encoder's output the positions of the masks, before `after` special tokens."""
    hidden_BTD, mask_BT = output.last_hidden_state, kwargs["attention_mask"]
    first_B1 = mask_BT.sum(dim=1, keepdim=True) - after - count
    places_BL = first_B1 + torch.arange(count, device=mask_BT.device)
    output["last_hidden_state"] = hidden_BTD.gather(1, places_BL[..., None].expand(-1, -1, hidden_BTD.shape[-1]))
    return output


# ---- tied weights ----


def tied(module: nn.Module) -> dict[str, str]:
    """Return further names of tied parameters, and the name that named_parameters() gives each."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: names[id(parameter)] for name, parameter in every if names[id(parameter)] != name}


def _drop_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name in tied(module):
        state.pop(prefix + name, None)


def _add_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
    errors = others[-1]  # load_state_dict() raises RuntimeError with these
    for name, first in tied(module).items():
        given = state.get(prefix + first)
        if given is None:
            continue
        if not torch.equal(state.setdefault(prefix + name, given), given):
            errors.append(f"{name} and {first} differ, but are one tensor in this model")
