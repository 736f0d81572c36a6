"""Rules for the places of voxels: of one case, of a case among the others, and of masks on their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from medseg_pl.checks.findings import Codes, Dataset, Finding, ImageFacts, MaskFacts, error, note, warning
from medseg_pl.core.errors import count_noun
from medseg_pl.core.geometry import Geometry, find_axis_codes
from medseg_pl.io.file_header import FileHeader

_GRID = "Export the mask again from this image, or resample it onto the image's grid with nearest neighbor."

CODES: Codes = Codes(
    {
        "exif-one-side": error(
            "EXIF turns the image or the mask but not the other",
            "Turn the pixels themselves and remove the tag (for example with exiftran or mogrify -auto-orient).",
        ),
        "exif-applied": note(
            "EXIF turns the image; the mask fits it when turned", "Nothing here; other programs may not turn it."
        ),
        "shape-mismatch": error("image and mask, or two channels, of different shapes", _GRID),
        "spacing-mismatch": error("image and mask, or two channels, of different spacing", _GRID),
        "orientation-mismatch": error("image and mask, or two channels, whose axes point elsewhere", _GRID),
        "place-unknown": error(
            "a mask, or a channel, that does not say where it lies beside an image that does", _GRID
        ),
        "axes-turned": note("a mask, or a channel, whose axes run otherwise; it is turned exactly"),
        "affine-mismatch": error("image and mask, or two channels, that lie elsewhere in space", _GRID),
        "slice-gap": error(
            "slices that are missing, or not evenly spaced",
            "Restore the missing slices, or set data.source.uneven_slices of DicomSource to resample.",
        ),
        "slices-interpolated": warning(
            "slices that are missing are interpolated, as the settings say", "Restore the missing slices."
        ),
        "slices-resampled": note("unevenly spaced slices are resampled to even ones, as the settings say"),
        "mixed-series": error("files of several DICOM series in one folder", "Give each series a folder of its own."),
        "slices-differ": error(
            "slices of different size, spacing or orientation", "Move away what does not belong to the volume."
        ),
        "slices-doubled": error("two slices in one place", "Remove the copy."),
        "spacing-unset": warning(
            "a header that gives a spacing of 0, taken for 1 mm", "Correct the header, or export the file again."
        ),
        "time-axis": note(
            "a volume over time, whose points in time are read as channels",
            "Write each point in time to a file of its own, unless they are to be seen together.",
        ),
        "implausible-spacing": warning(
            "a spacing that no scanner has", "Correct the header: lengths are in millimeters."
        ),
        "spacing-outlier": warning(
            "a spacing far from that of the other cases",
            "Fine if it was scanned so; else correct the header, or its unit of length.",
        ),
        "orientations-differ": warning(
            "volumes whose axes point elsewhere than those of most others",
            "Set data.source.slicing to axial, coronal or sagittal, or reorient the volumes.",
        ),
        "size-outlier": warning(
            "a size far from that of the other cases", "Fine if the case belongs to the data set; else move it away."
        ),
        "smaller-than-patch": warning(
            "an image that fills less than half of the training patch", "Choose a smaller patch, or expect padding."
        ),
        "image-mask-shift": warning(
            "the mask fits the image better when moved", "Look at the two together; export the mask again."
        ),
    }
)

_SAME_GRID_VOXELS = 0.1
_SAME_SPACING = 0.01
_PLAUSIBLE_MM = (0.01, 50.0)
_FAR_SPACING, _FAR_SIZE = 8.0, 4.0
# Cases from which on one can be called unusual.
_ENOUGH = 5
_CLEAR_SHIFT = 3.0
_CLEARLY_BETTER = 1.5
_ON_EDGES = 1.25
_ENOUGH_ALIGNED = 4
# The first of the EXIF codes that exchange height and width.
_SIDEWAYS = 5


def check_grids(dataset: Dataset) -> Iterator[Finding]:
    """Find files of one case that do not lie on one grid."""
    for facts in dataset.cases:
        if (image := facts.image) is None:
            continue
        case = facts.case
        for path, grid in zip(case.images[1:], image.grids[1:], strict=False):  # a series has one grid for many files
            if mismatch := _find_mismatch(image.geometry, grid):
                code, message = mismatch
                yield CODES.find(code, f"The channel {message} the channel {image.path.name}.", case.case_id, path)
        for mask in facts.masks:
            yield from _check_mask_grid(case.case_id, image, mask)


def _check_mask_grid(case_id: str, image: ImageFacts, mask: MaskFacts) -> Iterator[Finding]:
    turned = image.headers[0].orientation, mask.header.orientation
    mismatch = _find_mismatch(image.geometry, mask.geometry)
    if turned[0] != turned[1] and not mask.stored:
        proved = mismatch is None and _is_proved_upright(image.headers[0], mask.header)
        fit = "fits the image as it is turned" if proved else "was not turned with it"
        message = f"EXIF orientation is {turned[0]} of the image and {turned[1]} of the mask; the mask {fit}."
        path = image.path if turned[0] != 1 else mask.path
        yield CODES.find("exif-applied" if proved else "exif-one-side", message, case_id, path)
    elif mismatch:
        code, message = mismatch
        yield CODES.find(code, f"The mask {message} the image {image.path.name}.", case_id, mask.path)


def _is_proved_upright(image: FileHeader, mask: FileHeader) -> bool:
    """Tell whether a mask fits only because the image was turned."""
    # Height and width were exchanged, and differ.
    sideways = (image.orientation >= _SIDEWAYS) != (mask.orientation >= _SIDEWAYS)
    return sideways and image.size is not None and image.size[0] != image.size[1]


def _find_mismatch(expected: Geometry, got: Geometry) -> tuple[str, str] | None:
    """Find the plainest difference of two grids, as code and words."""
    if expected.shape != got.shape:
        return (
            "shape-mismatch",
            f"is {_format(got.shape)} voxels (depth, height, width), expected {_format(expected.shape)} as has",
        )
    # Only where the image has a place: pictures have none, and neither have their masks.
    if expected.affine is not None and got.is_unplaced:
        return "place-unknown", "does not say where it lies (sform and qform codes are 0), as does"
    axes = [find_file_axes(grid) for grid in (expected, got) if grid.affine is not None]
    if len(axes) == 2 and axes[0] != axes[1]:
        return "orientation-mismatch", f"has axes towards {axes[1]}, expected {axes[0]} as has"
    if expected.spacing_mm and got.spacing_mm and not np.allclose(expected.spacing_mm, got.spacing_mm, _SAME_SPACING):
        return (
            "spacing-mismatch",
            f"has a spacing of {_format(got.spacing_mm)} mm, expected {_format(expected.spacing_mm)} mm as has",
        )
    away = expected.distance_voxels(got)
    if away > _SAME_GRID_VOXELS:
        return "affine-mismatch", f"lies {away:.1f} voxels away from"
    return None


def find_file_axes(grid: Geometry) -> str | None:
    """Find the directions of the file's axes, such as `RAS`.

    They are the reverse of `(D, H, W)`.
    """
    codes = find_axis_codes(grid)
    return codes and codes[::-1]


def check_spacings(dataset: Dataset) -> Iterator[Finding]:
    """Find spacings that no scanner has."""
    least, most = _PLAUSIBLE_MM
    for case_id, image in dataset.images:
        spacing = image.geometry.spacing_mm
        if spacing is not None and not least <= min(spacing) <= max(spacing) <= most:
            message = f"The spacing is {_format(spacing)} mm; expected {least:g} to {most:g} mm."
            yield CODES.find("implausible-spacing", message, case_id, image.path)


def check_patch(dataset: Dataset) -> Iterator[Finding]:
    """Find images that fill less than half of a training patch.

    The network would see mostly padding. A little padding is usual, since the sides of a patch divide by what the
    network asks for.
    """
    patch = dataset.patch
    if patch is None or patch.mode != "none":
        return
    for case, _ in dataset.annotated:
        if (geometry := dataset.geometries.get(case.case_id)) is None:
            continue
        placed = patch.spacing_mm is None or geometry.spacing_mm is not None
        height, width = patch.adapt_to(geometry).patch if placed else patch.size
        filled = min(1, geometry.shape[1] / height) * min(1, geometry.shape[2] / width)
        if filled < 0.5:
            size = _format(geometry.shape[1:])
            message = f"A slice of {size} pixels fills {filled:.0%} of a patch of {height} x {width}."
            yield CODES.find("smaller-than-patch", message, case.case_id, case.images[0])


def compare_grids(dataset: Dataset) -> Iterator[Finding]:
    """Find cases that differ from others in size, spacing or orientation."""
    yield from _compare_orientations(dataset.images)
    if len(dataset.images) < _ENOUGH:
        return
    shapes = np.array([image.geometry.shape for _, image in dataset.images], dtype=np.float64)
    yield from _find_outliers(dataset.images, shapes, _FAR_SIZE, "size-outlier", "voxels (depth, height, width)")
    spaced = [(name, image) for name, image in dataset.images if image.geometry.spacing_mm is not None]
    if len(spaced) >= _ENOUGH:
        spacings = np.array([image.geometry.spacing_mm for _, image in spaced])
        yield from _find_outliers(spaced, spacings, _FAR_SPACING, "spacing-outlier", "mm")


def find_shifted_masks(dataset: Dataset) -> Iterator[Finding]:
    """Find masks that are shifted from the edges of their images.

    There are such masks where most others lie on edges, or all are shifted alike.
    """
    measured = [(facts, facts.alignment) for facts in dataset.cases if facts.alignment is not None]
    moved = [
        (facts, alignment)
        for facts, alignment in measured
        if alignment.distance >= _CLEAR_SHIFT and alignment.best >= _CLEARLY_BETTER * max(alignment.here, 1.0)
    ]
    if len(measured) < _ENOUGH_ALIGNED or not moved:
        return
    shifts = np.array([alignment.shift for _, alignment in moved])
    alike = np.abs(shifts - np.median(shifts, axis=0)).max(axis=1) <= 1
    # Where most masks are moved alike, the median case cannot tell what is usual.
    systematic = alike.sum() > len(measured) / 2
    if not systematic and float(np.median([alignment.here for _, alignment in measured])) < _ON_EDGES:
        return
    for facts, alignment in moved:
        y, x = alignment.shift
        gain = alignment.best / max(alignment.here, 1e-6)
        way = f"{count_noun(y, 'row')} and {count_noun(x, 'column')}"
        message = f"Borders lie on edges {gain:.1f} times as strong when the mask is moved by {way}."
        yield CODES.find("image-mask-shift", message, facts.case.case_id, next(iter(facts.case.masks), None))


def _find_outliers(
    images: Sequence[tuple[str, ImageFacts]], lengths: np.ndarray, factor: float, code: str, unit: str
) -> Iterator[Finding]:
    middle = np.median(lengths, axis=0)
    ratios = np.maximum(lengths / middle, middle / lengths).max(axis=1)
    for (name, image), sides, ratio in zip(images, lengths.tolist(), ratios.tolist(), strict=True):
        if ratio >= factor:
            usual = _format(middle.tolist())
            message = f"{_format(sides)} {unit}, {ratio:.1f} times off the usual {usual} {unit}."
            yield CODES.find(code, message, name, image.path)


def _compare_orientations(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    axes = [(name, image, find_file_axes(image.geometry)) for name, image in images if image.geometry.affine]
    counts = Counter(codes for _, _, codes in axes)
    for name, image, codes in axes:
        usual, number = counts.most_common(1)[0]
        if codes != usual:
            message = f"The axes point towards {codes}; those of {number} of {len(axes)} volumes towards {usual}."
            yield CODES.find("orientations-differ", message, name, image.path)


def _format(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
