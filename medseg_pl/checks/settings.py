"""Settings of a check: the data set, labels and split of the command line or of a training's configuration.

A configuration may be a stranger's. It is read as plain YAML, and of the classes that it names only the sources of
medseg are made: nothing else is imported.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.checks.findings import Finding, Split
from medseg_pl.checks.label_inference import Labeling, LabelSettings
from medseg_pl.checks.layout_detection import DataSettings, OpenedDataset, infer_dataset_labels, open_data_set
from medseg_pl.checks.run_checks import CODES, read_declared_splits, read_split_file
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data import sources
from medseg_pl.data.prepared_data import relocate_source
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    Source,
    UWMadisonSource,
)
from medseg_pl.data.sources.base import explain_missing_root
from medseg_pl.data.splits import LabelVoxels, SplitSettings
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.config_files import describe_missing_config, find_config, read_yaml
from medseg_pl.io.paths import require_folder

BuiltInSource = DecathlonSource | DicomSource | FolderSource | ManifestSource | PolygonSource | UWMadisonSource
_SOURCES = ("DecathlonSource", "DicomSource", "FolderSource", "ManifestSource", "PolygonSource", "UWMadisonSource")


class CheckSettings(NamedTuple):
    """The settings of a check.

    Attributes:
        root: The folder of the data set.
        opened: The data set.
        label_settings: The given settings of labels.
        patch: How images are resized for the network, where that is known.
        split: The split of a configuration, or `None`.
    """

    root: Path
    opened: OpenedDataset
    label_settings: LabelSettings
    patch: Resize | None = None
    split: SplitSettings | None = None

    @property
    def source(self) -> Source:
        """What reads the data set."""
        return self.opened.source

    def infer_labels(self, cases: Sequence[Case]) -> Labeling:
        """Infer the labels that masks should hold.

        Regions give the values that they are made of.
        """
        labeling = infer_dataset_labels(self.opened, cases, self.label_settings)
        labels, notes = labeling.labels, labeling.notes
        if isinstance(self.source, DecathlonSource) and self.source.get_file_labels(labels) is not labels:
            note = f"{', '.join(labels.names)} are regions, so the values that they are made of are checked"
            return Labeling(self.source.get_file_labels(labels), (*notes, note))
        return labeling

    def choose_splits(self, cases: Sequence[Case], label_voxels: LabelVoxels) -> tuple[list[Split], list[Finding]]:
        """Choose the splits to check.

        They come from the configuration's file, from the data, or are drawn.

        Args:
            cases: All cases.
            label_voxels: Balances a drawn split by label.

        Returns:
            The splits, and what is wrong with them.
        """
        if self.split is not None and self.split.file is not None:
            return read_split_file(Path(self.split.file), cases)
        # The data's own split comes first, since `fit` takes it as well.
        declared, findings = read_declared_splits(cases)
        pattern = getattr(self.source, "group", None)
        if not declared and pattern is not None and len({case.group for case in cases}) == 1 < len(cases):
            message = (
                f"The pattern {shlex.quote(pattern)} finds 1 patient in {len(cases)} cases; training and "
                "validation need two. Add patients, or correct data.source.group."
            )
            return [], [CODES.find("split-invalid", message)]
        if declared or self.split is None or not cases:
            return declared, findings
        try:
            drawn = self.split.choose(cases, label_voxels)
        except (DataError, SettingError) as error:
            return [], [CODES.find("split-invalid", str(error))]
        return [{"train": drawn.train, "val": drawn.val, "test": drawn.test}], []


def read_settings(arguments: argparse.Namespace) -> CheckSettings:
    """Read the settings of a check from the command line.

    Raises:
        MissingDataError: There is no data set that is known.
        SettingError: Options or a configuration contradict themselves.
    """
    data = DataSettings.from_arguments(arguments)
    patch = Resize("none", (arguments.patch[0], arguments.patch[1])) if arguments.patch else None
    if arguments.config:
        opened, config = open_configured(arguments.config, arguments.directory, data)
        return CheckSettings(Path(config.source.root), opened, data.labels, patch or config.patch, config.split)
    if arguments.directory is None:
        raise SettingError("There is nothing to check. Give a folder, or a training's configuration with --config.")
    return CheckSettings(arguments.directory, open_data_set(arguments.directory, data), data.labels, patch)


class Configuration(NamedTuple):
    """The settings of a configuration about its data.

    Attributes:
        source: Reads it.
        source_settings: The source as `class_path` and `init_args`.
        labels: The labels of its masks; `None` where it does not say.
        patch: How images are resized for the network.
        split: How they are split.
    """

    source: BuiltInSource
    source_settings: dict[str, Any]
    labels: LabelMap | None
    patch: Resize
    split: SplitSettings


def read_configuration(paths: Sequence[Path], directory: Path | None) -> Configuration:
    """Read the files of a configuration, later ones winning.

    Args:
        paths: The files, as `fit` takes them.
        directory: The data set, where it is not the one that the configuration names.

    Raises:
        SettingError: They cannot be read, or do not describe a data set.
    """
    config = _read_files(paths)
    model, data = _get_section(config, "model"), _get_section(config, "data")
    source, settings = _make_source(_get_section(data, "source"), directory)
    described = _convert_lists(_get_section(model, "labels"))
    labels = _make(LabelMap, "model.labels", described) if described else None
    resize = {"mode": model.get("resize", "none"), "size": model.get("input_size", [256, 256])}
    patch = _make(Resize, "model", _convert_lists({**resize, "spacing_mm": model.get("spacing_mm")}))
    split = SplitSettings(
        fold=data.get("fold", 0),
        folds=data.get("folds", 5),
        fractions=data.get("split_fractions"),
        file=data.get("split_file") and str(find_config(str(data["split_file"]))),
        seed=data.get("split_seed", 0),
    )
    return Configuration(source, settings, labels, patch, split)


def open_configured(
    paths: Sequence[Path], directory: Path | None, settings: DataSettings
) -> tuple[OpenedDataset, Configuration]:
    """Open the data set of a configuration.

    Labels that the user named replace its own.

    Args:
        paths: The files, as `fit` takes them.
        directory: The data set, where it is not the one that the configuration names.
        settings: The given settings.

    Raises:
        MissingDataError: There is no such folder.
        SettingError: The configuration cannot be read, or options describe another source than it names.
    """
    if settings.reading or settings.layout:
        name = "layout" if settings.layout else next(iter(settings.reading))
        raise SettingError(
            f"--config and --{name} both say how the data is read. Set data.source in the configuration."
        )
    config = read_configuration(paths, directory)
    # As for a folder that is named on the command line; else `check` finds a data set without a case.
    root, remedy = Path(config.source.root), "Give the folder that holds it."
    if directory is None:
        remedy = explain_missing_root(root, "Set data.source.root to your data, or give --data_root DIR.")
    require_folder(root, "a data set", remedy)
    separate = config.source.read_mask_labels() if isinstance(config.source, ManifestSource) else []
    masks = config.source.masks if isinstance(config.source, FolderSource) else None
    separate = list(masks) if isinstance(masks, dict) else separate
    labels = config.labels if settings.labels.names is None else None
    return OpenedDataset(config.source, config.source_settings, labels, tuple(separate)), config


def _make_source(settings: Mapping[str, Any], directory: Path | None) -> tuple[BuiltInSource, dict[str, Any]]:
    path = str(settings.get("class_path", ""))
    name = path.rpartition(".")[2]
    # A class_path is imported by whoever instantiates it: only names from this list are looked up.
    if name not in _SOURCES or not (path == name or path.startswith("medseg_pl.")):
        raise SettingError(
            f"data.source.class_path is {path!r}; expected one of medseg's own sources, {', '.join(_SOURCES)}. A "
            "source of your own is code, which is not run here: describe the same files with one of these."
        )
    described = {"init_args": dict(_get_section(settings, "init_args"))}
    values = (described if directory is None else relocate_source(described, directory))["init_args"]
    source: BuiltInSource = _make(getattr(sources, name), "data.source.init_args", values)
    return source, {"class_path": f"medseg_pl.{name}", "init_args": values}


def _make(kind: Any, setting: str, values: Mapping[str, Any]) -> Any:
    """Make an object from settings; raise `SettingError` for wrong ones."""
    try:
        return kind(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingError(
            f"{setting} does not describe a {kind.__name__}: {error}. Correct the configuration."
        ) from None


def _convert_lists(settings: Any) -> Any:
    """Convert YAML's lists to tuples, as constructors expect them."""
    if isinstance(settings, Mapping):
        return {name: _convert_lists(value) for name, value in settings.items()}
    return tuple(settings) if isinstance(settings, list) else settings


def _get_section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name, {})
    if not isinstance(section, Mapping):
        raise SettingError(f"{name} in the configuration is {section!r}; expected settings below it.")
    return section


def _read_files(paths: Sequence[Path]) -> dict[str, Any]:
    """Merge several files, later ones winning, as `fit` takes them."""
    merged: dict[str, Any] = {}
    for path in map(find_config, paths):
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise SettingError(describe_missing_config(path)) from None
        except OSError as error:
            raise SettingError(f"The configuration {path} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise SettingError(f"{path} is not valid YAML: {error}.") from None
        if not isinstance(content, dict):
            raise SettingError(f"{path} holds no settings; expected the sections model and data.")
        merged = _merge(merged, content)
    return merged


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merge(first[key], value) if isinstance(value, dict) and isinstance(first.get(key), dict) else value
        for key, value in second.items()
    }
    return {**first, **both}
