"""What is to be checked: from the command line, or from the configuration of a training.

A configuration may be a stranger's. It is read as plain YAML, and of the classes that it names only the sources of
medseg are made: nothing else is imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data import sources
from medseg_pl.data.integrity.findings import Finding, finding
from medseg_pl.data.integrity.labelling import UNNAMED
from medseg_pl.data.integrity.sides import Sides, declared_sides, sides_in_file
from medseg_pl.data.recognition import labels_named, layout_of, recognise
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    Source,
    UWMadisonSource,
)
from medseg_pl.data.sources.segments import list_segment_labels
from medseg_pl.data.splits import LabelVoxels, SplitSettings
from medseg_pl.functional.fit import Fit
from medseg_pl.io.shipped import find_config
from medseg_pl.io.structured import read_yaml

Known = DecathlonSource | DicomSource | FolderSource | ManifestSource | PolygonSource | UWMadisonSource
_SOURCES = ("DecathlonSource", "DicomSource", "FolderSource", "ManifestSource", "PolygonSource", "UWMadisonSource")
_WITHOUT_NAMES = ("folder", "manifest")
"""Layouts that may leave it to the masks which labels there are."""


class Settings(NamedTuple):
    """What is to be checked.

    Attributes:
        root: The folder of the data set.
        source: Reads it.
        labels: What masks should hold, `None` where the masks have to tell.
        modalities: What the data set says of each channel.
        patch: How images are brought to the network, where that is known.
        split: The split of a configuration, or `None`.
        notes: What was concluded rather than read, in words.
    """

    root: Path
    source: Source
    labels: LabelMap | None
    modalities: tuple[str, ...] = ()
    patch: Fit | None = None
    split: SplitSettings | None = None
    notes: tuple[str, ...] = ()

    def sides(self, cases: Sequence[Case], label_voxels: LabelVoxels) -> tuple[list[Sides], list[Finding]]:
        """The splits that are to be checked: that of the configuration's file, the data's own, or the one drawn."""
        if self.split is not None and self.split.file is not None:
            return sides_in_file(Path(self.split.file), cases)
        declared, found = declared_sides(cases)
        if declared or self.split is None or not cases:
            return declared, found
        try:
            drawn = self.split.choose(cases, label_voxels)
        except (DataError, SettingError) as error:
            return [], [finding("split-invalid", str(error))]
        return [{"train": drawn.train, "val": drawn.val, "test": drawn.test}], []


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the command line asks for.

    Raises:
        MissingDataError: There is no data set that is known.
        SettingError: Options or a configuration contradict themselves.
    """
    labels = labels_named(arguments.labels, arguments.task, arguments.ignore_value)
    if labels is None and (arguments.task or arguments.ignore_value is not None):
        raise SettingError("--task and --ignore_value say more of labels that --labels names. Give --labels too.")
    patch = Fit("native", (arguments.patch[0], arguments.patch[1])) if arguments.patch else None
    if arguments.config:
        given = _of_config(_merged(arguments.config), arguments.directory)
        return given._replace(labels=labels or given.labels, patch=patch or given.patch)
    if arguments.directory is None:
        raise SettingError("There is nothing to check. Give a folder, or a training's configuration with --config.")
    return _of_directory(arguments, labels, patch)


def _of_directory(arguments: argparse.Namespace, labels: LabelMap | None, patch: Fit | None) -> Settings:
    layout = arguments.layout or (layout_of(arguments.directory) if arguments.directory.is_dir() else None)
    unnamed = labels is None and layout in _WITHOUT_NAMES
    found = recognise(
        arguments.directory,
        layout=layout,
        masks=arguments.masks,
        group=arguments.group,
        labels=UNNAMED if unnamed else labels,
    )
    known = _labels_of_columns(found.source) or _labels_of_segments(found.source) if unnamed else found.labels
    return _by_value(Settings(arguments.directory, found.source, known, found.modalities, patch, notes=found.notes))


