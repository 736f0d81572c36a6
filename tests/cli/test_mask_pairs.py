"""Two folders of masks, paired by name. Whose cases are whose."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg_pl.cli.mask_pairs import (
    MaskPair,
    known_by_name,
    known_by_table,
    label_of_each_value,
    list_left_out,
    pair_folders,
    read_pair,
    values_in,
)
from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from tests.sample_files import blocks, noise, save_raster, save_volume

BAR = blocks((9, 12), 1)

ORGANS = LabelMap(["stomach", "bowel"], "multilabel")


def files(root: Path, *names: str) -> Path:
    """Empty files: pairing decodes none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_names_are_compared_without_suffix_and_with_sub_folders(tmp_path: Path) -> None:
    reference = files(tmp_path / "r", "b.nii.gz", "a.tif", "site/a.png", "notes.txt", ".hidden/c.png", "._a.png")
    prediction = files(tmp_path / "p", "site/a.BMP", "b.nii", "a.PNG", "other/a.png", "z.png", "log.csv")
    pairs, unmatched = pair_folders(reference, prediction)
    assert pairs == [
        MaskPair("a", (reference / "a.tif",), (prediction / "a.PNG",)),
        MaskPair("b", (reference / "b.nii.gz",), (prediction / "b.nii",)),
        MaskPair("site/a", (reference / "site/a.png",), (prediction / "site/a.BMP",)),
    ]
    assert unmatched == ["other/a", "z"]
    assert all(pair.complete for pair in pairs)


def test_labels_have_a_folder_each(tmp_path: Path) -> None:
    reference = files(tmp_path / "r", "stomach/a.png", "bowel/a.tif", "images/a.png")
    prediction = files(tmp_path / "p", "stomach/a.png", "stomach/b.png", "bowel/b.png")
    (pair,), unmatched = pair_folders(reference, prediction, ORGANS.names)
    assert pair.references == (reference / "stomach/a.png", reference / "bowel/a.tif")
    assert pair.predictions == (prediction / "stomach/a.png", None)
    assert not pair.complete
    assert unmatched == ["b"]


def test_a_reference_needs_a_mask_of_each_label(tmp_path: Path) -> None:
    reference = files(tmp_path / "r", "stomach/a.png", "stomach/b.png", "bowel/a.png")
    prediction = files(tmp_path / "p", "stomach/a.png", "bowel/a.png")
    with pytest.raises(MissingDataError) as error:
        pair_folders(reference, prediction, ORGANS.names)
    assert str(error.value) == (
        f"1 reference is not in {reference}: bowel/b. A case needs a mask of each label, an empty one where the "
        "label is absent; add them, or leave the case out."
    )


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    reference = files(tmp_path / "r", "a.png", "a.tif")
    with pytest.raises(DataError, match=r"a\.png and .*a\.tif have the same name, so references cannot be told apart"):
        pair_folders(reference, files(tmp_path / "p", "a.png"))


def test_a_format_that_changes_values_is_refused(tmp_path: Path) -> None:
    prediction = files(tmp_path / "p", "a.png", "b.jpg", "c.JPEG")
    with pytest.raises(DataError) as error:
        pair_folders(files(tmp_path / "r", "a.png"), prediction)
    assert str(error.value) == (
        f"2 of 3 predictions are in a lossy format, which does not keep the values of labels: {prediction / 'b.jpg'}, "
        f"{prediction / 'c.JPEG'}. Save them as PNG from the original, or move them away if they are no masks."
    )


def test_folders_that_are_not_there_or_hold_no_mask(tmp_path: Path) -> None:
    reference = files(tmp_path / "r", "a.png")
    with pytest.raises(MissingDataError, match=r"Expected predictions in the folder .*nowhere, found nothing there\."):
        pair_folders(reference, tmp_path / "nowhere")
    with pytest.raises(
        MissingDataError, match=r"Expected references in the folder .*bowel, found nothing there\. .* one"
    ):
        pair_folders(files(tmp_path / "r", "stomach/a.png"), reference, ORGANS.names)
    with pytest.raises(
        MissingDataError, match=r"empty holds no mask that can be read; expected PNG, TIFF, NIfTI, MetaImage"
    ):
        pair_folders(reference, files(tmp_path / "empty", "a.npy"))


def test_a_case_lies_on_the_grid_of_its_reference(tmp_path: Path) -> None:
    reference = save_volume(tmp_path / "r.nii.gz", blocks((6, 7, 5), 1, 2), spacing_mm=(0.5, 0.75, 4))
    prediction = save_volume(tmp_path / "p.nii", blocks((6, 7, 5), 2), spacing_mm=(0.5, 0.75, 4))
    case = read_pair(MaskPair("a", (reference,), (prediction,)), LabelMap(["x", "y"], "multiclass"), "p1")
    assert (case.case_id, case.group, case.geometry.shape) == ("a", "p1", (5, 7, 6))
    assert case.geometry.spacing_mm == pytest.approx((4, 0.75, 0.5))
    np.testing.assert_array_equal(case.mask[0], blocks((6, 7, 5), 2).T)
    assert case.reference is not None
    np.testing.assert_array_equal(case.reference[0], blocks((6, 7, 5), 1, 2).T)


