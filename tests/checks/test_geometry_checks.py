"""Grids that do not fit, on paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.geometry_checks import (
    axis_codes,
    grid_findings,
    outlier_findings,
    patch_findings,
    spacing_findings,
)
from medseg_pl.checks.measurements import CaseFacts
from medseg_pl.core.geometry import Affine, Geometry, to_affine
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.file_header import FileHeader
from tests.checks.facts_of import codes, facts_of, image_of, mask_of, textured

SHAPE = (4, 8, 10)
STRAIGHT = np.diag([3.0, 1.0, 1.0, 1.0])


def affine(matrix: NDArray[np.float64] = STRAIGHT, shift: tuple[float, ...] = (0, 0, 0)) -> Affine:
    moved = matrix.copy()
    moved[:3, 3] += shift
    return to_affine(moved)


def pair(
    mask_affine: Affine | None,
    shape: tuple[int, ...] = SHAPE,
    spacing_mm: tuple[float, float, float] | None = (3.0, 1.0, 1.0),
    image_affine: Affine | None = affine(),  # noqa: B008  a constant
) -> CaseFacts:
    image = image_of(textured(0, SHAPE), spacing_mm=(3.0, 1.0, 1.0), affine=image_affine)
    mask = mask_of(np.zeros(shape, np.uint8), spacing_mm=spacing_mm, affine=mask_affine)
    return facts_of(image, mask)


def test_one_grid() -> None:
    assert codes(grid_findings(pair(affine()))) == []
    assert codes(grid_findings(pair(affine(shift=(0.2, 0.05, 0))))) == []  # a fifteenth and a twentieth of a voxel


def test_shape() -> None:
    (found,) = grid_findings(pair(affine(), (4, 8, 9)))
    assert found.code == "shape-mismatch"
    assert found.message == "The mask is 4 x 8 x 9 voxels, expected 4 x 8 x 10 as has the image a.png."


def test_place() -> None:
    (found,) = grid_findings(pair(affine(shift=(0, 2, 0))))
    assert (found.code, found.message) == ("affine-mismatch", "The mask lies 2.0 voxels away from the image a.png.")


def test_spacing_comes_before_place() -> None:
    (found,) = grid_findings(pair(affine(np.diag([2.0, 1, 1, 1])), spacing_mm=(2.0, 1.0, 1.0)))
    assert found.code == "spacing-mismatch"
    assert "2 x 1 x 1 mm, expected 3 x 1 x 1 mm" in found.message


def test_orientation_comes_before_spacing() -> None:
    flipped = STRAIGHT @ np.diag([1, 1, -1.0, 1])
    (found,) = grid_findings(pair(affine(flipped, (0, 0, 9)), spacing_mm=(2.0, 1.0, 1.0)))
    assert found.code == "orientation-mismatch"


def test_a_mask_that_could_say_its_place_and_does_not() -> None:
    (found,) = grid_findings(pair(None))
    assert found.code == "place-unknown"
    assert "sform and qform codes are 0" in found.message
    assert codes(grid_findings(pair(None, spacing_mm=None))) == []  # a picture has no place


def test_channels_share_a_grid_too() -> None:
    facts = pair(affine())
    assert facts.image is not None
    other = Geometry(SHAPE, (3.0, 1.0, 1.0), affine(shift=(9, 0, 0)))
    image = replace(facts.image, grids=(facts.image.geometry, other))
    case = replace(facts.case, images=(Path("a.png"), Path("b.png")))
    (found,) = grid_findings(replace(facts, image=image, case=case))
    assert (found.code, found.file) == ("affine-mismatch", Path("b.png"))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(4), "SAR"),
        (np.eye(4)[[2, 1, 0, 3]], "RAS"),
        (np.diag([-1, -1, -1, 1.0])[[2, 1, 0, 3]], "LPI"),
    ],
)
def test_axes_are_named_in_the_order_of_the_file(matrix: NDArray[np.float64], expected: str) -> None:
    assert axis_codes(to_affine(matrix)) == expected


@pytest.mark.parametrize(
    ("image", "mask", "size", "shape", "code"),
    [
        (6, 1, (48, 56), (1, 48, 56), "exif-one-side"),  # the mask was drawn on the stored pixels
        (6, 1, (48, 56), (1, 56, 48), "exif-applied"),  # it only fits the image as it is seen
        (6, 1, (48, 48), (1, 48, 48), "exif-one-side"),  # nobody can tell
        (3, 1, (48, 56), (1, 48, 56), "exif-one-side"),
        (1, 8, (56, 48), (1, 56, 48), "exif-applied"),
    ],
)
def test_exif(image: int, mask: int, size: tuple[int, int], shape: tuple[int, ...], code: str) -> None:
    seen = size[::-1] if image >= 5 else size
    facts = facts_of(
        image_of(textured(0, (1, *seen)), FileHeader("JPEG", orientation=image, size=size)),
        mask_of(np.zeros(shape, np.uint8), FileHeader("PNG", orientation=mask, size=shape[1:])),
    )
    assert codes(grid_findings(facts)) == [code]


def test_exif_on_both_sides_is_in_order() -> None:
    turned = FileHeader("JPEG", orientation=6, size=(48, 56))
    facts = facts_of(image_of(textured(0, (1, 56, 48)), turned), mask_of(np.zeros((1, 56, 48), np.uint8), turned))
    assert codes(grid_findings(facts)) == []


@pytest.mark.parametrize(
    ("spacing", "found"),
    [
        ((3.0, 0.5, 0.5), []),
        ((17.0, 0.84, 0.84), []),
        ((0.003, 0.0005, 0.0005), ["implausible-spacing"]),
        ((3000.0, 500.0, 500.0), ["implausible-spacing"]),
    ],
)
def test_plausible_spacing(spacing: tuple[float, float, float], found: list[str]) -> None:
    assert codes(spacing_findings(facts_of(image_of(textured(), spacing_mm=spacing)))) == found


def test_patches_are_counted_on_the_native_grid() -> None:
    small = ("a", None, Geometry((1, 40, 64), (5.0, 2.0, 2.0)))
    assert codes(patch_findings([small], Resize("none", (40, 64)))) == []
    assert codes(patch_findings([small], Resize("none", (41, 64)))) == []
    assert codes(patch_findings([small], Resize("none", (80, 64)))) == []  # exactly half
    assert codes(patch_findings([small], Resize("none", (80, 65)))) == ["smaller-than-patch"]
    assert codes(patch_findings([small], Resize("fit", (512, 512)))) == []
    assert codes(patch_findings([small], Resize("none", (80, 128), (1.0, 1.0)))) == []
    assert codes(patch_findings([small], Resize("none", (160, 132), (1.0, 1.0)))) == ["smaller-than-patch"]
    assert codes(patch_findings([small], None)) == []


def others(number: int, **grid: object) -> list[CaseFacts]:
    return [facts_of(image_of(textured(seed), **grid), name=str(seed)) for seed in range(number)]  # type: ignore[arg-type]


def test_sizes_far_from_the_usual_one() -> None:
    large = facts_of(image_of(textured(9, (1, 128, 40))), name="large")
    assert codes(outlier_findings([*others(5), large])) == ["size-outlier"]
    assert codes(outlier_findings([*others(3), large])) == []  # among four there is no usual size
    twice = facts_of(image_of(textured(9, (1, 64, 80))), name="twice")
    assert codes(outlier_findings([*others(5), twice])) == []


def test_spacing_far_from_the_usual_one() -> None:
    usual = others(5, spacing_mm=(3.0, 1.0, 1.0))
    tenth = facts_of(image_of(textured(9), spacing_mm=(0.3, 0.1, 0.1)), name="tenth")
    (found,) = outlier_findings([*usual, tenth])
    assert found.code == "spacing-outlier"
    assert "10.0 times off the usual 3 x 1 x 1 mm" in found.message


def test_orientations_are_compared_with_the_commonest() -> None:
    usual = others(3, affine=affine())
    other = facts_of(image_of(textured(9), affine=affine(STRAIGHT[[1, 2, 0, 3]])), name="other")
    (found,) = outlier_findings([*usual, other, facts_of(image_of(textured(8)))])
    assert (found.code, found.case_id) == ("orientations-differ", "other")
    assert found.message.endswith("those of 3 of 4 volumes towards SAR.")
