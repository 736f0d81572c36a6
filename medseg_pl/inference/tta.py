"""The eight ways to lay a square image on itself, and how to undo each."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from jaxtyping import Shaped
from torch import Tensor

from medseg_pl.core.types import TtaMode


class DihedralTransform(NamedTuple):
    """Mirror left and right, where it is asked for, then turn by quarters against the clock.

    >>> image = torch.tensor([[[[1, 2, 3]]]])
    >>> DihedralTransform(mirrored=True, turns=1).apply(image).tolist()
    [[[[1], [2], [3]]]]
    >>> DihedralTransform(mirrored=True, turns=1).undo(torch.tensor([[[[1], [2], [3]]]])).tolist()
    [[[[1, 2, 3]]]]
    """

    mirrored: bool = False
    turns: int = 0

    def apply(self, image: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b c H W"]:
        """The image as this symmetry lays it."""
        mirrored = image.flip(-1) if self.mirrored else image
        return torch.rot90(mirrored, self.turns, (-2, -1)) if self.turns else mirrored

    def undo(self, image: Shaped[Tensor, "b c H W"]) -> Shaped[Tensor, "b c h w"]:
        """The image as it lay before `apply`."""
        turned = torch.rot90(image, -self.turns, (-2, -1)) if self.turns else image
        return turned.flip(-1) if self.mirrored else turned


IDENTITY = DihedralTransform()
_HORIZONTAL, _VERTICAL, _HALF_TURN = (
    DihedralTransform(mirrored=True),
    DihedralTransform(mirrored=True, turns=2),
    DihedralTransform(turns=2),
)


def get_transforms(group: TtaMode) -> tuple[DihedralTransform, ...]:
    """The members of a group, the identity first.

    >>> [len(get_transforms(group)) for group in get_args(TtaMode)]
    [1, 2, 2, 4, 8]
    """
    members: dict[TtaMode, tuple[DihedralTransform, ...]] = {
        "none": (IDENTITY,),
        "horizontal": (IDENTITY, _HORIZONTAL),
        "vertical": (IDENTITY, _VERTICAL),
        "flips": (IDENTITY, _HORIZONTAL, _VERTICAL, _HALF_TURN),
        "all": tuple(DihedralTransform(mirrored, turns) for mirrored in (False, True) for turns in range(4)),
    }
    assert set(members) == set(get_args(TtaMode))
    return members[group]
