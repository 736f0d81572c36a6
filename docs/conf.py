"""How the pages are built: `make docs`."""

from __future__ import annotations

import re
from typing import Any

from medseg_pl import __version__, checks

project = "medseg"
author = "The medseg authors"
project_copyright = "The medseg authors"
release = version = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["figures"]
smartquotes = False  # a reader copies commands: `--layout` must not become an en dash, nor "…" curly quotes
html_theme = "furo"
html_title = f"medseg {release}"
linkcheck_timeout = 20

CODES = "<!-- codes -->"
"""Where the page of `medseg check` has its tables."""


def codes_as_markdown() -> str:
    """A table for each level with all its codes, as `medseg check` knows them at the time of the build."""
    return "\n\n".join(_level_as_markdown(level) for level in checks.LEVELS)


def _level_as_markdown(level: str) -> str:
    rows = [
        f"| `{code}` | {kind.meaning} | {kind.remedy} |" for code, kind in checks.CODES.items() if kind.level == level
    ]
    head = [f"## {level.capitalize()}s", "", "| code | what is wrong | what to do |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows])


def _fill_in(app: Any, page: str, source: list[str]) -> None:
    """Put the codes into the page that asks for them, and files beside docs/ where its links can find them."""
    text = source[0].replace(CODES, codes_as_markdown())
    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)]+)\)", r"{download}`\1 <\2>`", text)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fill_in)
