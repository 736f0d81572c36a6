"""Where voxels lie in space. The axis order of the whole project is fixed here: `(D, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import GeometryError

Affine = tuple[tuple[float, ...], ...]
AxisOrder = tuple[int, int, int]
Slicing = Literal["file", "axial", "coronal", "sagittal", "thick"]
"""Across which axis a volume is cut into slices."""

# How far axes may be from each other's, in voxels along a voxel, and still be the same ones
_PARALLEL = 0.05

_PLANES: dict[str, tuple[tuple[int, int], ...]] = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, -1), (2, -1), (0, -1)),
    "sagittal": ((0, 1), (2, -1), (1, -1)),
}
"""Where `(D, H, W)` run in standard slices: an axis of the scanner's frame (right, front, head) and a direction on it.

As in DICOM: rows run to the back or the feet, columns to the patient's left or back, and slices along the normal."""


class Reorientation(NamedTuple):
    """A permutation and reversal of an array's axes.

    It changes no voxel and can be undone exactly.

    Attributes:
        order: Which of the old axes `(D, H, W)` comes first, second and third.
        flips: Which of the new axes run backwards.
    """

    order: AxisOrder = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorient the last three axes of an array, without a copy.

        >>> Reorientation((0, 2, 1), (False, True, False)).apply(np.array([[[1, 2], [3, 4]]])).tolist()
        [[[2, 4], [1, 3]]]
        """
        before = array.ndim - 3
        turned = array.transpose(*range(before), *(before + axis for axis in self.order))
        return np.flip(turned, tuple(before + axis for axis, flip in enumerate(self.flips) if flip))

    def then(self, second: Reorientation) -> Reorientation:
        """Compose with a reorientation that comes after.

        >>> Reorientation((2, 0, 1), (True, False, False)).then(Reorientation((1, 0, 2), (False, True, False)))
        Reorientation(order=(0, 2, 1), flips=(False, False, False))
        """
        first, middle, last = (self.order[axis] for axis in second.order)
        down, back, left = (self.flips[axis] != flip for axis, flip in zip(second.order, second.flips, strict=True))
        return Reorientation((first, middle, last), (down, back, left))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Undo `apply` on the last three axes, without a copy."""
        before = array.ndim - 3
        turned = np.flip(array, tuple(before + axis for axis, flip in enumerate(self.flips) if flip))
        return turned.transpose(*range(before), *(before + int(axis) for axis in np.argsort(self.order)))


