"""Settings of `medseg fit` for commands that train several times: what they come to, and whether they changed."""

from __future__ import annotations

from argparse import ArgumentParser
from argparse import Namespace as Arguments
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg_pl.cli.lightning_cli import get_experiment_folder, get_limits, make_parser
from medseg_pl.cli.parser import EarlyOptions, EarlyParser, check_sections, list_options
from medseg_pl.core.errors import SettingError, UnreadableFileError
from medseg_pl.io.config_files import list_differences, read_yaml

_MOST_JOBS = 256
# What may change between two lives of a training: where it runs, and where its data is.
_FREE = ("fold", "num_workers", "cache_dir", "eval_batch_size")
_FREE_OF_SOURCE = ("root", "manifest")


def add_jobs(parser: ArgumentParser, what: str) -> None:
    """Add how many trainings run at once; the help calls them `what`."""
    jobs = f"how many {what} to train at once, each on devices of its own where there are several; default: 1"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=jobs)


def take_options(
    add_arguments: Callable[[ArgumentParser], None], arguments: Sequence[str]
) -> tuple[Arguments, list[str]]:
    """Take the options that are not settings, and return the rest.

    The rest is for `medseg fit`.

    Args:
        add_arguments: Declares its options, `--jobs` among them.
        arguments: The arguments after the command.

    Raises:
        SettingError: An option has a value that it does not take.
    """
    parser = EarlyParser()
    add_arguments(parser)
    options, rest = parser.take(arguments)
    if not 1 <= options.jobs <= _MOST_JOBS:
        raise SettingError(f"--jobs must be from 1 to {_MOST_JOBS}; got {options.jobs}.")
    return options, rest


def parse_settings(early: EarlyOptions, rest: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Parse the arguments of `medseg fit`.

    Returns:
        The settings, how long a training lasts, and the folder of the experiment.
    """
    parser = make_parser("fit")
    sections = sorted({name.split(".")[0] for name in list_options(parser)})
    for path in early.configs:
        check_sections(path, sections)
    # Only read here, and checked in full by each training: nothing of it is made.
    moved = [f"--data.source.root={early.data_root}"] if early.data_root is not None else []
    config = parser.parse_args([*rest, *moved])
    settings: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_unset=False))
    return settings, get_limits(config), get_experiment_folder(config)


def check_keeps_checkpoints(trainer: Mapping[str, Any]) -> None:
    """Raise `SettingError` where trainings would leave no checkpoint."""
    without = [name for name in ("fast_dev_run", "barebones") if trainer[name]]
    without += ["enable_checkpointing"] if trainer["enable_checkpointing"] is False else []
    if without:
        raise SettingError(f"trainer.{without[0]} {trainer[without[0]]} keeps no checkpoints. Leave it out.")


def list_changes(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """List the changed settings that make a run another experiment.

    Args:
        path: The configuration that it wrote.
        settings: The present ones.

    Raises:
        UnreadableFileError: The file is no configuration that medseg wrote.
    """
    try:
        return list_differences(select_binding(read_yaml(path)), select_binding(settings))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnreadableFileError(
            f"{path} is no configuration that medseg wrote: {error}. Move its folder away."
        ) from None


def select_binding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Select the settings that all folds must share.

    They stay the same when a fold is resumed, too.
    """
    data = {name: value for name, value in settings["data"].items() if name not in _FREE}
    source = dict(data["source"])
    arguments = source.get("init_args") or {}
    source["init_args"] = {name: value for name, value in arguments.items() if name not in _FREE_OF_SOURCE}
    return {
        "model": settings["model"],
        "data": {**data, "source": source},
        "seed_everything": settings["seed_everything"],
        "trainer": {"precision": settings["trainer"]["precision"]},
    }
