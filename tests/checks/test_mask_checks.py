"""Faults that the values of masks, their labels and their palettes betray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.checks.findings import AnnotatedCase, LabelLookup
from medseg_pl.checks.inspection import inspect_case
from medseg_pl.checks.mask_checks import (
    check_annotated_labels,
    check_ignore_value,
    check_labels,
    check_mask_values,
    check_palettes,
)
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource
from medseg_pl.io.file_header import FileHeader
from tests.checks.samples import LABELS, PNG, codes, make_case, make_dataset, make_facts, measure_values
from tests.end_to_end.clean_sets import picture
from tests.end_to_end.defects import jpeg_mask_as_png, smoothed
from tests.sample_files import noise, save_raster

TWO = LABELS
ONE = LabelMap(["organ"], "binary")
APART = LabelMap(["organ", "lesion"], "multilabel")
MASK = picture(0)[1][None]


def found(mask: NDArray[Any], labels: LabelMap = TWO, header: FileHeader = PNG) -> list[str]:
    return codes(check_mask_values(make_dataset(make_facts(None, measure_values(mask, header)), labels=labels)))


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
    beside = MASK.copy()
    beside[0, :4] = 255
    alone = (MASK > 0).astype(np.uint8) * 255
    dataset = make_dataset(*(make_facts(None, measure_values(mask)) for mask in (beside, alone)))
    assert codes(check_mask_values(dataset)) == ["ignore-value-unset"] * 2


@pytest.mark.parametrize("quality_seed", range(6))
def test_jpeg_and_smoothing_are_told_apart(quality_seed: int) -> None:
    mask = picture(quality_seed, (96, 112))[1]
    assert found(jpeg_mask_as_png(mask)[None]) == ["mask-jpeg-artifacts"]
    assert found(smoothed(mask)[None]) == ["mask-antialiased"]


def test_a_single_wrong_voxel_is_no_compression() -> None:
    mask = (MASK > 0).astype(np.uint8) * 255
    mask[0, 0, 0] = 233
    assert found(mask, ONE) == ["mask-unknown-value"]


def test_the_advice_names_all_values_of_all_masks() -> None:
    masks = [make_facts(None, measure_values(values)) for values in (MASK, np.where(MASK > 0, 7, 0).astype(np.uint8))]
    remedies = {finding.remedy for finding in check_mask_values(make_dataset(*masks, labels=ONE))}
    advice = "as in --labels 1=organ,2=label_2,7=label_7."
    assert remedies == {f"The masks hold 1, 2, 7: correct them, or name each value, {advice}"}


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
    assert LabelLookup(named).count_voxels([measure_values(colors)]) == [int((MASK == 1).sum()), int((MASK == 2).sum())]


def test_fractions_name_the_header_that_made_them() -> None:
    scaled = FileHeader("gzip", scaled=True)
    (finding,) = check_mask_values(make_dataset(make_facts(None, measure_values(MASK * np.float32(0.5), scaled))))
    assert finding.code == "mask-not-integer"
    assert finding.message.endswith("the header scales the values, which is meant for intensities.")


def test_noise_is_a_picture() -> None:
    assert found(np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.uint8)) == ["mask-is-picture"]


def test_the_message_counts() -> None:
    for number, counted in ((5, "5 voxels (5.00%)"), (1, "1 voxel (1.00%)")):
        mask = np.zeros((1, 10, 10), np.uint8)
        mask[0, 0, :number] = 7
        (finding,) = check_mask_values(make_dataset(make_facts(None, measure_values(mask))))
        assert finding.message == f"The mask holds the value 7, in {counted}; expected 0, 1, 2."


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
    facts = make_facts(None, measure_values(np.full((1, 9, 9), 77, np.uint8), label=label))
    (finding,) = check_mask_values(make_dataset(facts, labels=labels))
    assert finding.message.endswith(expected)


def test_labels_in_files_of_their_own() -> None:
    files = [measure_values(np.where(value == MASK, 255, 0), label=value - 1) for value in (1, 2)]
    facts = make_facts(None, *files)
    assert codes(check_mask_values(make_dataset(facts, labels=APART))) == []
    assert LabelLookup(APART).count_voxels(files) == [int((MASK == 1).sum()), int((MASK == 2).sum())]


def test_overlap_is_wrong_only_where_labels_exclude_each_other() -> None:
    files = [measure_values((MASK > 0).astype(np.uint8), label=index) for index in (0, 1)]
    facts = make_facts(None, *files, overlap=12)
    assert codes(check_mask_values(make_dataset(facts, labels=APART))) == []
    assert codes(check_mask_values(make_dataset(facts))) == ["mask-overlap"]


@pytest.mark.parametrize(("overlap", "counted"), [(1, "1 voxel carries"), (1200, "1,200 voxels carry")])
def test_voxels_of_several_labels_are_counted(overlap: int, counted: str) -> None:
    files = [measure_values((MASK > 0).astype(np.uint8), label=index) for index in (0, 1)]
    (finding,) = check_mask_values(make_dataset(make_facts(None, *files, overlap=overlap)))
    assert finding.message == f"{counted} more than one label; expected one at most."


def test_a_label_whose_other_file_is_empty_is_not_empty() -> None:
    files = [measure_values(MASK * 0, label=0), measure_values((MASK > 0).astype(np.uint8), label=1)]
    assert codes(check_mask_values(make_dataset(make_facts(None, *files), labels=APART))) == []


def test_many_small_components_are_structures() -> None:
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, ::4, ::4] = 1
    assert found(mask) == []
    mask[0, 10:30, 10:30] = 1
    assert found(mask) == []  # 400 of 500 voxels
    mask[0, 5:35, 5:35] = 1
    assert found(mask) == ["mask-specks"]


def annotated(*voxels: Sequence[int], groups: Sequence[str] = ()) -> list[AnnotatedCase]:
    names = [str(number) for number in range(len(voxels))]
    return [AnnotatedCase(make_case(n, g), v) for n, g, v in zip(names, groups or names, voxels, strict=True)]


@pytest.mark.parametrize(
    ("voxels", "found"),
    [
        ([(5, 5)] * 4, []),
        ([(0, 0)] * 4, ["masks-all-empty"]),
        ([(5, 0)] * 4, ["label-never-present"]),
        ([(5, 0), (5, 0), (5, 3)], ["label-in-one-case"]),
        ([(5, 0), (5, 3)], []),  # of two cases one is half of them
        ([], []),
    ],
)
def test_labels(voxels: list[tuple[int, int]], found: list[str]) -> None:
    assert codes(check_labels(make_dataset(annotated=annotated(*voxels)))) == found


def test_a_label_of_one_patient_with_several_cases() -> None:
    cases = annotated((5, 3), (5, 3), (5, 0), (5, 0), groups=["p", "p", "q", "r"])
    (found,) = check_labels(make_dataset(annotated=cases))
    assert found.code == "label-in-one-patient"
    assert found.message == "The label 'lesion' is in 2 cases, all of them of the patient p."


def test_ignore_value() -> None:
    def check(values: list[int], ignore: int | None) -> list[str]:
        labels = LabelMap(["organ", "lesion"], "multiclass", ignore_value=ignore)
        masks = [measure_values(np.array([[values]]))] if values else []
        return codes(check_ignore_value(make_dataset(make_facts(None, *masks), labels=labels)))

    assert check([0, 1], 255) == ["ignore-value-absent"]
    assert check([0, 255], 255) == []
    assert check([0], None) == []
    assert check([], 255) == []


ORGANS = LabelMap(["liver", "spleen"], "multiclass")
BLACK, RED, GREEN, GRAY = [0, 0, 0], [200, 0, 0], [0, 200, 0], [90, 90, 90]


def find(root: Path, suffix: str, *palettes: list[list[int]]) -> list[str]:
    """Check masks that hold the indices 0, 1 and 2 under these palettes."""
    for number, colors in enumerate(palettes):
        save_raster(root / f"images/{number}.png", noise((12, 14), number))
        image = Image.fromarray(np.repeat(np.arange(len(colors), dtype=np.uint8), 4)[:, None].repeat(14, axis=1))
        image.putpalette(np.array(colors).ravel().tolist())
        (root / "masks").mkdir(exist_ok=True)
        image.save(root / f"masks/{number}{suffix}")
    source = FolderSource(str(root))
    facts = [inspect_case(source, case, labels=ORGANS, root=root) for case in source.cases()]
    return [finding.message for finding in check_palettes(make_dataset(*facts, labels=ORGANS))]


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
class TestPalettes:
    def test_the_same_in_all_files(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, RED, GREEN], [BLACK, RED], [BLACK, RED, GREEN]) == []

    def test_colors_change_places(self, tmp_path: Path, suffix: str) -> None:
        (message,) = find(tmp_path, suffix, [BLACK, RED, GREEN], [BLACK, GREEN, RED])
        assert message.startswith("Index ")
        assert "(200, 0, 0)" in message and "(0, 200, 0)" in message

    def test_one_index_stands_for_two_colors(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, RED], [BLACK, GREEN]) == [
            f"Index 1 is (0, 200, 0); in 0{suffix} it is (200, 0, 0)."
        ]

    def test_grays_are_for_show(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, GRAY], [BLACK, [5, 5, 5]]) == []


def test_one_color_has_two_indices(tmp_path: Path) -> None:
    assert find(tmp_path, ".png", [BLACK, RED], [BLACK, GRAY, RED]) == [
        "The color (200, 0, 0) has the index 2; in 0.png it has 1."
    ]


def test_what_nobody_looked_for_is_counted_and_not_drawn() -> None:
    both = [make_case(name) for name in ("a", "b", "c")]
    looked = [
        replace(case, annotated_labels=names) for case, names in zip(both, [None, ("organ",), ("liver",)], strict=True)
    ]
    annotated = [AnnotatedCase(case, voxels) for case, voxels in zip(looked, [(5, 5), (5, 1), (0, 0)], strict=True)]
    findings = list(check_annotated_labels(make_dataset(annotated=annotated)))
    assert [(finding.code, finding.case_id) for finding in findings] == [
        ("unannotated-label-present", "b"),
        ("annotated-label-unknown", "c"),
        ("label-not-looked-for", ""),
        ("label-not-looked-for", ""),
    ]
    assert "holds 1 voxel of 'lesion'," in findings[0].message
    assert "'organ' was not looked for in 1 of 3 cases" in findings[2].message
    assert "'lesion' was not looked for in 2 of 3 cases" in findings[3].message
