"""Small pictures of cases, of good ones and of bad ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.file_checks import list_cases
from medseg_pl.checks.inspection import inspect_case
from medseg_pl.checks.report import draw_thumbnail
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import DecathlonSource, DicomSource, FolderSource, Source, UWMadisonSource
from medseg_pl.io.case_pictures import COLORS
from tests.end_to_end.clean_sets import (
    LABELS,
    NAMES,
    picture,
    write_dicom,
    write_folder,
    write_labels_apart,
    write_scans,
    write_volumes,
)
from tests.sample_files import save_raster

EXCLUSIVE = LabelMap(list(LABELS), "multiclass")
APART = LabelMap(list(LABELS), "multilabel")


def drawn(source: Source, labels: LabelMap) -> NDArray[np.uint8]:
    jpeg = thumbnail(source, list_cases(source).cases[0], labels)
    assert jpeg is not None
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def thumbnail(source: Source, case: Case, labels: LabelMap) -> bytes | None:
    return draw_thumbnail(source, inspect_case(source, case, labels=labels, root=Path("/")), labels)


def has_color(image: NDArray[np.uint8]) -> bool:
    return bool((np.ptp(image.astype(int), axis=2) > 60).sum() > 50)


@pytest.mark.parametrize("layout", ["folder", "apart", "volumes", "scans", "dicom"])
def test_outlines_are_drawn(tmp_path: Path, layout: str) -> None:
    root = str(tmp_path)
    sources = {
        "folder": (write_folder, lambda: FolderSource(root), EXCLUSIVE),
        "apart": (write_labels_apart, lambda: FolderSource(root, masks={name: name for name in LABELS}), APART),
        "volumes": (write_volumes, lambda: DecathlonSource(root), EXCLUSIVE),
        "scans": (write_scans, lambda: UWMadisonSource(root), APART),
        "dicom": (write_dicom, lambda: DicomSource(root), EXCLUSIVE),
    }
    write, make, labels = sources[layout]
    write(tmp_path)
    image = drawn(make(), labels)
    assert max(image.shape) == 224
    assert has_color(image)


@pytest.mark.parametrize(("value", "color"), [(9, 1), (255, 0), (7, 2)])
def test_a_label_has_its_color_where_others_are_absent(tmp_path: Path, value: int, color: int) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:56, 8:56] = value
    save_raster(tmp_path / "images" / "a.png", np.full((64, 64), 90, np.uint8))
    save_raster(tmp_path / "masks" / "a.png", mask)
    image = drawn(FolderSource(str(tmp_path)), LabelMap(["a", "b"], "multiclass", values=[255, 9])).astype(int)
    outline = image[np.ptp(image, axis=2) > 60].mean(axis=0)
    nearest = min(range(3), key=lambda index: np.abs(outline - COLORS[index]).sum())
    assert nearest == color


def test_a_mask_of_another_shape_is_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path)
    save_raster(tmp_path / "masks" / f"{NAMES[0]}.png", picture(0)[1][:-1])
    assert not has_color(drawn(FolderSource(str(tmp_path)), EXCLUSIVE))


def test_a_mask_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "masks" / f"{NAMES[0]}.png").write_bytes(b"no")
    assert not has_color(drawn(FolderSource(str(tmp_path)), EXCLUSIVE))


def test_an_image_that_cannot_be_read_has_no_picture(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "images" / f"{NAMES[0]}.png").write_bytes(b"no")
    source = FolderSource(str(tmp_path))
    assert thumbnail(source, source.cases()[0], EXCLUSIVE) is None


def test_large_and_strange_images(tmp_path: Path) -> None:
    tall = np.zeros((2000, 3, 3), np.uint8)
    save_raster(tmp_path / "images" / "a.png", tall)
    save_raster(tmp_path / "masks" / "a.png", tall[..., 0])
    assert drawn(FolderSource(str(tmp_path)), EXCLUSIVE).shape == (224, 1, 3)


def test_small_bright_lesions_keep_their_shades(tmp_path: Path) -> None:
    """Both halves lie above 99.5 % of the image."""
    image, mask = np.full((300, 300), 20, np.uint8), np.zeros((300, 300), np.uint8)
    image[100:120, 100:110], image[100:120, 110:120] = 150, 250
    mask[100:120, 100:120] = 1
    save_raster(tmp_path / "images" / "a.png", image)
    save_raster(tmp_path / "masks" / "a.png", mask)
    left, right = drawn(FolderSource(str(tmp_path)), EXCLUSIVE)[82, [79, 85], 1].astype(int)
    assert right - left > 60
