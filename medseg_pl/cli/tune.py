"""`medseg tune`: finds the settings with the best validation score, by trials that Optuna chooses.

```
runs/<experiment>/trial_<n>/version_0/   a run folder of medseg fit for each trial
                  trials.csv             each trial: its state, its best validation score, and its values
                  best.yaml              the configuration of the best one, for medseg fit
                  trials.journal         what the search knows, so that the same command goes on
```
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser
from argparse import Namespace as Arguments
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from medseg_pl.cli.arguments import keep_stdout_for, print_json, print_line
from medseg_pl.cli.error_messages import quiet_libraries, user_errors
from medseg_pl.cli.fit_settings import add_jobs, check_keeps_checkpoints, parse_settings, select_binding, take_options
from medseg_pl.cli.parser import read_early_options
from medseg_pl.cli.training_processes import Training, make_environments, run_trainings
from medseg_pl.core.errors import MissingDataError, PreemptedError, SettingError, WorkerDiedError
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.io.config_files import find_configs, read_yaml
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import find_newest_run, format_rows, write_numbered_files
from medseg_pl.planning.search_space import SearchSpace, read_search_space
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.trial_search import JOURNAL, Search, Trial, find_best

HELP = "Find the settings with the best validation score."
_CALLBACK = "medseg_pl.training.callbacks.TrialReport"
# So many in a row say that the settings fail rather than the trial.
_FAILURES = 3
_SIGNALED = 128


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options that `medseg fit` has not."""
    space = "which settings to vary, as in a W&B sweep: configs/sweeps/learning_rate.yaml"
    parser.add_argument("--space", type=Path, metavar="FILE", help=space)
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="how many in all; default: 20")
    add_jobs(parser, "trials")
    parser.add_argument("--no_pruning", action="store_true", help="train each trial to its end, however bad it is")
    parser.add_argument("--json", action="store_true", help="print all trials as JSON, and nothing else")


class Plan(NamedTuple):
    """The plan of a search.

    Attributes:
        folder: Of the search.
        runs: The folder of all experiments.
        arguments: Of `medseg fit`, but for those that differ from trial to trial.
        settings: The settings that they give.
        space: What differs.
        trials: The number of trials.
        prunes: Whether trials that are behind are ended.
    """

    folder: Path
    runs: str
    arguments: list[str]
    settings: dict[str, Any]
    space: SearchSpace
    trials: int
    prunes: bool

    def get_folder(self, number: int) -> Path:
        """Return the folder of a trial's runs."""
        return self.folder / f"trial_{number}"

    def make_training(self, trial: Trial, log: bool) -> Training:
        """Make the training of a trial, which may be resumed.

        Args:
            trial: Its number and its values of the settings in the space.
            log: Whether its output goes to a file, not to this terminal.
        """
        folder = self.get_folder(trial.number)
        values = [f"--{name}={value}" for name, value in trial.arguments.items()]
        report = {"journal": self.folder / JOURNAL, "trial": trial.number, "metric": self.space.metric}
        callback = [f"--trainer.callbacks+={_CALLBACK}"]
        callback += [f"--trainer.callbacks.{name}={value}" for name, value in {**report, "prunes": self.prunes}.items()]
        # A training that is told to go on, and cannot, says so.
        going_on = ["--ckpt_path=last"] if find_newest_run(folder) else []
        where = [f"--experiment={folder.relative_to(self.runs).as_posix()}", *going_on]
        arguments = ["fit", *self.arguments, *values, *callback, *where]
        return Training("Trial", trial.number, arguments, folder / "log.txt" if log else None)


def run(arguments: Sequence[str], stop: StopSignals) -> int:
    """Run the requested trials, and write the best settings.

    Args:
        arguments: The arguments after `tune` on the command line.
        stop: Notes that this process is asked to stop.

    Returns:
        The exit code.
    """
    options, rest = read_options(arguments)
    quiet_libraries()
    with keep_stdout_for(options.json):
        plan = make_plan(options, rest)
        plan.folder.mkdir(parents=True, exist_ok=True)
        with FolderLocks() as locks:
            locks.acquire(plan.folder)
            trials = _run_trials(plan, options.jobs, stop, sys.stderr.fileno() if options.json else None)
            _write_results(plan, trials)
    if options.json:
        print_json({"trials": [trial._asdict() for trial in trials]})
    return 0


def read_options(arguments: Sequence[str]) -> tuple[Arguments, list[str]]:
    """Read the options that are not settings, and return the rest.

    The rest is for `medseg fit`.

    Raises:
        SettingError: No trial is asked for.
    """
    options, rest = take_options(add_arguments, arguments)
    if options.trials < 1:
        raise SettingError(f"--trials must be at least 1; got {options.trials}.")
    return options, rest


