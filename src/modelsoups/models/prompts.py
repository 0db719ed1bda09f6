"""The prompts that turn a classification task into the pre-training task of BERT or T5 (J.5).

For T5: "sentence: The movie is good. | options: A) positive B) negative | label:", whose answer is
"A) positive". For BERT, masks that stand for the answer follow. The part before the options is
data.text.prompt; the rest is the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter, ascii_uppercase

Span = tuple[int, int]  # first character, and the one after the last


@dataclass(frozen=True)
class Prompt:
    """A prompt with gaps for the texts of an example: pieces of (literal text, field after it)."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, prompt: str, fields: Sequence[str], options: Sequence[str]) -> "Prompt":
        """Return the prompt: data.text.prompt (by default "name: {name} | ..."), options, label.

        Raises ValueError if the prompt is malformed, names an unknown field or a field twice, or
        has no field, or if the options cannot be told apart.
        """
        answers_of = answers(options)
        middle = prompt or " | ".join(f"{name}: {{{name}}}" for name in fields)
        pieces = [*_pieces(middle, fields), (f" | options: {' '.join(answers_of)} | label:", None)]
        return cls(tuple(pieces))

    def fill(self, texts: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
        """Return the prompt of an example, and where the text of each field is in it."""
        parts, spans, length = [], {}, 0
        for literal, field in self.pieces:
            parts.append(literal)
            length += len(literal)
            if field is not None:
                parts.append(texts[field])
                spans[field] = (length, length + len(texts[field]))
                length += len(texts[field])
        return "".join(parts), spans

    @property
    def fields(self) -> list[str]:
        return [field for _, field in self.pieces if field is not None]


def answers(options: Sequence[str]) -> list[str]:
    """Return the options with letters, as in the prompt: "A) positive", "B) negative".

    Raises ValueError if there are fewer than 2 or more than 26, or if one is empty or repeated.
    """
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"data.text.labels has {len(options)} options; a prompt takes 2 to 26")
    for position, option in enumerate(options):
        if not option.strip() or option in options[:position]:
            what = "repeated" if option.strip() else "empty"
            way_out = "give each label its own text"
            raise ValueError(f"data.text.labels: the option {option!r} is {what}; {way_out}")
    return [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]


def _pieces(prompt: str, fields: Sequence[str]) -> list[tuple[str, str | None]]:
    what, way_out = f"data.text.prompt={prompt!r}", f"name the fields in braces: {', '.join(fields)}"
    try:
        parsed = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"{what} is malformed ({error}); {way_out}") from error
    pieces: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    for literal, field, form, conversion in parsed:
        if field is not None and (field not in fields or form or conversion):
            raise ValueError(f"{what}: there is no field {{{field}}}; {way_out}")
        if field in seen:
            raise ValueError(f"{what} names the field {{{field}}} twice")
        if field is not None:
            seen.add(field)
        pieces.append((literal, field))
    if not seen:
        raise ValueError(f"{what} has no field; {way_out}")
    return pieces
