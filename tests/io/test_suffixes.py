"""The table of formats by suffix."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.io import suffixes


@pytest.mark.parametrize("name", ["a.png", "a.TIF", "a.tiff", "a.JPG", "a.jpeg", "a.bmp", "a.gif", "a.WebP", "a.jp2"])
def test_pictures(name: str) -> None:
    assert suffixes.is_picture(Path(name))
    assert not suffixes.is_volume_name(Path(name))


@pytest.mark.parametrize("name", ["a.nii", "a.NII.GZ", "a.b.nii", "a.mha", "a.MHD", "a.nrrd", "a.nhdr", "a.seg.nrrd"])
def test_volumes(name: str) -> None:
    assert suffixes.is_volume_name(Path(name))
    assert suffixes.is_nifti(Path(name)) != suffixes.is_itk(Path(name))


@pytest.mark.parametrize("name", ["a.gz", "nii", "png", "a.png.gz", "a.raw", "a.dcm", "a.npy", "IM0001"])
def test_other_names_promise_no_image(name: str) -> None:
    assert suffixes.find_suffix(Path(name)) == ""


def test_stems() -> None:
    names = ("x/case.1.nii.gz", "case.1.nii", "CASE.NII.GZ", "case.1.png", "case.1.mha", "case.1.txt")
    assert [suffixes.stem(Path(name)) for name in names] == ["case.1", "case.1", "CASE", *["case.1"] * 3]


def test_promised_formats() -> None:
    names = ("a.TIF", "a.bmp", "a.nii", "a.nii.gz", "a.dcm", "a.mhd", "a.j2k", "IM0001")
    expected = ["TIFF", "BMP", "NIfTI", "gzip", "DICOM", "MetaImage", "JPEG 2000", None]
    assert [suffixes.promised_format(Path(name)) for name in names] == expected
