"""The command `medseg`: finds the subcommand, imports it, and turns errors into a sentence and an exit code.

Nothing heavy is imported before it is needed, so that `medseg --help` answers at once.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from medseg_pl import __version__
from medseg_pl.cli import help_pages
from medseg_pl.cli.commands import FILE_COMMANDS
from medseg_pl.cli.deferred_imports import defer_imports
from medseg_pl.cli.wrong_use import check_arguments, check_new_files, describe_unknown_command, find_unquoted_path
from medseg_pl.core.errors import MedsegError, SettingError, convert_file_errors, make_printable, name_options
from medseg_pl.core.stop_signals import NOTHING_TO_SAVE, StoppedError, StopSignals
from medseg_pl.io.config_files import find_shipped_configs
from medseg_pl.io.installation import describe_torchvision_mismatch, describe_versions

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
REPEATING = ("crossval", "tune")
"""Take the settings of `fit` besides options of their own."""
MODULES = {
    **{name: f"medseg_pl.cli.commands.{name}" for name in FILE_COMMANDS},
    "completion": "medseg_pl.cli.completion",
}
"""Of each other command."""

_BEGINS_AGAIN = "What was begun is left out, nothing is half written; the same command begins again."
_AFTER_STOP = {
    "crossval": "Folds that are complete stay; the same command goes on.",
    "tune": "Trials that are complete stay; the same command goes on.",
    "fit": NOTHING_TO_SAVE,
    "predict": "Cases that are finished stay; the same command goes on.",
    "review": "Cases that are finished stay; the same command goes on.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, without the program's name; those of the process by default.

    Returns:
        The exit code: 0 done, 1 the data or the run failed, 2 wrong use, 75 stopped and to be continued, 130 Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(help_pages.PROGRAM)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"{describe_versions(__version__)}\n")
        return 0
    if arguments[0] == "--configs":
        sys.stdout.write(f"{find_shipped_configs()}\n")
        return 0
    command = arguments[0]
    if command in help_pages.COMMANDS and {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_pages.COMMANDS[command])
        return 0
    try:
        # Before the imports, which take seconds.
        with StopSignals(trains=command in ("fit", *REPEATING)) as stop, convert_file_errors(command):
            return _dispatch(command, arguments[1:], stop)
    except MedsegError as error:
        if debug:
            raise
        path = find_unquoted_path(arguments[1:])
        unquoted = path and f"A shell takes {path} for several words. Quote the path: {shlex.quote(path)}."
        sys.stderr.write(f"medseg: {make_printable(unquoted or str(error))}\n")
        return error.exit_code
    except StoppedError as stopped:
        sys.stderr.write(f"medseg: {stopped} {_AFTER_STOP.get(command, _BEGINS_AGAIN)}\n")
        return stopped.exit_code
    except RuntimeError as error:
        # torchvision raises this at its import beside a torch that it was not built for.
        if debug or "operator torchvision::" not in str(error):
            raise
        sys.stderr.write(f"medseg: {describe_torchvision_mismatch()}\n")
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; what is left in the buffer has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(command: str, arguments: list[str], stop: StopSignals) -> int:
    logging.getLogger("nibabel.global").addFilter(_SAY_ONCE)
    if command in TRAINER_COMMANDS:
        check_arguments(command, arguments)
        with _pause_collector():
            from medseg_pl.cli.run import run

        return run(command, arguments, stop)
    if command in REPEATING:
        check_arguments(command, arguments)
        with _pause_collector():
            repeating = importlib.import_module(f"medseg_pl.cli.{command}")
        return int(repeating.run(arguments, stop))
    if command in MODULES:
        check_new_files(command, arguments)
        with _pause_collector():
            from medseg_pl.cli.parser import CommandParser

            module = importlib.import_module(MODULES[command])
        parser = CommandParser(f"medseg {command}", str(module.__doc__).splitlines()[0])
        module.add_arguments(parser)
        parsed = parser.parse_args(arguments)
        try:
            return int(module.run(parsed))
        except MedsegError as error:
            error.args = (name_options(str(error), vars(parsed), error), *error.args[1:])
            raise
    raise SettingError(describe_unknown_command(command, (*TRAINER_COMMANDS, *REPEATING, *MODULES)))


class SayOnce(logging.Filter):
    """Let each message of a library through once.

    nibabel repeats one whenever it opens a file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the message is new."""
        message = record.getMessage()
        is_new = message not in self.said
        self.said.add(message)
        return is_new


_SAY_ONCE = SayOnce()


@contextmanager
def _pause_collector() -> Iterator[None]:
    """Import without the garbage collector, which later leaves out the million objects that modules are made of."""
    enabled = gc.isenabled()
    gc.disable()
    defer_imports()
    try:
        yield
    finally:
        _freeze_modules()
        if enabled:
            gc.enable()


@cache
def _freeze_modules() -> None:
    """Exempt what is imported from collection, once in a process."""
    gc.freeze()  # never freed again; to ask how much is frozen already takes a tenth of a second


if __name__ == "__main__":
    sys.exit(main())