@dataclass(frozen=True)
class Geometry:
    """The grid of one case.

    Args:
        shape: `(D, H, W)` in voxels; a 2D image has `D = 1`.
        spacing_mm: Distance between voxel centers along `(z, y, x)`, in mm; `None` where the file does not say.
        affine: 4 x 4, takes a voxel index `(d, h, w, 1)` to millimeters in the scanner's frame; `None` where the
            file has no position.

    >>> Geometry(shape=(10, 4, 5), spacing_mm=(3.0, 1.5, 1.5)).voxel_ml
    0.00675
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    affine: Affine | None = None

    @property
    def voxel_ml(self) -> float | None:
        """Volume of one voxel in millilitres; `None` where the spacing is unknown."""
        if self.spacing_mm is None:
            return None
        z, y, x = self.spacing_mm
        return z * y * x / 1000.0

    @property
    def unit(self) -> str:
        """Unit of distances on this grid: `mm`, or `px` without a spacing."""
        return "px" if self.spacing_mm is None else "mm"

    @property
    def spacing_in_unit(self) -> tuple[float, float, float]:
        """Distance between voxel centers along `(z, y, x)`, in `unit`."""
        return (1.0, 1.0, 1.0) if self.spacing_mm is None else self.spacing_mm

    def reorient(self, reorientation: Reorientation) -> Geometry:
        """Compute the grid of a reoriented array, whose voxels stay in place.

        >>> Geometry((10, 4, 5), (3.0, 1.5, 1.0)).reorient(Reorientation((2, 0, 1)))
        Geometry(shape=(5, 10, 4), spacing_mm=(1.0, 3.0, 1.5), affine=None)
        """
        first, second, third = reorientation.order
        shape = (self.shape[first], self.shape[second], self.shape[third])
        spacing_mm = self.spacing_mm and (self.spacing_mm[first], self.spacing_mm[second], self.spacing_mm[third])
        if self.affine is None:
            return Geometry(shape, spacing_mm)
        affine = np.asarray(self.affine)[:, [*reorientation.order, 3]]
        for axis, (flip, length) in enumerate(zip(reorientation.flips, shape, strict=True)):
            if flip:  # the origin moves to the other end of the axis
                affine[:, 3] += affine[:, axis] * (length - 1)
                affine[:, axis] *= -1
        return Geometry(shape, spacing_mm, to_affine(affine))

    def find_reorientation(self, other: Geometry) -> Reorientation | None:
        """Find the reorientation that aligns an array's axes with another grid's.

        Returns:
            `None` where a grid has no affine, or its axes lie between axes of the other.
        """
        if self.affine is None or other.affine is None:
            return None
        # Columns are the axes of this grid in voxels of the other one.
        axes = np.linalg.pinv(np.asarray(other.affine)[:3, :3]) @ np.asarray(self.affine)[:3, :3]
        nearest = np.rint(axes)
        if np.abs(axes - nearest).max() > _PARALLEL or not np.array_equal(np.abs(nearest).sum(axis=0), [1, 1, 1]):
            return None
        if not np.array_equal(np.abs(nearest).sum(axis=1), [1, 1, 1]):
            return None
        first, second, third = np.abs(nearest).argmax(axis=1).tolist()
        down, back, left = (nearest.sum(axis=1) < 0).tolist()
        return Reorientation((first, second, third), (down, back, left))

    @property
    def is_unplaced(self) -> bool:
        """Whether the file lacks the position that its format can hold."""
        return self.affine is None and self.spacing_mm is not None

    def distance_voxels(self, other: Geometry) -> float:
        """Measure the largest distance between corners of two grids.

        Returns:
            In voxels of this grid; zero where one of the grids has no affine.

        >>> shifted = to_affine([[2, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> still = to_affine([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> Geometry((5, 5, 5), affine=still).distance_voxels(Geometry((5, 5, 5), affine=shifted))
        3.0
        """
        if self.affine is None or other.affine is None:
            return 0.0
        corners = np.array([[*corner, 1] for corner in product(*((0, length - 1) for length in self.shape))]).T
        there = np.asarray(other.affine) @ corners
        back = np.linalg.pinv(np.asarray(self.affine)) @ there
        return float(np.linalg.norm(back[:3] - corners[:3], axis=0).max())


def to_affine(matrix: NDArray[np.floating] | Sequence[Sequence[float]]) -> Affine:
    """Convert a 4 x 4 matrix to nested tuples, which are hashable."""
    return tuple(tuple(float(value) for value in row) for row in np.asarray(matrix, dtype=np.float64))


_CODES = ("LR", "PA", "IS")
"""Letters of the scanner's axes, towards their lower and their upper end."""


def find_axis_codes(geometry: Geometry) -> str | None:
    """Name the directions in which the axes `(D, H, W)` run.

    Returns:
        Such as `SAR` for head, front and right; `None` where it is unknown.

    >>> find_axis_codes(Geometry((5, 5, 5), affine=to_affine(np.diag([1.0, -1, 1, 1])[[2, 1, 0, 3]])))
    'SPR'
    """
    if geometry.affine is None:
        return None
    cosines = np.asarray(geometry.affine)[:3, :3]
    cosines = cosines / np.linalg.norm(cosines, axis=0)
    # The best assignment as a whole: two axes of an oblique volume may be nearest to the same axis of the scanner.
    worlds = max(permutations(range(3)), key=lambda order: sum(abs(cosines[order[axis], axis]) for axis in range(3)))
    return "".join(_CODES[world][int(cosines[world, axis] > 0)] for axis, world in enumerate(worlds))


def find_turn_to_codes(codes: str, wanted: str) -> Reorientation:
    """Find the reorientation that turns an array to other axis codes.

    Args:
        codes: The present directions, see `find_axis_codes`.
        wanted: The directions after the reorientation.

    >>> find_turn_to_codes("RAS", "SPR")
    Reorientation(order=(2, 1, 0), flips=(False, True, False))
    """
    axes = ["".join(sorted(letters)) for letters in _CODES]
    homes = [next(axis for axis, letters in enumerate(axes) if letter in letters) for letter in codes]
    order = [homes.index(next(axis for axis, letters in enumerate(axes) if letter in letters)) for letter in wanted]
    down, back, left = (codes[axis] != letter for axis, letter in zip(order, wanted, strict=True))
    return Reorientation((order[0], order[1], order[2]), (down, back, left))


def find_slicing(geometry: Geometry, slicing: Slicing, source: str, orientation: str | None = None) -> Reorientation:
    """Find the reorientation that cuts a volume into slices as in training.

    Args:
        geometry: The grid as the file has it.
        slicing: See `find_cut`.
        source: The file's name in errors.
        orientation: Axis codes of the training slices; a volume of unknown orientation stays as it is.

    Raises:
        GeometryError: The file lacks what the slicing needs.
    """
    cut = find_cut(geometry, slicing, source)
    codes = find_axis_codes(geometry.reorient(cut))
    if codes is None or orientation is None or codes == orientation:
        return cut
    return cut.then(find_turn_to_codes(codes, orientation))


def find_cut(geometry: Geometry, slicing: Slicing, source: str) -> Reorientation:
    """Find the reorientation that cuts a volume into slices.

    Args:
        geometry: The grid as the file has it.
        slicing: `file` leaves the volume alone; `thick` cuts across the largest spacing, the first of equals, and
            leaves the other axes as they are; the others give standard radiological slices of that plane, whichever
            way the volume was stored.
        source: The file's name in errors.

    Raises:
        GeometryError: The file lacks its orientation or its spacing.

    >>> find_cut(Geometry((52, 55, 60), (0.5, 0.5, 7.5)), "thick", "t2.nii.gz").order
    (2, 0, 1)
    """
    if slicing == "file":
        return Reorientation()
    if slicing == "thick" and geometry.spacing_mm is not None:
        # Programs round what they write: a thousandth makes no axis the thicker one.
        across = int(np.argmax(np.asarray(geometry.spacing_mm) > 0.999 * max(geometry.spacing_mm)))
        first, second = (other for other in range(3) if other != across)
        return Reorientation((across, first, second))
    if slicing == "thick" or geometry.affine is None:
        raise GeometryError(
            f"{source} does not say {'how far its voxels are apart' if slicing == 'thick' else 'how it lies'}, so it "
            f"cannot be cut as data.source.slicing {slicing} asks for. Set it to file, or convert the image to NIfTI "
            "with its orientation."
        )
    return _find_plane(np.asarray(geometry.affine)[:3, :3], _PLANES[slicing])


def _find_plane(directions: NDArray[np.floating], plane: Sequence[tuple[int, int]]) -> Reorientation:
    """Find the axes nearest to a plane's, the one across slices first."""
    cosines = directions / np.linalg.norm(directions, axis=0)
    (across_axis, _), (row_axis, _), (column_axis, _) = plane
    across = int(np.argmax(np.abs(cosines[across_axis])))
    one, other = (axis for axis in range(3) if axis != across)
    straight = abs(cosines[row_axis, one]) + abs(cosines[column_axis, other])
    crossed = abs(cosines[row_axis, other]) + abs(cosines[column_axis, one])
    order = (across, one, other) if straight >= crossed else (across, other, one)
    down, back, left = (bool(cosines[world, axis] * sign < 0) for axis, (world, sign) in zip(order, plane, strict=True))
    return Reorientation(order, (down, back, left))
