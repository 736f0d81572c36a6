"""The data set that a checkpoint was trained on, found again from its settings."""

from __future__ import annotations

from typing import Any

from medseg_pl.data.sources import Source
from medseg_pl.training.checkpoints import Trained
from medseg_pl.training.datamodule import SegmentationDataModule


def source_of(trained: Trained, root: str | None) -> Source:
    """The source that a checkpoint's settings describe.

    Args:
        trained: The checkpoint; whoever calls allows its code with `trust.only_known_code`.
        root: Where the data set is now, if it has moved.
    """
    settings: dict[str, Any] = trained.settings["data"]["source"]
    if root is not None:
        settings = {**settings, "init_args": {**settings["init_args"], "root": root}}
    data = SegmentationDataModule.load_from_checkpoint(
        trained.path, map_location="cpu", weights_only=True, source=settings
    )
    return data.source
