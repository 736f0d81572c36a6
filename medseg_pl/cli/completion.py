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
from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_data_root, add_plugins
from medseg_pl.cli.commands import FILE_COMMANDS
from medseg_pl.cli.parser import CommandParser

SHELLS = ("bash", "fish", "zsh")
_FOLDERS = ("data_root", "data.source.root", "data.cache_dir", "input", "output", "runs")
_FILES = ("ckpt_path", "config", "data.split_file", "model.pretrained")
_METAVARS = {"DIR": shtab.DIRECTORY, **dict.fromkeys(("A", "B", "CONFIG", "CSV", "FILE", "PATH", "RUN"), shtab.FILE)}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to read it")


def run(arguments: Namespace) -> int:
    """Print the script."""
    # jsonargparse's own completion adds the options of every subclass of torch.nn.Module, which takes over ten minutes.
    sys.stdout.write(f"{shtab.complete(make_root_parser(), arguments.shell)}\n")
    return 0


def make_root_parser() -> ArgumentParser:
    """Make a parser with every command as a subcommand."""
    parsers = _make_trainer_parsers()
    for name in (*FILE_COMMANDS, "completion"):
        module = importlib.import_module(f"medseg_pl.cli.commands.{name}" if name in FILE_COMMANDS else __name__)
        parsers[name] = CommandParser(f"medseg {name}", str(module.__doc__).splitlines()[0].partition(": ")[2])
        module.add_arguments(parsers[name])
    root = ArgumentParser(prog="medseg")
    root.add_argument("-V", "--version", action="store_true", help="the version")
    commands = root.add_subcommands()
    for name, parser in parsers.items():
        parser.add_argument("--debug", action="store_true", help="show where an error comes from")
        for action in parser._actions:  # as shtab finds them
            _add_values(action)
        commands.add_subcommand(name, parser, help=parser.description)
    return root


def _make_trainer_parsers() -> dict[str, ArgumentParser]:
    """Make the parsers of Lightning's commands, with medseg's sources."""
    from medseg_pl.cli import crossval, tune  # torch and Lightning, for which --help shall not wait
    from medseg_pl.cli.lightning_cli import make_parser
    from medseg_pl.data import sources

    classes = [getattr(sources, name) for name in sources.__all__]
    shipped = [source for source in classes if inspect.isclass(source) and not inspect.isabstract(source)]
    names = sorted({name for source in shipped for name in inspect.signature(source).parameters})
    parsers: dict[str, ArgumentParser] = {name: make_parser(name) for name in ("fit", "validate", "test", "predict")}
    for name, command in {"crossval": crossval, "tune": tune}.items():
        parsers[name] = make_parser("fit")
        parsers[name].description = command.HELP
        command.add_arguments(parsers[name])
    for parser in parsers.values():
        add_data_root(parser)
        add_plugins(parser)
        for name in names:
            parser.add_argument(f"--data.source.{name}", help="of the data set's source")
        (source_action,) = (action for action in parser._actions if action.dest == "data.source")
        source_action.choices = [source.__name__ for source in shipped]
    return parsers


def _add_values(action: argparse.Action) -> None:
    """Let completion offer an option's files, folders or words."""
    # The words are those in braces in its help.
    if action.option_strings and not action.option_strings[0].startswith("-"):
        action.help = argparse.SUPPRESS  # a link between settings, which nobody can type
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    kind = shtab.DIRECTORY if action.dest in _FOLDERS else shtab.FILE if action.dest in _FILES else None
    if takes := _METAVARS.get(metavar, kind):
        action.complete = takes  # type: ignore[attr-defined]  # where shtab looks for it
    elif metavar.startswith("{"):
        action.choices = metavar.strip("{}").split(",")
