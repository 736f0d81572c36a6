from __future__ import annotations

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from medseg_pl.callbacks import Dashboard
from medseg_pl.checkpointing import BestCheckpoint, DurableCheckpointIO, LastCheckpoint
from medseg_pl.core.stopping import StopRequest
from medseg_pl.trainer_parts import of_evaluation, of_training, plugins


def test_lightning_leaves_requeueing_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "medseg")
    found = [plugin for plugin in plugins([]) if isinstance(plugin, SLURMEnvironment)]
    assert [plugin.auto_requeue for plugin in found] == [False]
    own = SLURMEnvironment(auto_requeue=True)
    assert [plugin for plugin in plugins([own]) if isinstance(plugin, SLURMEnvironment)] == [own]


def test_a_given_plugin_takes_the_place_of_ours() -> None:
    assert [type(plugin) for plugin in plugins([])] == [DurableCheckpointIO]
    own = DurableCheckpointIO()
    assert plugins([own]) == [own]


def of_kind(callbacks: list[Callback], *kinds: type) -> list[type]:
    return [type(callback) for callback in callbacks if isinstance(callback, kinds)]


def test_a_given_callback_takes_the_place_of_ours() -> None:
    kinds = (ModelCheckpoint, LastCheckpoint, Dashboard)
    assert of_kind(of_training([], StopRequest(), keeps=True), *kinds) == [BestCheckpoint, LastCheckpoint, Dashboard]
    assert of_kind(of_training([ModelCheckpoint(), Dashboard()], StopRequest(), keeps=True), *kinds) == [LastCheckpoint]
    assert of_kind(of_training([], StopRequest(), keeps=False), *kinds) == [Dashboard]


def test_a_given_dashboard_writes_where_an_evaluation_does() -> None:
    own, elsewhere = Dashboard(), Dashboard(directory="elsewhere")
    assert not of_kind(of_evaluation([own, elsewhere], "run"), Dashboard)
    assert (own.directory, elsewhere.directory) == ("run", "elsewhere")
