"""What a file is, from its header: kinds, references, and files that are no DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.io.dicom.headers import get_items, get_text, is_dicom, read_dataset, read_entry, require_element
from tests.dicom_files import (
    SECRET,
    SPACING,
    read_series,
    remove_preamble,
    save_segmentation,
    save_series,
    save_structures,
    uid_of,
)

STORED = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_an_image_is_known_by_its_series_and_its_space(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED)
    entry = read_entry(path)
    assert entry is not None
    assert entry[:6] == (path, "image", uid_of("series"), (uid_of("space"),), (), "")


@pytest.mark.parametrize(
    "kind", [uid.MRImageStorage, uid.EnhancedMRImageStorage, uid.PositronEmissionTomographyImageStorage]
)
def test_mr_and_pet_are_images_too(tmp_path: Path, kind: str) -> None:
    (path, _) = save_series(tmp_path, STORED, SOPClassUID=kind)
    entry = read_entry(path)
    assert entry is not None and entry.kind == "image"


@pytest.mark.parametrize(
    "kind", [uid.SecondaryCaptureImageStorage, uid.RTDoseStorage, uid.MediaStorageDirectoryStorage]
)
def test_other_files_are_neither_image_nor_reference(tmp_path: Path, kind: str) -> None:
    (path, _) = save_series(tmp_path, STORED, SOPClassUID=kind)
    entry = read_entry(path)
    assert entry is not None and entry.kind == "other"


def test_references_name_their_series(tmp_path: Path) -> None:
    images = save_series(tmp_path / "ct", STORED)
    masks = np.zeros((*STORED.shape, 1), np.uint8)
    masks[0, 0, 0] = 1
    for kind in ("BINARY", "LABELMAP"):
        entry = read_entry(save_segmentation(tmp_path / f"{kind}.dcm", images, masks, ["liver"], kind))
        assert entry is not None
        assert (entry.kind, entry.refers_to) == ("segmentation", (uid_of("series"),))
    entry = read_entry(save_structures(tmp_path / "rt.dcm", "series", {"liver": [np.zeros((3, 3))]}))
    assert entry is not None
    assert entry[1:6] == (
        "structures",
        uid_of("rt.dcm", "series"),
        (uid_of("space"),),
        (uid_of("series"),),
        "",
    )


def test_the_patient_is_read_only_when_asked_for(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED)
    assert SECRET not in repr(read_entry(path)).replace(str(tmp_path), "")
    entry = read_entry(path, patient=True)
    assert entry is not None and entry.patient_id == f"{SECRET}-ID"


def test_no_suffix_is_needed_and_other_files_are_passed_over(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED, names=["IM0001", "1.2.840.99"])
    assert read_entry(path) is not None
    for name, content in (("README.txt", b"text"), ("empty", b""), ("scan.nii", bytes(400))):
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)
        assert read_entry(tmp_path / name) is None


@pytest.mark.parametrize("content", [b"", b"text", bytes(132)])
def test_a_name_that_promises_dicom_must_keep_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    for read in (read_entry, read_dataset):
        with pytest.raises(UnreadableFileError) as error:
            read(path)
        assert str(error.value) == (
            f"{path} ({len(content)} bytes) is no DICOM file: expected 'DICM' behind the first 128 bytes. Replace it "
            "with an intact copy, convert it (dcmconv of DCMTK adds what old files lack), or move it away."
        )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.dcm does not exist\."):
        read_dataset(tmp_path / "none.dcm")


def test_a_deflated_file_is_not_inflated(tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("image_dfl.dcm", download=False)))
    with pytest.raises(UnreadableFileError, match=r"image_dfl\.dcm is deflated as a whole, so its size is unknown"):
        read_dataset(path)


def test_pixels_are_read_only_when_asked_for(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED)
    assert "PixelData" not in read_dataset(path)
    assert read_dataset(path, pixels=True).PixelData == dcmread(path).PixelData


def test_values_that_break_a_rule_of_the_standard_are_read_without_a_warning(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED)
    path.write_bytes(path.read_bytes().replace(uid_of("series").encode(), uid_of("series")[:-2].encode() + b"x."))
    assert get_text(read_dataset(path), "SeriesInstanceUID").endswith("x.")


def test_what_is_required_is_named(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.Rows = None
    for keyword in ("Rows", "Columns"):
        with pytest.raises(UnreadableFileError) as error:
            require_element(dataset, keyword, tmp_path / "a.dcm")
        assert str(error.value) == (
            f"{tmp_path / 'a.dcm'} has no {keyword}, without which it cannot be read. Export it again as a whole."
        )
    assert get_items(dataset, "ROIContourSequence") == []


@pytest.mark.parametrize("explicit", [True, False])
def test_a_file_without_preamble_is_read(tmp_path: Path, explicit: bool) -> None:
    first, second = save_series(tmp_path, STORED, names=["a", "b"])
    remove_preamble(first, explicit=explicit)
    assert first.read_bytes()[128:132] != b"DICM"
    entry = read_entry(first)
    assert entry is not None
    assert (entry.kind, entry.series) == ("image", uid_of("series"))
    image, geometry = read_series([first, second])
    np.testing.assert_array_equal(image[0], STORED - 1024)
    assert geometry.spacing_mm == SPACING


@pytest.mark.parametrize(
    "content", [b"\x08\x00", b"\x08\x00\x05\x00CS\xff\xff" + bytes(200), b"\x02\x00\x99\x00" + bytes(200)]
)
def test_bytes_that_begin_alike_are_no_dicom(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert not is_dicom(tmp_path / "a")
    assert read_entry(tmp_path / "a") is None
