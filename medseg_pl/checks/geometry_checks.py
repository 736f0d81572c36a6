"""What is wrong with the places of voxels: of one case, and of a case among the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.measurements import CaseFacts, ImageFacts, MaskFacts
from medseg_pl.core.geometry import Affine, Geometry
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.file_header import FileHeader

_SAME_GRID_VOXELS = 0.1
_SAME_SPACING = 0.01
_PLAUSIBLE_MM = (0.01, 50.0)
_FAR_SPACING, _FAR_SIZE = 8.0, 4.0
_ENOUGH = 5
"""Cases from which on one can be called unusual."""
_SIDEWAYS = 5
"""The first of the EXIF codes that exchange height and width."""


def grid_findings(facts: CaseFacts) -> Iterator[Finding]:
    """Files of one case that do not lie on one grid."""
    if facts.image is None:
        return
    case, image = facts.case, facts.image
    for path, grid in zip(case.images[1:], image.grids[1:], strict=False):  # a series has one grid for many files
        if mismatch := _mismatch(image.geometry, grid):
            code, said = mismatch
            yield finding(code, f"The channel {said} the channel {image.path.name}.", case.case_id, path)
    for mask in facts.masks:
        yield from _about_mask(case.case_id, image, mask)


def _about_mask(case_id: str, image: ImageFacts, mask: MaskFacts) -> Iterator[Finding]:
    turned = image.headers[0].orientation, mask.header.orientation
    mismatch = _mismatch(image.geometry, mask.geometry)
    if turned[0] != turned[1] and not mask.stored:
        proved = mismatch is None and _proved_upright(image.headers[0], mask.header)
        said = "fits the image as it is turned" if proved else "was not turned with it"
        yield finding(
            "exif-applied" if proved else "exif-one-side",
            f"EXIF orientation is {turned[0]} of the image and {turned[1]} of the mask; the mask {said}.",
            case_id,
            image.path if turned[0] != 1 else mask.path,
        )
    elif mismatch:
        code, said = mismatch
        yield finding(code, f"The mask {said} the image {image.path.name}.", case_id, mask.path)


def _proved_upright(image: FileHeader, mask: FileHeader) -> bool:
    """Whether a mask can only fit because the image was turned: height and width were exchanged, and differ."""
    sideways = (image.orientation >= _SIDEWAYS) != (mask.orientation >= _SIDEWAYS)
    return sideways and image.size is not None and image.size[0] != image.size[1]


def _mismatch(expected: Geometry, got: Geometry) -> tuple[str, str] | None:
    """The plainest difference of two grids: its code, and words for it."""
    if expected.shape != got.shape:
        return "shape-mismatch", f"is {_times(got.shape)} voxels, expected {_times(expected.shape)} as has"
    if expected.affine is not None and got.is_unplaced:
        return "place-unknown", "does not say where it lies (sform and qform codes are 0), as does"
    axes = [axis_codes(grid.affine) for grid in (expected, got) if grid.affine is not None]
    if len(axes) == 2 and axes[0] != axes[1]:
        return "orientation-mismatch", f"has axes towards {axes[1]}, expected {axes[0]} as has"
    if expected.spacing_mm and got.spacing_mm and not np.allclose(expected.spacing_mm, got.spacing_mm, _SAME_SPACING):
        return (
            "spacing-mismatch",
            f"has a spacing of {_times(got.spacing_mm)} mm, expected {_times(expected.spacing_mm)} mm as has",
        )
    away = expected.distance_voxels(got)
    if away > _SAME_GRID_VOXELS:
        return "affine-mismatch", f"lies {away:.1f} voxels away from"
    return None


def axis_codes(affine: Affine) -> str:
    """Where the axes of the file (the reverse of `(D, H, W)`) point to, such as `RAS`.

    >>> axis_codes(((0, 0, -1, 0), (0, 2, 0, 0), (3, 0, 0, 0), (0, 0, 0, 1)))
    'LAS'
    """
    matrix = np.array(affine)[:3, :3]
    size = np.abs(matrix / np.linalg.norm(matrix, axis=0))
    free, codes = [0, 1, 2], ""
    for column in (2, 1, 0):
        axis = int(free[size[free, column].argmax()])
        free.remove(axis)
        codes += ("LR", "PA", "IS")[axis][int(matrix[axis, column] > 0)]
    return codes


def spacing_findings(facts: CaseFacts) -> Iterator[Finding]:
    """A spacing that no scanner has."""
    if facts.image is None or facts.image.geometry.spacing_mm is None:
        return
    spacing, (least, most) = facts.image.geometry.spacing_mm, _PLAUSIBLE_MM
    if not least <= min(spacing) <= max(spacing) <= most:
        yield finding(
            "implausible-spacing",
            f"The spacing is {_times(spacing)} mm; expected {least:g} to {most:g} mm.",
            facts.case.case_id,
            facts.image.path,
        )


def patch_findings(cases: Sequence[tuple[str, Path | None, Geometry]], patch: Resize | None) -> Iterator[Finding]:
    """Images that fill less than half of a training patch: the network would see mostly padding.

    A little padding is usual, since the sides of a patch divide by what the network asks for.

    Args:
        cases: The name, the file and the grid of each case.
        patch: How images are brought to the network; `None` where that is not known.
    """
    if patch is None or patch.mode != "none":
        return
    for case_id, path, geometry in cases:
        known = patch.spacing_mm is None or geometry.spacing_mm is not None
        height, width = patch.adapt_to(geometry).patch if known else patch.size
        filled = min(1, geometry.shape[1] / height) * min(1, geometry.shape[2] / width)
        if filled < 0.5:
            said = (
                f"A slice of {_times(geometry.shape[1:])} pixels fills {filled:.0%} of a patch of {height} x {width}."
            )
            yield finding("smaller-than-patch", said, case_id, path)


def outlier_findings(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases whose size, spacing or orientation is unlike that of the others."""
    images = [(facts.case.case_id, facts.image) for facts in cases if facts.image is not None]
    yield from _orientations(images)
    if len(images) < _ENOUGH:
        return
    shapes = np.array([image.geometry.shape for _, image in images], dtype=np.float64)
    yield from _far(images, shapes, _FAR_SIZE, "size-outlier", "voxels")
    spaced = [(name, image) for name, image in images if image.geometry.spacing_mm is not None]
    if len(spaced) >= _ENOUGH:
        spacings = np.array([image.geometry.spacing_mm for _, image in spaced])
        yield from _far(spaced, spacings, _FAR_SPACING, "spacing-outlier", "mm")


def _far(
    images: Sequence[tuple[str, ImageFacts]], lengths: np.ndarray, factor: float, code: str, unit: str
) -> Iterator[Finding]:
    middle = np.median(lengths, axis=0)
    away = np.maximum(lengths / middle, middle / lengths).max(axis=1)
    for (name, image), own, times in zip(images, lengths.tolist(), away.tolist(), strict=True):
        if times >= factor:
            said = f"{_times(own)} {unit}, {times:.1f} times off the usual {_times(middle.tolist())} {unit}."
            yield finding(code, said, name, image.path)


def _orientations(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    axes = [
        (name, image, axis_codes(image.geometry.affine)) for name, image in images if image.geometry.affine is not None
    ]
    counts = Counter(codes for _, _, codes in axes)
    for name, image, codes in axes:
        usual, number = counts.most_common(1)[0]
        if codes != usual:
            said = f"The axes point towards {codes}; those of {number} of {len(axes)} volumes towards {usual}."
            yield finding("orientations-differ", said, name, image.path)


def _times(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
