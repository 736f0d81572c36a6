"""Where voxels lie in space. The axis order of the whole project is fixed here: `(D, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import GeometryError

Affine = tuple[tuple[float, ...], ...]
Order = tuple[int, int, int]
Slicing = Literal["file", "axial", "coronal", "sagittal", "thick"]
"""Across which axis a volume is cut into slices."""

_WORLD = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Which axis of the scanner's frame, left-right, back-front or feet-head, such slices follow each other along."""


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

    @property
    def unit(self) -> str:
        """What distances on this grid are counted in: `mm`, or `px` where the spacing is unknown."""
        return "px" if self.spacing_mm is None else "mm"

    @property
    def spacing_in_unit(self) -> tuple[float, float, float]:
        """Distance between voxel centres along `(z, y, x)`, in `unit`."""
        return (1.0, 1.0, 1.0) if self.spacing_mm is None else self.spacing_mm

    def reordered(self, order: Order) -> Geometry:
        """The grid of an array whose axes are put into another order: every voxel stays where it is in space.

        Args:
            order: Which of `(D, H, W)` comes first, second and third.

        >>> Geometry((10, 4, 5), (3.0, 1.5, 1.0)).reordered((2, 0, 1))
        Geometry(shape=(5, 10, 4), spacing_mm=(1.0, 3.0, 1.5), affine=None)
        """
        first, second, third = order
        spacing_mm = self.spacing_mm and (self.spacing_mm[first], self.spacing_mm[second], self.spacing_mm[third])
        return Geometry(
            (self.shape[first], self.shape[second], self.shape[third]),
            spacing_mm,
            self.affine and affine_as_tuple(np.asarray(self.affine)[:, [*order, 3]]),
        )

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


def slice_order(geometry: Geometry, slicing: Slicing, source: str) -> Order:
    """The order of axes in which the one to cut across comes first; the other two keep theirs.

    `numpy.argsort` of it leads back.

    Args:
        geometry: The grid as the file has it.
        slicing: `file` leaves the axes alone; `thick` cuts across the largest spacing, the first of equals; the others
            across the axis that is closest to that direction of the body.
        source: What to call the file in an error.

    Raises:
        GeometryError: The file does not say how it lies, or how far its voxels are apart.

    >>> slice_order(Geometry((52, 55, 60), (0.5, 0.5, 7.5)), "thick", "t2.nii.gz")
    (2, 0, 1)
    """
    axis = 0 if slicing == "file" else _across(geometry, slicing)
    if axis is None:
        raise GeometryError(
            f"{source} does not say {'how far its voxels are apart' if slicing == 'thick' else 'how it lies'}, so it "
            f"cannot be cut as data.source.slicing {slicing} asks for. Set it to file, or convert the image to NIfTI "
            "with its orientation."
        )
    first, second = (other for other in range(3) if other != axis)
    return (axis, first, second)


def _across(geometry: Geometry, slicing: Slicing) -> int | None:
    """The axis to cut across; `None` where the grid does not say."""
    if slicing == "thick":
        spacing = geometry.spacing_mm
        # Programs round what they write: a thousandth makes no axis the thicker one.
        return None if spacing is None else int(np.argmax(np.asarray(spacing) > 0.999 * max(spacing)))
    if geometry.affine is None:
        return None
    directions = np.asarray(geometry.affine)[:3, :3]
    cosines = directions / np.linalg.norm(directions, axis=0)
    return int(np.argmax(np.abs(cosines[_WORLD[slicing]])))
