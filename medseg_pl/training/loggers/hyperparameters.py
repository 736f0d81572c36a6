"""The settings of a run that may leave the machine: no path, no name of a file or a case."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from medseg_pl.core.privacy import SHOWN_OF_DATA, redact_value
from medseg_pl.data.splits import SIDES
from medseg_pl.training.datamodule import SegmentationDataModule

_NOT_OF_THE_MODEL = ("_instantiator", "pretrained")


def shown_settings(trainer: Trainer, module: LightningModule, data: Any) -> dict[str, Any]:
    """Settings of model, data and trainer, nested, of plain values.

    Args:
        trainer: Its settings are named one by one.
        module: Its hyper-parameters are shown but for what looks like a path or a file.
        data: Its hyper-parameters are shown where they are known to be harmless; of the source only the class.
    """
    model = {name: redact_value(value) for name, value in module.hparams.items() if name not in _NOT_OF_THE_MODEL}
    shown: dict[str, Any] = {"model": model, "trainer": _trainer(trainer)}
    if isinstance(data, SegmentationDataModule):
        harmless = {name: redact_value(data.hparams[name]) for name in SHOWN_OF_DATA if name in data.hparams}
        across = trainer.world_size * trainer.accumulate_grad_batches
        shown["data"] = {**harmless, "source": type(data.source).__name__}
        shown["trainer"]["effective_batch_size"] = data.batch_size * across
        shown["data"]["cases"] = {side: len(getattr(data.prepared.split, side)) for side in SIDES}
    return shown


def _trainer(trainer: Trainer) -> dict[str, Any]:
    return {
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "world_size": trainer.world_size,
        "precision": str(trainer.precision),
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": redact_value(trainer.gradient_clip_val),
    }
