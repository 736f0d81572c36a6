"""`medseg completion`: prints what a shell needs to complete commands, options and their values.

The script knows all of them beforehand, since Python would take seconds to answer a press of Tab. What depends on a
class that a setting names, such as the options of a network, is not in it; those of the data sets are.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys

import shtab
from jsonargparse import ArgumentParser

from medseg_pl.cli.commands import FILE_COMMANDS

SHELLS = ("bash", "fish", "zsh")
_FOLDERS = ("data.source.root", "data.cache_dir", "input", "output", "runs")
_FILES = ("ckpt_path", "config", "data.split_file", "model.pretrained")
_METAVARS = {"DIR": shtab.DIRECTORY, **dict.fromkeys(("A", "B", "CONFIG", "CSV", "FILE", "RUN"), shtab.FILE)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to read it")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(f"{shtab.complete(whole_parser(), arguments.shell)}\n")
    return 0


def whole_parser() -> ArgumentParser:
    """Every command with its options, and with the kind of value that each takes."""
    root = ArgumentParser(prog="medseg")
    root.add_argument("-V", "--version", action="store_true", help="the version")
    commands = root.add_subcommands()
    own = {name: _described(f"medseg_pl.cli.commands.{name}") for name in FILE_COMMANDS}
    for name, parser in {**_trainers(), **own, "completion": _described(__name__)}.items():
        parser.add_argument("--debug", action="store_true", help="show where an error comes from")
        for action in parser._actions:
            _say_what_it_takes(action)
        commands.add_subcommand(name, parser, help=parser.description)
    return root


def _described(module_name: str) -> ArgumentParser:
    """The parser of a command; the first line of its module is the command's name and what it does."""
    module = importlib.import_module(module_name)
    parser = ArgumentParser(description=str(module.__doc__).splitlines()[0].partition(": ")[2])
    module.add_arguments(parser)
    return parser


def _trainers() -> dict[str, ArgumentParser]:
    """The parsers of Lightning's commands, with what `medseg` adds to them."""
    from medseg_pl.cli.trainer_parser import trainer_parser  # torch and Lightning, for which --help shall not wait

    (commands,) = (action.choices for action in trainer_parser()._actions if isinstance(action.choices, dict))
    for parser in commands.values():
        parser.add_argument("--plugins", metavar="PACKAGE", help="code that settings may name")
        _add_sources(parser)
    return dict(commands)


def _add_sources(parser: ArgumentParser) -> None:
    """The names of the sources that come with medseg, and the options that any of them takes."""
    from medseg_pl.data import sources

    every = [getattr(sources, name) for name in sources.__all__]
    shipped = [source for source in every if not inspect.isabstract(source)]
    parser._option_string_actions["--data.source"].choices = [source.__name__ for source in shipped]
    for name in sorted({name for source in shipped for name in inspect.signature(source).parameters}):
        parser.add_argument(f"--data.source.{name}", help="of the data set's source")


def _say_what_it_takes(action: argparse.Action) -> None:
    """Files, folders, or one of several words, which the help shows in braces."""
    if action.option_strings and not action.option_strings[0].startswith("-"):
        action.help = argparse.SUPPRESS  # a link between settings, which nobody can type
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    kind = shtab.DIRECTORY if action.dest in _FOLDERS else shtab.FILE if action.dest in _FILES else None
    if takes := _METAVARS.get(metavar, kind):
        action.complete = takes  # type: ignore[attr-defined]  # where shtab looks for it
    elif metavar.startswith("{"):
        action.choices = metavar.strip("{}").split(",")
