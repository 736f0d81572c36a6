"""One patient stored in any orientation gives the same slices, and what is written lies where it belongs."""

from __future__ import annotations

import gzip
import struct
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medseg_pl.checks.inspection import inspect_case
from medseg_pl.cli.mask_pairs import pair_folders, read_pair
from medseg_pl.core.errors import GeometryError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FolderSource
from tests.checks.samples import codes
from tests.sample_files import noise

KIDNEYS = LabelMap(["right", "left"], "multiclass")
CODES = ["".join(c) for axes in permutations(["RL", "AP", "SI"]) for c in product(*axes)]
AFFINE = np.array([[1.0, 0, 0, -20], [0, 1.5, 0, 7], [0, 0, 3, 11], [0, 0, 0, 1]])


def save(path: Path, voxels: Any, code: str = "RAS") -> Path:
    """Save voxels that run to the right, the front and the head with axes of another orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    nibabel.save(image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(tuple(code)))), path)
    return path


def patient() -> np.ndarray:
    """Kidneys, of which the right one has the value 1 and lies in the right half."""
    mask = np.zeros((10, 8, 6), np.uint8)
    mask[7:9, 2:4], mask[1:3, 2:5] = 1, 2
    return mask


def unplace(path: Path) -> Path:
    """Set the codes of sform and qform to 0, which nibabel would repair."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<hh", content, 252, 0, 0)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_there_are_48() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("slicing", ["axial", "coronal", "sagittal"])
def test_slices_are_those_that_radiologists_see(tmp_path: Path, slicing: Slicing) -> None:
    image, mask = noise((10, 8, 6)), patient()
    for code in CODES:
        save(tmp_path / f"images/{code}.nii.gz", image, code)
        save(tmp_path / f"masks/{code}.nii.gz", mask, code)
    source = FolderSource(str(tmp_path), slicing=slicing)
    axes = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[slicing]
    runs = {"axial": (1, -1, -1), "coronal": (-1, -1, -1), "sagittal": (1, -1, -1)}[slicing]
    expected = image.transpose(axes)[tuple(slice(None, None, run) for run in runs)]
    for case in source.cases():
        volume = source.read(case, KIDNEYS)
        np.testing.assert_array_equal(volume.image[0], expected, case.case_id)
        assert volume.mask is not None
        if slicing == "axial":
            row, column = np.argwhere(volume.mask[0, 3] == 1).mean(axis=0)
            assert (row, column) == (4.5, 1.5)  # the patient's right is on the viewer's left, the front above
        source.write(tmp_path / "out", case, volume.mask, KIDNEYS)
        written, stored = (nibabel.load(tmp_path / d / f"{case.case_id}.nii.gz") for d in ("out", "masks"))
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(stored.dataobj))
        np.testing.assert_array_equal(written.affine, stored.affine)


@pytest.mark.parametrize("code", ["LPS", "PIR", "SAR"])
def test_masks_and_channels_of_another_orientation_are_turned(tmp_path: Path, code: str) -> None:
    images = (save(tmp_path / "t1.nii.gz", noise((10, 8, 6))), save(tmp_path / "t2.nii.gz", noise((10, 8, 6), 1), code))
    case = Case("p1", "p1", images, (save(tmp_path / "mask.nii.gz", patient(), code),))
    source = FolderSource(str(tmp_path))
    volume = source.read(case, KIDNEYS)
    np.testing.assert_array_equal(volume.image, [noise((10, 8, 6)).T, noise((10, 8, 6), 1).T])
    assert volume.mask is not None
    np.testing.assert_array_equal(volume.mask[0], patient().T)
    facts = inspect_case(source, case, labels=KIDNEYS, root=tmp_path)
    assert codes(facts.findings) == ["axes-turned", "axes-turned"]


def test_a_mask_without_a_place_is_not_believed(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz", noise((10, 8, 6)))
    mask = unplace(save(tmp_path / "mask.nii.gz", patient()))
    case, source = Case("p1", "p1", (image,), (mask,)), FolderSource(str(tmp_path))
    with pytest.raises(
        GeometryError, match=r"Case p1: .*mask\.nii\.gz does not say where it lies .*image\.nii\.gz does"
    ):
        source.read(case, KIDNEYS)
    channels = Case("p1", "p1", (image, unplace(save(tmp_path / "t2.nii.gz", noise((10, 8, 6))))))
    with pytest.raises(GeometryError, match=r"t2\.nii\.gz does not say where it lies"):
        source.read(channels, KIDNEYS)
    # Where the image has no place either, there is nothing that the mask could contradict.
    both = Case("p1", "p1", (unplace(image),), (mask,))
    np.testing.assert_array_equal(source.read(both, KIDNEYS).mask, patient().T[None])


def test_predictions_are_brought_to_their_references(tmp_path: Path) -> None:
    for code in ("RAS", "LPS", "IPL"):
        save(tmp_path / f"reference/{code}.nii.gz", patient())
        save(tmp_path / f"prediction/{code}.nii.gz", patient(), code)
    pairs, _ = pair_folders(tmp_path / "reference", tmp_path / "prediction")
    for pair in pairs:
        found = read_pair(pair, KIDNEYS, "p1")
        np.testing.assert_array_equal(found.mask, found.reference)
    unplace(tmp_path / "prediction/LPS.nii.gz")
    with pytest.raises(GeometryError, match=r"LPS\.nii\.gz does not say where it lies .* the reference"):
        read_pair(next(pair for pair in pairs if pair.case_id == "LPS"), KIDNEYS, "p1")
