"""Tags of a TIFF that say what its pixels mean, against Pillow and arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg_pl.core.errors import MaskValueError, UnreadableFileError
from medseg_pl.io import raster
from medseg_pl.io.headers import read_header

SHAPE = (16, 18)
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, SHAPE).astype(np.uint8)
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
        tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(dtype), photometric="miniswhite")
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
        pixels: Any = GRAY if kind == "cfa" else SMOOTH
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=kind)
        with pytest.raises(UnreadableFileError, match=rf"a\.tif stores its colors as {kind.upper()}"):
            raster.read_image(tmp_path / "a.tif")

    def test_print_colors_of_16_bits_are_refused(self, tmp_path: Path) -> None:
        pixels = RNG.integers(0, 65536, (*SHAPE, 4)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="separated")
        with pytest.raises(UnreadableFileError, match=r"a\.tif stores 16 bits as SEPARATED"):
            raster.read_image(tmp_path / "a.tif")

    def test_complex_values_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(np.complex64))
        with pytest.raises(UnreadableFileError, match=r"a\.tif holds values of the type complex64"):
            raster.read_image(tmp_path / "a.tif")


def _rename_tag(path: Path, code: int, other: int) -> None:
    with tifffile.TiffFile(path) as file:
        offset, order = file.pages[0].tags[code].offset, file.byteorder  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = other.to_bytes(2, "little" if order == "<" else "big")
    path.write_bytes(content)
