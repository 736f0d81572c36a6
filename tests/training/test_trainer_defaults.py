from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from medseg_pl.core.errors import SettingError
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.io.folders import FolderLocks
from medseg_pl.training.callbacks import MediaLogger, Pseudonyms
from medseg_pl.training.checkpoints import BestCheckpoint, DurableCheckpointIO, LastCheckpoint
from medseg_pl.training.trainer_defaults import (
    complete_plugins,
    configure_privacy,
    make_eval_callbacks,
    make_fit_callbacks,
    make_run_logger,
)


def test_lightning_leaves_requeueing_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "medseg")
    found = [plugin for plugin in complete_plugins([]) if isinstance(plugin, SLURMEnvironment)]
    assert [plugin.auto_requeue for plugin in found] == [False]
    own = SLURMEnvironment(auto_requeue=True)
    assert [plugin for plugin in complete_plugins([own]) if isinstance(plugin, SLURMEnvironment)] == [own]


def test_a_given_plugin_takes_the_place_of_ours() -> None:
    assert [type(plugin) for plugin in complete_plugins([])] == [DurableCheckpointIO]
    own = DurableCheckpointIO()
    assert complete_plugins([own]) == [own]


def of_kind(callbacks: list[Callback], *kinds: type) -> list[type]:
    return [type(callback) for callback in callbacks if isinstance(callback, kinds)]


def test_a_given_callback_takes_the_place_of_ours() -> None:
    kinds = (ModelCheckpoint, LastCheckpoint, MediaLogger)
    assert of_kind(make_fit_callbacks([], StopSignals(), keeps=True), *kinds) == [
        BestCheckpoint,
        LastCheckpoint,
        MediaLogger,
    ]
    own = [BestCheckpoint(monitor="val/loss", mode="min"), MediaLogger()]
    assert of_kind(make_fit_callbacks(own, StopSignals(), keeps=True), *kinds) == [LastCheckpoint]
    assert of_kind(make_fit_callbacks([], StopSignals(), keeps=False), *kinds) == [MediaLogger]


def test_a_further_checkpoint_leaves_the_best_one_in_place() -> None:
    ours = make_fit_callbacks([ModelCheckpoint(every_n_epochs=1, save_top_k=-1)], StopSignals(), keeps=True)
    assert of_kind(ours, ModelCheckpoint, LastCheckpoint) == [BestCheckpoint, LastCheckpoint]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([ModelCheckpoint(filename="best", monitor="val/loss")], "file 'best'; .*BestCheckpoint's monitor"),
        ([ModelCheckpoint(filename="last")], "file 'last'"),
        ([BestCheckpoint(), BestCheckpoint("val/loss", "min")], "BestCheckpoint is there twice"),
    ],
)
def test_two_that_write_to_one_file_are_refused(given: list[Callback], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_fit_callbacks(given, StopSignals(), keeps=True)
    assert make_fit_callbacks(given, StopSignals(), keeps=False), "no checkpoints, no clash"


def test_the_run_log_is_found_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Pseudonyms, "read", asked.append)
    monkeypatch.setattr("medseg_pl.training.trainer_defaults.make_private", lambda *_: None)
    with FolderLocks() as locks:
        configure_privacy([Mock(spec=WandbLogger, _wandb_init={}), make_run_logger(tmp_path / "demo", None, locks)])
    assert asked == [tmp_path / "demo" / "version_0"]


def test_a_given_dashboard_writes_where_an_evaluation_does() -> None:
    own, elsewhere = MediaLogger(), MediaLogger(directory="elsewhere")
    assert not of_kind(make_eval_callbacks([own, elsewhere], "run"), MediaLogger)
    assert (own.directory, elsewhere.directory) == ("run", "elsewhere")
