"""Text for a terminal: names of files and labels may be a stranger's."""

import re

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"

# Control characters, line separators, turns of the text's direction, and halves of characters that UTF-8 cannot hold.
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def printable(text: str) -> str:
    r"""Text without what a terminal would obey and what UTF-8 cannot hold.

    >>> printable("a\x1b[2J\udcff.png")
    'a�[2J�.png'
    """
    return "".join(character if character.isprintable() else _NO_CHARACTER for character in text)


def replace_controls(text: str) -> str:
    r"""Replace what no file of text should hold, and nothing else: spaces of every kind stay.

    >>> replace_controls("a\x1b[2J\u00a0b")
    'a�[2J\xa0b'
    """
    return _CONTROLS.sub(_NO_CHARACTER, text)


def shorten(text: str, most: int = 80) -> str:
    """Quote a stranger's text for an error: printable, and cut off where it is long.

    >>> shorten("a" * 9, most=5)
    "'aaaaa…'"
    """
    return f"'{printable(text[:most])}{'…' if len(text) > most else ''}'"
