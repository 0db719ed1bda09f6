"""Tiny text models of transformers with random weights, and their tokenizers, as folders."""

import json
import re
from functools import cache
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from modelsoups.config.models import ModelConfig, TextModelConfig

SENTENCES = [  # invented
    "sentence: a small boat crossed the quiet lake before the storm arrived.",
    "sentence1: the baker opened her shop at dawn. | sentence2: her shop was opened by the baker at dawn.",
    "the film was a joy from the first scene to the last, warm and very funny.",
    "a dull, slow and tiresome story that never finds its way.",
    "the children have eaten all the apples that grew on the old tree!",
    "options: A) acceptable B) unacceptable | label: A) positive B) negative",
    "options: A) equivalent B) not equivalent | label: A) entailment B) not entailment",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789 ?!.,:;|()[]<>/'\"-_",
]
FAMILIES = ("bert", "roberta", "distilbert", "modernbert", "t5", "t5_v1_1")
MASKED = FAMILIES[:4]


def tiny(folder: Path, family: str, vocabulary: int = 320, seed: int = 0) -> Path:
    """Write a tiny model and its tokenizer to folder/family, as transformers saves them."""
    place = folder / family
    if not (place / "config.json").exists():
        torch.manual_seed(seed)
        model = MODELS[family](vocabulary)
        transformers.utils.logging.disable_progress_bar()
        model.save_pretrained(place)
        TOKENIZERS[family]().save_pretrained(place)
        if family == "t5_v1_1":  # as in the original; transformers 5 writes true
            content = json.loads((place / "config.json").read_text())
            (place / "config.json").write_text(json.dumps({**content, "tie_word_embeddings": False}))
    return place


def config(place: Path, family: str, **text) -> ModelConfig:
    """The configuration of a model written by `tiny`."""
    objective = "seq2seq" if family.startswith("t5") else "mlm"
    options = TextModelConfig(**{"objective": objective, "max_length": 64, **text})
    return ModelConfig(str(place), "transformers", "main", normalize_features=False, text=options)


# ---- tokenizers ----


def _words(lower=False):
    text = " ".join(SENTENCES).lower() if lower else " ".join(SENTENCES)
    return sorted(set(re.findall("[A-Za-z]{2,}", text)))


@cache
def wordpiece():
    """A lower-case WordPiece tokenizer, as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(SENTENCES).lower()) - {" "})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *_words(lower=True)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", **names)


@cache
def byte_level():
    """A byte-level BPE tokenizer whose mask takes the space before it, as RoBERTa's."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=318, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, mask_token=mask, **names)


@cache
def unigram():
    """A Unigram tokenizer that ends a text with </s>, as T5's."""
    letters = sorted(set("".join(SENTENCES)) - {" "})
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -4.0}  # as sentencepiece: no penalty for these
    pieces |= {f"▁{word}": -6.0 for word in _words()} | dict.fromkeys(letters, -8.0)
    made = tokenizers.Tokenizer(models.Unigram(list(pieces.items()), unk_id=2))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


# ---- models ----

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
WIDE = {"initializer_range": 0.3}  # larger than usual: scores that differ clearly


def _bert(vocabulary):
    made = transformers.BertConfig(vocab_size=vocabulary, max_position_embeddings=160, **SIZES, **WIDE)
    return transformers.BertForMaskedLM(made)


def _roberta(vocabulary):
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    made = transformers.RobertaConfig(
        vocab_size=vocabulary, max_position_embeddings=162, type_vocab_size=1, **special, **SIZES, **WIDE
    )
    return transformers.RobertaForMaskedLM(made)


def _distilbert(vocabulary):
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 160}
    return transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(vocab_size=vocabulary, **sizes, **WIDE))


def _modernbert(vocabulary):
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    made = transformers.ModernBertConfig(
        vocab_size=vocabulary, max_position_embeddings=160, local_attention=8, **special, **SIZES, **WIDE
    )
    return transformers.ModernBertForMaskedLM(made)


def _t5(vocabulary, **options):
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    made = transformers.T5Config(
        vocab_size=vocabulary, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **sizes, **options
    )
    return transformers.T5ForConditionalGeneration(made)


def _t5_v1_1(vocabulary):
    made = _t5(vocabulary, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))  # untied
    return made


MODELS = {
    "bert": _bert,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "t5": _t5,
    "t5_v1_1": _t5_v1_1,
}
TOKENIZERS = {
    "bert": wordpiece,
    "roberta": byte_level,
    "distilbert": wordpiece,
    "modernbert": byte_level,
    "t5": unigram,
    "t5_v1_1": unigram,
}
