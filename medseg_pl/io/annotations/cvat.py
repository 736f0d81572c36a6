"""CVAT's XML for images, version 1.1, parsed without entities: a stranger's file expands to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from medseg_pl.core.errors import DataError, MaskValueError
from medseg_pl.io.annotations.fields import read_points, refuse_shape, require_size, require_text
from medseg_pl.io.annotations.regions import AnnotatedImage, Region, Runs, outline_box, outline_ellipse

_SHAPES = ("polygon", "box", "ellipse", "mask")
_WITHOUT_PIXELS = ("tag",)
"""What is said of an image as a whole."""


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Return all images of the file, those without an annotation included.

    Raises:
        DataError: The file is no such XML, or holds the tracks of a video.
        MaskValueError: A shape has no area.
    """
    root = _parse(path)
    if root.tag != "annotations":
        raise DataError(f"{path} begins with <{root.tag}>; expected <annotations>. Export as 'CVAT for images 1.1'.")
    if root.find("track") is not None:
        raise DataError(f"{path} holds the tracks of a video. Export as 'CVAT for images 1.1', frame by frame.")
    return [_image(element, path) for element in root.iter("image")]


def _image(element: Any, path: Path) -> AnnotatedImage:
    name = require_text(element.attrib, "name", f"{path}, an image")
    shapes = [shape for shape in element if shape.tag not in _WITHOUT_PIXELS]
    behind_first = sorted(shapes, key=lambda shape: _number(shape.attrib, "z_order", f"{path}, image {name}", "0"))
    regions = tuple(_region(shape, f"{path}, image {name}") for shape in behind_first)
    return AnnotatedImage(name, require_size(element.attrib, ("height", "width"), f"{path}, image {name}"), regions)


def _region(shape: Any, where: str) -> Region:
    values: Mapping[str, str] = shape.attrib
    category = require_text(values, "label", f"{where}, a {shape.tag}")
    where = f"{where}, {category}"
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in values.get("points", "").split(";")]
        return Region(category, (read_points(pairs, where),))
    turned = _number(values, "rotation", where, "0")
    if shape.tag == "box":
        left, top, right, bottom = (_number(values, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
        return Region(category, (outline_box(left, top, right, bottom, turned),))
    if shape.tag == "ellipse":
        x, y, across, down = (_number(values, name, where) for name in ("cx", "cy", "rx", "ry"))
        return Region(category, (outline_ellipse((x, y), (across, down), turned),))
    if shape.tag == "mask":
        top, left, height, width = (int(_number(values, name, where)) for name in ("top", "left", "height", "width"))
        return Region(category, runs=Runs(_lengths(values.get("rle", ""), where), (top, left), (height, width)))
    raise refuse_shape(shape.tag, where, _SHAPES)


def _lengths(text: str, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        return np.array([int(part) for part in text.split(",")], dtype=np.int64)
    except (ValueError, OverflowError):
        raise MaskValueError(f"{where} has run lengths that are no numbers: {text[:40]!r}. Export it again.") from None


def _number(values: Mapping[str, str], name: str, where: str, default: str = "") -> float:
    text = values.get(name, default)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise MaskValueError(f"{where}: {name} is {text!r}; expected a number. Export the annotations again.")
    return number


def _parse(path: Path) -> Any:
    """The root of an XML file; a document type, with which entities would come, is refused."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end

    def refuse(*_: Any) -> None:
        raise DataError(f"{path} declares a document type, which is not read. Export the annotations again.")

    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        raise DataError(f"{path} is no XML: {error}. Export the annotations again.") from None
