"""COCO's JSON: polygons and run lengths of all images in one file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, MaskValueError
from medseg_pl.io.annotations.fields import read_points, require_list, require_size, require_text
from medseg_pl.io.annotations.regions import AnnotatedImage, Region, Runs


def read_coco(path: Path, content: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Return all images of the file, those without an annotation included.

    Raises:
        DataError: A field is missing, or an annotation refers to nothing.
        MaskValueError: An annotation has no outline.

    References:
        Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#format-data.
    """
    categories = {_number(entry, "id", path): require_text(entry, "name", f"{path}, a category")
                  for entry in require_list(content, "categories", str(path))}  # fmt: skip
    images = {_number(entry, "id", path): entry for entry in require_list(content, "images", str(path))}
    regions: dict[Any, list[Region]] = defaultdict(list)
    for entry in require_list(content, "annotations", str(path)):
        where = f"{path}, annotation {entry.get('id') if isinstance(entry, Mapping) else entry!r}"
        image, category = _number(entry, "image_id", path), _number(entry, "category_id", path)
        if image not in images or category not in categories:
            raise DataError(
                f"{where} refers to image {image} and category {category}, one of which is not there. Correct it."
            )
        size = require_size(images[image], ("height", "width"), f"{path}, image {image}")
        regions[image].append(_region(entry.get("segmentation"), categories[category], size, where))
    return [
        AnnotatedImage(
            require_text(entry, "file_name", f"{path}, image {key}"),
            require_size(entry, ("height", "width"), f"{path}, image {key}"),
            tuple(regions[key]),
        )
        for key, entry in images.items()
    ]


def _region(segmentation: Any, category: str, size: tuple[int, int], where: str) -> Region:
    if isinstance(segmentation, Mapping):
        counts = segmentation.get("counts")
        lengths = decode_counts(counts, where) if isinstance(counts, str) else _plain_counts(counts, where)
        box = require_size(dict(zip("hw", segmentation.get("size") or (), strict=False)), ("h", "w"), f"{where}, size")
        if box != size:
            raise MaskValueError(
                f"{where} has a mask of {box[0]} x {box[1]} in an image of {size[0]} x {size[1]}. Export it again."
            )
        return Region(category, runs=Runs(lengths, (0, 0), box, by_columns=True))
    if not isinstance(segmentation, list) or not segmentation:
        raise MaskValueError(f"{where} ({category}) has a box and no outline. Draw its outline, or delete it.")
    return Region(category, tuple(read_points(part, where) for part in segmentation))


def decode_counts(text: str, where: str) -> NDArray[np.int64]:
    """Decode COCO's compressed run lengths: five bits a letter, from the third run on as differences.

    Args:
        text: Such as `52203`.
        where: What to call them in an error.

    >>> decode_counts("52203", "counts").tolist()
    [5, 2, 2, 2, 5]
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise MaskValueError(f"{where} has run lengths that cannot be decoded. Export the annotation again.")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            signed = value - (1 << shift) if code & 16 else value
            lengths.append(signed + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return np.array(lengths, dtype=np.int64)


def _plain_counts(counts: Any, where: str) -> NDArray[np.int64]:
    try:
        return np.array([int(count) for count in counts], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        raise MaskValueError(f"{where} has run lengths that are no numbers. Export the annotation again.") from None


def _number(entry: Any, name: str, path: Path) -> Any:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, int | str):
        raise DataError(f"{path} has an entry without {name!r}: {str(entry)[:60]}. Export the annotations again.")
    return value
