"""`fit`, `validate`, `test` and `predict`: from their arguments to the command line that Lightning runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from medseg_pl.cli.error_messages import in_words
from medseg_pl.cli.lightning_cli import MedsegCLI
from medseg_pl.cli.log_filters import quiet_libraries
from medseg_pl.cli.parser import first_only, options, replace_values, without
from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import only_known_code
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.io.config_files import find_configs
from medseg_pl.io.locks import FolderLocks
from medseg_pl.training.callbacks import ConfigWriter, PhaseTracker
from medseg_pl.training.checkpoints import CheckpointInfo, find_checkpoint, read_checkpoint, report_complete_run
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule


def run(command: str, arguments: Sequence[str], stop: StopSignals | None = None) -> int:
    """Run one of Lightning's subcommands.

    Args:
        command: Which.
        arguments: What follows it on the command line.
        stop: Where it is noted that a training is asked to stop.

    Returns:
        The exit code.
    """
    if command == "fit" and not arguments:
        raise SettingError("medseg fit needs --config FILE, such as configs/experiment/demo.yaml.")
    quiet_libraries()
    arguments = find_configs(arguments)
    if command != "fit":
        arguments = replace_values(arguments, "ckpt_path", partial(_find_checkpoint, arguments))
    trained = None if command == "fit" or _wants_help(arguments) else read_checkpoint(_checkpoint(command, arguments))
    others: list[CheckpointInfo] = []
    if command == "predict":
        others = [read_checkpoint(path) for path in options(arguments, "ckpt_path")[1:]]
        arguments = first_only(arguments, "ckpt_path")
    plugins = [name for value in options(arguments, "plugins") for name in value.split(",")]
    arguments = without(arguments, "plugins")  # of the command line alone: no file may allow itself anything
    with (
        only_known_code(plugins),
        _as_files(trained) as defaults,
        in_words(command, doing := PhaseTracker()),
        report_complete_run(),
        FolderLocks() as locks,
    ):
        MedsegCLI(
            SegmentationModule,
            SegmentationDataModule,
            args=[command, *arguments],
            trained=trained,
            others=others,
            stop=stop,
            locks=locks,
            doing=doing,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=ConfigWriter if command == "fit" else None,
            parser_kwargs={"prog": "medseg", command: {"default_config_files": defaults}},
        )
    return 0


@contextmanager
def _as_files(trained: CheckpointInfo | None) -> Iterator[list[str]]:
    """The checkpoint's settings as a configuration of the lowest rank: whatever is given wins over it."""
    if trained is None:
        yield []
        return
    with TemporaryDirectory(prefix="medseg-") as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump(trained.settings, sort_keys=False), encoding="utf-8")
        yield [str(file)]


def _find_checkpoint(arguments: Sequence[str], name: str) -> str:
    """Find a checkpoint among the runs of the experiment that the arguments name."""
    runs, experiments = (options(arguments, option) for option in ("runs", "experiment"))
    return find_checkpoint(name, Path(runs[-1] if runs else "runs"), escape(experiments[-1]) if experiments else "*")


def _checkpoint(command: str, arguments: Sequence[str]) -> str:
    """The `--ckpt_path` of a command that cannot do without."""
    paths = options(arguments, "ckpt_path")
    if not paths:
        raise SettingError(
            f"medseg {command} needs --ckpt_path: a file such as runs/demo/version_0/checkpoints/best.ckpt, a run "
            "folder, or best for that of the newest run."
        )
    return paths[0]


def _wants_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)
