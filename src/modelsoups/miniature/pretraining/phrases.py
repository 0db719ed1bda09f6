"""Pre-training of PhraseBERT, a small BERT, on generated texts.

As BERT, it learns masked language modelling and whether two sentences belong together (next
sentence prediction), and as ELECTRA which words are odd: those changed by random damage, and those
of a pair without a counterpart in the other sentence (by a head that is dropped afterwards). A
small model would hardly learn prompts from a few examples, so "does it belong together" and "is it
damaged" stand in prompts like those of the tasks, with other options. Prompts with the tasks'
options have random labels. Still the tasks are prepared: in the other prompts, A) always means
intact or together, as in the tasks, so the pre-trained model already scores above
chance on acceptability.

Shape letters: B texts, T tokens, M masked tokens.
"""

import re
import shutil
from dataclasses import dataclass
from functools import cache
from itertools import chain
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
from modelsoups.miniature.text.lexicon import PLURAL, SINGULAR, Verb, Words, words
from modelsoups.models.prompts import Prompt, answers

FOLDER = ASSETS / "phrasebert"
CONFIG = "config.json"
TASK_OPTIONS = (acceptability.OPTIONS, paraphrase.OPTIONS)
OPTIONS = (("yes", "no"), ("true", "false"), ("positive", "negative"))
Marked = tuple[str, list[int]]  # a sentence, and the places of its odd words
MASKED, SAME, RANDOM = 0.15, 0.1, 0.1  # BERT's: of masked tokens, 10% stay, 10% become others
MASKED_LABELS = 0.8


@dataclass
class PhraseOptions(PretrainOptions):
    """The options of PhraseBERT's pre-training; the defaults made the weights in this package."""

    batch_size: int = 32
    lr: float = 2e-3
    odd: float = 10.0  # weight of the loss of odd words
    weight_decay: float = 0.01
    threads: int = 1


