"""Every symmetry can be undone, and the eight are different."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from medseg_pl.core.types import TtaMode
from medseg_pl.inference.tta import IDENTITY, DihedralTransform, get_transforms

ALL = get_transforms("all")
IMAGE = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


@pytest.mark.parametrize("symmetry", ALL)
def test_undone(symmetry: DihedralTransform) -> None:
    there = symmetry.apply(IMAGE)
    assert there.shape == ((2, 3, 5, 4) if symmetry.turns % 2 else (2, 3, 4, 5))
    assert torch.equal(symmetry.undo(there), IMAGE)


def test_eight_of_a_square_are_different() -> None:
    square = torch.arange(9).reshape(1, 1, 3, 3)
    assert len({tuple(symmetry.apply(square).flatten().tolist()) for symmetry in ALL}) == 8


@pytest.mark.parametrize(
    ("group", "axes"),
    [("horizontal", [(), (-1,)]), ("vertical", [(), (-2,)]), ("flips", [(), (-1,), (-2,), (-2, -1)])],
)
def test_flips_are_what_they_are_called(group: TtaMode, axes: list[tuple[int, ...]]) -> None:
    for symmetry, flipped in zip(get_transforms(group), axes, strict=True):
        assert torch.equal(symmetry.apply(IMAGE), IMAGE.flip(flipped))


@pytest.mark.parametrize("group", get_args(TtaMode))
def test_the_identity_comes_first(group: TtaMode) -> None:
    assert get_transforms(group)[0] == IDENTITY
