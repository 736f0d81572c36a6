"""Small networks, importable by their path, and a normalization that no export can carry."""

from __future__ import annotations

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from medseg_pl.models.normalization import Normalization


class Coarse(nn.Module):
    """Sees an image at its own size and at a quarter of it."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(in_channels, 8, 4, stride=4)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear")
        self.fine = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.up(self.down(image).relu()), self.fine(image).relu()], dim=1))
        return logits


class SamePadding(Coarse):
    """Pads as TensorFlow does, by the size of what comes in."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        kernels = ((in_channels, 4, 3), (4, 8, 5))
        self.down = nn.Sequential(*(Conv2dSame(inner, outer, k, stride=2) for inner, outer, k in kernels))


class OneSize(Coarse):
    """Knows where in a window of 32 x 32 it is, so no other size will do."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        self.place = nn.Parameter(torch.randn(1, classes, 32, 32))

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) + self.place


class Undecided(Coarse):
    """Does what torch cannot write down."""

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        return logits if float(image.sum()) > 0 else -logits


class ByItsOwnMean(Normalization):
    """Looks at the whole of what it is given, which is a window here and an image there."""

    def forward(self, image: Tensor, statistics: Tensor) -> Tensor:
        return image.float() - image.float().mean(dim=(2, 3), keepdim=True)
