"""How the pages are built: `make docs`."""

from __future__ import annotations

import argparse
import importlib
import re
from typing import Any

from medseg_pl import CLASSES, __version__, checks
from medseg_pl.__main__ import MODULES, REPEATING
from medseg_pl.cli import help_pages
from medseg_pl.cli.lightning_cli import make_parser
from medseg_pl.cli.parser import CommandParser

project = "medseg"
author = "The medseg authors"
project_copyright = "The medseg authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["figures"]
smartquotes = False  # a reader copies commands: `--layout` must not become an en dash, nor "…" curly quotes
default_role = "literal"  # a docstring's `name` is code, as in Markdown
html_theme = "furo"
html_title = f"medseg {release}"
linkcheck_timeout = 20
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": False}
autodoc_typehints = "none"  # the settings' page has the types; signatures stay readable
autodoc_class_signature = "mixed"
python_display_short_literal_types = True
napoleon_use_rtype = False
# Types in docstrings are words, and other projects' pages are not there to link to. Links between pages stay checked.
nitpick_ignore_regex = [("py:.*", ".*")]

CODES = "<!-- codes -->"
"""Where the page of `medseg check` has its tables."""
SETTINGS = "<!-- settings -->"
"""Where every setting stands."""
COMMANDS = "<!-- commands -->"
"""Where the help of every command stands."""
API = re.compile(r"<!-- api: ([\w. ]+) -->")
"""Where public classes of some rooms stand."""
_USAGE = "medseg {} --config FILE [options] [any setting of medseg fit]"
_TYPES = {"trainer": "Trainer", "model": "SegmentationModule", "data": "SegmentationDataModule"}
_FILES = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)]+)\)")


def codes_as_markdown() -> str:
    """A table for each level with all its codes, as `medseg check` knows them at the time of the build."""
    return "\n\n".join(_level_as_markdown(level) for level in checks.LEVELS)


def _level_as_markdown(level: str) -> str:
    rows = [
        f"| `{code}` | {kind.meaning} | {kind.remedy} |" for code, kind in checks.CODES.items() if kind.level == level
    ]
    head = [f"## {level.capitalize()}s", "", "| code | what is wrong | what to do |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows])


def settings_as_markdown() -> str:
    """A table for each section with all settings of `medseg fit`: default and meaning, from the docstrings."""
    sections: dict[str, list[str]] = {"run": [], "data": [], "model": [], "trainer": []}
    for action in make_parser("fit")._actions:
        name, default = action.dest, action.default
        if name.endswith(".help") or name in ("help", "print_config") or type(action).__name__ != "ActionTypeHint":
            continue
        help_text = " ".join(str(action.help or "").replace("|", "or").split())
        meaning = re.split(r" Default: |(?<=[.)]) - ", help_text.replace("``", "`"))[0]
        if name == "ckpt_path":  # Lightning's text is about what medseg does otherwise
            meaning = "`last` goes on with the newest run of the experiment; a file begins a new run from its state."
        shown = "" if default is None or str(default) == "==SUPPRESS==" else f"`{default}`"
        section = name.split(".")[0] if "." in name else "run"
        sections[section].append(f"| `{name}` | {shown} | {meaning} |")
    parts = []
    for section, rows in sections.items():
        title = "Of the run" if section == "run" else f"`{section}`: {_TYPES[section]}"
        parts.append("\n".join([f"## {title}", "", "| setting | default | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def commands_as_markdown() -> str:
    """The help of every command, as it is printed."""
    pages = dict(help_pages.COMMANDS)
    for command in REPEATING:
        module = importlib.import_module(f"medseg_pl.cli.{command}")
        own = argparse.ArgumentParser(f"medseg {command}", usage=_USAGE.format(command), description=module.HELP)
        module.add_arguments(own)
        pages[command] = own.format_help()
    for command, name in MODULES.items():
        module = importlib.import_module(name)
        parser = CommandParser(f"medseg {command}", str(module.__doc__).splitlines()[0])
        module.add_arguments(parser)
        pages[command] = parser.format_help()
    return "\n\n".join(f"## medseg {command}\n\n```text\n{text.rstrip()}\n```" for command, text in pages.items())


def api_as_markdown(rooms: str) -> str:
    """The public classes of some rooms, from their docstrings."""
    names = [name for name, room in CLASSES.items() if room in rooms.split()]
    return "\n\n".join(f"## {name}\n\n```{{eval-rst}}\n.. autoclass:: medseg_pl.{name}\n```" for name in names)


def _fill_in(app: Any, page: str, source: list[str]) -> None:
    """Put what the code knows into the page that asks for it, and files beside docs/ where its links can find them."""
    text = source[0]
    for mark, make in ((CODES, codes_as_markdown), (SETTINGS, settings_as_markdown), (COMMANDS, commands_as_markdown)):
        if mark in text:
            text = text.replace(mark, make())
    text = API.sub(lambda match: api_as_markdown(match[1]), text)
    source[0] = _FILES.sub(r"{download}`\1 <\2>`", text)


def _translate_docstring(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into what Sphinx reads: fences become literal blocks, formulas code."""
    result, fenced = [], False
    for line in lines:
        if line.strip().startswith("```"):
            fenced = not fenced
            result += ["::", ""] if fenced else [""]
        elif line.strip().startswith("|"):
            result += ["", f"``{line.strip()}``", ""]
        else:
            # Formulas stay as they are written: a page that draws them would fetch a script from elsewhere.
            result.append(f"    {line}" if fenced else re.sub(r"\$([^$]+)\$", r"``\1``", line))
    lines[:] = result


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-docstring", _translate_docstring)
