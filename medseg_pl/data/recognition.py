"""Which layout a folder has, and which labels: what `check` and `plan` say of a data set nobody has described yet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from medseg_pl.core.errors import DataError, MedsegError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    Source,
    UWMadisonSource,
)
from medseg_pl.data.sources.base import shown
from medseg_pl.data.sources.dataset_json import read_labels
from medseg_pl.data.sources.files import is_image, read_mask_file
from medseg_pl.data.sources.polygon_layout import find_polygon_settings
from medseg_pl.data.sources.segments import list_segment_labels
from medseg_pl.data.sources.unlabelled import IMAGE_FOLDERS
from medseg_pl.io.dicom.headers import is_dicom
from medseg_pl.io.files import files_below, require_folder
from medseg_pl.io.structured import read_json

LAYOUTS = ("decathlon", "uw_madison", "manifest", "dicom", "polygons", "folder")
_SAMPLED_MASKS = 200
_SHARE_OF_A_LABEL = 0.1
"""A value in fewer of the masks is taken for a stray one; a label that is as rare has to be named."""


@dataclass(frozen=True)
class Recognised:
    """A data set as it was found.

    Args:
        source: Reads it.
        labels: What its masks hold.
        config: The source as `class_path` and `init_args`, for a configuration.
        modalities: `CT`, `MRI` or whatever the data set says of each channel; nothing where it says nothing.
        notes: What was concluded rather than read, in words.
    """

    source: Source
    labels: LabelMap
    config: dict[str, Any]
    modalities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recognise(
    directory: Path,
    *,
    layout: str | None = None,
    masks: str | None = None,
    group: str | None = None,
    labels: LabelMap | None = None,
) -> Recognised:
    """Find out how a data set is laid out and what its masks hold.

    Args:
        directory: The data set.
        layout: One of `LAYOUTS`, where the folder should not be left to speak for itself.
        masks: The masks' folder, where a `folder` has several.
        group: A regular expression that finds the patient in a case's name.
        labels: The labels, where they are known; else they are read from the data.

    Raises:
        MissingDataError: There is no such folder, or nothing in it that is known.
        SettingError: The layout is unknown, or something has to be said that the data does not say.
    """
    require_folder(directory, "a data set", "Give the folder that holds it.")
    chosen = layout or layout_of(directory)
    if chosen not in LAYOUTS:
        raise SettingError(f"There is no layout {chosen!r}. Choose one of {', '.join(LAYOUTS)}.")
    if chosen == "decathlon":
        return _decathlon(directory, group, labels)
    if chosen == "uw_madison":
        return _uw_madison(directory, labels)
    if chosen == "manifest":
        return _manifest(directory, labels)
    if chosen == "dicom":
        return _dicom(directory, group, labels)
    if chosen == "polygons":
        return _polygons(directory, group, labels)
    return _folder(directory, masks, group, labels)


def layout_of(directory: Path) -> str:
    """The layout that a folder's own files tell.

    Raises:
        MissingDataError: They tell none.
    """
    if (directory / "dataset.json").is_file():
        return "decathlon"
    if (directory / "train.csv").is_file() and (directory / "train").is_dir():
        return "uw_madison"
    if _manifests(directory):
        return "manifest"
    if find_polygon_settings(directory) is not None:
        return "polygons"
    if _image_folder(directory) is not None:
        return "folder"
    if any(is_dicom(path) for path in islice(files_below(directory), 200)):
        return "dicom"
    raise MissingDataError(
        f"{directory} has no layout that is known: expected a dataset.json, train.csv beside train/, a CSV with the "
        f"columns case_id, group and image, a folder {' or '.join(IMAGE_FOLDERS)} beside one of masks, or DICOM "
        "series. Write a CSV that names your files, as ManifestSource describes."
    )


def _decathlon(directory: Path, group: str | None, labels: LabelMap | None) -> Recognised:
    path = directory / "dataset.json"
    try:
        description = read_json(path)
        described = read_labels(description.get("labels")).as_label_map()
        channels = description.get("modality") or description.get("channel_names") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a data set's description: {error}.") from None
    found = labels or described
    if found is None:
        raise SettingError(f"{path} names no labels. Name them with --labels.")
    modalities = tuple(str(name) for name in channels.values()) if isinstance(channels, dict) else ()
    settings = {"root": str(directory)} | ({"group": group} if group else {})
    source = DecathlonSource(str(directory), group)
    return Recognised(source, found, _config(source, settings), modalities)


def _uw_madison(directory: Path, labels: LabelMap | None) -> Recognised:
    source = UWMadisonSource(str(directory))
    with (directory / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        names = sorted({row["class"] for row in csv.DictReader(file) if row.get("class")})
    if labels is None and not names:
        raise SettingError(f"{directory / 'train.csv'} names no class. Name the labels with --labels.")
    found = labels or LabelMap(names, "multilabel")
    return Recognised(source, found, _config(source, {"root": str(directory)}), ("MRI",))


def _manifest(directory: Path, labels: LabelMap | None) -> Recognised:
    tables = _manifests(directory)
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise SettingError(
            f"{directory} must hold one CSV with the columns case_id, group and image; it holds {names}."
        )
    source = ManifestSource(str(tables[0]))
    columns = [column.removeprefix("mask_") for column in _columns(tables[0]) if column.startswith("mask_")]
    config = _config(source, {"manifest": str(tables[0])})
    if labels is None and columns:
        return Recognised(source, LabelMap(columns, "multilabel"), config)
    found, notes = (labels, ()) if labels else _labels_in(_masks_of(source))
    return Recognised(source, found, config, notes=notes)


def _dicom(directory: Path, group: str | None, labels: LabelMap | None) -> Recognised:
    if labels is None:
        raise SettingError(
            "The labels of a DICOM data set have to be named as its segments are. Name them with --labels."
        )
    source = DicomSource(str(directory), group=group)
    settings = {"root": str(directory)} | ({"group": group} if group else {})
    return Recognised(source, labels, _config(source, settings))


def _polygons(directory: Path, group: str | None, labels: LabelMap | None) -> Recognised:
    found = find_polygon_settings(directory)
    if found is None:
        raise MissingDataError(f"{directory} holds no annotations of COCO, labelme or CVAT. Choose another --layout.")
    settings: dict[str, Any] = {"root": str(directory), **found} | ({"group": group} if group else {})
    source = PolygonSource(**settings)
    if labels is not None:
        return Recognised(source, labels, _config(source, settings))
    names = source.find_categories()
    if not names:
        raise SettingError(f"Nothing is drawn in {directory / found['annotations']}. Name the labels with --labels.")
    task: Task = "binary" if len(names) == 1 else "multilabel"
    notes = ("the categories are labels that may overlap; say otherwise with --task multiclass",) if names[1:] else ()
    return Recognised(source, LabelMap(names, task), _config(source, settings), notes=notes)


def _folder(directory: Path, masks: str | None, group: str | None, labels: LabelMap | None) -> Recognised:
    images = _image_folder(directory)
    if images is None:
        raise MissingDataError(f"{directory} holds no folder {' or '.join(IMAGE_FOLDERS)} with images.")
    chosen = masks or _mask_folder(directory, images)
    settings: dict[str, Any] = {"root": str(directory), "images": images, "masks": chosen}
    settings |= {"group": group} if group else {}
    source = FolderSource(**settings)
    found, notes = (labels, ()) if labels else _labels_in(_images_in(directory / chosen))
    alone = () if group else ("every image is taken for a patient of its own; say with --group where one has several",)
    return Recognised(source, found, _config(source, settings), notes=(*notes, *alone))


def labels_named(
    values: Mapping[str, int | None] | None, task: Task | None, ignore_value: int | None
) -> LabelMap | None:
    """The labels that were named on the command line, `None` where none were.

    Args:
        values: The value of each, or `None` for 1, 2, 3 …
        task: By default labels exclude each other.
        ignore_value: The value of voxels that nobody annotated.
    """
    if values is None:
        return None
    given = [value for value in values.values() if value is not None]
    return LabelMap(list(values), task or ("binary" if len(values) == 1 else "multiclass"), given or None, ignore_value)


def exclusive(values: dict[str, int]) -> LabelMap:
    """Labels that exclude each other, by name and file value, written as briefly as a configuration would.

    >>> exclusive({"liver": 1, "tumour": 2})
    LabelMap(names=['liver', 'tumour'], task='multiclass', ...)
    """
    task: Task = "binary" if len(values) == 1 else "multiclass"
    plain = list(values.values()) == list(range(1, len(values) + 1))
    return LabelMap(list(values), task, None if plain else list(values.values()))


def _labels_in(masks: Sequence[Path]) -> tuple[LabelMap, tuple[str, ...]]:
    """The labels whose values stand in a sample of the masks, under names of our making or those of segments."""
    if (named := list_segment_labels(masks)) is not None:
        return named, ()
    step = max(1, len(masks) // _SAMPLED_MASKS)
    with ThreadPoolExecutor() as pool:
        found = [values for values in pool.map(_values_in, masks[::step]) if values]
    holding = Counter(value for values in found for value in values)
    least = max(2, _SHARE_OF_A_LABEL * len(found)) if len(found) > 2 else 1
    kept = sorted(value for value, files in holding.items() if files >= least)
    if not kept:
        raise SettingError("No value but 0 stands in the masks. Name the labels with --labels.")
    if len(kept) == 1 and kept[0] in (1, 255):
        return LabelMap(["foreground"], "binary"), (f"the masks' value {kept[0]} is taken for the label foreground",)
    labels = exclusive({f"label_{value}": value for value in kept})
    stray = [str(value) for value in sorted(set(holding) - set(kept))]
    notes = [f"the masks' values {', '.join(map(str, kept))} are taken for labels"]
    notes += [f"the rare values {shown(stray)} are taken for faults; name them with --labels if not"] if stray else []
    return labels, tuple(notes)


def _values_in(path: Path) -> list[int]:
    """The whole values of a mask other than 0; none where the file is no mask, which is for `check` to say."""
    try:
        values = np.unique(read_mask_file(path)[0])
    except MedsegError:
        return []
    whole = values[np.isfinite(values) & (values == np.round(values)) & (values > 0)]
    return [int(value) for value in whole]


def _masks_of(source: Source) -> list[Path]:
    return [path for case in source.cases() for path in case.masks]


def _images_in(directory: Path) -> list[Path]:
    return [path for path in files_below(directory) if is_image(path)]


def _image_folder(directory: Path) -> str | None:
    return next((name for name in IMAGE_FOLDERS if (directory / name).is_dir()), None)


def _mask_folder(directory: Path, images: str) -> str:
    others = sorted(path for path in directory.glob("[!.]*") if path.is_dir() and path.name != images)
    found = [path.name for path in others if any(map(is_image, files_below(path)))]
    if len(found) != 1:
        what = f"several folders that may hold the masks: {', '.join(found)}" if found else "no folder of masks"
        raise SettingError(f"Beside {directory / images} there are {what}. Say which with --masks.")
    return found[0]


def _manifests(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.glob("*.csv")) if {"case_id", "group", "image"} <= set(_columns(path))]


def _columns(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _config(source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    kind = type(source)
    return {"class_path": f"medseg_pl.data.sources.{kind.__name__}", "init_args": settings}
