"""Searches for settings with Optuna: which values a trial tries, what it reports, and when it is given up."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.errors import SettingError, UnreadableFileError
from medseg_pl.planning.search_space import Choice, Range, SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

JOURNAL = "trials.journal"
_STUDY = "medseg"
_BINDING = "binding"
_PRUNED = "given up after epoch"
# Before it, scores say more about luck than about settings.
_TRIALS_BEFORE_PRUNING = 4
_EPOCHS_BEFORE_PRUNING = 1


class Trial(NamedTuple):
    """A trial of a search.

    Attributes:
        number: Its number, from 0.
        state: `complete`, `pruned`, `failed` or `running`.
        score: The best of its validation scores; `None` where it has none.
        epoch: The epoch of this score.
        arguments: Its values, as they are written on a command line, by setting.
    """

    number: int
    state: str
    score: float | None
    epoch: int | None
    arguments: dict[str, str]


class Search:
    """A search in a journal that its trials write to as well.

    Args:
        journal: The file; made if it is not there.
        space: The values to try.
        seed: Of the values; the same seed and scores give the same values, however often the search was cut off.
        binding: Anything else that must stay the same whenever the search goes on.

    Raises:
        SettingError: The search was begun with another space or other settings, or Optuna is not installed.
    """

    def __init__(self, journal: Path, space: SearchSpace, seed: int, binding: Mapping[str, Any]) -> None:
        optuna = _import_optuna()
        self.space = space
        self.seed = seed
        self._study: Study = optuna.create_study(
            storage=_open_journal(journal), study_name=_STUDY, direction=space.goal, load_if_exists=True
        )
        wanted = json.loads(json.dumps({"space": space._asdict(), **binding}))
        before = self._study.user_attrs.get(_BINDING)
        if before is None:
            self._study.set_user_attr(_BINDING, wanted)
        elif differing := ", ".join(name for name in wanted if before.get(name) != wanted[name]):
            raise SettingError(
                f"The search in {journal.parent} was begun with other settings: {differing}. Choose another "
                "--experiment, or repeat the command as it was."
            )

    def ask(self) -> Trial:
        """Begin the next trial."""
        number = len(self.list_trials())
        if self.space.method == "grid" and number == len(self._study.trials):
            # Optuna's own grid draws its points, and ends only searches that it runs itself.
            self._study.enqueue_trial(self.space.get_combination(number))
        # Made anew for each trial: one sampler would begin its random numbers again whenever the search goes on.
        self._study.sampler = _make_sampler(self.space, self.seed, number)
        asked = self._study.ask({name: _to_distribution(each) for name, each in self.space.parameters.items()})
        return self.read(asked.number)

    def tell(self, number: int, *, failed: bool = False) -> Trial:
        """End a trial, with the best score that it reported.

        Args:
            number: The number of the trial.
            failed: Whether it has no score that counts.
        """
        trial = self.read(number)
        states = _import_optuna().trial.TrialState
        if failed or trial.score is None:
            self._study.tell(number, state=states.FAIL)
        elif _PRUNED in self._study.trials[number].user_attrs:
            self._study.tell(number, state=states.PRUNED)
        else:
            self._study.tell(number, trial.score)
        return self.read(number)

    def read(self, number: int) -> Trial:
        """Read a trial from the journal."""
        return self._describe(self._study.trials[number])

    def list_trials(self) -> list[Trial]:
        """List all trials, in their order."""
        # One that waits was cut off before it had its values: the next to be asked for.
        return [self._describe(trial) for trial in self._study.trials if trial.state.name != "WAITING"]

    def _describe(self, trial: FrozenTrial) -> Trial:
        pick = max if self.space.goal == "maximize" else min
        reported = trial.intermediate_values
        best = pick(reported, key=lambda epoch: (reported[epoch], -epoch if pick is max else epoch), default=None)
        state = "failed" if trial.state.name == "FAIL" else trial.state.name.lower()
        values = {name: value if isinstance(value, str) else f"{value!r}" for name, value in trial.params.items()}
        return Trial(trial.number, state, None if best is None else reported[best], best, values)


def find_best(trials: list[Trial], space: SearchSpace) -> Trial | None:
    """Find the complete trial with the best score; the first of equals.

    Returns:
        `None` where no trial is complete.
    """
    sign = 1 if space.goal == "maximize" else -1
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return max(complete, key=lambda trial: (sign * (trial.score or 0.0), -trial.number), default=None)


class TrialReport(Callback):
    """Report a trial's scores to its search, and end losing trials.

    Args:
        journal: The file of the search.
        trial: The number of the trial.
        metric: The score, by the name under which it is logged.
        prunes: Whether the trial may be ended.

    Raises:
        SettingError: The score is not logged.
    """

    def __init__(self, journal: str, trial: int, metric: str = "val/dice", prunes: bool = True) -> None:
        self.journal = journal
        self.trial = trial
        self.metric = metric
        self.prunes = prunes

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score; a losing trial ends as after its last epoch.

        Raises:
            SettingError: The score is not logged.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.metric not in trainer.callback_metrics:
            names = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise SettingError(f"{self.metric} is not logged. Set metric.name of --space to one of {names}.")
        value = float(trainer.callback_metrics[self.metric])
        is_behind = trainer.is_global_zero and _report(self, trainer.current_epoch, value)
        # One process decides for all: another would read the journal a moment later, when it may say more.
        if trainer.strategy.broadcast(is_behind):
            trainer.should_stop = True


def _report(callback: TrialReport, epoch: int, value: float) -> bool:
    """Write a score to the journal; tell whether the trial should end."""
    optuna = _import_optuna()
    pruner = optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, _EPOCHS_BEFORE_PRUNING)
    study = optuna.load_study(study_name=_STUDY, storage=_open_journal(Path(callback.journal)), pruner=pruner)
    trial = optuna.trial.Trial(study, study.trials[callback.trial]._trial_id)
    # A training that was cut off repeats an epoch, whose score is there already.
    if epoch not in study.trials[callback.trial].intermediate_values:
        trial.report(value, epoch)
    if not (callback.prunes and trial.should_prune()):
        return False
    trial.set_user_attr(_PRUNED, epoch)
    return True


def _import_optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ModuleNotFoundError:
        raise SettingError("A search needs Optuna, which is not installed: pip install 'medseg[tune]'.") from None
    # It announces each study and trial, as medseg does.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_journal(path: Path) -> Any:
    backend = importlib.import_module("optuna.storages.journal")
    try:
        return importlib.import_module("optuna.storages").JournalStorage(backend.JournalFileBackend(str(path)))
    except (ValueError, KeyError) as error:
        raise UnreadableFileError(f"{path} is damaged: {error}. Choose another --experiment.") from None


def _make_sampler(space: SearchSpace, seed: int, number: int) -> BaseSampler:
    samplers = _import_optuna().samplers
    chosen = samplers.TPESampler if space.method == "bayes" else samplers.RandomSampler
    # Neighboring seeds would begin with much the same numbers: five trials, and one learning rate.
    mixed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    made: BaseSampler = chosen(seed=mixed)
    return made


def _to_distribution(parameter: Choice | Range) -> BaseDistribution:
    distributions = importlib.import_module("optuna.distributions")
    if isinstance(parameter, Choice):
        made: BaseDistribution = distributions.CategoricalDistribution(parameter.values)
        return made
    low, high, log, step, whole = parameter
    if whole or (step is not None and all(float(each).is_integer() for each in (low, high, step))):
        made = distributions.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    else:
        made = distributions.FloatDistribution(low, high, log=log, step=step)
    return made
