"""`medseg crossval`: trains every fold, and scores each case by the model that did not see its patient.

```
runs/<experiment>/fold_<k>/version_0/     a run folder of medseg fit for each fold
                  scores_crossval.csv     each case once, by the model that was not trained on its patient
                  summary_crossval.json   means with intervals over patients, and mean ± sd over folds
                  table_crossval.tex      the same for a paper; also .md and .csv
                  methods_crossval.md     a methods paragraph, and what CLAIM and TRIPOD+AI ask for
                  report.html             a page of the whole
                  ensemble.json           the models of all folds, which --ckpt_path takes as one
```

The same command goes on where it was cut off, and skips folds that are complete.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from argparse import Namespace as Arguments
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from medseg_pl.cli.arguments import keep_stdout_for, print_json, print_line
from medseg_pl.cli.crossval_results import (
    STAGE,
    CrossvalResults,
    collect_folds,
    describe_folds,
    write_paper_files,
)
from medseg_pl.cli.error_messages import quiet_libraries, user_errors
from medseg_pl.cli.fit_settings import add_jobs, check_keeps_checkpoints, list_changes, parse_settings, take_options
from medseg_pl.cli.parser import read_early_options
from medseg_pl.cli.training_processes import Training, make_environments, run_trainings
from medseg_pl.core.errors import FolderLockedError, SettingError, UnreadableFileError, count_noun
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.data.prepared_data import open_source
from medseg_pl.io.config_files import find_config, find_configs, read_json
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import SCORED_BY_FOLD, find_newest_run
from medseg_pl.metrics.summary import print_scores
from medseg_pl.reporting import read_run
from medseg_pl.reporting.html.page import write_report
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.checkpoints import is_complete

HELP = "Train every fold, and score each case by the model that did not see its patient."
_LOCK_S = 60


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options that `medseg fit` has not."""
    add_jobs(parser, "folds")
    fold = "train this one and no other, as in an array of jobs; the last one collects the results"
    parser.add_argument("--fold", type=int, metavar="K", help=fold)
    parser.add_argument("--json", action="store_true", help="print the summary of scores as JSON, and nothing else")


class Plan(NamedTuple):
    """The plan of a cross-validation.

    Attributes:
        folder: Of the cross-validation.
        runs: The folder of all experiments.
        folds: The number of folds.
        arguments: Of `medseg fit`, but for those that differ from fold to fold.
        settings: The settings that they give.
        limits: How long a training lasts.
        notes: Notes for the reader.
    """

    folder: Path
    runs: str
    folds: int
    arguments: list[str]
    settings: dict[str, Any]
    limits: dict[str, Any]
    notes: list[str]

    def get_folder(self, fold: int) -> Path:
        """Return the folder of a fold's runs."""
        return self.folder / f"fold_{fold}"

    def find_complete(self, fold: int) -> Path | None:
        """Find the run folder of a completely trained fold."""
        run = find_newest_run(self.get_folder(fold))
        return run if run is not None and is_complete(run, self.limits) else None

    def list_arguments(self, fold: int) -> list[str]:
        """List the arguments with which a fold is trained, or goes on."""
        experiment = self.get_folder(fold).relative_to(self.runs).as_posix()
        # A training that is told to go on, and cannot, says so.
        going_on = ["--ckpt_path=last"] if find_newest_run(self.get_folder(fold)) else []
        return [*self.arguments, f"--data.fold={fold}", f"--experiment={experiment}", *going_on]


def run(arguments: Sequence[str], stop: StopSignals) -> int:
    """Train the folds that are not complete, and collect their results.

    Args:
        arguments: The arguments after `crossval` on the command line.
        stop: Notes that this process is asked to stop.

    Returns:
        The exit code.
    """
    options, rest = read_options(arguments)
    quiet_libraries()
    with keep_stdout_for(options.json):
        results = _run_folds(options, rest, stop)
    if options.json and results is not None:
        print_json(results.summary)
    return 0


def read_options(arguments: Sequence[str]) -> tuple[Arguments, list[str]]:
    """Read the options that are not settings, and return the rest.

    The rest is for `medseg fit`.

    Raises:
        SettingError: One fold and several jobs are asked for.
    """
    options, rest = take_options(add_arguments, arguments)
    if options.fold is not None and options.jobs > 1:
        raise SettingError("--fold trains one fold, and --jobs several at once. Give one of the two.")
    return options, rest


def _run_folds(options: Arguments, arguments: Sequence[str], stop: StopSignals) -> CrossvalResults | None:
    plan = make_plan(arguments)
    for note in plan.notes:
        print_line(f"Note: {note}")
    if options.fold is not None:
        return _train_one(plan, options.fold, stop)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with FolderLocks() as locks:
        # Each fold has a lock of its own; this one keeps a second command from collecting half of them.
        locks.acquire(plan.folder)
        _train_all(plan, options.jobs, stop, sys.stderr.fileno() if options.json else None)
        return _finish(plan)


def _train_one(plan: Plan, fold: int, stop: StopSignals) -> CrossvalResults | None:
    """Train one fold in this process.

    The process that completes the last fold collects the results.
    """
    from medseg_pl.cli.run import run as run_trainer

    if not 0 <= fold < plan.folds:
        raise SettingError(
            f"--fold must be from 0 to {plan.folds - 1}, for {count_noun(plan.folds, 'fold')}; got {fold}."
        )
    if plan.find_complete(fold) is None:
        run_trainer("fit", plan.list_arguments(fold), stop)
    # Of several processes of one job, one collects.
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return None
    with FolderLocks() as locks:
        _acquire_patiently(locks, plan.folder)
        missing = [other for other in range(plan.folds) if plan.find_complete(other) is None]
        if missing:
            print_line(f"Folds that are not complete yet: {', '.join(map(str, missing))}.")
            return None
        return _finish(plan)


