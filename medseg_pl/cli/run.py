"""`fit`, `validate`, `test` and `predict`: from their arguments to a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from medseg_pl.cli.arguments import keep_stdout_for, print_json
from medseg_pl.cli.error_messages import quiet_libraries, user_errors
from medseg_pl.cli.lightning_cli import MedsegCLI
from medseg_pl.cli.parser import EarlyOptions, read_early_options
from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.data.prepared_data import relocate_source
from medseg_pl.io.config_files import find_configs
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import list_tables, locate_summary
from medseg_pl.models.ensemble_file import expand_ensembles, refuse_ensemble
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.checkpoints import CheckpointInfo, find_checkpoint, read_checkpoint, report_complete_run


def run(command: str, arguments: Sequence[str], stop: StopSignals | None = None) -> int:
    """Run one of Lightning's commands.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        arguments: The arguments after it on the command line.
        stop: Where it is noted that a training is asked to stop.

    Returns:
        The exit code.
    """
    # Before Lightning is asked for anything: it warns while its objects are made.
    quiet_libraries()
    early, rest = read_early_options(find_configs(arguments))
    # Not an option of the parser, whose options are all written to the run's configuration.
    wants_json = command == "fit" and "--json" in rest
    rest = [word for word in rest if not (wants_json and word == "--json")]
    trained = [] if command == "fit" else [read_checkpoint(path) for path in _find_checkpoints(command, early)]
    # Of an ensemble Lightning gets the first; `predict` takes the others from `trained`.
    paths = [each.path for each in trained[:1]] or early.checkpoints
    with (
        keep_stdout_for(wants_json),
        restrict_imports(early.plugins),
        _write_default_configs(trained, early.data_root) as defaults,
        user_errors(command, phase := PhaseTracker()),
        report_complete_run() as runs,
        FolderLocks() as locks,
    ):
        cli = MedsegCLI(
            command,
            [*rest, *(f"--ckpt_path={path}" for path in paths)],
            early.configs,
            trained,
            data_root=None if trained else early.data_root,
            stop=stop,
            locks=locks,
            phase=phase,
            default_config_files=defaults,
        )
        cli.run_command()
        if wants_json:
            runs.append(Path(str(cli.trainer.log_dir)))  # a broadcast: every rank takes part
    if wants_json and not rank_zero_only.rank:  # type: ignore[attr-defined]
        print_json(_describe_training(runs[0]))
    return 0


def _describe_training(run: Path) -> dict[str, Any]:
    """Describe the best checkpoint of a training and its validation scores."""
    best, scores = run / "checkpoints" / "best.ckpt", list_tables(run, "val")
    summary = json.loads(locate_summary(scores[-1]).read_text(encoding="utf-8")) if scores else None
    return {"run": str(run), "checkpoint": str(best) if best.is_file() else None, "summary": summary}


@contextmanager
def _write_default_configs(trained: Sequence[CheckpointInfo], data_root: str | None) -> Iterator[list[str]]:
    """Write the first checkpoint's settings as defaults, which given settings replace."""
    if not trained:
        yield []
        return
    settings = trained[0].settings
    if data_root is not None:
        data = settings["data"]
        settings = {**settings, "data": {**data, "source": relocate_source(data["source"], data_root)}}
    with TemporaryDirectory(prefix="medseg-") as folder:
        file = Path(folder) / "checkpoint.yaml"
        # In a file, since jsonargparse takes settings of the lowest rank from files alone.
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        yield [str(file)]


def _find_checkpoints(command: str, early: EarlyOptions) -> list[str]:
    """Find the checkpoints that a command needs among an experiment's runs."""
    if command != "predict" and len(early.checkpoints) > 1:
        raise SettingError(f"--ckpt_path is given twice: {' and '.join(early.checkpoints)}. Give it once.")
    # The name becomes a pattern of `glob`, and brackets in it are meant as they stand.
    experiment = escape(early.experiment) if early.experiment else "*"
    if command != "predict":
        refuse_ensemble(early.checkpoints[0], command)
    return [find_checkpoint(name, Path(early.runs), experiment) for name in expand_ensembles(early.checkpoints)]
