"""Parts as a user would write them, importable by their path."""

from __future__ import annotations

from torch import nn

from medseg_pl.metrics import CaseMetric, LabelPair


class Area(CaseMetric):
    """Voxels of the prediction, all labels together."""

    def score(self, pair: LabelPair) -> dict[str, float]:
        return {"area": float((pair.case.mask == 1).sum())}


class Halving(nn.Conv2d):
    """A network with a fault: its logits have half the size of the image."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes, kernel_size=2, stride=2)


class OnePixel(nn.Conv2d):
    """A network that looks at each pixel alone."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes, kernel_size=1)