def _acquire_patiently(locks: FolderLocks, folder: Path) -> None:
    """Wait for another fold that collects."""
    # It may have looked before this one was complete.
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            locks.acquire(folder)
            return
        except FolderLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _train_all(plan: Plan, jobs: int, stop: StopSignals, stdout: int | None) -> None:
    complete = {fold: plan.find_complete(fold) for fold in range(plan.folds)}
    for fold, found in complete.items():
        if found is not None:
            print_line(f"Fold {fold}: complete, {found}.")
    waiting = [fold for fold, found in complete.items() if found is None]
    jobs = min(jobs, max(1, len(waiting)))
    trainings = [
        Training(
            "Fold", fold, ["fit", *plan.list_arguments(fold)], plan.get_folder(fold) / "log.txt" if jobs > 1 else None
        )
        for fold in waiting
    ]
    environments = make_environments(jobs, plan.settings["trainer"]["devices"])
    run_trainings(trainings, jobs, stop, environments=environments, report=print_line, stdout=stdout)


def _finish(plan: Plan) -> CrossvalResults:
    """Collect the results, print them, and write the page."""
    runs = [plan.find_complete(fold) for fold in range(plan.folds)]
    results = collect_folds(plan.folder, [path for path in runs if path is not None])
    print_scores(results.scores, results.summary, STAGE)
    print_line(describe_folds(results.summary))
    print_line(SCORED_BY_FOLD)
    written = write_paper_files(results.scores, read_run(plan.folder, STAGE))
    print_line(f"For a paper: {', '.join(str(path) for path in written)}")
    page = plan.folder / results.scores.name.replace(f"scores_{STAGE}", "report").replace(".csv", ".html")
    if not page.exists():
        others = {"readme": None, "methods": None, "stage": STAGE, "pictures": 50, "names": False}
        write_report(Arguments(runs=[plan.folder], output=page, **others))
    print_line(f"All folds as one model: --ckpt_path {results.ensemble}")
    return results


def make_plan(arguments: Sequence[str]) -> Plan:
    """Read the settings, and refuse bad ones before training begins.

    Args:
        arguments: Of `medseg fit`.

    Raises:
        SettingError: Settings are wrong, contradict the folds, or are others than those of folds that are there.
    """
    early, rest = read_early_options(find_configs(arguments))
    if early.checkpoints:
        raise SettingError("medseg crossval resumes by itself. Remove --ckpt_path.")
    # Configurations name a fold for medseg fit, which is passed over; who types one means something by it.
    if any(argument.split("=")[0] == "--data.fold" for argument in rest):
        raise SettingError("--data.fold: medseg crossval trains every fold. --fold K trains one of them.")
    with restrict_imports(early.plugins), user_errors("fit", PhaseTracker()):
        settings, limits, folder = parse_settings(early, [*rest, "--data.fold=0"])
        # Fractions win over folds in medseg fit, so every fold would be the same split.
        fractions = settings["data"]["split_fractions"] is not None
        if fractions:
            settings["data"]["split_fractions"] = None
        check_keeps_checkpoints(settings["trainer"])
        folds = _count_folds(settings, early.plugins)
    notes = ["data.split_fractions is left out: all cases are shared among the folds."] if fractions else []
    if folds != settings["data"]["folds"]:
        notes.append(
            f"The split has {count_noun(folds, 'fold')}, so data.folds {settings['data']['folds']} is ignored."
        )
    # The same arguments, in full, as the trainings get them
    override = ["--data.split_fractions=null"] if fractions else []
    plan = Plan(folder, str(settings["runs"]), folds, [*arguments, *override], settings, limits, notes)
    for fold in range(folds):
        _check_same_settings(plan, fold)
    return plan


def _count_folds(settings: Mapping[str, Any], plugins: Sequence[str]) -> int:
    """Count the folds of a file, the data set, or `data.folds`."""
    data = settings["data"]
    if data["split_file"] is not None:
        return _count_in_file(find_config(data["split_file"]))
    # Listing reads no pixels, and a wrong number of folds would be noticed only after hours of training.
    cases = open_source(settings, plugins=plugins).cases()
    if all(case.split is None and case.fold is None for case in cases):
        return int(data["folds"])
    folds = {case.fold for case in cases if case.fold is not None and case.split is None}
    if len(folds) < 2 or folds != set(range(len(folds))):
        raise SettingError(
            f"The data set declares {'the folds ' + ', '.join(map(str, sorted(folds))) if folds else 'one split'}; "
            "cross-validation needs folds 0, 1, 2 …. Correct its column fold, or leave split and fold out."
        )
    return len(folds)


def _count_in_file(path: Path) -> int:
    try:
        content = read_json(path)
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not valid JSON: {error}. Correct data.split_file.") from None
    if not isinstance(content, list) or len(content) < 2:
        raise SettingError(
            f"{path} holds one split; cross-validation needs a list of folds, such as nnU-Net's splits_final.json. "
            "Leave data.split_file out, or give such a list."
        )
    return len(content)


def _check_same_settings(plan: Plan, fold: int) -> None:
    """Check that a fold was begun as the same experiment."""
    run = find_newest_run(plan.get_folder(fold))
    path = run / "config.yaml" if run is not None else None
    if path is None or not path.is_file():
        return
    differing = list_changes(path, plan.settings)
    if differing:
        raise SettingError(
            f"Fold {fold} in {plan.get_folder(fold)} was begun with other settings: {', '.join(differing[:5])}. Choose "
            "another --experiment, or repeat the command with its settings."
        )
