"""Small annotation files of each tool, made without the code under test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Outlines = Mapping[str, Sequence[tuple[str, Sequence[tuple[float, float]]]]]
"""Category and corners `(x, y)` of each region, by the image's file."""


def save_coco(path: Path, outlines: Outlines, size: tuple[int, int]) -> Path:
    """Save one file for all images, which are of one size `(height, width)`."""
    names = sorted({category for regions in outlines.values() for category, _ in regions})
    images = [
        {"id": 10 + number, "file_name": name, "height": size[0], "width": size[1]}
        for number, name in enumerate(outlines)
    ]
    annotations = [
        {"image_id": 10 + number, "category_id": 3 + names.index(category), "segmentation": [list(sum(corners, ()))]}
        for number, regions in enumerate(outlines.values())
        for category, corners in regions
    ]
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations)]
    categories = [{"id": 3 + number, "name": name} for number, name in enumerate(names)]
    return _save(path, {"images": images, "annotations": numbered, "categories": categories})


def save_labelme(path: Path, shapes: Sequence[Mapping[str, Any]], size: tuple[int, int], image: str = "") -> Path:
    """Save the file of one image."""
    record = {"version": "5.4.1", "imagePath": image, "imageHeight": size[0], "imageWidth": size[1], "imageData": None}
    return _save(path, {**record, "shapes": list(shapes)})


def save_cvat(path: Path, shapes: Mapping[str, Sequence[str]], size: tuple[int, int]) -> Path:
    """Save one file for all images, whose shapes are elements of XML."""
    images = "".join(
        f'<image id="{number}" name="{name}" width="{size[1]}" height="{size[0]}">{"".join(elements)}</image>'
        for number, (name, elements) in enumerate(shapes.items())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{images}</annotations>')
    return path


def _save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
