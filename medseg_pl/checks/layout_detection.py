"""Detection of the layout, pairs and labels of a data set that nobody has described.

`check`, `plan` and `new` ask here, so that none knows more than another.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from medseg_pl.checks.file_checks import DAMAGE
from medseg_pl.checks.findings import MaskFacts
from medseg_pl.checks.inspection import read_any_mask
from medseg_pl.checks.label_inference import Labeling, LabelSettings, infer_labels
from medseg_pl.checks.pixel_measurement import measure_mask
from medseg_pl.core.errors import DataError, MedsegError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FileSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    Source,
    UWMadisonSource,
)
from medseg_pl.data.sources.base import note_doubtful_pattern, note_unknown_patients
from medseg_pl.data.sources.decathlon import read_labels
from medseg_pl.data.sources.folder_layout import IMAGE_FOLDERS, find_folder_layout, find_image_folder
from medseg_pl.data.sources.named_masks import list_segment_labels
from medseg_pl.data.sources.polygons import find_polygon_settings
from medseg_pl.io.config_files import read_json
from medseg_pl.io.dicom.headers import is_dicom
from medseg_pl.io.file_header import read_header
from medseg_pl.io.paths import list_files, require_folder

LAYOUTS = ("decathlon", "uw_madison", "manifest", "dicom", "polygons", "folder")
READING = ("images", "image_name", "masks", "mask_name", "group", "slicing")
"""Settings of sources that options give, by the same names."""

_READ_BY = {
    "decathlon": {"group", "slicing"},
    "uw_madison": set[str](),
    "manifest": {"slicing"},
    "dicom": {"group"},
    "polygons": {"group"},
    "folder": set(READING),
}
_SAMPLED_CASES = 200


@dataclass(frozen=True)
class DataSettings:
    """The given settings of a data set; the data tell the rest.

    Args:
        layout: One of `LAYOUTS`.
        reading: Settings of its source, by their names in `READING`.
        labels: The given settings of labels.
    """

    layout: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelSettings = field(default_factory=LabelSettings)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> DataSettings:
        """Collect the options of `medseg_pl.cli.arguments.add_data_options`."""
        reading = {name: getattr(arguments, name) for name in READING if getattr(arguments, name) is not None}
        labels = LabelSettings(
            arguments.labels, arguments.task, arguments.ignore_value, arguments.colors, arguments.tolerance
        )
        return cls(arguments.layout, reading, labels)


@dataclass(frozen=True)
class OpenedDataset:
    """A data set before its masks are read.

    Args:
        source: Reads it.
        config: The source as `class_path` and `init_args`, for a configuration.
        labels: The labels that its description names; `None` to infer them from the masks.
        separate: The labels that have files of their own.
        modalities: `CT`, `MRI` or whatever the data set says of each channel; nothing where it says nothing.
        notes: What was concluded rather than read, in words.
    """

    source: Source
    config: dict[str, Any]
    labels: LabelMap | None = None
    separate: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DetectedDataset:
    """A data set as it was detected.

    Args:
        source: Reads it.
        labels: The labels of its masks.
        config: The source as `class_path` and `init_args`, for a configuration.
        modalities: `CT`, `MRI` or whatever the data set says of each channel; nothing where it says nothing.
        notes: What was concluded rather than read, in words.
    """

    source: Source
    labels: LabelMap
    config: dict[str, Any]
    modalities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def detect_dataset(directory: Path, settings: DataSettings | None = None) -> DetectedDataset:
    """Detect a data set's layout and the labels of its masks.

    Args:
        directory: The data set.
        settings: The given settings.

    Raises:
        MissingDataError: There is no such folder, or nothing in it that is known.
        SettingError: The layout is unknown, or something has to be set that the data does not say.
    """
    settings = settings or DataSettings()
    return detect_labels(open_data_set(directory, settings), settings.labels)


def detect_labels(opened: OpenedDataset, settings: LabelSettings) -> DetectedDataset:
    """Detect the labels of an opened data set.

    Raises:
        SettingError: Something has to be set that the masks do not say.
    """
    cases = opened.source.cases()
    labeling = infer_dataset_labels(opened, cases, settings)
    if labeling.problem:
        raise SettingError(labeling.problem)
    patients = (*note_unknown_patients(opened.source, cases), *note_doubtful_pattern(opened.source, cases))
    notes = (*labeling.notes, *opened.notes, *patients)
    return DetectedDataset(opened.source, labeling.labels, opened.config, opened.modalities, notes)


def open_data_set(directory: Path, settings: DataSettings) -> OpenedDataset:
    """Open a data set with the detected layout and its source's settings.

    Raises:
        MissingDataError: There is no such folder, or nothing in it that is known.
        SettingError: The layout is unknown, or has no such setting.
    """
    require_folder(directory, "a data set", "Give the folder that holds it.")
    # A dataset.json may lie beside folders that the user describes by options: what is said wins over what is found.
    only_folders = settings.reading.keys() - _READ_BY["decathlon"]
    layout = settings.layout or ("folder" if only_folders else detect_layout(directory))
    if layout not in LAYOUTS:
        raise SettingError(f"There is no layout {layout!r}. Choose one of {', '.join(LAYOUTS)}.")
    if foreign := sorted(settings.reading.keys() - _READ_BY[layout]):
        raise SettingError(
            f"--{foreign[0]} does not apply to {directory}, whose layout is {layout}. Leave it out, or choose "
            "another --layout."
        )
    openers = {
        "decathlon": _open_decathlon,
        "uw_madison": _open_uw_madison,
        "manifest": _open_manifest,
        "dicom": _open_dicom,
        "polygons": _open_polygons,
    }
    return openers.get(layout, _open_folder)(directory, settings)


def infer_dataset_labels(opened: OpenedDataset, cases: Sequence[Case], settings: LabelSettings) -> Labeling:
    """Infer the labels of a data set.

    They are set, or described by the data, or read from a sample of the masks.

    Args:
        opened: The data set.
        cases: Its cases, as many as can be read.
        settings: The given settings of labels.
    """
    labeling = _infer_labels(opened, cases, settings)
    partial = any(case.annotated_labels is not None for case in cases)
    return labeling._replace(labels=replace(labeling.labels, partial=partial))


def _infer_labels(opened: OpenedDataset, cases: Sequence[Case], settings: LabelSettings) -> Labeling:
    """Return the described labels, or infer them from some masks."""
    if (
        opened.labels is not None
        or not isinstance(opened.source, FileSource)
        or isinstance(opened.source, PolygonSource)
    ):
        return _complete_labels(opened.labels, settings)
    sample = [case for case in cases if case.masks]
    segments = list_segment_labels([path for case in sample for path in case.masks])
    if segments is not None:
        return _complete_labels(segments, settings)
    # Spread over the whole list: the first cases are often of one patient, or of one site.
    sample = sample[:: max(1, len(sample) // _SAMPLED_CASES)]
    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(partial(_measure_masks, opened.source, bool(opened.separate)), sample))
    return infer_labels([mask for masks in measured for mask in masks], settings, opened.separate)


def detect_layout(directory: Path) -> str:
    """Detect the layout from a folder's own files.

    Raises:
        MissingDataError: They tell none.
    """
    if (directory / "dataset.json").is_file():
        return "decathlon"
    if (directory / "train.csv").is_file() and (directory / "train").is_dir():
        return "uw_madison"
    if _find_manifests(directory):
        return "manifest"
    if find_polygon_settings(directory) is not None:
        return "polygons"
    images = find_image_folder(directory)
    # Named folders outrank DICOM, images beside their masks do not: a DICOM tree may hold a few pictures, too.
    if images not in (None, "."):
        return "folder"
    # Each look opens a file, and a folder of a million pictures must not be opened whole to learn that it is none.
    if any(is_dicom(path) for path in islice(list_files(directory), 200)):
        return "dicom"
    if images is not None:
        return "folder"
    raise MissingDataError(
        f"{directory} has no known layout, such as {IMAGE_FOLDERS[0]}/ beside masks/, dataset.json, train.csv or DICOM "
        "series. Write a CSV with the columns case_id, group, image and mask, as ManifestSource reads it."
    )


def _open_decathlon(directory: Path, settings: DataSettings) -> OpenedDataset:
    path = directory / "dataset.json"
    try:
        description = read_json(path)
        described = read_labels(description.get("labels")).as_label_map()
        channels = description.get("modality") or description.get("channel_names") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a data set's description: {error}.") from None
    if described is None and settings.labels.names is None:
        raise SettingError(f"{path} names no labels. Name them with --labels.")
    # nnU-Net writes channel_names, the Decathlon modality; a list, which no specification knows, is left alone.
    modalities = tuple(str(name) for name in channels.values()) if isinstance(channels, dict) else ()
    source, config = _make_source(DecathlonSource, {"root": str(directory), **settings.reading})
    return OpenedDataset(source, config, described, modalities=modalities)


def _open_uw_madison(directory: Path, settings: DataSettings) -> OpenedDataset:
    source, config = _make_source(UWMadisonSource, {"root": str(directory)})
    with (directory / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        names = sorted({row["class"] for row in csv.DictReader(file) if row.get("class")})
    if settings.labels.names is None and not names:
        raise SettingError(f"{directory / 'train.csv'} names no class. Name the labels with --labels.")
    return OpenedDataset(source, config, LabelMap(names, "multilabel") if names else None, modalities=("MRI",))


def _open_manifest(directory: Path, settings: DataSettings) -> OpenedDataset:
    tables = _find_manifests(directory)
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise SettingError(
            f"{directory} must hold one CSV with the columns case_id, group and image; it holds {names}."
        )
    init_args = {"manifest": str(tables[0]), **settings.reading}
    source, config = _make_source(ManifestSource, init_args)
    return OpenedDataset(source, config, separate=tuple(ManifestSource(**init_args).read_mask_labels()))


def _open_dicom(directory: Path, settings: DataSettings) -> OpenedDataset:
    if settings.labels.names is None:
        raise SettingError(
            "The labels of a DICOM data set have to be named as its segments are. Name them with --labels."
        )
    source, config = _make_source(DicomSource, {"root": str(directory), **settings.reading})
    return OpenedDataset(source, config)


def _open_polygons(directory: Path, settings: DataSettings) -> OpenedDataset:
    found = find_polygon_settings(directory)
    if found is None:
        raise MissingDataError(f"{directory} holds no annotations of COCO, labelme or CVAT. Choose another --layout.")
    init_args: dict[str, Any] = {"root": str(directory), **found, **settings.reading}
    source, config = _make_source(PolygonSource, init_args)
    if settings.labels.names is not None:
        return OpenedDataset(source, config)
    names = PolygonSource(**init_args).find_categories()
    if not names:
        raise SettingError(f"Nothing is drawn in {directory / found['annotations']}. Name the labels with --labels.")
    notes = ("the categories are labels that may overlap; say otherwise with --task multiclass",) if names[1:] else ()
    return OpenedDataset(source, config, LabelMap(names, "binary" if len(names) == 1 else "multilabel"), notes=notes)


def _open_folder(directory: Path, settings: DataSettings) -> OpenedDataset:
    found = find_folder_layout(directory, settings.reading)
    source, config = _make_source(FolderSource, {"root": str(directory), **found.settings})
    return OpenedDataset(source, config, separate=found.labels, notes=found.notes)


def _complete_labels(labels: LabelMap | None, settings: LabelSettings) -> Labeling:
    """Replace what a data set describes by what is set."""
    if settings.names is not None:
        return Labeling(settings.describe(settings.names))
    assert labels is not None, "a data set that is no files names its labels, or they were named"
    return Labeling(
        replace(
            labels,
            task=settings.task or labels.task,
            ignore_value=labels.ignore_value if settings.ignore_value is None else settings.ignore_value,
            tolerance=labels.tolerance if settings.tolerance is None else settings.tolerance,
        )
    )


def _measure_masks(source: FileSource, separate: bool, case: Case) -> list[MaskFacts]:
    """Measure the masks of a case.

    Masks that cannot be read are for `check` to report.
    """
    labels: list[int | None] = [None] * len(case.masks)
    if separate:
        labels = [label for label, share in enumerate(source.count_label_files(case)) for _ in range(share)]
    measured = []
    for path, label in zip(case.masks, labels, strict=True):
        try:
            pixels, geometry = read_any_mask(path)
            measured.append(measure_mask(pixels, geometry, path, read_header(path), label, with_components=False))
        except (MedsegError, MemoryError, *DAMAGE):
            continue
    return measured


def _find_manifests(directory: Path) -> list[Path]:
    tables = (path for path in sorted(directory.glob("*.csv")) if path.is_file())
    return [path for path in tables if {"case_id", "group", "image"} <= set(_read_columns(path))]


def _read_columns(path: Path) -> list[str]:
    try:
        # Excel writes a byte order mark, which would be part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _make_source(kind: type[Source], init_args: dict[str, Any]) -> tuple[Source, dict[str, Any]]:
    """Make a source, and say how a configuration names it."""
    return kind(**init_args), {"class_path": f"medseg_pl.{kind.__name__}", "init_args": init_args}