class PhrasePretraining(Pretraining):
    """The pre-training of PhraseBERT. It needs transformers."""

    options_class = PhraseOptions
    options: PhraseOptions
    steps, flags = 8000, "pretrain.model=phrase_bert "
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
        self.odd = nn.Linear(model.config.hidden_size, 1)
        return {"model": model.train(), "odd": self.odd}

    def batch_losses(self) -> Losses:
        """Return the sum of the three losses, that of masked words, and the labels' error rate."""
        seed = f"pretrain {self.options.seed} step {self.step}"
        draws = Draws(seed)
        texts = [text(draws) for _ in range(self.options.batch_size)]
        encoded = self.tokenizer.encode_batch([one.text for one in texts])
        ids_BT = torch.tensor([one.ids for one in encoded])
        odd_BT = torch.tensor([text.marks(one.offsets) for text, one in zip(texts, encoded, strict=True)])
        label_BT = self.is_label(ids_BT)
        inputs_BT, masked_BT = self.mask(ids_BT, label_BT, sets.generator(seed))
        mask_BT = torch.tensor([one.attention_mask for one in encoded])
        output = self.model.bert(input_ids=inputs_BT, attention_mask=mask_BT, output_hidden_states=True)
        hidden_BTD, before_BTD = output.last_hidden_state, output.hidden_states[-2]
        logits_MV, targets_M, of_label_M = self.model.cls(hidden_BTD[masked_BT]), ids_BT[masked_BT], label_BT[masked_BT]
        losses_M = F.cross_entropy(logits_MV, targets_M, reduction="none")
        words, labels = losses_M[~of_label_M].mean(), losses_M[of_label_M].mean()
        shown_BT = (mask_BT == 1) & ~masked_BT
        odd_logits_BT = self.odd(before_BTD)[..., 0]  # so that the last layer looks for odd words
        odd = F.binary_cross_entropy_with_logits(odd_logits_BT[shown_BT], odd_BT[shown_BT])
        errors_M = logits_MV.argmax(dim=1) != targets_M
        return words + labels + self.options.odd * odd, words, errors_M[of_label_M].float().mean()

    def is_label(self, ids_BT: Tensor) -> Tensor:
        """Return which tokens belong to the label, after "label:"."""
        label, colon = self.tokenizer.token_to_id("label"), self.tokenizer.token_to_id(":")
        after_BT = (ids_BT == label).cumsum(dim=1) > 0
        return after_BT & (ids_BT != label) & (ids_BT != colon) & (ids_BT >= len(tokens.SPECIAL))

    def mask(self, ids_BT: Tensor, label_BT: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the tokens with masks, and which tokens are to be predicted."""
        mask, special = self.tokenizer.token_to_id("[MASK]"), len(tokens.SPECIAL)
        masked_BT = (torch.rand(ids_BT.shape, generator=g) < MASKED) & (ids_BT >= special) & ~label_BT
        kind_BT = torch.rand(ids_BT.shape, generator=g)
        others_BT = torch.randint(special, self.tokenizer.get_vocab_size(), ids_BT.shape, generator=g)
        shown_BT = torch.where(kind_BT < 1 - SAME - RANDOM, mask, torch.where(kind_BT < 1 - SAME, others_BT, ids_BT))
        masked_label_BT = label_BT & (torch.rand(len(ids_BT), 1, generator=g) < MASKED_LABELS)
        inputs_BT = torch.where(masked_BT, shown_BT, ids_BT).masked_fill(masked_label_BT, mask)
        return inputs_BT, masked_BT | masked_label_BT

    def facts(self) -> dict[str, Any]:
        return {"parameters": sum(weight.numel() for weight in self.model.parameters())}


@dataclass(frozen=True)
class Text:
    """A text, and the first and last characters of its odd words."""

    text: str
    odd: list[tuple[int, int]]

    def marks(self, offsets: list[tuple[int, int]]) -> list[float]:
        """Return 1 for each token of an odd word, else 0."""
        inside = set(chain.from_iterable(range(first, last) for first, last in self.odd))
        return [float(first in inside and last > first) for first, last in offsets]


def text(draws: Draws) -> Text:
    """Return a random text of the pre-training: sentences in a prompt, and a label."""
    known = words(*draws.one(((0,), (1,), (0, 1))))
    label = draws.index(2)
    found = pair(known, label, draws) if draws.chance(0.6) else single(known, label, draws)
    options = draws.one(OPTIONS)
    if draws.chance(0.1):
        options, label = draws.one(TASK_OPTIONS), draws.index(2)
    texts = {name: sentence for name, (sentence, _) in found.items()}
    prompt, spans = Prompt.of("", list(texts), options).fill(texts)
    odd = []
    for name, (sentence, places) in found.items():
        words_of = list(re.finditer(r"[^ .]+", sentence))
        odd += [(spans[name][0] + words_of[i].start(), spans[name][0] + words_of[i].end()) for i in places]
    return Text(f"{prompt} {answers(options)[label]}", odd)


def pair(known: Words, label: int, draws: Draws) -> dict[str, Marked]:
    """Return two sentences that tell the same event (label 0), another, or one that differs a bit.

    Odd words are those that the other sentence has in no form and by no synonym.
    """
    event = other = paraphrase.random_event(known, draws, 0.5)
    if label and draws.chance(0.5):
        other = paraphrase.random_event(known, draws, 0.5)
    elif label:
        for _ in range(1 + draws.index(3)):
            other = paraphrase.changed(other, known, draws)
    one, two = event.text(draws), other.text(draws)
    return {"sentence1": (one, _without_counterpart(one, two)), "sentence2": (two, _without_counterpart(two, one))}


def _without_counterpart(sentence: str, other: str) -> list[int]:
    group_of = _groups()
    there = {group_of.get(word) for word in other[:-1].lower().split()}
    found = enumerate(sentence[:-1].lower().split())
    return [place for place, word in found if word in group_of and group_of[word] not in there]


@cache
def _groups() -> dict[str, str]:
    """Return the group of each form of each noun, verb, adjective and quantity, and of "not"."""
    known = words(0, 1)
    found = {"not": "not", "single": "one", "one": "one", "lot": "many", "many": "many"}
    found |= {"some": "several", "several": "several", "two": "two"}
    for group in chain(known.people, known.animals, known.things, known.adjectives):
        found |= {form: group[0] for word in group for form in (word, word + "s")}
    for group in chain(known.to_someone, known.to_something):
        for verb in map(Verb.of, group):
            forms = (verb.base, verb.third, verb.past, verb.participle, verb.progressive)
            found |= dict.fromkeys(forms, group[0])
    return found


def single(known: Words, label: int, draws: Draws) -> dict[str, Marked]:
    """Return a sentence; with label 1 it is damaged, and the changed words are odd."""
    grammar = Grammar(known, LONG if draws.chance(0.1) else SHORT, draws)
    sentence = written([part.text for part in grammar.sentence()])
    return {"sentence": damaged(sentence, draws) if label else (sentence, [])}


def damaged(sentence: str, draws: Draws) -> Marked:
    """Return a sentence with two neighbours swapped, or with another form of a word."""
    found = sentence[:-1].split()
    changeable = [place for place, word in enumerate(found) if word.lower() in _forms()]
    if draws.chance(0.3) or not changeable:
        place = draws.index(len(found) - 1)
        found[place : place + 2] = found[place + 1], found[place]
        return written(found), [place, place + 1]
    place = draws.one(changeable)
    found[place] = draws.one(_forms()[found[place].lower()])
    return written(found), [place]


@cache
def _forms() -> dict[str, tuple[str, ...]]:
    """Return the other forms of each noun, verb, auxiliary, reflexive and determiner."""
    known = words(0, 1)
    found: dict[str, tuple[str, ...]] = {one: (other,) for one, other in OTHER_NUMBER.items()}
    found |= {"themselves": ("itself", "himself"), "itself": ("themselves",), "himself": ("themselves",)}
    found["herself"] = ("themselves",)
    singular, plural = (set(entry.split()) - {"the"} for entry in (SINGULAR, PLURAL))
    found |= dict.fromkeys(singular, tuple(sorted(plural))) | dict.fromkeys(plural, tuple(sorted(singular)))
    for noun in chain.from_iterable(known.people + known.animals + known.things):
        found |= {noun: (noun + "s",), noun + "s": (noun,)}
    for verb in map(Verb.of, chain.from_iterable(known.to_someone + known.to_something + known.alone)):
        forms = {verb.base, verb.third, verb.past, verb.participle, verb.progressive}
        found |= {form: tuple(sorted(forms - {form})) for form in forms}
    return found
