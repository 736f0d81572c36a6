"""Test-time augmentation: the eight flips and turns of an image, and how to undo each."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from jaxtyping import Shaped
from torch import Tensor

from medseg_pl.core.types import TtaMode


class DihedralTransform(NamedTuple):
    """A flip of left and right, if asked for, and then quarter turns against the clock.

    >>> image = torch.tensor([[[[1, 2, 3]]]])
    >>> DihedralTransform(mirrored=True, turns=1).apply(image).tolist()
    [[[[1], [2], [3]]]]
    >>> DihedralTransform(mirrored=True, turns=1).undo(torch.tensor([[[[1], [2], [3]]]])).tolist()
    [[[[1, 2, 3]]]]
    """

    mirrored: bool = False
    turns: int = 0

    def apply(self, image: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b c H W"]:
        """Flip and turn images."""
        flipped = image.flip(-1) if self.mirrored else image
        return torch.rot90(flipped, self.turns, (-2, -1)) if self.turns else flipped

    def undo(self, image: Shaped[Tensor, "b c H W"]) -> Shaped[Tensor, "b c h w"]:
        """Bring images back to how they were before `apply`."""
        # In reverse order: turns and flips do not commute.
        turned = torch.rot90(image, -self.turns, (-2, -1)) if self.turns else image
        return turned.flip(-1) if self.mirrored else turned


IDENTITY = DihedralTransform()
_HORIZONTAL, _VERTICAL, _HALF_TURN = (
    DihedralTransform(mirrored=True),
    DihedralTransform(mirrored=True, turns=2),
    DihedralTransform(turns=2),
)


def get_transforms(mode: TtaMode) -> tuple[DihedralTransform, ...]:
    """Return the transforms of a mode, the identity first.

    >>> [len(get_transforms(mode)) for mode in get_args(TtaMode)]
    [1, 2, 2, 4, 8]
    """
    # The identity comes first: its logits are those of the plain network, which a loss may see.
    transforms: dict[TtaMode, tuple[DihedralTransform, ...]] = {
        "none": (IDENTITY,),
        "horizontal": (IDENTITY, _HORIZONTAL),
        "vertical": (IDENTITY, _VERTICAL),
        "flips": (IDENTITY, _HORIZONTAL, _VERTICAL, _HALF_TURN),
        "all": tuple(DihedralTransform(mirrored, turns) for mirrored in (False, True) for turns in range(4)),
    }
    assert set(transforms) == set(get_args(TtaMode))
    return transforms[mode]