@pytest.mark.parametrize("known", [False, True])
def test_a_spacing_is_for_references_that_know_none(tmp_path: Path, known: bool) -> None:
    path = save_volume(tmp_path / "a.nii", BAR[..., None]) if known else save_raster(tmp_path / "a.png", BAR)
    pair = MaskPair("a", (path,), (path,))
    case = read_pair(pair, LabelMap(["x"], "binary"), "a", spacing_mm=(3.0, 2.0, 0.5))
    assert case.geometry.spacing_mm == pytest.approx((1, 1, 1) if known else (3, 2, 0.5))


def test_a_missing_prediction_is_empty(tmp_path: Path) -> None:
    reference = save_raster(tmp_path / "r.png", BAR)
    other = save_raster(tmp_path / "p.png", BAR * 255)
    case = read_pair(MaskPair("a", (reference, reference), (None, other)), ORGANS, "a")
    np.testing.assert_array_equal(case.mask[:, 0], np.stack([BAR * 0, BAR]))
    case = read_pair(MaskPair("a", (reference,), (None,)), LabelMap(["x"], "binary"), "a")
    assert not case.mask.any()


def test_the_references_of_a_case_share_one_grid(tmp_path: Path) -> None:
    first, second = save_raster(tmp_path / "1.png", BAR), save_raster(tmp_path / "2.png", BAR[:5])
    with pytest.raises(GeometryError, match=r"Case a: .*2\.png is 1 x 5 x 12 .* but the reference .*1\.png is 1 x 9 x"):
        read_pair(MaskPair("a", (first, second), (first, first)), ORGANS, "a")


def test_values_of_both_sides(tmp_path: Path) -> None:
    reference = save_volume(tmp_path / "r.nii", blocks((6, 7, 5), 1, 200).astype(np.float64) * 30)
    prediction = save_raster(tmp_path / "p.png", blocks((9, 12), 0, 255))
    assert values_in(MaskPair("a", (reference, prediction), (None, prediction))) == ({30, 6000, 255}, {255})


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_values_that_are_no_whole_numbers_name_the_file(tmp_path: Path, value: float) -> None:
    voxels = np.zeros((4, 4, 3), np.float32)
    voxels[1, 1, 1] = value
    path = save_volume(tmp_path / "p.nii", voxels)
    with pytest.raises(MaskValueError) as error:
        values_in(MaskPair("a", (path,), (path,)))
    assert str(error.value) == (
        f"{path} holds the value {value:g}, but labels are whole numbers. Decide probabilities first, and resample "
        "masks without interpolation."
    )


def sides(reference: set[int], prediction: set[int]) -> tuple[frozenset[int], frozenset[int]]:
    return frozenset(reference), frozenset(prediction)


def test_each_value_is_a_label() -> None:
    labels, says = label_of_each_value([sides({4, 1}, {1}), sides(set(), {255})], ignore_value=255)
    assert labels == LabelMap(["1", "4"], "multiclass", [1, 4], 255)
    assert says == "1, 4 (in no prediction)"
    assert label_of_each_value([sides({255}, {255})])[0] == LabelMap(["255"], "binary", [255])
    assert label_of_each_value([sides({3}, {3})], task="multiclass")[0].task == "multiclass"
    two, _ = label_of_each_value([sides({1, 255}, {1}), sides({1}, {255})])
    assert two.names == ["1", "255"]


@pytest.mark.parametrize(("reference", "prediction"), [(1, 255), (255, 1)])
def test_black_and_white_stands_for_0_and_1(tmp_path: Path, reference: int, prediction: int) -> None:
    found = [sides({reference}, {prediction}), sides({reference}, set())]
    labels, said = label_of_each_value(found)
    assert said == f"{reference} (written as {prediction} in the predictions)"
    for folder, value in (("r", reference), ("p", prediction)):
        save_raster(tmp_path / folder / "a.png", blocks((9, 8), value))
    pair = read_pair(pair_folders(tmp_path / "r", tmp_path / "p")[0][0], labels, "a")
    np.testing.assert_array_equal(pair.mask, pair.reference)


def test_names_that_look_alike_are_one(tmp_path: Path) -> None:
    for folder, form in (("r", "NFC"), ("p", "NFD")):
        save_raster(tmp_path / folder / (normalize(form, "Rücken") + ".png"), blocks((9, 8), 1))
    (pair,), unmatched = pair_folders(tmp_path / "r", tmp_path / "p")
    assert (pair.case_id, pair.complete, unmatched) == (normalize("NFC", "Rücken"), True, [])


