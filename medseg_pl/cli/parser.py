"""The parser of the command line: answers wrong use with one paragraph and the nearest name that exists."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from medseg_pl.core.errors import SettingError, shorten
from medseg_pl.core.import_policy import refusal
from medseg_pl.core.validation import find_address
from medseg_pl.io.config_files import config_names, read_yaml, shipped_configs

_EXTRAS = ("wandb", "tensorboard")
"""Packages that come with an extra of the same name."""


class MedsegParser(LightningArgumentParser):
    """Answers wrong use with one paragraph, and a misspelled key with the nearest that exists."""

    @classmethod
    def that_knows(cls, place_of: Callable[[str], str]) -> type[MedsegParser]:
        """A kind of parser that says where a refused class is named, as do those it makes for nested settings."""
        return type(cls.__name__, (cls,), {"place_of": staticmethod(place_of)})

    @staticmethod
    def place_of(name: str) -> str:
        """Where a class or a setting is named; not known here."""
        return ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        said = refusal(message, self.place_of) or _one_paragraph(message, _known_keys(self, ex, message))
        raise SettingError(said) from ex


def options(arguments: Sequence[str], *names: str) -> list[str]:
    """The values of an option in the raw arguments, in their order, before any parser is made.

    >>> options(["--config=a", "-c", "b", "--config", "c"], "config", "c")
    ['a', 'b', 'c']
    """
    flags = [("-" if len(name) == 1 else "--") + name for name in names]
    values = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        flag, equals, value = argument.partition("=")
        if flag in flags and (equals or following is not None):
            values.append(value if equals else following)
    return values


def place_of(name: str, arguments: Sequence[str], checkpoint: str | None = None, settings: str = "") -> str:
    """Where a class or a setting is named, last of all, by the raw arguments or else by a checkpoint.

    Args:
        name: As in `torch.nn.Module`, or `model.loss`.
        arguments: The raw arguments.
        checkpoint: Where the settings are from that are not given.
        settings: These, as text.

    >>> place_of("model.loss", ["--config", "a.yaml", "--model.loss=mine.Loss"])
    ' on the command line'
    >>> place_of("mine.Loss", ["--config", "a.yaml"], "best.ckpt", "loss: mine.Loss")
    ' in best.ckpt'
    """
    named = re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w.])")
    files = [Path(path) for path in options(arguments, "config", "c")]
    if any(named.search(argument) for argument in arguments):
        return " on the command line"
    for path in reversed(files):
        if path.is_file() and named.search(path.read_text(encoding="utf-8", errors="replace")):
            return f" in {path}"
    return f" in {checkpoint}" if checkpoint and named.search(settings) else ""


def without(arguments: Sequence[str], name: str) -> list[str]:
    """The raw arguments without an option and its values.

    >>> without(["--plugins", "a", "--output=o", "--plugins=b"], "plugins")
    ['--output=o']
    """
    return first_only([f"--{name}=", *arguments], name)[1:]


def replace_values(arguments: Sequence[str], name: str, replace: Callable[[str], str]) -> list[str]:
    """Replace the values of an option in the raw arguments.

    >>> replace_values(["--ckpt_path", "a", "--output=o", "--ckpt_path=b"], "ckpt_path", str.upper)
    ['--ckpt_path', 'A', '--output=o', '--ckpt_path=B']
    """
    flag = f"--{name}"
    replaced = [f"{flag}={replace(a[len(flag) + 1 :])}" if a.startswith(f"{flag}=") else a for a in arguments]
    for place, before in enumerate(arguments[:-1], start=1):
        if before == flag:
            replaced[place] = replace(arguments[place])
    return replaced


def first_only(arguments: Sequence[str], name: str) -> list[str]:
    """The raw arguments without an option's second and further values.

    >>> first_only(["--ckpt_path", "a", "--output=o", "--ckpt_path=b", "--ckpt_path", "c"], "ckpt_path")
    ['--ckpt_path', 'a', '--output=o']
    """
    kept: list[str] = []
    seen, skipped = False, False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if skipped or (seen and flag == f"--{name}"):
            skipped = not skipped and not equals
            continue
        seen = seen or flag == f"--{name}"
        kept.append(argument)
    return kept


def check_sections(path: Path, known: Sequence[str]) -> None:
    """Raise `SettingError` where a configuration file is missing, no YAML, or has a section that does not exist."""
    if not path.is_file():
        near = difflib.get_close_matches(path.as_posix(), config_names(), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"The shipped ones are in {shipped_configs()}."
        raise SettingError(f"There is no configuration {path}. {hint}")
    try:
        content = read_yaml(path)
        address = find_address(content)
    except ValueError as error:
        raise SettingError(f"{path} is not valid YAML: {error}.") from error
    if address:
        raise SettingError(
            f"{path}: the setting {address[0]} is the address {shorten(address[1])}; settings in files open none. "
            "Download it and give its path, or type the setting on the command line."
        )
    sections = sorted({name.split(".")[0] for name in known})
    if not isinstance(content, dict):
        raise SettingError(
            f"{path} holds no settings; expected sections such as {', '.join(sections)}, each with its own."
        )
    for key in content:
        if key not in sections:
            near = difflib.get_close_matches(str(key), sections, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Expected one of {', '.join(sections)}."
            raise SettingError(f"{path} has the section {key!r}, which does not exist. {hint}")


def unfit(message: str) -> str:
    """What to say where settings have been read, but the objects that they name cannot be made.

    >>> unfit("Requirement 'wandb>=0.12.10' not met. HINT: Try pip")
    "The settings need a package that is not installed (Requirement 'wandb>=0.12.10' not met). Install it with pip \
install 'medseg[wandb]', or leave out what needs it."
    """
    # Of a union, the class that was named is the one with a complaint of its own.
    problem = re.search(
        r"Problem with given class_path '([\w.]+)':\s*(.*?)\s*(?:- Expected a |Given value|$)", message, re.S
    )
    what, reason = problem.groups() if problem else ("The settings", message)
    reason = " ".join(reason.split())
    if re.search(r"Requirement '.*' not met|No module named|pip install", reason):
        extra = next((name for name in _EXTRAS if name in reason.lower()), None)
        remedy = f"pip install 'medseg[{extra}]'" if extra else "pip"
        first = re.split(r"\. (?:HINT|Try)", reason)[0].rstrip(".")
        verb = "need" if problem is None else "needs"
        return (
            f"{what} {verb} a package that is not installed ({first}). Install it with {remedy}, or leave out what "
            "needs it."
        )
    return f"{what} cannot be made: {reason}" if problem else f"{what} do not fit: {reason}"


def _one_paragraph(message: str, known: Sequence[str]) -> str:
    """A parser's message without its layout, and with the nearest name where one is misspelled.

    >>> _one_paragraph("Option 'bach_size' is not accepted", ["data.batch_size", "data.fold"])
    "Option 'bach_size' is not accepted. Did you mean batch_size?"
    """
    text = " ".join(message.replace("Parser key", "The setting").split()).rstrip(".")
    # Of a union, the type that was meant is the one with a complaint of its own; the rest is about null.
    text = re.sub(
        r"Does not validate against any of the Union subtypes.*?Errors: - (.*?\.?) - Expected a.*", r"\1", text
    )
    no_class = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)
    wrong = re.search(r"(?:[Oo]ption '|arguments: --)([\w.]+)", text)
    if no_class is not None:
        name, candidates = no_class.group(2), dir(sys.modules.get(no_class.group(1)))
    elif wrong is not None:
        name = wrong.group(1)
        candidates = list(known) if "." in name else [key.rsplit(".", 1)[-1] for key in known]
    else:
        return f"{text}."
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"{text.rstrip('.')}. Did you mean {near[0]}?" if near else f"{text}."


def _known_keys(parser: LightningArgumentParser, error: BaseException | None, message: str) -> list[str]:
    """What the misspelled key may have been meant to be.

    The keys of the parser and its subcommands, of the parsers for classes that the error passed through, and the
    arguments of a class that the message names.
    """
    parsers: list[ArgumentParser] = [parser]
    for action in parser._actions:
        parsers += action.choices.values() if isinstance(action.choices, dict) else []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            parsers += [value for value in frame.f_locals.values() if isinstance(value, ArgumentParser)]
        error = error.__cause__ or error.__context__
    keys = [action.dest for each in parsers for action in each._actions]
    for module, name in re.findall(r"'class_path': '([\w.]+)\.(\w+)'", message):
        keys = [*inspect.signature(getattr(sys.modules[module], name)).parameters, *keys]
    return list(dict.fromkeys(keys))
