"""Settings of a Trainer that medseg refuses, and what it changes in one for training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, SpikeDetection
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medseg_pl.core.errors import SettingError

log = logging.getLogger(__name__)

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SHORT = {"None": "32-true", "32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's other names of precisions."""


def check_trainer(trainer: Trainer, module: nn.Module) -> None:
    """Raise `SettingError` where a trainer would fail, or train something else than it says.

    Args:
        trainer: About to fit.
        module: The model, with an encoder as `backbone` where it has one.
    """
    check_precision(str(trainer.precision))
    if not trainer.limit_train_batches:
        raise SettingError("trainer.limit_train_batches is 0, so nothing would be trained. Set it to 1.0.")
    if any(isinstance(callback, SpikeDetection) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise SettingError(
            "Lightning's SpikeDetection cannot be saved in a checkpoint. Leave it out of trainer.callbacks: medseg "
            "stops at the first loss that is not finite."
        )
    several = trainer.world_size > 1
    if several and trainer._accelerator_connector.use_distributed_sampler:
        raise SettingError(
            "trainer.use_distributed_sampler would divide among processes what the data module has divided. "
            "Set it to false."
        )
    finetuning = [callback for callback in trainer.callbacks if isinstance(callback, BaseFinetuning)]  # type: ignore[attr-defined]
    for callback in finetuning if several and isinstance(trainer.strategy, DDPStrategy) else ():
        raise SettingError(
            f"{type(callback).__name__} thaws parameters that DDP does not know, so each process would train its own. "
            "Set trainer.devices to 1, or leave the callback out."
        )
    if any(isinstance(callback, BackboneFinetuning) for callback in finetuning) and not hasattr(module, "backbone"):
        raise SettingError(
            "BackboneFinetuning needs a network with an encoder. Call your network's feature extractor `encoder`, "
            "or leave the callback out."
        )


def check_precision(precision: str) -> None:
    """Raise `SettingError` for a precision whose weights are not of 32 bits.

    >>> check_precision("bf16-mixed")
    """
    if _SHORT.get(precision, precision) in _PRECISIONS:
        return
    nearest = f"{precision.removesuffix('-true')}-mixed" if precision in ("16-true", "bf16-true") else "32-true"
    why = "would score in half precision too" if nearest.endswith("mixed") else "is none that medseg computes in"
    raise SettingError(f"trainer.precision {precision} {why}. Set it to {nearest}.")


def exclude_from_ddp(strategy: DDPStrategy, module: nn.Module, names: Sequence[str]) -> list[str]:
    """Let DDP wait for no gradient of parameters that never get one, as long as it does not look for them itself.

    Args:
        strategy: Has not wrapped the module yet.
        module: What it will wrap.
        names: Its parameters without a gradient.

    Returns:
        The names that were excluded.
    """
    if not names or strategy._ddp_kwargs.get("find_unused_parameters"):
        return []
    # Frozen ones would be missing in the optimizer, and checkpoints differ from those of one process.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, list(names))  # type: ignore[no-untyped-call]
    _tell_excluded(names)
    return list(names)


def refuse_gradients(module: nn.Module, names: Sequence[str]) -> None:
    """Raise `SettingError` if one of these parameters got a gradient: no other process knows of it."""
    for name in names:
        if module.get_parameter(name).grad is not None:
            raise SettingError(
                f"{name} gets a gradient in some steps only, which DDP does not expect. "
                "Set trainer.strategy to ddp_find_unused_parameters_true."
            )


@rank_zero_only
def _tell_excluded(names: Sequence[str]) -> None:
    log.warning(
        "%d parameters of the network take no part in its output (%s, ...); DDP does not wait for their gradients.",
        len(names),
        names[0].removeprefix("model.network."),
    )
