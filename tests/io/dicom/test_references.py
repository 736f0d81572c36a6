"""Structures of SEG and RTSTRUCT files by number and name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.dicom.references import read_masks, read_structures
from medseg_pl.io.dicom.series import open_series
from medseg_pl.io.regions import Structure, match_structures
from tests.dicom_files import ORIGIN, save_projection, save_segmentation, save_series, save_structures

STORED = np.zeros((2, 4, 6), np.int16)


def test_both_formats_draw_the_same_box(tmp_path: Path) -> None:
    """Rows 1 … 2 and columns 2 … 4 of the first slice: 0.75 mm to a row, 0.5 mm to a column."""
    images = save_series(tmp_path / "ct", STORED)
    drawn = np.zeros((*STORED.shape, 1), np.uint8)
    drawn[0, 1:3, 2:5] = 1
    corners = np.add(ORIGIN, [[0.75, 0.375, 0], [2.25, 0.375, 0], [2.25, 1.875, 0], [0.75, 1.875, 0]])
    for path in (
        save_segmentation(tmp_path / "seg.dcm", images, drawn, ["liver"]),
        save_structures(tmp_path / "rt.dcm", "series", {"liver": [corners]}),
    ):
        assert read_structures(path) == [(1, "liver")]
        (mask,) = read_masks(path, [[1]], open_series(images))
        np.testing.assert_array_equal(mask, drawn[..., 0].astype(bool))


def test_an_image_is_no_reference(tmp_path: Path) -> None:
    images = save_series(tmp_path / "ct", STORED)
    with pytest.raises(UnreadableFileError) as error:
        read_structures(images[0])
    assert str(error.value) == f"{images[0]} is neither a DICOM SEG nor an RTSTRUCT. Move it away."


HELD = [Structure(1, "Liver"), Structure(2, "left kidney"), Structure(3, "LEFT_KIDNEY"), Structure(7, "2")]


@pytest.mark.parametrize("key", ["Liver", "liver", "LIVER", " liver "])
def test_case_and_padding_do_not_matter(key: str) -> None:
    assert match_structures(HELD, [key]) == [1]


@pytest.mark.parametrize("key", ["Left Kidney", "left_kidney", "left  kidney", "left _ kidney"])
def test_spaces_and_underscores_are_the_same(key: str) -> None:
    assert match_structures(HELD, [key]) == [2, 3]


def test_a_number_is_the_files_own_and_not_a_name() -> None:
    assert match_structures(HELD, [2]) == [2]
    assert match_structures(HELD, ["2"]) == [7]


def test_several_keys_are_united_in_the_order_of_the_file() -> None:
    assert match_structures(HELD, [7, "liver", 1]) == [1, 7]


@pytest.mark.parametrize("key", ["live", "liver 1", "kidney", "left-kidney", "", 9])
def test_nothing_else_is_meant(key: str | int) -> None:
    assert match_structures(HELD, [key]) == []


@pytest.mark.parametrize("kept", [0, 1])
def test_frames_of_which_nothing_is_said_are_refused(tmp_path: Path, kept: int) -> None:
    image = dcmread(save_projection(tmp_path / "image" / "dx.dcm", np.zeros((4, 5), np.uint16)))
    mask = np.zeros((1, 4, 5, 2), np.uint8)
    mask[0, 1, 1, 0] = mask[0, 2, 2, 1] = 1
    scan = save_series(tmp_path / "scan", np.zeros((1, 4, 5), np.int16))
    path = save_segmentation(tmp_path / "seg.dcm", scan, mask, ["liver", "spleen"])
    segmentation = dcmread(path)
    del segmentation.FrameOfReferenceUID
    segmentation.PerFrameFunctionalGroupsSequence = segmentation.PerFrameFunctionalGroupsSequence[:kept]
    segmentation.save_as(path)
    series = open_series([Path(image.filename)])
    with pytest.raises(UnreadableFileError, match=rf"has 2 frames, and says of {kept} what they show"):
        read_masks(path, [[1], [2]], series)