def _labels_of_columns(source: Source) -> LabelMap | None:
    """The labels that a manifest names in its columns."""
    columns = source.mask_labels() if isinstance(source, ManifestSource) else []
    return LabelMap(columns, "multilabel") if columns else None


def _labels_of_segments(source: Source) -> LabelMap | None:
    """The labels that masks name themselves; a listing with a fault is for the check to report."""
    try:
        masks = [path for case in source.cases() for path in case.masks]
        return list_segment_labels(masks)
    except DataError:
        return None


def _of_config(config: Mapping[str, Any], directory: Path | None) -> Settings:
    model, data = _section(config, "model"), _section(config, "data")
    source = _source(_section(data, "source"), directory)
    labels = _made(LabelMap, "model.labels", _as_tuples(_section(model, "labels")))
    fit = {"mode": model.get("fit", "native"), "size": model.get("size", [256, 256])}
    patch = _made(Fit, "model", _as_tuples({**fit, "spacing_mm": model.get("spacing_mm")}))
    split = SplitSettings(
        fold=data.get("fold", 0),
        folds=data.get("folds", 5),
        fractions=data.get("fractions"),
        file=data.get("split_file") and str(find_config(str(data["split_file"]))),
        seed=data.get("split_seed", 0),
    )
    return _by_value(Settings(Path(source.root), source, labels, (), patch, split))


def _by_value(settings: Settings) -> Settings:
    """Check the values of the mask files where labels are regions of several values."""
    source, labels = settings.source, settings.labels
    if not isinstance(source, DecathlonSource) or labels is None or source.file_labels(labels) is labels:
        return settings
    note = f"{', '.join(labels.names)} are regions, so the values that they are made of are checked"
    return settings._replace(labels=source.file_labels(labels), notes=(*settings.notes, note))


def _source(settings: Mapping[str, Any], directory: Path | None) -> Known:
    path = str(settings.get("class_path", ""))
    name = path.rpartition(".")[2]
    if name not in _SOURCES or not (path == name or path.startswith("medseg_pl.data.sources.")):
        raise SettingError(
            f"data.source.class_path is {path!r}; expected one of medseg's own sources, {', '.join(_SOURCES)}. A "
            "source of your own is code, which check does not run: describe the same files with one of these."
        )
    values = dict(_section(settings, "init_args"))
    if directory is not None:
        manifest = {"manifest": str(directory / Path(str(values.get("manifest"))).name)}
        values |= manifest if name == "ManifestSource" else {"root": str(directory)}
    made: Known = _made(getattr(sources, name), "data.source.init_args", values)
    return made


def _made(kind: Any, setting: str, values: Mapping[str, Any]) -> Any:
    """An object from the settings of a file, or `SettingError` where they are not those of its constructor."""
    try:
        return kind(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingError(
            f"{setting} does not describe a {kind.__name__}: {error}. Correct the configuration."
        ) from None


def _as_tuples(settings: Any) -> Any:
    """Settings with tuples in place of YAML's lists, as constructors expect them."""
    if isinstance(settings, Mapping):
        return {name: _as_tuples(value) for name, value in settings.items()}
    return tuple(settings) if isinstance(settings, list) else settings


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name, {})
    if not isinstance(section, Mapping):
        raise SettingError(f"{name} in the configuration is {section!r}; expected settings below it.")
    return section


def _merged(paths: Sequence[Path]) -> dict[str, Any]:
    """Several files as one, later ones winning, as `fit` takes them."""
    merged: dict[str, Any] = {}
    for path in map(find_config, paths):
        try:
            content = read_yaml(path)
        except OSError as error:
            raise SettingError(f"The configuration {path} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise SettingError(f"{path} is not valid YAML: {error}.") from None
        if not isinstance(content, dict):
            raise SettingError(f"{path} holds no settings; expected the sections model and data.")
        merged = _joined(merged, content)
    return merged


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _joined(first[key], value) if isinstance(value, dict) and isinstance(first.get(key), dict) else value
        for key, value in second.items()
    }
    return {**first, **both}
