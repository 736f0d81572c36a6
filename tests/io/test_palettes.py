"""Masks with a palette: the palette says which pixels are white, an index alone does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg_pl.core.errors import MaskValueError
from medseg_pl.io import raster

SHAPE = (23, 31)
MARKED = np.zeros((12, 14), np.uint8)
MARKED[4:8, 3:9] = 255
"""24 pixels of lesion."""


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
@pytest.mark.parametrize(
    "marked", [MARKED, 255 - MARKED, MARKED * 0, MARKED * 0 + 255], ids=["some", "most", "none", "all"]
)
def test_white_is_the_label_whichever_comes_first(tmp_path: Path, name: str, marked: np.ndarray) -> None:
    for palette in ([0] * 3 + [255] * 3, [255] * 3 + [0] * 3):
        image = Image.fromarray((marked == palette[3]).astype(np.uint8))
        image.putpalette(palette)
        image.save(tmp_path / name)
        np.testing.assert_array_equal(raster.read_mask(tmp_path / name) > 0, marked > 0)


def test_a_quantized_mask(tmp_path: Path) -> None:
    Image.fromarray(MARKED).convert("RGB").quantize(2).save(tmp_path / "a.png")
    assert int((raster.read_mask(tmp_path / "a.png") == 1).sum()) == 24


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif"])
@pytest.mark.parametrize(
    ("palette", "stored"),
    [
        ([200, 0, 0, 0, 0, 0, 0, 200, 0], [0, 1, 2]),  # black behind a color
        ([255] * 3 + [128] * 3 + [0] * 3, [0, 1, 2]),
        ([value for gray in range(255, -1, -1) for value in [gray] * 3], [0, 99, 255]),  # ImageJ's inverted table
        ([0] * 3 + [255] * 3 + [128] * 3, [0, 1, 2]),  # grays out of order
    ],
    ids=["black second", "white first", "inverted", "out of order"],
)
def test_an_order_that_may_mean_either_is_refused(
    tmp_path: Path, name: str, palette: list[int], stored: list[int]
) -> None:
    pixels = np.resize(np.array(stored, np.uint8), SHAPE)
    if name == "a.tif":
        table = np.zeros((3, 256), np.uint16)
        table[:, : len(palette) // 3] = np.array(palette).reshape(-1, 3).T * 257
        tifffile.imwrite(tmp_path / name, pixels, photometric="palette", colormap=table)
    else:
        image = Image.fromarray(pixels)
        image.putpalette(palette)
        image.save(tmp_path / name)
    with pytest.raises(MaskValueError, match=rf"{name} has a palette .* labels\.colors"):
        raster.read_mask(tmp_path / name)
    seen = np.array(palette, np.uint8).reshape(-1, 3)[pixels].transpose(2, 0, 1)
    np.testing.assert_array_equal(raster.read_mask_colors(tmp_path / name), seen)


def test_a_tiff_of_white_before_black(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, 0] = 65535
    tifffile.imwrite(tmp_path / "a.tif", (MARKED == 0).astype(np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(raster.read_mask(tmp_path / "a.tif"), MARKED // 255)
