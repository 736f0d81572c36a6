"""TIFF stacks as volumes, written by tifffile and Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg_pl.core.errors import SettingError, UnreadableFileError
from medseg_pl.io import size_limits, volumes
from medseg_pl.io.file_header import read_header

STACK = np.random.default_rng(0).integers(0, 250, (4, 10, 12)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"compression": "zlib"},
    ],
)
def test_pages_are_slices(tmp_path: Path, options: dict[str, Any], dtype: type) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK.astype(dtype), photometric="minisblack", **options)
    assert volumes.is_volume(path)
    array, geometry = volumes.read_volume(path)
    np.testing.assert_array_equal(array, STACK[None])
    assert (array.dtype, geometry.shape, geometry.affine) == (dtype, STACK.shape, None)
    assert volumes.read_volume_geometry(path) == geometry
    assert not read_header(path).stacked


def test_a_fax_of_several_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(page > 100) for page in STACK]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / "a.tif", seen=False)[0][0], STACK > 100)


def test_colors_are_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK, STACK // 2, STACK // 3], axis=-1), photometric="rgb")
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / "a.tif")[0], np.stack([STACK, STACK // 2, STACK // 3]))


@pytest.mark.parametrize(("axes", "shape"), [("ZCYX", (4, 2, 10, 12)), ("CYX", (2, 10, 12))])
def test_channels_in_pages_of_their_own(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 250, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": axes})
    array, geometry = volumes.read_volume(tmp_path / "a.tif")
    expected = pixels.transpose(1, 0, 2, 3) if axes == "ZCYX" else pixels[:, None]
    np.testing.assert_array_equal(array, expected)
    assert geometry.shape == expected.shape[1:]


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"ome": True, "planarconfig": "separate"}, {}])
def test_every_channel_loses_its_transparency(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = np.random.default_rng(1).integers(0, 250, (3, 2, 10, 12, 4)).astype(np.uint8)
    stored = np.moveaxis(pixels, -1, 2) if "planarconfig" in options else pixels
    axes = "ZCSYX" if "planarconfig" in options else "ZCYXS"
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"], "metadata": {"axes": axes}, **options}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    array, geometry = volumes.read_volume(tmp_path / "a.tif")
    expected = [pixels[:, channel, ..., color] for channel in range(2) for color in range(3)]
    np.testing.assert_array_equal(array, expected)
    assert geometry.shape == (3, 10, 12)


def test_one_palette_for_several_channels_is_refused(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    pixels = np.stack([STACK, STACK // 2])
    options: dict[str, Any] = {"photometric": "palette", "colormap": table, "ome": True, "metadata": {"axes": "CZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(UnreadableFileError, match=r"a\.tif has a palette and 2 channels.*gray"):
        volumes.read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_palette_and_white_apply_to_every_page(tmp_path: Path, orientation: int) -> None:
    tag = [(274, "H", 1, orientation, True)]
    options: dict[str, Any] = {"extratags": tag, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="miniswhite", **options)
    turned = np.rot90(STACK, 2 if orientation == 3 else -1, axes=(1, 2))
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / "a.tif")[0][0], 255 - turned)
    assert volumes.read_volume_geometry(tmp_path / "a.tif").shape == turned.shape
    table = np.random.default_rng(2).integers(1, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", STACK, photometric="palette", colormap=table, **options)
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / "b.tif")[0], (table >> 8)[:, turned])
    np.testing.assert_array_equal(volumes.read_volume(tmp_path / "b.tif", seen=False)[0][0], turned)


class TestSpacing:
    @pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 0.001), ("cm", 10)])
    def test_imagejs(self, tmp_path: Path, unit: str, factor: float) -> None:
        noted = {"axes": "ZYX", "unit": unit, "spacing": 3.0}
        tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 4), metadata=noted)
        np.testing.assert_allclose(
            volumes.read_volume_geometry(tmp_path / "a.tif").spacing_mm, np.array((3.0, 0.25, 0.5)) * factor
        )

    def test_omes(self, tmp_path: Path) -> None:
        noted = {"axes": "ZYX", "PhysicalSizeX": 500.0, "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "mm"}
        noted |= {"PhysicalSizeZ": 3.0, "PhysicalSizeZUnit": "mm"}
        tifffile.imwrite(tmp_path / "a.tif", STACK, ome=True, metadata=noted)
        np.testing.assert_allclose(volumes.read_volume_geometry(tmp_path / "a.tif").spacing_mm, (3.0, 0.25, 0.5))

    def test_pixels_are_no_length(self, tmp_path: Path) -> None:
        noted = {"axes": "ZYX", "unit": "pixel", "spacing": 3.0}
        tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 4), metadata=noted)
        assert volumes.read_volume_geometry(tmp_path / "a.tif").spacing_mm is None


class TestWriting:
    @pytest.mark.parametrize("spaced", [True, False])
    @pytest.mark.parametrize("most", [1, 300])
    def test_a_mask_comes_back_with_its_spacing(self, tmp_path: Path, spaced: bool, most: int) -> None:
        noted = {"axes": "ZYX", "unit": "mm", "spacing": 3.0} if spaced else {"axes": "ZYX"}
        resolution = (2, 4) if spaced else None
        tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=resolution, metadata=noted)
        mask = (STACK > 100).astype(np.uint16) * most
        volumes.write_mask_like(tmp_path / "out" / "a.tif", mask, tmp_path / "a.tif")
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), mask)
        array, geometry = volumes.read_volume(tmp_path / "out" / "a.tif", seen=False)
        np.testing.assert_array_equal(array[0], mask)
        assert geometry == volumes.read_volume_geometry(tmp_path / "a.tif")

    def test_values_that_no_page_can_hold(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
        with pytest.raises(SettingError, match=r"b\.tif cannot hold labels\.values from -1 to 0"):
            volumes.write_mask_like(tmp_path / "b.tif", -(STACK > 100).astype(np.int16), tmp_path / "a.tif")
        assert not (tmp_path / "b.tif").exists()


class TestNoVolume:
    def test_pages_of_several_sizes(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(STACK[0])
            file.write(STACK[1, :5])
        assert read_header(tmp_path / "a.tif").stacked
        with pytest.raises(UnreadableFileError, match=r"a\.tif holds several images \(YX 10x12 and YX 5x12\)"):
            volumes.read_volume(tmp_path / "a.tif")

    def test_time_and_depth(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK, STACK]), imagej=True, metadata={"axes": "TZYX"})
        with pytest.raises(UnreadableFileError, match=r"a\.tif holds several images \(TZYX 2x4x10x12\)"):
            volumes.read_volume(tmp_path / "a.tif")

    def test_a_claim_of_too_much(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
        monkeypatch.setattr(size_limits, "MAX_VOXELS", 479)
        with pytest.raises(UnreadableFileError, match="claims more than 479 voxels"):
            volumes.read_volume(tmp_path / "a.tif")

    def test_more_images_than_the_file_can_hold(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
        content = (tmp_path / "a.tif").read_bytes()
        pages = content.replace(b"images=4", b"images=9").replace(b"slices=4", b"slices=9")
        (tmp_path / "a.tif").write_bytes(pages)
        with pytest.raises(UnreadableFileError, match=r"a\.tif describes 9 images and holds 4"):
            volumes.read_volume(tmp_path / "a.tif")

    def test_a_stack_that_is_cut_off(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="zlib")
        (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
        with pytest.raises(UnreadableFileError, match=r"a\.tif"):
            volumes.read_volume(tmp_path / "a.tif")
