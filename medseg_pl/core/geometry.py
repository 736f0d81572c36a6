"""Where voxels lie in space. The axis order of the whole project is fixed here: `(D, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Geometry:
    """The grid of one case.

    Args:
        shape: `(D, H, W)` in voxels; a 2D image has `D = 1`.
        spacing_mm: Distance between voxel centres along `(z, y, x)`, in mm; `None` where the file does not say.
        affine: 4 x 4, takes a voxel index `(d, h, w, 1)` to millimetres in the scanner's frame; `None` where the
            file has no position.

    >>> Geometry(shape=(10, 4, 5), spacing_mm=(3.0, 1.5, 1.5)).voxel_ml
    0.00675
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    affine: Affine | None = None

    @property
    def voxel_ml(self) -> float | None:
        """The volume of one voxel in millilitres, `None` where the spacing is unknown."""
        if self.spacing_mm is None:
            return None
        z, y, x = self.spacing_mm
        return z * y * x / 1000.0

    def distance_voxels(self, other: Geometry) -> float:
        """How far apart two grids of one shape put the same corner, at most, in voxels of this one.

        Zero where one of them does not know its place.

        >>> shifted = affine_as_tuple([[2, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> still = affine_as_tuple([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> Geometry((5, 5, 5), affine=still).distance_voxels(Geometry((5, 5, 5), affine=shifted))
        3.0
        """
        if self.affine is None or other.affine is None:
            return 0.0
        corners = np.array([[*corner, 1] for corner in product(*((0, length - 1) for length in self.shape))]).T
        there = np.asarray(other.affine) @ corners
        back = np.linalg.pinv(np.asarray(self.affine)) @ there
        return float(np.linalg.norm(back[:3] - corners[:3], axis=0).max())


def affine_as_tuple(matrix: NDArray[np.floating] | Sequence[Sequence[float]]) -> Affine:
    """A 4 x 4 matrix as nested tuples: hashable, comparable and ready for JSON, without losing a digit."""
    return tuple(tuple(float(value) for value in row) for row in np.asarray(matrix, dtype=np.float64))
