"""What flows through medseg."""

from __future__ import annotations

import numpy as np
import torch

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import EvaluationBatch, SliceReference


def test_moving_an_evaluation_batch_leaves_the_references_on_the_cpu() -> None:
    reference = SliceReference("case", "patient", 0, Geometry((1, 4, 5)))
    mask = np.ones((1, 4, 5), np.uint8)
    batch = EvaluationBatch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4), [reference], [mask])
    moved = batch.to("meta")
    assert (moved.image.device.type, moved.statistics.device.type) == ("meta", "meta")
    assert moved.slices == [reference]
    assert moved.masks[0] is mask
    assert batch.image.device.type == "cpu"
