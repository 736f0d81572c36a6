"""labelme's JSON: one file for each image."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.core.errors import MaskValueError
from medseg_pl.io.annotations.fields import read_points, refuse_shape, require_list, require_size, require_text
from medseg_pl.io.annotations.regions import AnnotatedImage, Region, Runs, outline_box, outline_ellipse

_SHAPES = ("polygon", "rectangle", "circle", "mask")


def read_labelme(path: Path, content: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Return the file's image; the copy of its pixels in the file is left alone.

    Raises:
        DataError: A field is missing.
        MaskValueError: A shape has no area, or none that is read.
    """
    size = require_size(content, ("imageHeight", "imageWidth"), str(path))
    name = str(content.get("imagePath") or path.name).replace("\\", "/")  # written on Windows, too
    shapes = [
        _region(shape, size, f"{path}, shape {number}")
        for number, shape in enumerate(require_list(content, "shapes", str(path)), start=1)
    ]
    return [AnnotatedImage(name, size, tuple(shapes))]


def _region(shape: Any, size: tuple[int, int], where: str) -> Region:
    category = require_text(shape, "label", where)
    where = f"{where} ({category})"
    kind = shape.get("shape_type") or "polygon"
    points = require_list(shape, "points", where)
    if kind == "polygon":
        return Region(category, (read_points(points, where),))
    if kind not in _SHAPES:
        raise refuse_shape(kind, where, _SHAPES)
    (x, y), (other_x, other_y) = _two_points(points, where)
    if kind == "circle":
        radius = float(np.hypot(other_x - x, other_y - y))
        return Region(category, (outline_ellipse((x, y), (radius, radius)),))
    if kind == "mask":
        corner = (round(min(y, other_y)), round(min(x, other_x)))
        return Region(category, runs=_runs(shape.get("mask"), corner, size, where))
    return Region(category, (outline_box(min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y)),))


def _two_points(points: Any, where: str) -> NDArray[np.float64]:
    try:
        pair = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        pair = np.zeros((0, 2))
    if len(pair) == 4:  # newer versions turn rectangles, and write all corners
        pair = np.array([pair.min(axis=0), pair.max(axis=0)])
    if len(pair) != 2 or not np.isfinite(pair).all():
        raise MaskValueError(f"{where} has {len(pair)} points; expected 2. Draw it again.")
    return pair


def _runs(text: Any, corner: tuple[int, int], size: tuple[int, int], where: str) -> Runs:
    """The runs of a PNG that is written as text, no larger than the image."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text), validate=True)), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise MaskValueError(f"{where} has a mask larger than its image. Export the annotation again.")
            inside = np.asarray(image.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise MaskValueError(f"{where} has a mask that cannot be decoded: {error}. Draw it again.") from None
    flat = np.concatenate([[False], inside.ravel(), [not inside.ravel()[-1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return Runs(np.diff(changes, prepend=0).astype(np.int64), corner, (inside.shape[0], inside.shape[1]))
