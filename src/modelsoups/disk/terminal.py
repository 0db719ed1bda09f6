"""What a terminal shows of names and texts that files hold."""


def printable(text: str) -> str:
    """The text with every character that a terminal would obey, or cannot encode, as its escape.

    A tensor's name may hold codes that clear the screen, rewrite a line or reverse its direction.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
