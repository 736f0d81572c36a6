"""Find the annotation file, or the folder of annotation files, that lies beside the images of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.data.sources.base import shown
from medseg_pl.data.sources.files import is_image
from medseg_pl.data.sources.unlabeled import IMAGE_FOLDERS, MASK_FOLDERS
from medseg_pl.io.annotations import SUFFIXES, load_json
from medseg_pl.io.paths import files_below

_HEAD = 4096
_SAMPLED = 200


def find_polygon_settings(directory: Path) -> dict[str, str] | None:
    """Return the `images` and `annotations` of a `PolygonSource`, `None` where the folder has none, or has masks.

    Raises:
        SettingError: Several files may be that of all images.
    """
    images = next((name for name in IMAGE_FOLDERS if (directory / name).is_dir()), ".")
    others = [path for path in directory.glob("[!.]*") if path.is_dir() and path.name != images]
    if any(any(map(is_image, islice(files_below(path), _SAMPLED))) for path in others):
        return None
    for place in (directory, *(directory / name for name in MASK_FOLDERS), directory / images):
        found = _annotation_files(place)
        whole = [path for path in found if not _is_labelme(path)]
        if found and not whole:
            return {"images": images, "annotations": place.relative_to(directory).as_posix()}
        if len(whole) > 1:
            raise SettingError(
                f"{place} holds several annotation files: {shown([path.name for path in whole])}. Move all but one "
                "away, or name one with data.source.annotations of PolygonSource."
            )
        if whole:
            return {"images": images, "annotations": whole[0].relative_to(directory).as_posix()}
    return None


def _annotation_files(folder: Path) -> list[Path]:
    """Annotation files in a folder itself, labelme's alone where there are many."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return [path for path in files[:_SAMPLED] if _is_annotations(path)]


def _is_annotations(path: Path) -> bool:
    if path.suffix.lower() == ".xml":
        with path.open("rb") as file:
            return b"<annotations" in file.read(_HEAD)
    return bool({"shapes", "images"} & set(_keys(path)))


def _is_labelme(path: Path) -> bool:
    return path.suffix.lower() == ".json" and "shapes" in _keys(path)


def _keys(path: Path) -> list[str]:
    try:
        content = load_json(path)
    except DataError:
        return []
    return list(content) if isinstance(content, Mapping) else []
