"""The token ids of prompts and of pairs of texts, by a tokenizer of transformers.

Only the texts of an example are cut at max_length, the longest first: never options, label or
masks. A special token that is written in a text, such as "[MASK]" or "</s>", does not become one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelsoups.models.prompts import Prompt
from modelsoups.models.token_batches import Encoded

Example = Mapping[str, str]  # field -> text
KNOWN = 100  # tokens from which the share of unknown ones is checked


class Tokens:
    """A fast tokenizer without its special tokens, which are in `before`, `between`, `after`."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """name: the model's name, for errors. Raises ValueError for a slow tokenizer."""
        if not tokenizer.is_fast:
            way_out = "add its tokenizer.json"
            raise ValueError(f"model.name={name}: its tokenizer is not a fast one; {way_out}")
        if tokenizer.pad_token_id is None:
            raise ValueError(f"model.name={name}: its tokenizer has no padding token")
        self.tokenizer, self.name = tokenizer, name
        added = {number: token for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = {*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id}
        words = sorted({*tokenizer.all_special_tokens, *map(str, added.values())}, key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, words)) or r"(?!)")
        self.before, _, self.after = self._frame("a")
        self.pair_before, self.between, self.pair_after = self._frame("a", "a")
        # Whether the texts of a pair have different types; not every tokenizer returns them unasked.
        self.typed = max(tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"]) > 0

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        return [self._plain(ids) for ids in self._call(texts)["input_ids"]] if texts else []

    def with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of a text, and the characters that each of them stands for."""
        found = self._call([text], return_offsets_mapping=True)
        return self._plain(found["input_ids"][0]), list(found["offset_mapping"][0])

    def escape(self, text: str) -> str:
        """Return a text with a space after the first character of each special token: "[ MASK]"."""
        return self._written.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def check_known(self, rows: Sequence[Sequence[int]]) -> None:
        """Raise ValueError if more than half of the tokens are unknown to the tokenizer."""
        unknown = sum(list(row).count(self.tokenizer.unk_token_id) for row in rows)
        total = sum(map(len, rows))
        if total >= KNOWN and unknown > total / 2:
            raise ValueError(
                f"model.name={self.name}: its tokenizer does not know {unknown} of {total} tokens "
                "of the texts; does it belong to this model and language?"
            )

    def _call(self, texts: Sequence[str], **options: Any) -> Any:
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False, **options)

    def _plain(self, ids: Sequence[int]) -> list[int]:
        """Return ids whose special tokens, which a text cannot contain, are the unknown token."""
        if self.special.isdisjoint(ids):
            return list(ids)
        unknown = self.tokenizer.unk_token_id
        plain = [unknown if one in self.special else one for one in ids]
        return [one for one in plain if one is not None]

    def _frame(self, *texts: str) -> tuple[list[int], list[int], list[int]]:
        """Return the special tokens before, between and after one text or two."""
        found = self.tokenizer(*texts, return_special_tokens_mask=True)
        parts: list[list[int]] = [[]]
        for one, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True):
            if special:
                parts[-1].append(one)
            elif parts[-1] or len(parts) == 1:
                parts.append([])  # the first token of a text
        between = parts[1] if len(texts) == 2 and len(parts) == 3 else []
        return parts[0], between, parts[-1]


class PromptInputs:
    """Encodes examples as prompts; `tail`: the token ids that follow the prompt (the masks)."""

    def __init__(self, tokens: Tokens, prompt: Prompt, max_length: int, tail: Sequence[int] = ()) -> None:
        """Raise ValueError if the prompt has special tokens, or alone exceeds max_length."""
        self.tokens, self.prompt, self.max_length = tokens, prompt, max_length
        self.tail, self.after = list(tail), [*tail, *tokens.after]
        self.room = max_length - len(tokens.before) - len(self.after)
        empty, _ = prompt.fill(dict.fromkeys(prompt.fields, ""))
        if tokens.escape(empty) != empty:
            raise ValueError(f"data.text.prompt and labels: special tokens of model.name={tokens.name} in {empty!r}")
        ids = tokens.ids([empty])[0]
        if len(ids) >= self.room:
            least = len(ids) + 1 + max_length - self.room
            raise ValueError(f"model.text.max_length={max_length}: the prompt alone needs {least}; set at least that")

    def text(self, example: Example) -> str:
        """Return an example's prompt as it would be without max_length, with its masks."""
        whole, _ = self.prompt.fill({name: self.tokens.escape(example[name]) for name in self.prompt.fields})
        return self._with_tail(whole)

    def template(self) -> str:
        """Return the prompt with its masks, and the fields' names in braces, for str.format."""
        doubled = [literal.replace("{", "{{").replace("}", "}}") for literal, _ in self.prompt.pieces]
        gaps = ["" if field is None else f"{{{field}}}" for _, field in self.prompt.pieces]
        return self._with_tail("".join(map("".join, zip(doubled, gaps, strict=True))))

    def _with_tail(self, whole: str) -> str:
        return " ".join([whole, *self.tokens.tokenizer.convert_ids_to_tokens(self.tail)])

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        texts = [{name: self.tokens.escape(one[name]) for name in self.prompt.fields} for one in examples]
        rows = self.tokens.ids([self.prompt.fill(one)[0] for one in texts])
        self.tokens.check_known(rows)
        encoded = []
        for one, ids in zip(texts, rows, strict=True):
            cut = len(ids) > self.room
            kept = self._fit(one) if cut else ids
            encoded.append(Encoded(((*self.tokens.before, *kept, *self.after),), cut=cut))
        return encoded

    def _fit(self, texts: Mapping[str, str]) -> list[int]:
        """Return the token ids of a prompt; its texts are cut, the longest first, until it fits."""
        texts = dict(texts)
        while True:  # at most a few times: the tokens at the cuts may change
            whole, spans = self.prompt.fill(texts)
            ids, offsets = self.tokens.with_offsets(whole)
            excess = len(ids) - self.room
            if excess <= 0:
                return ids
            ends = {
                field: [stop for start, stop in offsets if stop > first and start < last]
                for field, (first, last) in spans.items()
            }
            kept = shortened([len(stops) for stops in ends.values()], excess)
            before = dict(texts)
            for (field, stops), count in zip(ends.items(), kept, strict=True):
                if count < len(stops):
                    first, last = spans[field]
                    texts[field] = whole[first : min(stops[count - 1], last)].rstrip() if count else ""
            if texts == before:  # several tokens stand for the last character
                longest = max(texts, key=lambda field: len(texts[field]))
                texts[longest] = texts[longest][:-1]


class PairInputs:
    """Encodes one text or two, without a prompt: as one sequence, or as two towers."""

    def __init__(
        self, tokens: Tokens, fields: Sequence[str], max_length: int, towers: bool = False, typed: bool = False
    ) -> None:
        """typed: whether the model distinguishes the texts of a pair by token_type_ids.

        Raises ValueError unless there are one or two fields.
        """
        if not 1 <= len(fields) <= 2:
            raise ValueError(f"data.text.fields={', '.join(fields)}: a linear head takes one text or two")
        self.tokens, self.fields, self.max_length = tokens, list(fields), max_length
        self.pair = len(fields) == 2 and not towers
        self.typed = typed and tokens.typed and self.pair

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        escape = self.tokens.escape
        rows = self.tokens.ids([escape(one[field]) for one in examples for field in self.fields])
        self.tokens.check_known(rows)
        step = len(self.fields)
        each = [rows[start : start + step] for start in range(0, len(rows), step)]
        return [self._joined(*texts) if self.pair else self._apart(texts) for texts in each]

    def _apart(self, texts: Sequence[Sequence[int]]) -> Encoded:
        before, after = self.tokens.before, self.tokens.after
        room = self.max_length - len(before) - len(after)
        ids = tuple((*before, *text[:room], *after) for text in texts)
        return Encoded(ids, cut=max(map(len, texts)) > room)

    def _joined(self, one: Sequence[int], two: Sequence[int]) -> Encoded:
        tokens = self.tokens
        frame = len(tokens.pair_before) + len(tokens.between) + len(tokens.pair_after)
        excess = max(0, frame + len(one) + len(two) - self.max_length)
        first, second = shortened([len(one), len(two)], excess)
        left = [*tokens.pair_before, *one[:first], *tokens.between]
        right = [*two[:second], *tokens.pair_after]
        types = tuple([0] * len(left) + [1] * len(right)) if self.typed else None
        return Encoded(((*left, *right),), types, cut=excess > 0)


def shortened(lengths: Sequence[int], excess: int) -> list[int]:
    """Return lengths with a sum smaller by `excess`; the longest (last of equals) is cut first."""
    kept = list(lengths)
    for _ in range(min(excess, sum(kept))):
        longest = max(kept)
        kept[max(i for i, length in enumerate(kept) if length == longest)] -= 1
    return kept
