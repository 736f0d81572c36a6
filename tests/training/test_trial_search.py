"""Searches: the same values however often they were cut off, the best of reported scores, and trials given up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from medseg_pl.core.errors import SettingError
from medseg_pl.planning.search_space import Choice, Goal, Range, SearchSpace
from medseg_pl.training.trial_search import JOURNAL, Search, TrialReport, find_best

SPACE = SearchSpace({"lr": Range(1e-4, 1e-2, log=True), "loss": Choice(("a", "b"))}, "val/dice", "maximize", "bayes")


def make_search(folder: Path, space: SearchSpace = SPACE, **binding: object) -> Search:
    return Search(folder / JOURNAL, space, 0, binding)


def make_trainer(fn: TrainerFn = TrainerFn.FITTING) -> Any:
    """Make what a callback sees of a trainer after a validation."""
    state, strategy = SimpleNamespace(fn=fn), SimpleNamespace(broadcast=lambda value: value)
    trainer = Mock(spec=Trainer, sanity_checking=False, is_global_zero=True, should_stop=False)
    trainer.configure_mock(state=state, strategy=strategy)
    return trainer


def report(folder: Path, number: int, *scores: float, **options: Any) -> Any:
    """Report the scores of a trial's epochs until it is to end."""
    trainer, callback = make_trainer(), TrialReport(str(folder / JOURNAL), number, **options)
    for epoch, score in enumerate(scores):
        if not trainer.should_stop:
            trainer.current_epoch, trainer.callback_metrics = epoch, {"val/dice": torch.tensor(score)}
            callback.on_validation_end(trainer, Mock(spec=LightningModule))
    return trainer


def test_a_search_that_was_cut_off_asks_for_the_same_values(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    search = make_search(tmp_path / "whole")
    for number in range(12):
        report(tmp_path / "whole", search.ask().number, number / 100)
        search.tell(number)
    for number in range(12):
        cut = make_search(tmp_path / "cut")
        report(tmp_path / "cut", cut.ask().number, number / 100)
        cut.tell(number)
    values = [trial.arguments for trial in search.list_trials()]
    assert values == [trial.arguments for trial in make_search(tmp_path / "cut").list_trials()]
    assert len({str(each) for each in values}) == 12
    # Ten random values of a range of two decades are not all within one.
    rates = [float(each["lr"]) for each in values[:10]]
    assert max(rates) > 10 * min(rates)


def test_the_score_of_a_trial_is_the_best_that_it_reported(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    report(tmp_path, search.ask().number, 0.25, 0.75, 0.5)
    trial = search.tell(0)
    assert (trial.state, trial.score, trial.epoch) == ("complete", 0.75, 1)
    report(tmp_path, search.ask().number, 0.5)
    search.tell(1)
    assert find_best(search.list_trials(), SPACE) == trial


def test_where_less_is_better_the_lowest_wins(tmp_path: Path) -> None:
    space = SPACE._replace(metric="val/dice", goal="minimize")
    search = make_search(tmp_path, space)
    for number, scores in enumerate([(0.5, 0.25), (0.75, 0.5)]):
        report(tmp_path, search.ask().number, *scores)
        search.tell(number)
    best = find_best(search.list_trials(), space)
    assert best is not None and (best.number, best.score, best.epoch) == (0, 0.25, 1)


@pytest.mark.parametrize("prunes", [True, False])
def test_a_trial_behind_the_median_is_given_up(tmp_path: Path, prunes: bool) -> None:
    search = make_search(tmp_path)
    for number in range(4):
        report(tmp_path, search.ask().number, 0.5, 0.6, 0.7)
        search.tell(number)
    trainer = report(tmp_path, search.ask().number, 0.4, 0.4, 0.9, prunes=prunes)
    trial = search.tell(4)
    assert trainer.should_stop == prunes
    assert (trial.state, trial.score) == (
        ("pruned", pytest.approx(0.4)) if prunes else ("complete", pytest.approx(0.9))
    )
    best = find_best(search.list_trials(), SPACE)
    assert best is not None and best.number == (0 if prunes else 4)


def test_a_repeated_epoch_and_the_last_validation_are_not_reported(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    report(tmp_path, search.ask().number, 0.25)
    report(tmp_path, 0, 0.75, 0.5)
    last = make_trainer(TrainerFn.VALIDATING)
    TrialReport(str(tmp_path / JOURNAL), 0).on_validation_end(last, Mock(spec=LightningModule))
    assert search.read(0).score == 0.5


def test_a_trial_without_a_score_has_failed(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.ask()
    assert search.tell(0).state == "failed"
    assert find_best(search.list_trials(), SPACE) is None


def test_a_score_that_is_not_logged_is_named(tmp_path: Path) -> None:
    make_search(tmp_path).ask()
    with pytest.raises(SettingError, match=r"val/nsd is not logged.*one of val/dice"):
        report(tmp_path, 0, 0.5, metric="val/nsd")


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_grid_tries_each_value_once(tmp_path: Path, goal: Goal) -> None:
    space = SearchSpace({"a": Choice(("1", "2")), "b": Choice(("x", "y"))}, "val/dice", goal, "grid")
    tried = []
    for _ in range(4):
        search = make_search(tmp_path, space)
        tried.append(tuple(search.ask().arguments.values()))
        report(tmp_path, len(tried) - 1, 0.5)
        search.tell(len(tried) - 1)
    assert tried == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]


def test_another_space_or_setting_is_another_search(tmp_path: Path) -> None:
    make_search(tmp_path, model={"channels": 1})
    make_search(tmp_path, model={"channels": 1})
    with pytest.raises(SettingError, match="begun with other settings: model"):
        make_search(tmp_path, model={"channels": 3})
    with pytest.raises(SettingError, match="begun with other settings: space"):
        make_search(tmp_path, SPACE._replace(method="random"), model={"channels": 1})
