"""How the pages are built: `make docs`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes

from medseg_pl import CLASSES, __version__, checks
from medseg_pl.__main__ import MODULES, REPEATING
from medseg_pl.cli import help_pages
from medseg_pl.cli.lightning_cli import make_parser
from medseg_pl.cli.parser import CommandParser
from medseg_pl.core import image_findings

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
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"  # browsers draw it themselves; MathJax would fetch a script from elsewhere
linkcheck_timeout = 20
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the settings' page has the types; signatures stay readable
autodoc_class_signature = "mixed"
python_display_short_literal_types = True
napoleon_use_rtype = False
# Types in docstrings are words, and other projects' pages are not there to link to. Links between pages stay checked.
nitpick_ignore_regex = [("py:.*", ".*")]

DOCS = Path(__file__).parent
CODES = "<!-- codes -->"
"""Where the page of `medseg check` has its tables."""
SETTINGS = "<!-- settings -->"
"""Where every setting stands."""
COMMANDS = "<!-- commands -->"
"""Where the help of every command stands."""
NOTEBOOK = "<!-- notebook -->"
"""Where the cells of the example notebook stand, with what they printed and drew."""
API = re.compile(r"<!-- api: ([\w. ]+) -->")
"""Where public classes of some rooms stand."""
_USAGE = "medseg {} --config FILE [options] [any setting of medseg fit]"
_TYPES = {"trainer": "Trainer", "model": "SegmentationModule", "data": "SegmentationDataModule"}
MEANINGS = {
    "ckpt_path": "`last` goes on with the newest run of the experiment; a file begins a new run from its state.",
    "weights_only": "Leave it: medseg runs no code that a checkpoint holds.",
}
"""Where Lightning's text is about what medseg does otherwise."""
_ANYTHING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_FILES = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)]+)\)")


FOREIGN_CODES = "<!-- codes of foreign images -->"
"""Where the page of images unlike the training images has its table."""


def foreign_codes_as_markdown() -> str:
    """A table of all codes of images and predictions, as `medseg predict` knows them at the time of the build."""
    rows = [f"| `{code}` | {kind.meaning} | {kind.remedy} |" for code, kind in image_findings.CODES.items()]
    return "\n".join(["| code | what is unlike | what to do |", "| --- | --- | --- |", *rows])


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
        meaning = MEANINGS.get(name) or _shorten_help(str(action.help or ""))
        shown = "" if default is None or str(default) == "==SUPPRESS==" else f"`{default}`"
        section = name.split(".")[0] if "." in name else "run"
        sections[section].append(f"| `{name}` | {shown} | {meaning} |")
    parts = []
    for section, rows in sections.items():
        title = "The run" if section == "run" else f"`{section}`: {_TYPES[section]}"
        parts.append("\n".join([f"## {title}", "", "| setting | default | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def _shorten_help(text: str) -> str:
    """Keep the first sentences of a setting's help, in Markdown.

    >>> _shorten_help("As a :class:`datetime.timedelta` | list.  Ends it. Default: ``None``.")
    'As a `timedelta` or list. Ends it.'
    """
    plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text.replace("``", "`").replace("|", "or"))
    sentences = re.split(r"(?<=\.) ", re.split(r" Default: |(?<=[.)]) - ", " ".join(plain.split()))[0])
    # Lightning tells of some settings at length; its own pages have that.
    kept = [each for index, each in enumerate(sentences) if len(" ".join(sentences[: index + 1])) <= 240 or index == 0]
    return " ".join(kept)


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


def notebook_as_markdown() -> str:
    """The cells of the example notebook, and their outputs."""
    cells = json.loads((DOCS / "example.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"^# .*\n+", "", source))  # the page has its own title
        else:
            parts += [f"```python\n{source}\n```", *map(_output_as_markdown, cell["outputs"])]
    return "\n\n".join(parts)


def _output_as_markdown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        # In the page itself: Sphinx copies no picture that is no file.
        return f'```{{raw}} html\n<img alt="The figure" src="data:image/png;base64,{data["image/png"].strip()}">\n```'
    return f"```text\n{''.join(output.get('text') or data.get('text/plain', '')).rstrip()}\n```"


def _fill_in(app: Any, page: str, source: list[str]) -> None:
    """Put what the code knows into the page that asks for it, and files beside docs/ where its links can find them."""
    text = source[0]
    for mark, make in (
        (CODES, codes_as_markdown),
        (FOREIGN_CODES, foreign_codes_as_markdown),
        (SETTINGS, settings_as_markdown),
        (COMMANDS, commands_as_markdown),
        (NOTEBOOK, notebook_as_markdown),
    ):
        if mark in text:
            text = text.replace(mark, make())
    text = API.sub(lambda match: api_as_markdown(match[1]), text)
    source[0] = _FILES.sub(r"{download}`\1 <\2>`", text)


def _translate_docstring(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into what Sphinx reads: fences become literal blocks, `$` formulas."""
    result, fenced = [], False
    for line in _translate_formulas("\n".join(lines)).split("\n"):
        if line.strip().startswith("```"):
            fenced = not fenced
            result += ["::", ""] if fenced else [""]
        elif line.strip().startswith("|"):
            result += ["", f"``{line.strip()}``", ""]
        else:
            result.append(f"    {line}" if fenced else line)
    lines[:] = result


def _translate_formulas(text: str) -> str:
    """Give a formula one line, as a directive or a role.

    >>> _translate_formulas("The share\\n\\n$$a =\\n  b,$$\\n\\nwhere $b$ is known")
    'The share\\n\\n.. math:: a = b,\\n\\n\\nwhere :math:`b` is known'
    """
    blocks = re.sub(
        r"^( *)\$\$(.*?)\$\$",
        lambda match: f"{match[1]}.. math:: {' '.join(match[2].split())}\n",
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    return re.sub(r"\$([^$]+)\$", lambda match: f":math:`{' '.join(match[1].split())}`", blocks)


def _write_formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    display = "inline" if isinstance(node, nodes.math) else "block"
    writer.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def _show_constructor(
    app: Any, what: str, name: str, item: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show what the constructor takes where `__new__` takes anything, as in classes that record their arguments."""
    if what != "class" or signature != "(*args, **kwargs)":
        return signature, returns
    # An abstract class inherits a constructor that takes anything, and takes nothing itself.
    named = [each for each in inspect.signature(item.__init__).parameters.values() if each.kind not in _ANYTHING]
    return str(inspect.Signature([each.replace(annotation=each.empty) for each in named[1:]])), returns


def _write_dashes(app: Any, doctree: nodes.document) -> None:
    """Give an argument's meaning a dash: smart quotes, which would, are off."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-docstring", _translate_docstring)
    app.connect("autodoc-process-signature", _show_constructor)
    app.connect("doctree-read", _write_dashes)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_write_formula, None), block_renderers=(_write_formula, None)
    )
