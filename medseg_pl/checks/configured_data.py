"""The data set, labels and split of a training's configuration.

A configuration may be a stranger's. It is read as plain YAML, and of the classes that it names only the sources of
medseg are made: nothing else is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.checks.layout_detection import DataSettings, Opened
from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data import sources
from medseg_pl.data.sources import (
    DecathlonSource,
    DicomSource,
    FolderSource,
    ManifestSource,
    PolygonSource,
    UWMadisonSource,
)
from medseg_pl.data.splits import SplitSettings
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.config_files import find_config, read_yaml

Known = DecathlonSource | DicomSource | FolderSource | ManifestSource | PolygonSource | UWMadisonSource
_SOURCES = ("DecathlonSource", "DicomSource", "FolderSource", "ManifestSource", "PolygonSource", "UWMadisonSource")


class Configuration(NamedTuple):
    """What a configuration says of its data.

    Attributes:
        source: Reads it.
        source_settings: The source as `class_path` and `init_args`.
        labels: What its masks hold; `None` where it does not say.
        patch: How images are brought to the network.
        split: How they are split.
    """

    source: Known
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
    config = _merged(paths)
    model, data = _section(config, "model"), _section(config, "data")
    source, settings = _source(_section(data, "source"), directory)
    described = _as_tuples(_section(model, "labels"))
    labels = _made(LabelMap, "model.labels", described) if described else None
    resize = {"mode": model.get("resize", "none"), "size": model.get("input_size", [256, 256])}
    patch = _made(Resize, "model", _as_tuples({**resize, "spacing_mm": model.get("spacing_mm")}))
    split = SplitSettings(
        fold=data.get("fold", 0),
        folds=data.get("folds", 5),
        fractions=data.get("split_fractions"),
        file=data.get("split_file") and str(find_config(str(data["split_file"]))),
        seed=data.get("split_seed", 0),
    )
    return Configuration(source, settings, labels, patch, split)


def open_configured(paths: Sequence[Path], directory: Path | None, said: DataSettings) -> tuple[Opened, Configuration]:
    """Open the data set of a configuration; labels that were named win over its own.

    Raises:
        SettingError: The configuration cannot be read, or options describe another source than it names.
    """
    if said.reading or said.layout:
        name = "layout" if said.layout else next(iter(said.reading))
        raise SettingError(
            f"--config and --{name} both say how the data is read. Set data.source in the configuration."
        )
    config = read_configuration(paths, directory)
    apart = config.source.read_mask_labels() if isinstance(config.source, ManifestSource) else []
    masks = config.source.masks if isinstance(config.source, FolderSource) else None
    apart = list(masks) if isinstance(masks, dict) else apart
    labels = config.labels if said.labels.names is None else None
    return Opened(config.source, config.source_settings, labels, tuple(apart)), config


def _source(settings: Mapping[str, Any], directory: Path | None) -> tuple[Known, dict[str, Any]]:
    path = str(settings.get("class_path", ""))
    name = path.rpartition(".")[2]
    if name not in _SOURCES or not (path == name or path.startswith("medseg_pl.")):
        raise SettingError(
            f"data.source.class_path is {path!r}; expected one of medseg's own sources, {', '.join(_SOURCES)}. A "
            "source of your own is code, which is not run here: describe the same files with one of these."
        )
    values = dict(_section(settings, "init_args"))
    if directory is not None:
        manifest = {"manifest": str(directory / Path(str(values.get("manifest"))).name)}
        values |= manifest if name == "ManifestSource" else {"root": str(directory)}
    made: Known = _made(getattr(sources, name), "data.source.init_args", values)
    return made, {"class_path": f"medseg_pl.{name}", "init_args": values}


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
