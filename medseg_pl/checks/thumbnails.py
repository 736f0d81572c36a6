"""A small picture of a case with the outlines of its mask, as far as either can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray

from medseg_pl.checks.file_checks import DAMAGE
from medseg_pl.checks.pixel_measurement import index_values, sample_finite
from medseg_pl.core.errors import DataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.core.visualization import COLORS, draw_contours, to_gray
from medseg_pl.data.sources import FileSource, Source
from medseg_pl.data.sources.files import CaseGrid, bring_to_grid, read_image_file, read_mask_file

_SIDE = 224
_QUALITY = 80


def draw_thumbnail(source: Source, case: Case, labels: LabelMap) -> bytes | None:
    """Draw a JPEG of the slice with most of the mask; `None` where the image cannot be read.

    Args:
        source: Reads the case.
        case: The case.
        labels: What its masks hold.
    """
    try:
        image, mask = (
            _read_files(case)
            if isinstance(source, FileSource) and source.has_value_masks(case)
            else _read_volume(source, case, labels)
        )
    except (DataError, MemoryError, *DAMAGE):
        return None
    if mask is not None and mask.shape != image.shape[1:]:
        mask = None
    index = image.shape[1] // 2 if mask is None else int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    picture = _render(image[:, index])
    if mask is not None:
        values = cv2.resize(mask[index].astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        planes = np.stack([values == value for value in range(1, len(COLORS) + 1)])
        picture = draw_contours(picture, planes)
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if done else None


def _read_files(case: Case) -> tuple[NDArray[Any], NDArray[Any] | None]:
    image, geometry = read_image_file(case.images[0])
    grid = CaseGrid(geometry, case.images[0], "image", "")
    masks = []
    for path in case.masks:
        try:
            masks.append(bring_to_grid(case.case_id, path, *read_mask_file(path), grid))
        except (DataError, *DAMAGE):
            return image, None
    if not masks or len({mask.shape for mask in masks}) > 1:
        return image, None
    if len(masks) == 1:
        return image, index_values(np.nan_to_num(masks[0]))[0]
    return image, np.max([(mask != 0) * np.uint8(number) for number, mask in enumerate(masks, start=1)], axis=0)


def _read_volume(source: Source, case: Case, labels: LabelMap) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        volume = source.read(case, labels)
    except (DataError, *DAMAGE):
        volume = source.read(replace(case, masks=()), labels)
    if volume.mask is None:
        return volume.image, None
    planes = labels.planes(volume.mask)
    return volume.image, np.max([plane * np.uint8(number) for number, plane in enumerate(planes, start=1)], axis=0)


def _render(planes: Shaped[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """Render a slice at most 224 pixels on a side, in color where it has three channels, else gray."""
    values = sample_finite(planes)
    low, high = np.percentile(values, [0.5, 99.5]).tolist() if values.size else (0.0, 1.0)
    shown = planes if len(planes) == 3 else planes[:1].repeat(3, axis=0)
    picture = np.stack([to_gray(plane, low, high) for plane in shown], axis=-1)
    scale = _SIDE / max(picture.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized: NDArray[np.uint8] = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    return resized
