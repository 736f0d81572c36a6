"""When the state is saved, and what becomes of the best weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer

from medseg_pl.training.checkpoints import BestCheckpoint, LastCheckpoint
from medseg_pl.training.checkpoints.callbacks import keep_last_as_best
from tests.training.checkpoints.test_callbacks import counters

NO_MODULE: Any = Mock(spec=LightningModule)
STRATEGY = SimpleNamespace(broadcast=lambda value: value, barrier=lambda: None)


def make_trainer(folder: Path = Path("run"), **settings: Any) -> Any:
    """A trainer after the fourth of ten batches of its third epoch."""
    state = counters((3, 3, 2, 2), (4, 4, 4, 4), 24, False)
    usual: dict[str, Any] = {
        "log_dir": str(folder),
        "is_last_batch": False,
        "should_stop": False,
        "world_size": 1,
        "global_step": 24,
        "log_every_n_steps": 10,
        "accumulate_grad_batches": 1,
        "num_training_batches": 10,
        "fit_loop": SimpleNamespace(state_dict=lambda: state),
        "strategy": STRATEGY,
        "fast_dev_run": False,
        "checkpoint_callbacks": [BestCheckpoint()],
        "enable_validation": True,
        "is_global_zero": True,
    }
    return Mock(spec=Trainer, **(usual | settings))


@pytest.mark.parametrize(
    ("minutes", "settings", "saves"),
    [
        (0, {}, True),
        (9999999, {}, False),
        (9999999, {"should_stop": True}, True),
        (0, {"is_last_batch": True}, False),  # the end of the epoch follows, and saves
        (0, {"accumulate_grad_batches": 3}, False),  # one batch waits for the optimizer
        (0, {"accumulate_grad_batches": 4}, True),
        (0, {"world_size": 2}, False),  # ranks agree when they log
        (0, {"world_size": 2, "global_step": 30}, True),
        (0, {"fast_dev_run": True}, False),
    ],
)
def test_a_batch_ends(minutes: float, settings: dict[str, Any], saves: bool) -> None:
    trainer = make_trainer(**settings)
    LastCheckpoint(minutes).on_train_batch_end(trainer, NO_MODULE)
    assert trainer.save_checkpoint.called == saves
    assert not saves or trainer.save_checkpoint.call_args.args == (Path("run/checkpoints/last.ckpt"),)


class TestBest:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/last.ckpt").write_text("weights")
        return tmp_path

    def test_the_last_weights_are_the_best_of_a_training_that_ended_in_its_validation(self, run: Path) -> None:
        assert keep_last_as_best(make_trainer(run)) == run / "checkpoints/best.ckpt"
        assert (run / "checkpoints/best.ckpt").read_text() == "weights"

    @pytest.mark.parametrize("settings", [{"enable_validation": False}, {"checkpoint_callbacks": [LastCheckpoint()]}])
    def test_without_scores_there_are_none(self, run: Path, settings: dict[str, Any]) -> None:
        assert keep_last_as_best(make_trainer(run, **settings)) is None
        assert not (run / "checkpoints/best.ckpt").exists()

    def test_the_best_of_another_run_is_not_ours(self, run: Path) -> None:
        callback = BestCheckpoint()
        callback.dirpath = str(run / "checkpoints")
        state = {
            "monitor": "val/dice",
            "best_model_path": "elsewhere/best.ckpt",
            "best_model_score": 0.5,
            "best_k_models": {"elsewhere/best.ckpt": 0.5},
            "current_score": 0.5,
            "dirpath": "elsewhere",
            "kth_best_model_path": "elsewhere/best.ckpt",
            "kth_value": 0.5,
            "last_model_path": "",
        }
        callback.load_state_dict(state)
        assert callback.best_model_path == ""
        (run / "checkpoints/best.ckpt").write_text("weights")  # as in a run folder that was moved
        callback.load_state_dict(state)
        assert callback.best_model_path == str(run / "checkpoints/best.ckpt")
        assert callback.best_k_models == {str(run / "checkpoints/best.ckpt"): 0.5}
