"""Text for a terminal: names of files and labels may be a stranger's."""

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    r"""Text without what a terminal would obey and what UTF-8 cannot hold.

    >>> printable("a\x1b[2J\udcff.png")
    'a�[2J�.png'
    """
    return "".join(character if character.isprintable() else _NO_CHARACTER for character in text)
