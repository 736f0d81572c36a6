"""Annotation files of every tool, told apart by what stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError
from medseg_pl.io.annotations.coco import read_coco
from medseg_pl.io.annotations.cvat import read_cvat
from medseg_pl.io.annotations.fields import load_json
from medseg_pl.io.annotations.labelme import read_labelme
from medseg_pl.io.annotations.regions import AnnotatedImage

SUFFIXES = (".json", ".xml")


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """Read what was outlined in each image of a file.

    Raises:
        MissingDataError: There is no such file.
        DataError: It is of no tool that is known, or damaged.
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
