"""The tokenizer of PhraseBERT: WordPiece, as BERT's, over the words of the lexicon and the prompts.

Endings such as ##s are pieces of their own. Letters are pieces too, so other words are not unknown.
"""

import re
import string
from itertools import chain
from pathlib import Path
from typing import Any

from modelsoups.disk import storage
from modelsoups.miniature.text import lexicon
from modelsoups.miniature.text.lexicon import Verb

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ENDINGS = ("##s", "##d", "##ed", "##ing")
PROMPT = "sentence options label acceptable unacceptable equivalent not yes no true false positive negative"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


def vocabulary() -> list[str]:
    """Return the tokens, in the order of their ids."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *".,:;|()?!'\"-", *characters, *(f"##{c}" for c in characters), *ENDINGS]
    words = sorted({word.lower() for word in _words()} - set(pieces))
    return [*dict.fromkeys(pieces), *words]


def _words() -> set[str]:
    """Return all words that are not another word with an ending."""
    nouns = (*lexicon.PEOPLE, *lexicon.ANIMALS, *lexicon.THINGS, *lexicon.ADJECTIVES, *lexicon.NAMES)
    verbs = (*lexicon.TO_SOMEONE, *lexicon.TO_SOMETHING, *lexicon.ALONE)
    others = (
        *(lexicon.PLACES, lexicon.SINGULAR, lexicon.PLURAL, lexicon.QUANTITIES, lexicon.MODALS, lexicon.CONJUNCTIONS),
        *(lexicon.AUXILIARIES, lexicon.REFLEXIVES, *lexicon.TIMES.values(), PROMPT),
    )
    found = set(re.split(r"[\s/|]+", " ".join([*nouns, *others])))
    for entry in chain.from_iterable(lexicon.groups(" ".join(verbs))):
        verb = Verb.of(entry)
        found.add(verb.base)
        if verb.base.endswith("e"):
            found.add(verb.progressive)
        if "=" in entry:
            found |= {verb.past, verb.participle}
    return found


def write(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json to a folder."""
    storage.write_text(folder / TOKENIZER, tokenizer().to_str(pretty=True) + "\n")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128}
    storage.write_json(folder / TOKENIZER_CONFIG, config | dict(zip(names, SPECIAL, strict=True)))


def tokenizer() -> Any:
    """Return the tokenizer as an object of the library `tokenizers`, which comes with transformers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary())}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    ends = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return made
