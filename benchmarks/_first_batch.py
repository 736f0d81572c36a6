"""A callback that ends a training where it begins: what a start takes."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Callback


class StopAtFirstBatch(Callback):
    """End the process as its first training batch begins."""

    def on_train_batch_start(self, *_: Any) -> None:
        os._exit(0)
