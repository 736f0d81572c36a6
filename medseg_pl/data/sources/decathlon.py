"""Folders described by a `dataset.json`: the Medical Segmentation Decathlon, and nnU-Net's raw data."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, MissingDataError, SettingError, count_noun, strip_remedy
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import IGNORE, LabelMap, Task
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    Source,
    abbreviate,
    check_pattern,
    explain_missing_root,
    explain_unread,
    find_group,
    make_case,
    raise_or_report,
)
from medseg_pl.data.sources.files import CaseGrid, FileSource, is_image, resolve_inside
from medseg_pl.data.sources.unlabeled import ChannelFolder, find_image_folders
from medseg_pl.io.config_files import read_json
from medseg_pl.io.paths import LeftOut, find_dead_links, is_volume_name, list_files, stem

_IGNORE = "ignore"


class DescribedLabels(NamedTuple):
    """The labels of a `dataset.json`, by names in lower case.

    Attributes:
        values: The value of each label that has one, background included.
        regions: The values that make up each label, where some label has several: nnU-Net's regions, which overlap.
        ignore: The value of voxels that nobody annotated.
    """

    values: dict[str, int]
    regions: dict[str, tuple[int, ...]]
    ignore: int | None

    def as_label_map(self) -> LabelMap | None:
        """Return the labels without the background, if there are any.

        >>> described = read_labels({"background": 0, "tumour": [1, 2], "core": 2, "ignore": 3})
        >>> described.as_label_map()
        LabelMap(names=['tumour', 'core'], task='multilabel', values=None, ignore_value=3, ...)
        """
        if self.regions:
            return LabelMap(list(self.regions), "multilabel", None, self.ignore)
        named = {name: value for name, value in sorted(self.values.items(), key=lambda pair: pair[1]) if value}
        return _make_exclusive(named, self.ignore) if named else None

    def make_value_labels(self) -> LabelMap:
        """Make a label for each value that regions are made of."""
        values = sorted({value for several in self.regions.values() for value in several})
        return _make_exclusive({f"value_{value}": value for value in values}, self.ignore)


def read_labels(labels: object) -> DescribedLabels:
    """Read the labels of a `dataset.json` in any dialect.

    These are `{"0": "background", "1": "liver"}`, `{"background": 0, "liver": 1}`, and regions `{"tumour": [1, 2]}`.

    Args:
        labels: The field `labels`; anything that cannot be understood is left out.
    """
    if not isinstance(labels, dict):
        return DescribedLabels({}, {}, None)
    several = {
        str(name).lower(): _select_whole_numbers(value) for name, value in labels.items() if isinstance(value, list)
    }
    pairs = [(name, value) if isinstance(value, int) else (value, name) for name, value in labels.items()]
    single = {str(n).lower(): int(v) for n, v in pairs if isinstance(n, str) and str(v).isdigit()}
    single |= {name: values[0] for name, values in several.items() if len(values) == 1}
    ignore = single.pop(_IGNORE, None)
    if all(len(values) == 1 for values in several.values()):
        return DescribedLabels(single, {}, ignore)
    whole = {str(name).lower(): several.get(str(name).lower()) or () for name in labels}
    regions = {name: values or ((single[name],) if single.get(name) else ()) for name, values in whole.items()}
    return DescribedLabels(single, {name: values for name, values in regions.items() if values}, ignore)


def list_channels(root: Path, name: str, ending: str, channels: int) -> list[str]:
    """Name the channel files of a case as nnU-Net does.

    A picture with several channels may stand in `<case>_0000` alone.

    Returns:
        Paths below the root.
    """
    names = [f"imagesTr/{name}_{channel:04d}{ending}" for channel in range(channels)]
    in_one = channels > 1 and not is_volume_name(Path(names[0])) and (root / names[0]).is_file()
    return names[:1] if in_one and not any((root / other).exists() for other in names[1:]) else names


def list_dataset(dataset: Any) -> list[Mapping[str, Any]] | None:
    """List the entries of nnU-Net's field `dataset`.

    >>> list_dataset({"a": {"images": ["x/a.png"], "label": "y/a.png"}})
    [{'name': 'a', 'images': ['x/a.png'], 'label': 'y/a.png'}]
    """
    entries = [{"name": name, **entry} for name, entry in dataset.items()] if _is_dict_of_dicts(dataset) else dataset
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        return None
    return [{"name": entry.get("name") or stem(Path(entry["label"])), **entry} for entry in entries]


def _is_dict_of_dicts(dataset: Any) -> bool:
    return isinstance(dataset, dict) and all(isinstance(entry, dict) for entry in dataset.values())


def _is_dict_of_names(annotated: Any) -> bool:
    """Check for lists of different names, none of them empty."""
    return isinstance(annotated, dict) and all(
        isinstance(names, list) and names and len(set(map(str, names))) == len(names) and all(map(_is_text, names))
        for names in annotated.values()
    )


def _is_text(name: Any) -> bool:
    return isinstance(name, str) and bool(name)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return False
    images = entry.get("images")
    return isinstance(images, list) and bool(images) and all(isinstance(image, str) for image in images)


def _select_whole_numbers(values: list[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values if str(value).isdigit())


def _make_exclusive(values: dict[str, int], ignore: int | None) -> LabelMap:
    task: Task = "binary" if len(values) == 1 else "multiclass"
    plain = list(values.values()) == list(range(1, len(values) + 1))
    return LabelMap(list(values), task, None if plain else list(values.values()), ignore)


_Pair = tuple[dict[Path, str], dict[Path, str]]
"""The images of a case and its mask, each file with the name by which it is listed."""


class _Entry(NamedTuple):
    """One case as a `dataset.json` lists it.

    Attributes:
        name: The case.
        images: The channels, below the root.
        label: The mask, likewise.
    """

    name: str
    images: Sequence[str]
    label: str


class _NoMaskError(MissingDataError):
    """The folder of masks holds none."""


class DecathlonSource(FileSource):
    """`imagesTr`, `labelsTr` and a `dataset.json`.

    Both dialects are read: the Decathlon's own, whose `training` lists pairs of files, and nnU-Net v2's, whose
    `file_ending` and `channel_names` describe files such as `imagesTr/liver_01_0000.nii.gz` with the channel behind
    the case's name, or whose `dataset` lists the files of each case. A single picture may hold all channels.

    nnU-Net's label `ignore` is `labels.ignore_value`. Its regions, labels with several values, overlap: with the task
    multilabel each is where the mask has any of its values.

    A field `annotated_labels` of `dataset.json`, such as `{"liver_01": ["liver"]}`, names the labels that were looked
    for in a case; all were in cases that it does not name.

    Args:
        root: The folder that holds `dataset.json`.
        group: A regular expression whose parentheses find the patient in a case's name; without it every case is its
            own patient.
        slicing: How volumes are cut into slices: `file` across their last axis, `thick` across the largest spacing,
            both with rows and columns as they are stored; `axial`, `coronal` or `sagittal` as radiologists see them,
            whichever way the volume was stored.

    References:
        Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022.
    """

    def __init__(self, root: str, group: str | None = None, slicing: Slicing = "file") -> None:
        check_pattern(group)
        self.root = Path(root)
        self.group = group
        self.slicing = slicing

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each training pair."""
        pairs = self._list_pairs(on_problem)
        self._check_files(pairs, on_problem)
        cases, annotated = [], self._read_annotated_labels(pairs, on_problem)
        for name, (images, mask) in sorted(pairs.items()):
            if images and all(path.is_file() for path in images):
                group = find_group(name, self.group, self._path, on_problem, pairs)
                masks = tuple(path for path in mask if path.is_file())
                fields = (name, group, tuple(images), masks, None, None, (), annotated.get(name))
                cases += make_case(on_problem, self._path, *fields)
        if on_problem is not None:
            listed = {path for case in cases for path in case.images}
            others = [path for path in list_files(self.root / "imagesTr") if is_image(path) and path not in listed]
            if others:
                message = (
                    f"{count_noun(len(others), 'image is', 'images are')} in no entry: "
                    f"{abbreviate([path.name for path in others])}."
                )
                on_problem(Problem("unlisted-file", message, "", others[0]))
        return cases

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case, after a check of its labels' values.

        Raises:
            SettingError: `dataset.json` gives a label another value, or means ignored voxels by it.
            DataError: A file cannot be used as it is.
        """
        self._check_labels(labels)
        return super().read(case, labels)

    def open_unlabeled(self, directory: Path) -> Source:
        """Open a folder of images with channels `_0000` and so on."""
        folders = find_image_folders(directory, ("imagesTr", "imagesTs"), ("labelsTr", "labelsTs"))
        return ChannelFolder(str(directory), self.slicing, folders)

    def list_left_out(self) -> list[LeftOut]:
        """List what is in no training pair."""
        used = {path for images, mask in self._list_pairs().values() for path in (*images, *mask)}
        folders = [self.root / name for name in ("imagesTr", "labelsTr")]
        others = [path for folder in folders for path in list_files(folder) if path not in used]
        unused = [
            LeftOut(path, f"No training pair of {self._path} has it.", "unlisted")
            if is_image(path)
            else explain_unread(path)
            for path in others
        ]
        return [*unused, *(dead for folder in folders for dead in find_dead_links(folder))]

    def reading_settings(self) -> tuple[object, ...]:
        """Return the slicing, and which values make up a region."""
        regions = self._described.regions if (self.root / "dataset.json").is_file() else {}
        return (self.slicing, *sorted(regions.items()))

    def get_file_labels(self, labels: LabelMap) -> LabelMap:
        """Return what mask files hold: of regions a label for each value."""
        return self._described.make_value_labels() if labels.overlapping and self._described.regions else labels

    def read_masks(self, case: Case, labels: LabelMap, grid: CaseGrid) -> UInt8[np.ndarray, "m d h w"]:
        """Decode the mask of one case; unite regions from its values."""
        held = self.get_file_labels(labels)
        if held is labels:
            return super().read_masks(case, labels, grid)
        (mask,) = super().read_masks(case, held, grid)
        places = {value: place for place, value in enumerate(held.file_values, start=1)}
        regions = [[places[value] for value in self._merge_region(name)] for name in labels.names]
        planes = [np.isin(mask, places_here).astype(np.uint8) for places_here in regions]
        # What nobody annotated is unknown for every region.
        return np.where(mask == IGNORE, np.uint8(IGNORE), np.stack(planes))

    def _merge_region(self, name: str) -> tuple[int, ...]:
        regions = self._described.regions
        if name.lower() not in regions:
            raise SettingError(
                f"{self.root / 'dataset.json'} has no region {name!r}; labels.names may hold {', '.join(regions)}."
            )
        return regions[name.lower()]

    def _check_labels(self, labels: LabelMap) -> None:
        ignore = self._described.ignore
        if ignore is not None and "ignore" in [name.lower() for name in labels.names]:
            raise SettingError(
                f"labels.names holds 'ignore', which {self.root / 'dataset.json'} gives to what nobody annotated. Take "
                f"it out, and set labels.ignore_value to {ignore}."
            )
        if labels.overlapping and self._described.regions:
            return
        for name, value in zip(labels.names, labels.file_values, strict=True):
            # A name of one's own cannot be checked.
            expected = self._described.values.get(name.lower(), value)
            if expected != value:
                raise SettingError(
                    f"labels.names gives {name!r} the value {value}, but {self.root / 'dataset.json'} says that it is "
                    f"{expected}. Put the names into the order of dataset.json, or say with labels.values which "
                    "value each has."
                )

    @cached_property
    def _described(self) -> DescribedLabels:
        return read_labels(self._read_description().get("labels"))

    def _read_description(self) -> dict[str, Any]:
        path = self.root / "dataset.json"
        if not path.is_file():
            remedy = explain_missing_root(self.root, "Set data.source.root to the folder that holds it.")
            raise MissingDataError(f"Expected {path}, which does not exist. {remedy}")
        try:
            description = read_json(path)
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON: {error}.") from None
        if not isinstance(description, dict):
            raise DataError(
                f"{path} holds a {type(description).__name__}; expected an object with the data set's fields."
            )
        return description

    @property
    def _path(self) -> Path:
        return self.root / "dataset.json"

    def _list_pairs(self, on_problem: OnProblem | None = None) -> dict[str, _Pair]:
        """Find the files of each case, whether they are there or not."""
        pairs: dict[str, _Pair] = {}
        for entry in self._list_entries(on_problem):
            if entry.name in pairs:
                error = DataError(f"{self._path} lists the case {entry.name} twice. Give each its own name.")
                problem = Problem("duplicate-name", f"The case {entry.name} is listed twice.", entry.name, self._path)
                raise_or_report(error, [problem], on_problem)
                continue
            images = self._resolve(entry.name, entry.images, on_problem)
            pairs[entry.name] = images, self._resolve(entry.name, [entry.label], on_problem)
        return pairs

    def _read_annotated_labels(
        self, names: Collection[str], on_problem: OnProblem | None
    ) -> dict[str, tuple[str, ...]]:
        """Read the annotated labels of the cases that name them."""
        if not names:
            return {}
        try:
            described = self._read_description().get("annotated_labels") or {}
            if not _is_dict_of_names(described) or not described.keys() <= set(names):
                unknown = sorted(set(described) - set(names))
                raise DataError(
                    f"{self._path}: annotated_labels must give cases of the data set lists of labels, such as "
                    f"{{'liver_01': ['liver']}}{': there is no ' + abbreviate(unknown) if unknown else ''}. Correct it."
                )
        except DataError as error:
            raise_or_report(error, [Problem("listing-invalid", strip_remedy(str(error)), "", self._path)], on_problem)
            return {}
        return {str(name): tuple(labels) for name, labels in described.items()}

    def _list_entries(self, on_problem: OnProblem | None) -> list[_Entry]:
        """List the training entries of either dialect."""
        try:
            description = self._read_description()
            if description.get("dataset"):
                if (entries := list_dataset(description["dataset"])) is None:
                    raise DataError(f"{self._path}: expected entries {{'images': [...], 'label': ...}} in dataset.")
                return [_Entry(str(entry["name"]), entry["images"], entry["label"]) for entry in entries]
            training = _list(description.get("training") or [], self._path, "training")
            return self._list_training(training, on_problem) if training else self._find_by_name(description)
        except _NoMaskError as error:
            raise_or_report(error, [Problem("no-cases", str(error))], on_problem)
        except DataError as error:
            raise_or_report(error, [Problem("listing-invalid", strip_remedy(str(error)), "", self._path)], on_problem)
        return []

    def _list_training(self, training: list[Any], on_problem: OnProblem | None) -> list[_Entry]:
        """List the pairs of the Decathlon's `training`."""
        entries = []
        for entry in training:
            if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("image", "label")):
                entries.append(_Entry(stem(Path(entry["label"])), [entry["image"]], entry["label"]))
                continue
            error = DataError(f"{self._path}: expected entries {{'image': …, 'label': …}} in training, got {entry!r}.")
            message = f"Expected image and label, got {str(entry)[:80]}."
            raise_or_report(error, [Problem("listing-invalid", message, "", self._path)], on_problem)
        return entries

    def _find_by_name(self, description: dict[str, Any]) -> list[_Entry]:
        """List the pairs that nnU-Net's naming implies."""
        ending = description.get("file_ending", ".nii.gz")
        if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
            raise DataError(
                f"{self._path}: file_ending is {ending!r}; expected what the names end in, such as '.nii.gz'."
            )
        masks = sorted((self.root / "labelsTr").glob(f"[!.]*{ending}"))
        if not masks:
            raise _NoMaskError(f"{self.root / 'labelsTr'} holds no file that ends in {ending}.")
        channels = len(_list(description.get("channel_names") or {"0": ""}, self._path, "channel_names"))
        names = {mask.name: mask.name[: -len(ending)] for mask in masks}
        return [
            _Entry(name, list_channels(self.root, name, ending, channels), f"labelsTr/{file}")
            for file, name in names.items()
        ]

    def _resolve(self, case_id: str, names: Sequence[str], on_problem: OnProblem | None) -> dict[Path, str]:
        """Find the files that an entry names, each with its name."""
        files: dict[Path, str] = {}
        for name in names:
            try:
                path = resolve_inside(self.root, name, str(self._path))
                # nnU-Net v1 lists `liver_01.nii.gz` and stores `liver_01_0000.nii.gz`.
                suffix = path.name[len(stem(path)) :]
                numbered = f"{escape(stem(path))}_[0-9][0-9][0-9][0-9]{escape(suffix)}"
                channels = [] if path.is_file() else sorted(path.parent.glob(numbered))
                beside = [channel.relative_to(self.root).as_posix() for channel in channels]
                files |= {resolve_inside(self.root, other, str(self._path)): other for other in beside} or {path: name}
            except MissingDataError as error:
                problem = Problem("listed-path-outside", f"The entry names {name!r}.", case_id, self._path)
                raise_or_report(error, [problem], on_problem)
                return {}
        return files

    def _check_files(self, pairs: Mapping[str, _Pair], on_problem: OnProblem | None) -> None:
        """Find the files that are listed and do not exist."""
        listed = [(case_id, *item) for case_id, pair in pairs.items() for files in pair for item in files.items()]
        missing = [(case_id, path, name) for case_id, path, name in listed if not path.is_file()]
        if missing:
            error = MissingDataError(
                f"{self._path} speaks of {count_noun(len(missing), 'missing file')}: "
                f"{abbreviate([str(path) for _, path, _ in missing])}. Complete the download, or remove the entries."
            )
            problems = [
                Problem("listed-file-missing", f"{self._path.name} names {name}.", case_id, path)
                for case_id, path, name in missing
            ]
            raise_or_report(error, problems, on_problem)


def _list(entries: Any, path: Path, field: str) -> list[Any]:
    if not isinstance(entries, (list, dict)):
        raise DataError(f"{path}: {field} is {entries!r}; expected a list.")
    return list(entries)
