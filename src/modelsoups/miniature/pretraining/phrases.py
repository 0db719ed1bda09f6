"""Pre-training of PhraseBERT, a small BERT, on generated texts.

As BERT, it learns masked language modelling and whether two sentences belong together (next sentence
prediction); and, as ELECTRA does for words, whether a sentence has been damaged at random. Small
models learn prompts late, so these two stand in prompts like those of the tasks, but with other
options. Prompts with the tasks' options have random labels: the model learns their words only.

Shape letters: B texts, T tokens, M masked tokens.
"""

import shutil
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.disk import paths, storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature import sets
from modelsoups.miniature.pretraining.training import Losses, Pretraining, PretrainOptions
from modelsoups.miniature.text import acceptability, paraphrase, tokens
from modelsoups.miniature.text.grammar import LONG, OTHER_NUMBER, SHORT, Draws, Grammar, written
from modelsoups.miniature.text.lexicon import Words, words
from modelsoups.models.prompts import Prompt, answers

FOLDER = ASSETS / "phrasebert"
CONFIG = "config.json"
TASK_OPTIONS = (acceptability.OPTIONS, paraphrase.OPTIONS)
OPTIONS = (("yes", "no"), ("true", "false"), ("positive", "negative"))
MASKED, SAME, RANDOM = 0.15, 0.1, 0.1  # BERT's: of the masked tokens, 10% stay and 10% become others
MASKED_LABELS = 0.8
OTHERS = OTHER_NUMBER | {"this": "these", "these": "this", "those": "that", "themselves": "itself"}


@dataclass
class PhraseOptions(PretrainOptions):
    """The options of PhraseBERT's pre-training; its defaults are those of the weights in this package."""

    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    threads: int = 1


class PhrasePretraining(Pretraining):
    """The pre-training of PhraseBERT. It needs transformers."""

    options_class = PhraseOptions
    steps, flags = 6000, "pretrain.model=phrase_bert "
    parts, weights, examples = ("loss of words", "errors in labels"), paths.MODEL, "texts"

    def build(self) -> dict[str, nn.Module]:
        from transformers import AutoConfig, AutoModelForMaskedLM

        out = self.options.out
        with storage.atomic(out / CONFIG) as tmp:
            shutil.copyfile(FOLDER / CONFIG, tmp)
        tokens.write(out)
        self.tokenizer = tokens.tokenizer()
        self.tokenizer.enable_padding(pad_id=self.tokenizer.token_to_id("[PAD]"))
        model: Any = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(str(out)))
        return {"model": model.train()}

    def batch_losses(self) -> Losses:
        """Return the cross-entropy of masked words and labels, that of words, and labels' error rate."""
        seed = f"pretrain {self.options.seed} step {self.step}"
        draws = Draws(seed)
        encoded = self.tokenizer.encode_batch([text(draws) for _ in range(self.options.batch_size)])
        ids_BT = torch.tensor([one.ids for one in encoded])
        mask_BT = torch.tensor([one.attention_mask for one in encoded])
        inputs_BT, masked_BT, label_BT = self.mask(ids_BT, sets.generator(seed))
        hidden_BTD = self.model.bert(input_ids=inputs_BT, attention_mask=mask_BT).last_hidden_state
        logits_MV, targets_M, of_label_M = self.model.cls(hidden_BTD[masked_BT]), ids_BT[masked_BT], label_BT[masked_BT]
        losses_M = F.cross_entropy(logits_MV, targets_M, reduction="none")
        words, labels = losses_M[~of_label_M].mean(), losses_M[of_label_M].mean()
        errors_M = logits_MV.argmax(dim=1) != targets_M
        return words + labels, words, errors_M[of_label_M].float().mean()

    def mask(self, ids_BT: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens with masks, which tokens are to be predicted, and which belong to labels."""
        label, mask = self.tokenizer.token_to_id("label"), self.tokenizer.token_to_id("[MASK]")
        colon, special = self.tokenizer.token_to_id(":"), len(tokens.SPECIAL)
        word_BT = ids_BT >= special
        label_BT = ((ids_BT == label).cumsum(dim=1) > 0) & (ids_BT != label) & (ids_BT != colon) & word_BT
        masked_label_B1 = torch.rand(len(ids_BT), 1, generator=g) < MASKED_LABELS
        masked_BT = (torch.rand(ids_BT.shape, generator=g) < MASKED) & word_BT
        kind_BT = torch.rand(ids_BT.shape, generator=g)
        others_BT = torch.randint(special, self.tokenizer.get_vocab_size(), ids_BT.shape, generator=g)
        shown_BT = torch.where(kind_BT < 1 - SAME - RANDOM, mask, torch.where(kind_BT < 1 - SAME, others_BT, ids_BT))
        inputs_BT = torch.where(masked_BT, shown_BT, ids_BT)
        inputs_BT = torch.where(label_BT, torch.where(masked_label_B1, mask, ids_BT), inputs_BT)
        return inputs_BT, torch.where(label_BT, masked_label_B1, masked_BT), label_BT

    def facts(self) -> dict[str, Any]:
        return {"parameters": sum(weight.numel() for weight in self.model.parameters())}


def text(draws: Draws) -> str:
    """Return a random text of the pre-training: sentences alone (1 of 10), or in a prompt with a label."""
    known = words(*draws.one(((0,), (1,), (0, 1))))
    label = draws.index(2)
    texts = pair(known, label, draws) if draws.chance(0.5) else single(known, label, draws)
    if draws.chance(0.1):
        return " ".join(texts.values())
    options = draws.one(OPTIONS)
    if draws.chance(0.1):
        options, label = draws.one(TASK_OPTIONS), draws.index(2)
    prompt, _ = Prompt.of("", list(texts), options).fill(texts)
    return f"{prompt} {answers(options)[label]}"


def pair(known: Words, label: int, draws: Draws) -> dict[str, str]:
    """Return two sentences that tell the same event (label 0), or events with one to three differences."""
    event = other = paraphrase.random_event(known, draws, 0.5)
    for _ in range(label * (1 + draws.index(3))):
        other = paraphrase.changed(other, known, draws)
    return {"sentence1": event.text(draws), "sentence2": other.text(draws)}


def single(known: Words, label: int, draws: Draws) -> dict[str, str]:
    """Return a sentence; with label 1 it is damaged."""
    grammar = Grammar(known, LONG if draws.chance(0.1) else SHORT, draws)
    sentence = written([part.text for part in grammar.sentence()])
    return {"sentence": damaged(sentence, draws) if label else sentence}


def damaged(sentence: str, draws: Draws) -> str:
    """Return a sentence with two neighbours swapped, a word from elsewhere, or another form of a word."""
    found = sentence[:-1].split()
    place, kind = draws.index(len(found) - 1), draws.index(4)
    word = found[place]
    if kind == 0:
        found[place : place + 2] = found[place + 1], word
    elif kind == 1:
        found[place] = draws.one(found)
    else:
        found[place] = OTHERS.get(word.lower()) or (word[:-1] if word.endswith("s") else word + "s")
    return written(found)
