"""The layouts, each read back as its inventors' own tools would."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.data.synthetic.layouts import DataCard, LabeledScan, write_decathlon, write_folder, write_uw_madison
from medseg_pl.io.nifti import read_nifti
from medseg_pl.io.raster import read_image, read_mask
from medseg_pl.io.regions import decode_runs
from tests.sample_files import tree

LABELS = ("liver", "lesion")
CARD = DataCard("toy", "Two blocks", "CC0-1.0", "MRI", LABELS)


def make_scan(tilt_rad: tuple[float, float] = (0.0, 0.0)) -> LabeledScan:
    """Five slices of 4 x 6; the liver is in the middle three, with a lesion in it in the last of these."""
    image = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6) * 100
    masks = np.zeros((2, 5, 4, 6), bool)
    masks[0, 1:4, 1:3, 1:5] = True
    masks[1, 3, 1, 2] = True
    label_map = masks[0].astype(np.uint8)
    label_map[masks[1]] = 2
    return LabeledScan("case7_day3", "case7", image, masks, label_map, (3.0, 1.5, 1.25), tilt_rad)


def affine_of(root: Path, scan: LabeledScan) -> np.ndarray:
    write_decathlon(root, [scan], CARD)
    return np.asarray(read_nifti(root / "imagesTr" / "toy_001.nii.gz")[1].affine)


def test_uw_madison_tree_and_pixels(tmp_path: Path) -> None:
    scan = make_scan()
    write_uw_madison(tmp_path, [scan], LABELS)
    folder = Path("train", "case7", "case7_day3", "scans")
    files = [str(folder / f"slice_000{number}_6_4_1.25_1.50.png") for number in range(1, 6)]
    assert sorted(tree(tmp_path)) == ["train.csv", *files]
    np.testing.assert_array_equal(np.concatenate([read_image(tmp_path / file) for file in files]), scan.image)


def test_uw_madison_table_has_a_row_for_each_slice_and_label(tmp_path: Path) -> None:
    scan = make_scan()
    write_uw_madison(tmp_path, [scan], LABELS)
    with (tmp_path / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["class"]) for row in rows[:3]] == [
        ("case7_day3_slice_0001", "liver"),
        ("case7_day3_slice_0001", "lesion"),
        ("case7_day3_slice_0002", "liver"),
    ]
    decoded = np.stack([decode_runs(row["segmentation"], (4, 6)) for row in rows]).reshape(5, 2, 4, 6)
    np.testing.assert_array_equal(decoded.swapaxes(0, 1), scan.masks)
    assert rows[0]["segmentation"] == ""


def test_decathlon_index_lists_the_pairs(tmp_path: Path) -> None:
    write_decathlon(tmp_path, [make_scan(), make_scan()], CARD)
    index = json.loads((tmp_path / "dataset.json").read_text())
    assert (index["name"], index["description"], index["licence"]) == CARD[:3]
    assert (index["modality"], index["tensorImageSize"]) == ({"0": "MRI"}, "3D")
    assert index["labels"] == {"0": "background", "1": "liver", "2": "lesion"}
    assert (index["numTraining"], index["numTest"], index["test"]) == (2, 0, [])
    assert index["training"][1] == {"image": "./imagesTr/toy_002.nii.gz", "label": "./labelsTr/toy_002.nii.gz"}


def test_decathlon_voxels_come_back(tmp_path: Path) -> None:
    scan = make_scan()
    write_decathlon(tmp_path, [scan], CARD)
    image, geometry = read_nifti(tmp_path / "imagesTr" / "toy_001.nii.gz")
    labels, label_geometry = read_nifti(tmp_path / "labelsTr" / "toy_001.nii.gz")
    assert (image.dtype, labels.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(image[0], scan.image)
    np.testing.assert_array_equal(labels[0], scan.label_map)
    assert geometry == label_geometry
    assert geometry.spacing_mm == pytest.approx(scan.spacing_mm)


def test_decathlon_head_is_up_and_front_is_first_row(tmp_path: Path) -> None:
    affine = affine_of(tmp_path, make_scan())
    expected = [[0, 0, -1.25, 3.125], [0, -1.5, 0, 2.25], [3, 0, 0, -6], [0, 0, 0, 1]]
    np.testing.assert_allclose(affine, expected, atol=1e-6)


def test_decathlon_tilt_turns_about_the_center(tmp_path: Path) -> None:
    affine = affine_of(tmp_path, make_scan(tilt_rad=(np.pi / 2, 0.0)))
    np.testing.assert_allclose(affine @ [2, 1.5, 2.5, 1], [0, 0, 0, 1], atol=1e-5)
    # A quarter turn about the left-right axis takes the head to the back and the back to the feet.
    expected = [[0, 0, -1.25], [-3, 0, 0], [0, -1.5, 0]]
    np.testing.assert_allclose(affine[:3, :3], expected, atol=1e-5)


def test_folder_pairs_the_slices_that_hold_a_label(tmp_path: Path) -> None:
    scan = make_scan()
    write_folder(tmp_path, [scan])
    names = [f"case7_day3_000{number}.png" for number in (2, 3, 4)]
    assert sorted(tree(tmp_path)) == [f"{kind}/{name}" for kind in ("images", "masks") for name in names]
    for index, name in enumerate(names, start=1):
        np.testing.assert_array_equal(read_mask(tmp_path / "masks" / name), scan.label_map[index])


def test_folder_pictures_keep_the_order_of_intensities(tmp_path: Path) -> None:
    write_folder(tmp_path, [make_scan()])
    pictures = [read_image(file).ravel() for file in sorted((tmp_path / "images").iterdir())]
    values = np.concatenate(pictures)
    assert values.dtype == np.uint8
    assert (np.diff(values.astype(int)) >= 0).all()


def test_a_folder_of_black_slices_is_black(tmp_path: Path) -> None:
    scan = make_scan()
    write_folder(tmp_path, [scan._replace(image=np.zeros_like(scan.image))])
    assert not any(read_image(file).any() for file in (tmp_path / "images").iterdir())
