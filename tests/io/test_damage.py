"""Bytes changed at random end in a sentence, whatever the format."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from medseg_pl.core.errors import MedsegError
from medseg_pl.data.sources.files import read_image_file, read_image_geometry, read_mask_file
from medseg_pl.io import size_limits
from medseg_pl.io.annotations import read_annotations
from medseg_pl.io.file_header import read_header
from medseg_pl.io.regions import draw_region, is_segmentation
from tests.annotation_files import save_coco, save_cvat, save_labelme

VOXELS = np.random.default_rng(0).integers(0, 200, (4, 12, 14)).astype(np.uint8)
CORNERS = [(1.0, 1.0), (9.0, 1.0), (9.0, 9.0)]
CHANGES = 40


def save_with_itk(path: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    image.SetMetaData("Segment0_Name", "a")
    sitk.WriteImage(image, str(path), useCompression=path.stem == "packed")


def save_with_pillow(path: Path) -> None:
    Image.fromarray(np.stack([VOXELS[0]] * 3, axis=-1)).save(path)


FILES: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("packed.mha", "raw.mha", "packed.nrrd", "raw.nrrd", "raw.mhd"), save_with_itk),
    **dict.fromkeys(("a.gif", "a.webp", "a.jp2", "a.bmp"), save_with_pillow),
    "deep.jp2": lambda p: p.write_bytes(imagecodecs.jpeg2k_encode(VOXELS[0].astype(np.uint16), codecformat="jp2")),
    "stack.tif": lambda p: tifffile.imwrite(p, VOXELS, photometric="minisblack", compression="zlib"),
    "imagej.tif": lambda p: tifffile.imwrite(p, VOXELS, imagej=True, metadata={"axes": "ZYX", "unit": "mm"}),
    "white.tif": lambda p: tifffile.imwrite(p, VOXELS[0], photometric="miniswhite"),
    "coco.json": lambda p: save_coco(p, {"a.png": [("liver", CORNERS)]}, (12, 14)),
    "labelme.json": lambda p: save_labelme(p, [{"label": "liver", "points": CORNERS}], (12, 14)),
    "cvat.xml": lambda p: save_cvat(p, {"a.png": ['<polygon label="liver" points="1,1;9,1;9,9"/>']}, (12, 14)),
}


def read_and_draw(path: Path) -> None:
    for image in read_annotations(path):
        if image.size[0] * image.size[1] < 1_000_000:
            for region in image.regions:
                draw_region(region, image.size, path.name)


def change(content: bytes, random_: random.Random) -> bytes:
    """Overwrite, remove or insert a few bytes, mostly of the header."""
    changed = bytearray(content)
    for _ in range(random_.choice([1, 1, 2, 4])):
        place = random_.randrange(min(len(changed), random_.choice([60, 400, len(changed)])))
        size = random_.randrange(1, 6)
        changed[place : place + random_.choice([0, 1, size])] = random_.randbytes(random_.choice([0, 1, size]))
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_nothing_else_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(size_limits, "MAX_PIXELS", 1_000_000)
    monkeypatch.setattr(size_limits, "MAX_VOXELS", 1_000_000)
    FILES[name](tmp_path / name)
    whole, random_ = (tmp_path / name).read_bytes(), random.Random(name)
    readers: list[Callable[[Path], Any]] = [read_image_file, read_mask_file, read_image_geometry]
    readers = [read_and_draw] if name.endswith((".json", ".xml")) else readers
    refused = 0
    for _ in range(CHANGES):
        (tmp_path / name).write_bytes(change(whole, random_))
        for read in readers:
            try:
                read(tmp_path / name)
            except MedsegError as error:
                assert name in str(error)
                refused += 1
        if len(readers) > 1:
            read_header(tmp_path / name)
            is_segmentation(tmp_path / name)
    assert refused
