"""At which steps the throughput is logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from medseg_pl.core.types import Batch
from medseg_pl.training.callbacks import MediaLogger


@pytest.mark.parametrize(
    ("accumulated", "every", "begun", "logged"),
    [
        (1, 2, 0, [1, 3, 5, 7]),
        (4, 2, 0, [1]),  # not at step -1, before the first step was made
        (4, 1, 0, [0, 1]),
        (4, 2, 6, [7]),  # not at the step that was made before a resume
        (1, 0, 0, []),
    ],
)
def test_the_throughput_is_logged_where_a_step_was_made(
    accumulated: int, every: int, begun: int, logged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, dict[str, float]]] = []
    log: Any = SimpleNamespace(log_metrics=lambda metrics, step: rows.append((step, metrics)))
    clock = iter(range(100))
    monkeypatch.setattr("medseg_pl.training.callbacks.log_media.time.monotonic", lambda: next(clock))
    trainer = Mock(
        spec=Trainer, global_step=begun, log_every_n_steps=every, is_global_zero=True, world_size=1, loggers=[log]
    )
    dashboard, module = MediaLogger(), LightningModule()
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 4))
    dashboard.on_train_start(trainer, module)
    dashboard.on_train_epoch_start(trainer, module)
    for number in range(8):
        trainer.global_step = begun + (number + 1) // accumulated
        dashboard.on_train_batch_end(trainer, module, None, batch, number)
    assert [step for step, _ in rows] == logged
    images = {step: metrics["train/images_per_second"] for step, metrics in rows}
    assert sum(images.values()) == 4 * (8 if logged and logged[-1] == begun + 8 // accumulated - 1 else 0)
