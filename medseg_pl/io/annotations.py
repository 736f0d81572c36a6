"""Annotation files: COCO's and labelme's JSON, CVAT's XML. A stranger wrote them, so each field is checked."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg_pl.core.errors import DataError, MaskValueError, MissingDataError
from medseg_pl.io import size_limits
from medseg_pl.io.regions import AnnotatedImage, Region, Runs, outline_box, outline_ellipse

SUFFIXES = (".json", ".xml")


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """Read the outlines that a tool's file holds for each image.

    Raises:
        MissingDataError: There is no such file.
        DataError: The file is damaged, or of no known tool.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. Set data.source.annotations to the file of your tool.")
    if path.suffix.lower() == ".xml":
        return read_cvat(path)
    content = load_json(path)
    if isinstance(content, Mapping) and "shapes" in content:
        return read_labelme(path, content)
    if isinstance(content, Mapping) and "images" in content:
        return read_coco(path, content)
    raise DataError(f"{path} is of no tool that is known: expected COCO's or labelme's JSON, or CVAT's XML.")


def read_coco(path: Path, content: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read all images of a COCO file, those without an annotation included.

    Raises:
        DataError: A field is missing, or an annotation refers to nothing.
        MaskValueError: An annotation has no outline.

    References:
        Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#format-data.
    """
    categories = {_require_id(entry, "id", path): require_text(entry, "name", f"{path}, a category")
                  for entry in require_list(content, "categories", str(path))}  # fmt: skip
    images = {_require_id(entry, "id", path): entry for entry in require_list(content, "images", str(path))}
    regions: dict[Any, list[Region]] = defaultdict(list)
    for entry in require_list(content, "annotations", str(path)):
        where = f"{path}, annotation {entry.get('id') if isinstance(entry, Mapping) else entry!r}"
        image, category = _require_id(entry, "image_id", path), _require_id(entry, "category_id", path)
        if image not in images or category not in categories:
            raise DataError(
                f"{where} refers to image {image} and category {category}, one of which is not there. Correct it."
            )
        size = require_size(images[image], ("height", "width"), f"{path}, image {image}")
        regions[image].append(_read_coco_region(entry.get("segmentation"), categories[category], size, where))
    return [
        AnnotatedImage(
            require_text(entry, "file_name", f"{path}, image {key}"),
            require_size(entry, ("height", "width"), f"{path}, image {key}"),
            tuple(regions[key]),
        )
        for key, entry in images.items()
    ]


def _read_coco_region(segmentation: Any, category: str, size: tuple[int, int], where: str) -> Region:
    if isinstance(segmentation, Mapping):
        counts, box_size = segmentation.get("counts"), segmentation.get("size")
        lengths = decode_counts(counts, where) if isinstance(counts, str) else _read_plain_counts(counts, where)
        box = require_size(
            dict(zip("hw", box_size if isinstance(box_size, list) else (), strict=False)),
            ("h", "w"),
            f"{where}, size",
        )
        if box != size:
            raise MaskValueError(
                f"{where} has a mask of {box[0]} x {box[1]} in an image of {size[0]} x {size[1]}. Export it again."
            )
        return Region(category, runs=Runs(lengths, (0, 0), box, by_columns=True))
    if not isinstance(segmentation, list) or not segmentation:
        raise MaskValueError(f"{where} ({category}) has a box and no outline. Draw its outline, or delete it.")
    return Region(category, tuple(read_points(part, where) for part in segmentation))


def decode_counts(text: str, where: str) -> NDArray[np.int64]:
    """Decode COCO's compressed run lengths.

    A letter holds five bits; from the third run on, runs are stored as differences.

    Args:
        text: Such as `52203`.
        where: What to call them in an error.

    Raises:
        MaskValueError: A letter is none of the code, or a number is too long or has no end.

    >>> decode_counts("52203", "counts").tolist()
    [5, 2, 2, 2, 5]
    """
    # As rleFrString of pycocotools (common/maskApi.c) reads them.
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
    if shift:
        raise MaskValueError(f"{where} has run lengths that end too early. Export the annotation again.")
    return np.array(lengths, dtype=np.int64)


def _read_plain_counts(counts: Any, where: str) -> NDArray[np.int64]:
    try:
        return np.array([int(count) for count in counts], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        raise MaskValueError(f"{where} has run lengths that are no numbers. Export the annotation again.") from None


def _require_id(entry: Any, name: str, path: Path) -> Any:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, int | str):
        raise DataError(f"{path} has an entry without {name!r}: {str(entry)[:60]}. Export the annotations again.")
    return value


_CVAT_SHAPES = ("polygon", "box", "ellipse", "mask")
# What is said of an image as a whole
_WITHOUT_PIXELS = ("tag",)


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Read all images of a CVAT file, those without an annotation included.

    Raises:
        DataError: The file is no such XML, or holds the tracks of a video.
        MaskValueError: A shape has no area.
    """
    root = _parse_xml(path)
    if root.tag != "annotations":
        raise DataError(f"{path} begins with <{root.tag}>; expected <annotations>. Export as 'CVAT for images 1.1'.")
    if root.find("track") is not None:
        raise DataError(f"{path} holds the tracks of a video. Export as 'CVAT for images 1.1', frame by frame.")
    return [_read_cvat_image(element, path) for element in root.iter("image")]


def _read_cvat_image(element: Any, path: Path) -> AnnotatedImage:
    name = require_text(element.attrib, "name", f"{path}, an image")
    shapes = [shape for shape in element if shape.tag not in _WITHOUT_PIXELS]
    behind_first = sorted(shapes, key=lambda shape: _read_number(shape.attrib, "z_order", f"{path}, image {name}", "0"))
    regions = tuple(_read_cvat_region(shape, f"{path}, image {name}") for shape in behind_first)
    return AnnotatedImage(name, require_size(element.attrib, ("height", "width"), f"{path}, image {name}"), regions)


def _read_cvat_region(shape: Any, where: str) -> Region:
    values: Mapping[str, str] = shape.attrib
    category = require_text(values, "label", f"{where}, a {shape.tag}")
    where = f"{where}, {category}"
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in values.get("points", "").split(";")]
        return Region(category, (read_points(pairs, where),))
    turned = _read_number(values, "rotation", where, "0")
    if shape.tag == "box":
        left, top, right, bottom = (_read_number(values, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
        return Region(category, (outline_box(left, top, right, bottom, turned),))
    if shape.tag == "ellipse":
        x, y, across, down = (_read_number(values, name, where) for name in ("cx", "cy", "rx", "ry"))
        return Region(category, (outline_ellipse((x, y), (across, down), turned),))
    if shape.tag == "mask":
        top, left, height, width = (
            int(_read_number(values, name, where)) for name in ("top", "left", "height", "width")
        )
        return Region(
            category, runs=Runs(_read_run_lengths(values.get("rle", ""), where), (top, left), (height, width))
        )
    raise refuse_shape(shape.tag, where, _CVAT_SHAPES)


def _read_run_lengths(text: str, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        return np.array([int(part) for part in text.split(",")], dtype=np.int64)
    except (ValueError, OverflowError):
        raise MaskValueError(f"{where} has run lengths that are no numbers: {text[:40]!r}. Export it again.") from None


def _read_number(values: Mapping[str, str], name: str, where: str, default: str = "") -> float:
    text = values.get(name, default)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise MaskValueError(f"{where}: {name} is {text!r}; expected a number. Export the annotations again.")
    return number


def _parse_xml(path: Path) -> Any:
    """Parse an XML file; refuse a document type, which could define entities."""
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


_LABELME_SHAPES = ("polygon", "rectangle", "circle", "mask")


def read_labelme(path: Path, content: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read the image of a labelme file.

    The copy of its pixels in the file is not read.

    Raises:
        DataError: A field is missing.
        MaskValueError: A shape has no area, or none that is read.
    """
    size = require_size(content, ("imageHeight", "imageWidth"), str(path))
    name = str(content.get("imagePath") or path.name).replace("\\", "/")  # written on Windows, too
    shapes = [
        _read_labelme_region(shape, size, f"{path}, shape {number}")
        for number, shape in enumerate(require_list(content, "shapes", str(path)), start=1)
    ]
    return [AnnotatedImage(name, size, tuple(shapes))]


def _read_labelme_region(shape: Any, size: tuple[int, int], where: str) -> Region:
    category = require_text(shape, "label", where)
    where = f"{where} ({category})"
    kind = shape.get("shape_type") or "polygon"
    points = require_list(shape, "points", where)
    if kind == "polygon":
        return Region(category, (read_points(points, where),))
    if kind not in _LABELME_SHAPES:
        raise refuse_shape(kind, where, _LABELME_SHAPES)
    (x, y), (other_x, other_y) = _read_two_points(points, where)
    if kind == "circle":
        radius = float(np.hypot(other_x - x, other_y - y))
        return Region(category, (outline_ellipse((x, y), (radius, radius)),))
    if kind == "mask":
        corner = (round(min(y, other_y)), round(min(x, other_x)))
        return Region(category, runs=_read_png_runs(shape.get("mask"), corner, size, where))
    return Region(category, (outline_box(min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y)),))


def _read_two_points(points: Any, where: str) -> NDArray[np.float64]:
    try:
        pair = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        pair = np.zeros((0, 2))
    if len(pair) == 4:  # newer versions turn rectangles, and write all corners
        pair = np.array([pair.min(axis=0), pair.max(axis=0)])
    if len(pair) != 2 or not np.isfinite(pair).all():
        raise MaskValueError(f"{where} has {len(pair)} points; expected 2. Draw it again.")
    return pair


def _read_png_runs(text: Any, corner: tuple[int, int], size: tuple[int, int], where: str) -> Runs:
    """Read the runs of a PNG in base64, no larger than the image."""
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


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}. Export the annotations again.") from None


def require_list(record: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """Return a field that must be a list.

    Raises:
        DataError: The field is missing or no list.
    """
    values: list[Any] = _require(record, name, list, where)
    return values


def require_text(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field that must be a text that is not empty.

    Raises:
        DataError: The field is missing, empty or no text.
    """
    text: str = _require(record, name, str, where)
    return text


def require_size(record: Mapping[str, Any], names: tuple[str, str], where: str) -> tuple[int, int]:
    """Return `(height, width)` from two fields.

    Raises:
        DataError: A field is no number of pixels, or both claim too large an image.
    """
    height, width = (_read_whole_number(record.get(name), name, where) for name in names)
    if height * width > size_limits.MAX_PIXELS:
        raise DataError(f"{where} claims {height} x {width} pixels, too many for an image. Correct it.")
    return height, width


def read_points(values: Iterable[Any], where: str) -> NDArray[np.float64]:
    """Read corners `(x, y)` from numbers or pairs of numbers.

    Raises:
        MaskValueError: They are no finite pairs, or fewer than three.
    """
    try:
        points = np.asarray(list(values), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise MaskValueError(f"{where} has corners that are no pairs of numbers. Draw the outline again.") from None
    # No image is so large, and integers cannot hold it.
    if (np.abs(points[np.isfinite(points)]) > size_limits.MAX_PIXELS).any():
        raise MaskValueError(f"{where} has a corner far outside of any image. Draw the outline again.")
    if len(points) < 3 or not np.isfinite(points).all():
        raise MaskValueError(f"{where} has {len(points)} corners; expected at least 3. Draw or delete the outline.")
    return points


def refuse_shape(shape: str, where: str, readable: Sequence[str]) -> MaskValueError:
    """Make the error for an annotation without an area."""
    return MaskValueError(
        f"{where} is a {shape}, which covers no pixels; expected one of {', '.join(readable)}. Draw its outline, or "
        "delete it."
    )


def _require(record: Any, name: str, kind: type, where: str) -> Any:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, kind) or value == "":
        raise DataError(f"{where} has no field {name!r} with a {kind.__name__}. Export the annotations again.")
    return value


def _read_whole_number(value: Any, name: str, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise DataError(f"{where}: {name} is {value!r}; expected a number of pixels. Correct it.")
    return number