def make_plan(options: Arguments, arguments: Sequence[str]) -> Plan:
    """Read space and settings, and refuse bad ones before training begins.

    Args:
        options: Of this command.
        arguments: Of `medseg fit`.

    Raises:
        SettingError: The space or the settings are wrong.
    """
    space = read_search_space(options.space)
    early, rest = read_early_options(find_configs(arguments))
    if early.checkpoints:
        raise SettingError("medseg tune resumes by itself. Remove --ckpt_path.")
    combinations = space.count_combinations() if space.method == "grid" else None
    with restrict_imports(early.plugins), user_errors("fit", PhaseTracker()):
        settings, _, folder = parse_settings(early, rest)
        check_keeps_checkpoints(settings["trainer"])
        # Both ends of each parameter, so that a misspelled setting is answered before anything is trained.
        for end in (0, -1):
            parse_settings(early, [*rest, *space.list_arguments(end)])
    trials = min(options.trials, combinations or options.trials)
    return Plan(folder, str(settings["runs"]), [*arguments], settings, space, trials, not options.no_pruning)


def _run_trials(plan: Plan, jobs: int, stop: StopSignals, stdout: int | None) -> list[Trial]:
    settings = plan.settings
    search = Search(plan.folder / JOURNAL, plan.space, int(settings["seed_everything"]), select_binding(settings))
    failures: list[int] = []

    def iterate_trainings() -> Iterator[Training]:
        # Those that were cut off come first: later values depend on their scores.
        for trial in search.list_trials():
            if trial.state == "running":
                yield plan.make_training(trial, jobs > 1)
        while len(search.list_trials()) < plan.trials:
            trial = search.ask()
            print_line(f"Trial {trial.number}: {_describe_values(trial)}")
            yield plan.make_training(trial, jobs > 1)

    def record(training: Training, code: int) -> bool:
        if code == 0:
            failures.clear()
            print_line(_describe_end(search.tell(training.number), plan.space))
            return True
        # Asked to stop, or wrongly set: it is no worse than others, and goes on when the command does.
        if code in (SettingError.exit_code, PreemptedError.exit_code) or code > _SIGNALED or stop.asked:
            return False
        failures.append(search.tell(training.number, failed=True).number)
        return len(failures) < _FAILURES

    environments = make_environments(jobs, settings["trainer"]["devices"])
    run_trainings(
        iterate_trainings(), jobs, stop, environments=environments, report=print_line, stdout=stdout, goes_on=record
    )
    return search.list_trials()


def _describe_end(trial: Trial, space: SearchSpace) -> str:
    score = "no score" if trial.score is None else f"{space.metric} {trial.score:.4f}"
    return f"Trial {trial.number}: {score}{'' if trial.state == 'complete' else f', {trial.state}'}"


def _write_results(plan: Plan, trials: Sequence[Trial]) -> None:
    """Write the table of all trials, and the configuration of the best."""
    best = find_best(list(trials), plan.space)
    if best is None:
        raise WorkerDiedError(
            f"No trial of {plan.folder} has a score. Correct what its runs said, and choose another --experiment."
        )
    config, score = _read_config(plan, best), f"{plan.space.metric} {best.score:.4f}"
    texts = {
        "trials.csv": format_rows([_make_row(plan, trial) for trial in trials]),
        "best.yaml": f"# {score}, trial {best.number} of {len(trials)}: "
        f"{_describe_values(best)}\n{yaml.safe_dump(config, sort_keys=False)}",
    }
    written = write_numbered_files(plan.folder, texts)
    print_line(f"Best of {len(trials)}: trial {best.number}, {score}: {_describe_values(best)}")
    print_line(f"All trials: {written['trials.csv']}")
    print_line("To train with them, as long as a trial or by --trainer.max_epochs and --trainer.max_time:")
    print_line(f"medseg fit --config {shlex.quote(str(written['best.yaml']))} --experiment NAME")


def _read_config(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Read the configuration of a trial, without what made it one."""
    run_folder = find_newest_run(plan.get_folder(trial.number))
    if run_folder is None:
        raise MissingDataError(f"{plan.get_folder(trial.number)} has no run. Choose another --experiment.")
    config: dict[str, Any] = read_yaml(run_folder / "config.yaml")
    callbacks = [each for each in config["trainer"]["callbacks"] if not each["class_path"].endswith(".TrialReport")]
    config["trainer"]["callbacks"] = callbacks or None
    config["experiment"] = plan.settings["experiment"]
    config.pop("ckpt_path", None)
    return config


def _make_row(plan: Plan, trial: Trial) -> dict[str, str | float]:
    score = "" if trial.score is None else trial.score
    epoch = "" if trial.epoch is None else trial.epoch
    head: dict[str, str | float] = {
        "trial": trial.number,
        "state": trial.state,
        plan.space.metric: score,
        "epoch": epoch,
    }
    return {**head, **trial.arguments}


def _describe_values(trial: Trial) -> str:
    return ", ".join(f"{name} {_shorten(value)}" for name, value in trial.arguments.items())


def _shorten(value: str) -> str:
    """Round a number to what a reader takes in.

    >>> _shorten("0.002645280852386312"), _shorten("16"), _shorten("medseg_pl.DiceCELoss")
    ('0.002645', '16', 'medseg_pl.DiceCELoss')
    """
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
