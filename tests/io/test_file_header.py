"""What a file is by its content and says in its header."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg_pl.io.file_header import FileHeader, detect_format, is_cut_off, read_header
from tests.dicom_files import save_series
from tests.end_to_end.defects import png
from tests.sample_files import noise, save_raster, save_volume

GRAY = noise((40, 30))
COLOR = noise((40, 30, 3))


def with_alpha(alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([COLOR, alpha.astype(np.uint8)[..., None]], axis=-1)


def test_gray_png(tmp_path: Path) -> None:
    header = read_header(save_raster(tmp_path / "a.png", GRAY))
    assert header == FileHeader("PNG", claimed_bytes=1200, size=(40, 30))


def test_jpeg_changes_values(tmp_path: Path) -> None:
    header = read_header(save_raster(tmp_path / "a.jpg", COLOR))
    assert (header.content, header.lossy, header.colored) == ("JPEG", True, True)


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png", format="JPEG")
    assert read_header(tmp_path / "a.png").lossy


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(GRAY).convert("P")
    image.putpalette([3, 2, 1] * 256)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.tif")
    assert [read_header(tmp_path / name).palette for name in ("a.png", "a.tif")] == [True, True]
    assert not read_header(tmp_path / "a.png").colored


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha(tmp_path: Path, suffix: str) -> None:
    opaque, varying = tmp_path / f"opaque.{suffix}", tmp_path / f"varying.{suffix}"
    alpha = np.full(GRAY.shape, 255)
    for path in (opaque, varying):
        pixels = with_alpha(alpha)
        if suffix == "png":
            Image.fromarray(pixels).save(path)
        else:
            tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
        alpha[3, 4] = 0
    assert [read_header(path).alpha for path in (opaque, varying)] == ["opaque", "varying"]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_orientation(tmp_path: Path, name: str) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, GRAY, extratags=[(0x0112, 3, 1, 6, True)], photometric="minisblack")
    else:
        Image.fromarray(GRAY).save(path, exif=tags)
    header = read_header(path)
    assert (header.orientation, header.size) == (6, (40, 30))


def test_pages_of_several_sizes_that_are_no_copies_make_no_volume(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "stack.tif") as tiff:
        tiff.write(GRAY, photometric="minisblack")
        tiff.write(GRAY[:9], photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write(GRAY, photometric="minisblack")
        tiff.write(GRAY[::2, ::2], photometric="minisblack", subfiletype=1)
    assert read_header(tmp_path / "stack.tif").stacked
    assert not read_header(tmp_path / "pyramid.tif").stacked


def test_a_tiff_that_is_cut_off(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack")
    assert not read_header(tmp_path / "a.tif").cut_off
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:-100])
    assert read_header(tmp_path / "a.tif").cut_off


def test_a_volume(tmp_path: Path) -> None:
    header = read_header(save_volume(tmp_path / "a.nii", noise((5, 6, 7), dtype=np.int16)))
    assert (header.content, header.claimed_bytes, header.scaled) == ("NIfTI", 420, False)
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<ff", raw, 112, 2.0, 0.0)
    (tmp_path / "a.nii").write_bytes(raw)
    assert read_header(tmp_path / "a.nii").scaled


def test_a_volume_that_is_cut_off(tmp_path: Path) -> None:
    path = save_volume(tmp_path / "a.nii", noise((5, 6, 7), dtype=np.int16))
    assert not read_header(path).cut_off
    path.write_bytes(path.read_bytes()[:-1])
    assert read_header(path).cut_off


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (25000, 25000)])
def test_a_picture_that_claims_too_much(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(*size, zlib.compress(bytes(10))))
    assert read_header(path).too_large


def test_a_compressed_volume_that_cannot_hold_what_it_claims(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header.set_data_shape((500, 500, 500))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4)))
    assert read_header(path).too_large


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii", "a.nii.gz", "a.jpg"])
@pytest.mark.parametrize(
    "content", [b"", b"II*\x00", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b"\x5c\x01\x00\x00", b"no"]
)
def test_damage_is_left_to_the_reader(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    header = read_header(path)
    assert (header.claimed_bytes, header.too_large, header.size) == (0, False, None)


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
    assert {name: detect_format(path) for name, path in files.items()} == {name: name for name in files}


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