def test_files_that_may_be_masks_are_named(tmp_path: Path) -> None:
    files(tmp_path, "a.png", "predictions.csv")
    (tmp_path / "predictions.csv").write_text("input\n")
    (tmp_path / "b.heic").write_bytes(b"\x01\x02")
    assert [each.path.name for each in list_left_out(tmp_path)] == ["b.heic"]


def test_values_that_say_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"All masks are empty, so their labels are unknown\. Name "):
        label_of_each_value([sides(set(), {9}), sides(set(), set())], ignore_value=9)
    with pytest.raises(DataError, match=r"The files hold 300 different values, which are no labels\. Are they images"):
        label_of_each_value([sides(set(range(1, 301)), set())])
    with pytest.raises(DataError) as error:
        label_of_each_value([sides({1}, {255}), sides({255}, set())])
    assert str(error.value) == (
        "Some files hold the value 1 and others 255, never both: one label or two? Name one with --labels lesion, and "
        "both values mean it, or two with --labels 1=lesion,255=other."
    )


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_formats_of_volumes_may_differ(tmp_path: Path, suffix: str) -> None:
    mask = (noise((4, 9, 10)) % 2).astype(np.uint8)
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing((0.5, 0.7, 3.0))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
    sitk.WriteImage(image, str(tmp_path / "r" / f"a{suffix}"))
    sitk.WriteImage(image, str(tmp_path / "p" / "a.nii.gz"))
    ((pair,), _) = pair_folders(tmp_path / "r", tmp_path / "p")
    found = read_pair(pair, LabelMap(["lesion"], "binary"), "a")
    np.testing.assert_array_equal(found.mask[0], mask)
    np.testing.assert_array_equal(found.reference, found.mask)
    assert found.geometry.spacing_mm == pytest.approx((3.0, 0.7, 0.5))
    image.SetOrigin((0.0, 5.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "p" / "a.nii.gz"))
    with pytest.raises(GeometryError, match=r"a\.nii\.gz .*lies elsewhere"):
        read_pair(pair, LabelMap(["lesion"], "binary"), "a")


def table(root: Path, *lines: str) -> Path:
    (root / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "cases.csv"


def test_without_a_pattern_each_case_is_its_own_patient() -> None:
    assert known_by_name(["a", "b"], None, "--group") == ({"a": "a", "b": "b"}, {}, {})


def test_a_pattern_has_to_match_every_name() -> None:
    with pytest.raises(DataError) as error:
        known_by_name(["p1_a", "x", "y"], "^(p[0-9])_", "--group")
    assert str(error.value) == (
        "--group '^(p[0-9])_' finds no patient in 2 of 3 cases: x, y. Correct the pattern so that it matches every "
        "name."
    )
    with pytest.raises(DataError, match=r"every name \(perhaps '\(p\\d\+\)_'\)\.$"):
        known_by_name(["p1_a", "p1_b", "p2_a", "p3_a"], "(x)", "--group")


def test_a_table_knows_patients_and_strata(tmp_path: Path) -> None:
    path = table(tmp_path, "scanner,case_id,group,age", "X, a ,p1,40", ",b,p1,", "Y,other,,", "Y,c,p2,50")
    known = known_by_table(["a", "b", "c"], path, None)
    assert known.groups == {"a": "p1", "b": "p1", "c": "p2"}
    assert known.strata == {"a": {"scanner": "X"}, "b": {}, "c": {"scanner": "Y"}}
    assert known_by_table(["a", "b"], path, ["age"]).strata == {"a": {"age": "40"}, "b": {}}


def test_what_a_table_may_lack(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.csv does not exist\. Set --cases to your CSV file\."):
        known_by_table(["a"], tmp_path / "none.csv", None)
    with pytest.raises(DataError, match=r"lacks columns: group; expected case_id, group and optionally "):
        known_by_table(["a"], table(tmp_path, "case_id,patient", "a,p1"), None)
    with pytest.raises(DataError, match=r"lacks columns that --strata names: vendor; got case_id, group, site"):
        known_by_table(["a"], table(tmp_path, "case_id,group,site", "a,p1,"), ["site", "vendor"])
    with pytest.raises(SettingError, match="--strata names group, which is a column of every table of scores already"):
        known_by_table(["a"], table(tmp_path, "case_id,group", "a,p1"), ["group"])
    with pytest.raises(DataError, match=r"cases\.csv: case_id stands in several rows: a\. Give each its own\."):
        known_by_table(["a"], table(tmp_path, "case_id,group", "a,p1", "a,p2"), None)
    with pytest.raises(DataError, match=r"cases\.csv, line 3: the column group is empty\."):
        known_by_table(["a"], table(tmp_path, "case_id,group", "b,p1", "a, "), None)
    with pytest.raises(DataError) as error:
        known_by_table(["a", "b", "c"], table(tmp_path, "case_id,group", "b,p1"), None)
    assert str(error.value) == (
        f"2 of 3 cases have no row in {tmp_path / 'cases.csv'}: a, c. Add them; case_id is the file's name without "
        "suffix and with sub-folders."
    )
