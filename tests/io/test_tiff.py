"""TIFF pictures and what their tags say."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from medseg_pl.core.errors import MaskValueError, UnreadableFileError
from medseg_pl.io import raster, size_limits, tiff
from medseg_pl.io.file_header import read_header

GRAY = np.random.default_rng(0).integers(0, 256, (5, 9)).astype(np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (5, 9)).astype(np.uint16)
RGB = np.random.default_rng(2).integers(0, 256, (5, 9, 3)).astype(np.uint8)
INDEX = np.random.default_rng(3).choice([0, 2], (5, 9)).astype(np.uint8)

ORIENTATION = 274


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """`(H, W)` as Pillow turns a photograph that is noted to lie so."""
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def lying(path: Path, pixels: np.ndarray, orientation: int, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, extratags=[(ORIENTATION, "H", 1, orientation, True)], metadata=None, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
class TestOrientation:
    @pytest.mark.parametrize("pixels", [GRAY, DEEP], ids=["8 bit", "16 bit"])
    def test_gray(self, tmp_path: Path, orientation: int, pixels: np.ndarray) -> None:
        path = lying(tmp_path / "a.tif", pixels, orientation)
        expected = turned(pixels, orientation)
        np.testing.assert_array_equal(raster.read_image(path)[0], expected)
        np.testing.assert_array_equal(raster.read_mask(path), expected)
        assert raster.read_image_size(path) == expected.shape

    @pytest.mark.parametrize("planes", ["contig", "separate"])
    def test_color(self, tmp_path: Path, orientation: int, planes: str) -> None:
        stored = RGB if planes == "contig" else RGB.transpose(2, 0, 1)
        path = lying(tmp_path / "a.tif", stored, orientation, photometric="rgb", planarconfig=planes)
        for channel, plane in enumerate(raster.read_image(path)):
            np.testing.assert_array_equal(plane, turned(RGB[..., channel], orientation))

    @pytest.mark.parametrize("compression", [None, "group4"])
    def test_one_bit(self, tmp_path: Path, orientation: int, compression: str | None) -> None:
        Image.fromarray(INDEX > 0).save(
            tmp_path / "a.tif", tiffinfo={ORIENTATION: orientation}, compression=compression
        )
        expected = turned(INDEX // 2, orientation)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), expected)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], expected * 255)
        assert raster.read_image_size(tmp_path / "a.tif") == expected.shape

    def test_under_another_name(self, tmp_path: Path, orientation: int) -> None:
        path = lying(tmp_path / "a.tif", DEEP, orientation).rename(tmp_path / "a.png")
        assert raster.read_image_size(path) == raster.read_mask(path).shape == turned(DEEP, orientation).shape
        np.testing.assert_array_equal(raster.read_mask(path), turned(DEEP, orientation))


class TestPalettes:
    @pytest.mark.parametrize("scale", [257, 256, 1], ids=["16 bit", "rounded down", "8 bit"])
    def test_an_image_is_seen_through_its_palette_and_a_mask_is_not(self, tmp_path: Path, scale: int) -> None:
        palette = np.random.default_rng(4).integers(0, 256, (3, 256))
        tifffile.imwrite(tmp_path / "a.tif", INDEX, photometric="palette", colormap=(palette * scale).astype(np.uint16))
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), palette[:, INDEX])
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), INDEX)

    def test_a_palette_of_grays_gives_one_channel(self, tmp_path: Path) -> None:
        grays = np.tile(np.arange(255, -1, -1), (3, 1))
        tifffile.imwrite(tmp_path / "a.tif", INDEX, photometric="palette", colormap=(grays * 257).astype(np.uint16))
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), 255 - INDEX[None])

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_palette_and_orientation(self, tmp_path: Path, orientation: int) -> None:
        image = Image.fromarray(INDEX)
        image.putpalette([9, 8, 7, 0, 0, 0, 200, 100, 50])
        image.save(tmp_path / "a.tif", tiffinfo={ORIENTATION: orientation})
        expected = turned(INDEX, orientation)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), expected)
        red = np.array([9, 0, 200], np.uint8)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], red[expected])


class TestPages:
    @pytest.mark.parametrize("read", [raster.read_image, raster.read_mask, raster.read_image_size])
    def test_several_pages_are_no_picture(self, tmp_path: Path, read: Any) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.stack([GRAY, GRAY, GRAY]), photometric="minisblack")
        with pytest.raises(UnreadableFileError, match=r"a\.tif holds several pages; expected one image"):
            read(tmp_path / "a.tif")

    def test_a_stack_that_imagej_describes_in_one_page_is_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", GRAY, metadata=None, description="ImageJ=1.53\nimages=40\nslices=40\n")
        with pytest.raises(UnreadableFileError, match="holds several pages"):
            raster.read_image(tmp_path / "a.tif")

    @pytest.mark.parametrize("kind", [1, 4], ids=["thumbnail", "transparency"])
    def test_small_copies_and_transparency_are_left_alone(self, tmp_path: Path, kind: int) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(DEEP)
            file.write(GRAY[:2, :3], subfiletype=1)
        replaced(tmp_path / "a.tif", {"NewSubfileType": kind}, page=1)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], DEEP)

    def test_pages_in_a_circle_end(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif", byteorder="<") as file:
            file.write(GRAY, subfiletype=1, metadata=None)
            file.write(GRAY, subfiletype=1, metadata=None)
        whole = bytearray((tmp_path / "a.tif").read_bytes())
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            first, second = (page.offset for page in file.pages)
            tags = len(file.pages[1].tags)  # type: ignore[union-attr]
        struct.pack_into("<I", whole, second + 2 + 12 * tags, first)
        (tmp_path / "a.tif").write_bytes(whole)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], GRAY)


class TestPrintColors:
    def test_an_image_is_seen_in_its_colors(self, tmp_path: Path) -> None:
        image = Image.fromarray(RGB).convert("CMYK")
        image.save(tmp_path / "a.tif")
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), RGB.transpose(2, 0, 1))
        assert raster.read_image_size(tmp_path / "a.tif") == (5, 9)

    def test_its_black_is_not_taken_for_transparency(self, tmp_path: Path) -> None:
        plates = np.zeros((4, 5, 9), np.uint8)
        plates[3] = np.where(INDEX, 255, 0)
        Image.merge("CMYK", [Image.fromarray(plate) for plate in plates]).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), np.where(INDEX, 0, 255))


class TestBombs:
    def test_a_tile_larger_than_any_image_is_not_decoded(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((32, 32), np.uint8), tile=(16, 16))
        replaced(tmp_path / "a.tif", {"TileWidth": 1 << 15, "TileLength": 1 << 15})
        with pytest.raises(UnreadableFileError, match="claims more than 400,000,000 pixels and is not decoded"):
            raster.read_image(tmp_path / "a.tif")

    def test_depth_and_channels_count_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 9, 4), np.float64), photometric="rgb")
        monkeypatch.setattr(size_limits, "MAX_PIXELS", 45)
        with pytest.raises(UnreadableFileError, match="claims more than 360 bytes and is not decoded"):
            raster.read_image(tmp_path / "a.tif")
        monkeypatch.setattr(size_limits, "MAX_ITEM_BYTES", 32)
        assert raster.read_image(tmp_path / "a.tif").shape == (3, 5, 9)

    def test_a_strip_that_unpacks_to_more_than_was_claimed_is_damage(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", GRAY, compression="zlib", metadata=None)
        bomb = zlib.compress(bytes(1 << 24), 9)
        length = (tmp_path / "a.tif").stat().st_size
        replaced(tmp_path / "a.tif", {"StripOffsets": length, "StripByteCounts": len(bomb)})
        with (tmp_path / "a.tif").open("ab") as file:
            file.write(bomb)
        with pytest.raises(UnreadableFileError, match="Replace it with an intact copy"):
            raster.read_image(tmp_path / "a.tif")


def replaced(path: Path, values: dict[str, int], page: int = 0) -> None:
    """Write other values of tags into a file."""
    with tifffile.TiffFile(path, mode="r+") as file:
        for name, value in values.items():
            file.pages[page].tags[name].overwrite(value)  # type: ignore[union-attr]


def test_tiff_is_known_by_its_suffix() -> None:
    assert [tiff.is_tiff(Path(name)) for name in ("a.tif", "a.TIFF", "a.png", "tif")] == [True, True, False, False]


SHAPE = (16, 18)
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, SHAPE).astype(np.uint8)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize((32, 32)))
LESION = np.zeros(SHAPE, bool)
LESION[4:8, 4:8] = True


class TestWhiteIsZero:
    def test_a_mask_is_read_as_it_is_seen(self, tmp_path: Path) -> None:
        stored = np.where(LESION, 0, 255).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
        np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), np.where(LESION, 255, 0))
        with Image.open(tmp_path / "a.tif") as seen:
            np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], np.asarray(seen))

    @pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.uint16, 12), (np.uint8, 4)])
    def test_an_image_of_any_depth(self, tmp_path: Path, dtype: type, bits: int) -> None:
        pixels = RNG.integers(0, 1 << bits, SHAPE).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", bitspersample=bits)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif")[0], (1 << bits) - 1 - pixels)

    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    def test_values_without_a_white_are_refused(self, tmp_path: Path, dtype: type) -> None:
        tifffile.imwrite(tmp_path / "a.tif", NOISE.astype(dtype), photometric="miniswhite")
        with pytest.raises(UnreadableFileError, match=r"a\.tif says that zero is white.*PhotometricInterpretation"):
            raster.read_image(tmp_path / "a.tif")

    def test_a_mask_of_imagej_may_mean_either(self, tmp_path: Path) -> None:
        stored = np.where(LESION, 255, 0).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", imagej=True)
        with pytest.raises(MaskValueError, match=r"a\.tif was saved by ImageJ .*labels\.colors"):
            raster.read_mask(tmp_path / "a.tif")
        colors = raster.read_mask_colors(tmp_path / "a.tif")
        np.testing.assert_array_equal(colors, np.broadcast_to(np.where(LESION, 0, 255), (3, *SHAPE)))


class TestExtraSamples:
    @pytest.mark.parametrize("channels", [2, 4, 5])
    @pytest.mark.parametrize("planes", ["contig", "separate"])
    def test_channels_of_no_special_kind_are_data(self, tmp_path: Path, channels: int, planes: str) -> None:
        pixels = RNG.integers(0, 255, (channels, *SHAPE)).astype(np.uint8)
        stored = pixels if planes == "separate" else pixels.transpose(1, 2, 0)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planes)
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), pixels)
        assert read_header(tmp_path / "a.tif").alpha == "none"

    @pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
    @pytest.mark.parametrize("colors", [1, 3])
    def test_transparency_is_dropped(self, tmp_path: Path, alpha: str, colors: int) -> None:
        pixels = RNG.integers(0, 255, (*SHAPE, colors + 1)).astype(np.uint8)
        kind = "rgb" if colors == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=kind, extrasamples=[alpha])
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), pixels[..., :-1].transpose(2, 0, 1))
        assert read_header(tmp_path / "a.tif").alpha == "varying"

    def test_a_fourth_channel_beside_colors_is_kept(self, tmp_path: Path) -> None:
        pixels = RNG.integers(0, 255, (*SHAPE, 4)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
        np.testing.assert_array_equal(raster.read_image(tmp_path / "a.tif"), pixels.transpose(2, 0, 1))

    def test_a_fourth_channel_of_which_nothing_is_said_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, RNG.integers(0, 255, (*SHAPE, 4)).astype(np.uint8), photometric="rgb")
        _rename_tag(path, 338, 65000)  # a private tag, so that ExtraSamples is absent
        with pytest.raises(UnreadableFileError, match=r"a\.tif has four channels .*ExtraSamples"):
            raster.read_image(path)

    def test_a_mask_of_several_channels_is_refused(self, tmp_path: Path) -> None:
        pixels = RNG.integers(0, 2, (*SHAPE, 2)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
        with pytest.raises(MaskValueError, match=r"a\.tif is a mask with 2 different channels"):
            raster.read_mask(tmp_path / "a.tif")


class TestColorSpaces:
    @pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
    def test_luminance_and_differences_become_colors(self, tmp_path: Path, compression: str | None) -> None:
        stored = np.asarray(Image.fromarray(SMOOTH).convert("YCbCr"))
        options: dict[str, Any] = {"subsampling": (1, 1), "compression": compression}
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", **options)
        difference = raster.read_image(tmp_path / "a.tif").transpose(1, 2, 0).astype(int) - SMOOTH
        assert np.abs(difference).mean() < 3

    def test_a_jpeg_inside_a_tiff(self, tmp_path: Path) -> None:
        colors = {"level": 95, "outcolorspace": "ycbcr"}
        tifffile.imwrite(tmp_path / "a.tif", SMOOTH, photometric="rgb", compression="jpeg", compressionargs=colors)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR  # type: ignore[union-attr]
        difference = raster.read_image(tmp_path / "a.tif").transpose(1, 2, 0).astype(int) - SMOOTH
        assert np.abs(difference).mean() < 5

    @pytest.mark.parametrize("kind", ["cielab", "icclab", "cfa"])
    def test_other_color_spaces_are_refused(self, tmp_path: Path, kind: str) -> None:
        pixels: Any = NOISE if kind == "cfa" else SMOOTH
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=kind)
        with pytest.raises(UnreadableFileError, match=rf"a\.tif stores its colors as {kind.upper()}"):
            raster.read_image(tmp_path / "a.tif")

    def test_print_colors_of_16_bits_are_refused(self, tmp_path: Path) -> None:
        pixels = RNG.integers(0, 65536, (*SHAPE, 4)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="separated")
        with pytest.raises(UnreadableFileError, match=r"a\.tif stores 16 bits as SEPARATED"):
            raster.read_image(tmp_path / "a.tif")

    def test_complex_values_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", NOISE.astype(np.complex64))
        with pytest.raises(UnreadableFileError, match=r"a\.tif holds values of the type complex64"):
            raster.read_image(tmp_path / "a.tif")


def _rename_tag(path: Path, code: int, other: int) -> None:
    with tifffile.TiffFile(path) as file:
        offset, order = file.pages[0].tags[code].offset, file.byteorder  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = other.to_bytes(2, "little" if order == "<" else "big")
    path.write_bytes(content)
