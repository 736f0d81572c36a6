"""What a file is, whatever its name."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg_pl.io.file_type import content_of, is_cut_off
from tests.dicom_files import save_series
from tests.sample_files import noise

PIXELS = noise((40, 30))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file of each format, under a name that says nothing."""
    volume = nibabel.Nifti1Image(noise((9, 8, 7)), np.eye(4))
    written = {}
    for name in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WebP"):
        written[name] = tmp_path / name
        Image.fromarray(PIXELS).save(written[name], format=name)
    contents = {
        "NIfTI": volume.to_bytes(),
        "gzip": gzip.compress(volume.to_bytes()),
        "text": b"case_id,group,image\n",
        "nothing": b"",
        "unknown": bytes(range(200, 256)),
        "ZIP": b"PK\x03\x04rest",
    }
    for name, content in contents.items():
        written[name] = tmp_path / name
        written[name].write_bytes(content)
    written["DICOM"] = save_series(tmp_path / "dicom", noise((1, 8, 9), dtype=np.int16))[0]
    return written


def test_content_is_known_without_the_name(files: dict[str, Path]) -> None:
    assert {name: content_of(path) for name, path in files.items()} == {name: name for name in files}


@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "gzip"])
def test_a_missing_end_is_seen(files: dict[str, Path], name: str) -> None:
    path = files[name]
    whole = path.read_bytes()
    assert not is_cut_off(path)
    for kept in (len(whole) - 1, len(whole) // 2, 30):
        path.write_bytes(whole[:kept])
        assert is_cut_off(path), kept


@pytest.mark.parametrize("name", ["PNG", "JPEG", "gzip"])
def test_damage_in_the_middle_is_no_missing_end(files: dict[str, Path], name: str) -> None:
    path = files[name]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    assert not is_cut_off(path)


def test_what_follows_the_end_is_no_matter(files: dict[str, Path]) -> None:
    for name in ("PNG", "JPEG"):
        with files[name].open("ab") as file:
            file.write(bytes(100))
        assert not is_cut_off(files[name])


def test_a_png_of_chunks_that_lead_nowhere_ends(files: dict[str, Path]) -> None:
    path = files["PNG"]
    path.write_bytes(path.read_bytes()[:8] + b"\xff\xff\xff\xffIDAT" + bytes(50))
    assert is_cut_off(path)


def test_formats_without_a_known_end(files: dict[str, Path]) -> None:
    assert not is_cut_off(files["text"])
    assert not is_cut_off(files["nothing"])
