"""Log of learning rates, one for each part of the network that has its own."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import LearningRateMonitor

from medseg_pl.models.fine_tuning import get_part


class LearningRates(LearningRateMonitor):
    """Log `lr-<optimizer>`, or `lr-<optimizer>/<part>` where encoder and network differ.

    Groups that differ in weight decay alone share a name: they have the same rate.
    """

    def _add_suffix(
        self, name: str, param_groups: list[dict[str, Any]], param_group_index: int, use_names: bool = True
    ) -> str:
        parts = [get_part(group) or f"pg{number + 1}" for number, group in enumerate(param_groups)]
        return f"{name}/{parts[param_group_index]}" if len(set(parts)) > 1 else name
