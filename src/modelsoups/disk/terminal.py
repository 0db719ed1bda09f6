"""Make names and texts from files safe to print on a terminal."""


def printable(text: str) -> str:
    """Return a text with control characters and other unprintable ones as backslash escapes.

    A tensor's name may contain codes that clear the screen, rewrite a line or reverse the text.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
