"""GIF, WebP and JPEG 2000 pictures, written by Pillow and imagecodecs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io import raster
from medseg_pl.io.file_header import is_lossy, read_header

SHAPE = (23, 31)
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, SHAPE).astype(np.uint8)
DEEP = RNG.integers(0, 65536, SHAPE).astype(np.uint16)
RGB = RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)


MARKED = np.zeros((12, 14), np.uint8)
MARKED[4:8, 3:9] = 255
"""24 pixels of lesion."""


class TestMorePictures:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.jp2", {}), ("a.j2k", {"irreversible": False})],
    )
    @pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
    def test_lossless_pictures_keep_their_values(
        self, tmp_path: Path, name: str, options: dict[str, Any], pixels: np.ndarray
    ) -> None:
        if name == "a.gif" and pixels.ndim == 3:
            pixels = np.array([[9, 8, 7], [200, 100, 50]], np.uint8)[GRAY % 2]  # a GIF has 256 colors
        Image.fromarray(pixels).save(tmp_path / name, **options)
        image = raster.read_image(tmp_path / name)
        expected = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))
        assert image.dtype == np.uint8
        assert raster.read_image_size(tmp_path / name) == pixels.shape[:2]

    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3), (*SHAPE, 4)])
    @pytest.mark.parametrize("dtype", [np.uint16, np.int16])
    def test_deep_jpeg_2000_keeps_its_depth(self, tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
        pixels = np.random.default_rng(5).integers(0, 30000, shape).astype(dtype)
        (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="jp2"))
        image = raster.read_image(tmp_path / "a.jp2")
        expected = pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1)
        np.testing.assert_array_equal(image, expected)
        assert image.dtype == dtype

    @pytest.mark.parametrize(("name", "options"), [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.jp2", {})])
    def test_masks_of_0_and_255(self, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
        Image.fromarray(MARKED).save(tmp_path / name, **options)
        mask = raster.read_mask(tmp_path / name)
        np.testing.assert_array_equal(mask > 0, MARKED > 0)
        assert mask.max() in (1, 255)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_rotation_of_a_webp_is_applied(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True, exif=exif)
        with Image.open(tmp_path / "a.webp") as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.webp"), expected.transpose(2, 0, 1))

    @pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
    def test_several_frames_are_refused(self, tmp_path: Path, name: str) -> None:
        Image.fromarray(MARKED).save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - MARKED)])
        for read in (raster.read_image, raster.read_mask, raster.read_image_size):
            with pytest.raises(UnreadableFileError, match=rf"{name} holds 2 frames; expected one image"):
                read(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.jp2"])
    def test_damage_is_named(self, tmp_path: Path, name: str) -> None:
        Image.fromarray(RGB).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for length in (10, 40, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(UnreadableFileError, match=name):
                raster.read_image(tmp_path / name)

    def test_a_codestream_that_claims_too_much(self, tmp_path: Path) -> None:
        data = bytearray(imagecodecs.jpeg2k_encode(DEEP, level=0, reversible=True, codecformat="j2k"))
        data[8:16] = b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
        (tmp_path / "a.j2k").write_bytes(data)
        with pytest.raises(UnreadableFileError, match=r"a\.j2k"):
            raster.read_image(tmp_path / "a.j2k")


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("a.webp", {"lossless": True}, False),
        ("a.webp", {"lossless": False}, True),
        ("a.jp2", {"irreversible": False}, False),
        ("a.jp2", {"irreversible": True}, True),
        ("a.gif", {}, False),
        ("a.png", {}, False),
        ("a.jpg", {}, True),
    ],
)
def test_lossy_pictures_are_known(tmp_path: Path, name: str, options: dict[str, Any], lossy: bool) -> None:
    Image.fromarray(RGB).save(tmp_path / name, **options)
    assert is_lossy(tmp_path / name) == lossy
    assert read_header(tmp_path / name).size == SHAPE
