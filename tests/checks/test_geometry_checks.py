"""Grids that do not fit, on paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.findings import Alignment, AnnotatedCase, CaseFacts
from medseg_pl.checks.geometry_checks import (
    check_grids,
    check_patch,
    check_spacings,
    compare_grids,
    find_file_axes,
    find_shifted_masks,
)
from medseg_pl.checks.pixel_measurement import measure_alignment
from medseg_pl.core.geometry import Affine, Geometry, to_affine
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.file_header import FileHeader
from tests.checks.samples import codes, make_case, make_dataset, make_facts, measure, measure_values, textured
from tests.end_to_end.clean_sets import picture

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
    image = measure(textured(0, SHAPE), spacing_mm=(3.0, 1.0, 1.0), affine=image_affine)
    mask = measure_values(np.zeros(shape, np.uint8), spacing_mm=spacing_mm, affine=mask_affine)
    return make_facts(image, mask)


def test_one_grid() -> None:
    assert codes(check_grids(make_dataset(pair(affine())))) == []
    assert (
        codes(check_grids(make_dataset(pair(affine(shift=(0.2, 0.05, 0)))))) == []
    )  # a fifteenth and a twentieth of a voxel


def test_shape() -> None:
    (found,) = check_grids(make_dataset(pair(affine(), (4, 8, 9))))
    assert found.code == "shape-mismatch"
    assert found.message == (
        "The mask is 4 x 8 x 9 voxels (depth, height, width), expected 4 x 8 x 10 as has the image a.png."
    )


def test_place() -> None:
    (found,) = check_grids(make_dataset(pair(affine(shift=(0, 2, 0)))))
    assert (found.code, found.message) == ("affine-mismatch", "The mask lies 2.0 voxels away from the image a.png.")


def test_spacing_comes_before_place() -> None:
    (found,) = check_grids(make_dataset(pair(affine(np.diag([2.0, 1, 1, 1])), spacing_mm=(2.0, 1.0, 1.0))))
    assert found.code == "spacing-mismatch"
    assert "2 x 1 x 1 mm, expected 3 x 1 x 1 mm" in found.message


def test_orientation_comes_before_spacing() -> None:
    flipped = STRAIGHT @ np.diag([1, 1, -1.0, 1])
    (found,) = check_grids(make_dataset(pair(affine(flipped, (0, 0, 9)), spacing_mm=(2.0, 1.0, 1.0))))
    assert found.code == "orientation-mismatch"


def test_a_mask_that_could_say_its_place_and_does_not() -> None:
    (found,) = check_grids(make_dataset(pair(None)))
    assert found.code == "place-unknown"
    assert "sform and qform codes are 0" in found.message
    assert codes(check_grids(make_dataset(pair(None, spacing_mm=None)))) == []  # a picture has no place


def test_channels_share_a_grid_too() -> None:
    facts = pair(affine())
    assert facts.image is not None
    other = Geometry(SHAPE, (3.0, 1.0, 1.0), affine(shift=(9, 0, 0)))
    image = replace(facts.image, grids=(facts.image.geometry, other))
    case = replace(facts.case, images=(Path("a.png"), Path("b.png")))
    (found,) = check_grids(make_dataset(replace(facts, image=image, case=case)))
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
    assert find_file_axes(Geometry((2, 2, 2), affine=to_affine(matrix))) == expected


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
    facts = make_facts(
        measure(textured(0, (1, *seen)), FileHeader("JPEG", orientation=image, size=size)),
        measure_values(np.zeros(shape, np.uint8), FileHeader("PNG", orientation=mask, size=shape[1:])),
    )
    assert codes(check_grids(make_dataset(facts))) == [code]


def test_exif_on_both_sides_is_in_order() -> None:
    turned = FileHeader("JPEG", orientation=6, size=(48, 56))
    facts = make_facts(
        measure(textured(0, (1, 56, 48)), turned), measure_values(np.zeros((1, 56, 48), np.uint8), turned)
    )
    assert codes(check_grids(make_dataset(facts))) == []


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
    assert codes(check_spacings(make_dataset(make_facts(measure(textured(), spacing_mm=spacing))))) == found


def test_patches_are_counted_on_the_native_grid() -> None:
    def check(patch: Resize | None) -> list[str]:
        geometries = {"a": Geometry((1, 40, 64), (5.0, 2.0, 2.0))}
        case = AnnotatedCase(make_case("a"), None)
        return codes(check_patch(make_dataset(annotated=[case], geometries=geometries, patch=patch)))

    assert check(Resize("none", (40, 64))) == []
    assert check(Resize("none", (41, 64))) == []
    assert check(Resize("none", (80, 64))) == []  # exactly half
    assert check(Resize("none", (80, 65))) == ["smaller-than-patch"]
    assert check(Resize("fit", (512, 512))) == []
    assert check(Resize("none", (80, 128), (1.0, 1.0))) == []
    assert check(Resize("none", (160, 132), (1.0, 1.0))) == ["smaller-than-patch"]
    assert check(None) == []


def others(number: int, **grid: object) -> list[CaseFacts]:
    return [make_facts(measure(textured(seed), **grid), name=str(seed)) for seed in range(number)]  # type: ignore[arg-type]


def test_sizes_far_from_the_usual_one() -> None:
    large = make_facts(measure(textured(9, (1, 128, 40))), name="large")
    assert codes(compare_grids(make_dataset(*others(5), large))) == ["size-outlier"]
    assert codes(compare_grids(make_dataset(*others(3), large))) == []  # among four there is no usual size
    twice = make_facts(measure(textured(9, (1, 64, 80))), name="twice")
    assert codes(compare_grids(make_dataset(*others(5), twice))) == []


def test_spacing_far_from_the_usual_one() -> None:
    usual = others(5, spacing_mm=(3.0, 1.0, 1.0))
    tenth = make_facts(measure(textured(9), spacing_mm=(0.3, 0.1, 0.1)), name="tenth")
    (found,) = compare_grids(make_dataset(*usual, tenth))
    assert found.code == "spacing-outlier"
    assert "10.0 times off the usual 3 x 1 x 1 mm" in found.message


def test_orientations_are_compared_with_the_commonest() -> None:
    usual = others(3, affine=affine())
    other = make_facts(measure(textured(9), affine=affine(STRAIGHT[[1, 2, 0, 3]])), name="other")
    (found,) = compare_grids(make_dataset(*usual, other, make_facts(measure(textured(8)))))
    assert (found.code, found.case_id) == ("orientations-differ", "other")
    assert found.message.endswith("those of 3 of 4 volumes towards SAR.")


def shifted(shifts: list[tuple[int, int]]) -> list[CaseFacts]:
    return [make_facts(name=str(seed), alignment=_align(seed, shift)) for seed, shift in enumerate(shifts)]


def test_one_moved_mask_among_others() -> None:
    (found,) = find_shifted_masks(make_dataset(*shifted([(0, 0)] * 6 + [(5, -6)])))
    assert (found.code, found.case_id) == ("image-mask-shift", "6")
    assert "moved by -5 rows and 6 columns" in found.message


def test_all_masks_moved_alike() -> None:
    assert codes(find_shifted_masks(make_dataset(*shifted([(4, 4)] * 6)))) == ["image-mask-shift"] * 6


def test_a_pixel_or_two_are_no_fault() -> None:
    assert codes(find_shifted_masks(make_dataset(*shifted([(0, 0)] * 6 + [(1, 1), (0, 2)])))) == []


def test_masks_that_follow_no_edge_are_not_judged() -> None:
    off = [Alignment((5, 5), 7.1, 1.0, 2.0), Alignment((-3, 6), 6.7, 1.1, 2.0)]
    facts = [make_facts(name=str(number), alignment=off[number % 2]) for number in range(10)]
    assert codes(find_shifted_masks(make_dataset(*facts))) == []


def test_three_cases_are_too_few() -> None:
    assert codes(find_shifted_masks(make_dataset(*shifted([(0, 0), (0, 0), (5, -6)])))) == []


def _align(seed: int, shift: tuple[int, int]) -> Alignment | None:
    image, mask = picture(seed, (80, 96))
    return measure_alignment(image[None, None], np.roll(mask, shift, (0, 1))[None])
