"""Which fault keeps a file from being read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from medseg_pl.checks.file_checks import (
    FaultError,
    check_extension,
    check_links,
    diagnose,
    read_or_diagnose,
)
from medseg_pl.checks.findings import Finding
from medseg_pl.core.errors import DataError
from medseg_pl.data.sources.base import strip_remedy
from medseg_pl.io.file_header import FileHeader, read_header
from tests.checks.samples import PNG, codes
from tests.sample_files import noise, save_raster


def fault(path: Path, header: FileHeader, error: Exception | None = None, memory_bytes: int | None = None) -> Finding:
    def read() -> None:
        if error is not None:
            raise error

    with pytest.raises(FaultError) as raised:
        read_or_diagnose(path, header, "a", read, memory_bytes)
    return raised.value.finding


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_raster(tmp_path / "a.png", noise((9, 8)))


def test_what_can_be_read_is_returned(image: Path) -> None:
    assert read_or_diagnose(image, read_header(image), "a", lambda: 7) == 7


def test_nothing_is_decoded_that_would_fill_the_memory(image: Path) -> None:
    found = fault(image, FileHeader("PNG", claimed_bytes=1001), memory_bytes=1000)
    assert found.code == "decompression-bomb"
    assert found.message.endswith("claims 1,001 bytes once decoded.")
    assert fault(image, FileHeader("PNG", too_large=True)).message.endswith("claims too many pixels once decoded.")
    assert fault(image, PNG, MemoryError()).code == "decompression-bomb"


@pytest.mark.parametrize(
    "error", [DataError("No. Try again."), struct.error("no"), ZeroDivisionError(), TypeError("no")]
)
def test_whatever_a_decoder_raises_is_a_finding(image: Path, error: Exception) -> None:
    assert fault(image, PNG, error).code == "unreadable-file"


def test_our_own_mistakes_are_not_hidden(image: Path) -> None:
    with pytest.raises(AssertionError):
        fault(image, PNG, AssertionError())


def test_pages_and_missing_ends_that_headers_tell(image: Path) -> None:
    assert fault(image, FileHeader("TIFF", stacked=True)).code == "multi-page-tiff"
    assert fault(image, FileHeader("TIFF", cut_off=True)).code == "truncated-file"
    assert fault(image, FileHeader("nothing")).code == "empty-file"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.png", b"<html>no</html>", "foreign-content"),
        ("a.nii.gz", b"<html>no</html>", "foreign-content"),
        ("a.nii", b"\x1f\x8b\x08 gzip", "foreign-content"),
        ("a.tif", b"\x89PNG\r\n\x1a\n", "foreign-content"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "truncated-png"),
        ("a.png", b"\xff\xd8\xff and no end", "truncated-jpeg"),
        ("a.jpg", b"\xff\xd8\xff and an end \xff\xd9", "unreadable-file"),
        ("a.bmp", b"BM\xff\xff\x00\x00", "truncated-file"),
        ("a.png", b"", "empty-file"),
        ("a.png", bytes(range(200, 256)), "unreadable-file"),
    ],
)
def test_diagnosis(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert diagnose(path, "a", DataError("It cannot be read. Replace it.")).code == code


def test_another_format_that_can_be_read(tmp_path: Path) -> None:
    Image.fromarray(noise((9, 8))).save(tmp_path / "a.png", format="BMP")
    path = tmp_path / "a.png"
    (found,) = check_extension(path, read_header(path), "a")
    assert (found.code, found.message) == ("wrong-extension", "The name says PNG, the content is BMP.")
    assert codes(check_extension(save_raster(tmp_path / "b.png", noise((9, 8))), PNG, "b")) == []


def test_links(tmp_path: Path, image: Path) -> None:
    root = tmp_path / "data"
    save_raster(root / "inside.png", noise((9, 8)))
    (root / "a.png").symlink_to(image)
    (root / "b.png").symlink_to("inside.png")
    assert codes(check_links(root / "a.png", root, "a")) == ["link-outside"]
    assert codes(check_links(root / "b.png", root, "b")) == []
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/c.png").symlink_to(image)
    (root / "p1").symlink_to(tmp_path / "disk")
    assert codes(check_links(root / "p1/c.png", root, "c")) == ["link-outside"]
    (tmp_path / "mirror").symlink_to(root)  # the data set itself may be reached by a link
    assert codes(check_links(tmp_path / "mirror" / "b.png", tmp_path / "mirror", "b")) == []


def test_advice_is_left_to_the_finding() -> None:
    assert strip_remedy("It is so. It is worse. Do this.") == "It is so. It is worse."
    assert strip_remedy("It is so.") == "It is so."
