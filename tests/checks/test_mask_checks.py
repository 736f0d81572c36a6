"""Which fault a mask's values betray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.mask_checks import Claims, mask_findings
from medseg_pl.core.labels import LabelMap
from medseg_pl.io.file_header import FileHeader
from tests.checks.facts_of import PNG, codes, facts_of, mask_of
from tests.end_to_end.clean_sets import picture
from tests.end_to_end.defects import jpeg_mask_as_png, smoothed

TWO = LabelMap(["organ", "lesion"], "multiclass")
ONE = LabelMap(["organ"], "binary")
APART = LabelMap(["organ", "lesion"], "multilabel")
MASK = picture(0)[1][None]


def found(mask: NDArray[Any], labels: LabelMap = TWO, header: FileHeader = PNG, *, ignores: bool = False) -> list[str]:
    return codes(mask_findings(facts_of(None, mask_of(mask, header)), Claims(labels), ignores=ignores))


def test_a_mask_of_labels_is_in_order() -> None:
    assert found(MASK) == []


def test_0_and_255_are_in_order_where_one_label_is_expected() -> None:
    assert found((MASK > 0).astype(np.uint8) * 255, ONE) == []
    assert found((MASK > 0).astype(np.uint8) * 255) == ["mask-0-255"]
    assert found((MASK > 0).astype(np.uint8) * 255, LabelMap(["organ"], "binary", [2])) == ["mask-0-255"]


def test_255_beside_labels_is_what_nobody_annotated() -> None:
    mask = MASK.copy()
    mask[0, :4] = 255
    assert found(mask) == ["ignore-value-unset"]
    assert found(mask, LabelMap(["organ", "lesion"], "multiclass", ignore_value=255)) == []


def test_255_alone_is_what_it_is_elsewhere_in_the_data_set() -> None:
    assert found((MASK > 0).astype(np.uint8) * 255, ignores=True) == ["ignore-value-unset"]


@pytest.mark.parametrize("quality_seed", range(6))
def test_jpeg_and_smoothing_are_told_apart(quality_seed: int) -> None:
    mask = picture(quality_seed, (96, 112))[1]
    assert found(jpeg_mask_as_png(mask)[None]) == ["mask-jpeg-artifacts"]
    assert found(smoothed(mask)[None]) == ["mask-antialiased"]


def test_a_single_wrong_voxel_is_no_compression() -> None:
    mask = (MASK > 0).astype(np.uint8) * 255
    mask[0, 0, 0] = 233
    assert found(mask, ONE) == ["mask-unknown-value"]


def test_a_jpeg_of_intact_values_is_worth_a_warning() -> None:
    lossy = FileHeader("JPEG", lossy=True)
    assert found((MASK > 0).astype(np.uint8) * 255, ONE, lossy) == ["mask-lossy-format"]
    assert found((MASK > 0).astype(np.uint8) * 254, ONE, lossy) == ["mask-jpeg-artifacts"]


def test_a_tolerance_claims_what_is_near() -> None:
    mask = jpeg_mask_as_png(picture(0, (96, 112))[1])[None]
    assert "mask-jpeg-artifacts" in found(mask, ONE)
    assert found(mask, LabelMap(["organ"], "binary", tolerance=100)) == []


def test_palettes() -> None:
    palette = FileHeader("PNG", palette=True)
    assert found(MASK, header=palette) == ["mask-palette-indices"]
    assert found(MASK * 5, header=palette) == ["mask-palette"]


def test_colors_are_labels_where_they_are_named() -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[MASK].transpose(3, 0, 1, 2)
    named = LabelMap(["organ", "lesion"], "multiclass", colors={"organ": (255, 0, 0), "lesion": (0, 255, 0)})
    assert found(colors) == ["mask-colors"]
    assert found(colors, named) == []
    assert Claims(named).voxels([mask_of(colors)]) == [int((MASK == 1).sum()), int((MASK == 2).sum())]


def test_fractions_name_the_header_that_made_them() -> None:
    scaled = FileHeader("gzip", scaled=True)
    (finding,) = mask_findings(facts_of(None, mask_of(MASK * np.float32(0.5), scaled)), Claims(TWO), ignores=False)
    assert finding.code == "mask-not-integer"
    assert finding.message.endswith("the header scales the values, which is meant for intensities.")


def test_noise_is_a_picture() -> None:
    assert found(np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.uint8)) == ["mask-is-picture"]


def test_the_message_counts() -> None:
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, 0, :5] = 7
    (finding,) = mask_findings(facts_of(None, mask_of(mask)), Claims(TWO), ignores=False)
    assert finding.message == "The mask holds the value 7, in 5 voxels (5.00%); expected 0, 1, 2."


@pytest.mark.parametrize(
    ("labels", "label", "expected"),
    [
        (TWO, None, "expected 0, 1, 2."),
        (ONE, None, "expected 0 and 1, or 0 and 255."),
        (APART, 1, "expected 0 and 1, or 0 and 255."),
        (LabelMap(["a", "b"], "multilabel", [3, 4]), 1, "expected 0, 4."),
    ],
)
def test_what_was_expected(labels: LabelMap, label: int | None, expected: str) -> None:
    facts = facts_of(None, mask_of(np.full((1, 9, 9), 77, np.uint8), label=label))
    (finding,) = mask_findings(facts, Claims(labels), ignores=False)
    assert finding.message.endswith(expected)


def test_labels_in_files_of_their_own() -> None:
    files = [mask_of(np.where(value == MASK, 255, 0), label=value - 1) for value in (1, 2)]
    facts = facts_of(None, *files)
    assert codes(mask_findings(facts, Claims(APART), ignores=False)) == []
    assert Claims(APART).voxels(files) == [int((MASK == 1).sum()), int((MASK == 2).sum())]


def test_overlap_is_wrong_only_where_labels_exclude_each_other() -> None:
    files = [mask_of((MASK > 0).astype(np.uint8), label=index) for index in (0, 1)]
    facts = facts_of(None, *files, overlap=12)
    assert codes(mask_findings(facts, Claims(APART), ignores=False)) == []
    assert codes(mask_findings(facts, Claims(TWO), ignores=False)) == ["mask-overlap"]


def test_a_label_whose_other_file_is_empty_is_not_empty() -> None:
    files = [mask_of(MASK * 0, label=0), mask_of((MASK > 0).astype(np.uint8), label=1)]
    assert codes(mask_findings(facts_of(None, *files), Claims(APART), ignores=False)) == []


def test_many_small_components_are_structures() -> None:
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, ::4, ::4] = 1
    assert found(mask) == []
    mask[0, 10:30, 10:30] = 1
    assert found(mask) == []  # 400 of 500 voxels
    mask[0, 5:35, 5:35] = 1
    assert found(mask) == ["mask-specks"]
