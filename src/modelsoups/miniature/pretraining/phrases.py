"""Pre-training of PhraseBERT, a small BERT, on generated sentences: masked language modelling.

Its text is correct sentences, pairs of sentences of which most are paraphrases, and both in the
prompts of the tasks. The prompts' labels are random: the model learns their words and form, and
nothing about the tasks.

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
from modelsoups.miniature.text.grammar import LONG, SHORT, Draws, Grammar, written
from modelsoups.miniature.text.lexicon import words
from modelsoups.models.prompts import Prompt, answers

FOLDER = ASSETS / "phrasebert"
CONFIG = "config.json"
OPTIONS = (acceptability.OPTIONS, paraphrase.OPTIONS, ("yes", "no"), ("true", "false"), ("positive", "negative"))
MASKED, SAME, RANDOM = 0.15, 0.1, 0.1  # BERT's: of the masked tokens, 10% stay and 10% become others
MASKED_LABEL = 0.5


@dataclass
class PhraseOptions(PretrainOptions):
    """The options of PhraseBERT's pre-training; its defaults are those of the weights in this package."""

    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.01
    threads: int = 1


class PhrasePretraining(Pretraining):
    """The pre-training of PhraseBERT. It needs transformers."""

    options_class = PhraseOptions
    steps, flags = 6000, "pretrain.model=phrase_bert "
    parts, weights, examples = ("loss", "errors"), paths.MODEL, "texts"

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
        """Return the cross-entropy of the masked tokens, the same to print, and their error rate."""
        seed = f"pretrain {self.options.seed} step {self.step}"
        draws = Draws(seed)
        encoded = self.tokenizer.encode_batch([text(draws) for _ in range(self.options.batch_size)])
        ids_BT = torch.tensor([one.ids for one in encoded])
        mask_BT = torch.tensor([one.attention_mask for one in encoded])
        inputs_BT, masked_BT = self.mask(ids_BT, sets.generator(seed))
        hidden_BTD = self.model.bert(input_ids=inputs_BT, attention_mask=mask_BT).last_hidden_state
        logits_MV = self.model.cls(hidden_BTD[masked_BT])
        targets_M = ids_BT[masked_BT]
        loss = F.cross_entropy(logits_MV, targets_M)
        return loss, loss, (logits_MV.argmax(dim=1) != targets_M).float().mean()

    def mask(self, ids_BT: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the tokens with masks, and which tokens are to be predicted."""
        label, mask = self.tokenizer.token_to_id("label"), self.tokenizer.token_to_id("[MASK]")
        special = len(tokens.SPECIAL)
        after_label_BT = (ids_BT == label).cumsum(dim=1) > 0
        share_BT = torch.where(after_label_BT, MASKED_LABEL, MASKED)
        masked_BT = (torch.rand(ids_BT.shape, generator=g) < share_BT) & (ids_BT >= special)
        kind_BT = torch.rand(ids_BT.shape, generator=g)
        others_BT = torch.randint(special, self.tokenizer.get_vocab_size(), ids_BT.shape, generator=g)
        shown_BT = torch.where(kind_BT < 1 - SAME - RANDOM, mask, torch.where(kind_BT < 1 - SAME, others_BT, ids_BT))
        return torch.where(masked_BT, shown_BT, ids_BT), masked_BT

    def facts(self) -> dict[str, Any]:
        return {"parameters": sum(weight.numel() for weight in self.model.parameters())}


def text(draws: Draws) -> str:
    """Return a random text of the pre-training: sentences, or a prompt with a random label."""
    is_pair, half = draws.chance(0.5), draws.one(((0,), (1,), (0, 1)))
    if is_pair:
        event = paraphrase.random_event(words(*half), draws, 0.5)
        other = event if draws.chance(0.8) else paraphrase.changed(event, words(*half), draws)
        texts = {"sentence1": event.text(draws), "sentence2": other.text(draws)}
    else:
        grammar = Grammar(words(*half), LONG if draws.chance(0.3) else SHORT, draws)
        texts = {"sentence": written([part.text for part in grammar.sentence()])}
    if draws.chance(0.4):
        return " ".join(texts.values())
    options = draws.one(OPTIONS)
    prompt, _ = Prompt.of("", list(texts), options).fill(texts)
    return f"{prompt} {draws.one(answers(options))}"
