"""Folders described by a `dataset.json`: the Medical Segmentation Decathlon, and nnU-Net's raw data."""

from __future__ import annotations

import re
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import Source, check_pattern, group_of, shown
from medseg_pl.data.sources.dataset_json import DescribedLabels, list_channels, list_dataset, read_labels
from medseg_pl.data.sources.files import FileSource, Grid, inside, is_image
from medseg_pl.data.sources.unlabeled import ChannelFolder, find_image_folders
from medseg_pl.data.sources.unread import explain_unread
from medseg_pl.io.atomic_files import LeftOut, files_below, find_dead_links
from medseg_pl.io.structured import read_json
from medseg_pl.io.suffixes import stem


class DecathlonSource(FileSource):
    """`imagesTr`, `labelsTr` and a `dataset.json`.

    Both dialects are read: the Decathlon's own, whose `training` lists pairs of files, and nnU-Net v2's, whose
    `file_ending` and `channel_names` describe files such as `imagesTr/liver_01_0000.nii.gz` with the channel behind
    the case's name, or whose `dataset` lists the files of each case. Of pictures, one file may hold all channels.

    nnU-Net's label `ignore` is `labels.ignore_value`. Its regions, labels with several values, overlap: with the task
    multilabel each is where the mask has any of its values.

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

    def cases(self) -> list[Case]:
        """One case for each training pair."""
        pairs = self._pairs()
        missing = [str(path) for images, mask in pairs.values() for path in (*images, mask) if not path.is_file()]
        if missing:
            raise MissingDataError(
                f"{len(missing)} file(s) that {self.root / 'dataset.json'} speaks of do not exist: {shown(missing)}. "
                "Complete the download, or remove the entries."
            )
        return [
            Case(case_id=name, group=group_of(name, self.group), images=images, masks=(mask,))
            for name, (images, mask) in sorted(pairs.items())
        ]

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case, once it is clear that a label of this name has the value that `dataset.json` gives it."""
        self._check_labels(labels)
        return super().read(case, labels)

    def unlabeled(self, directory: Path) -> Source:
        """Every image of a folder; channels are told apart by nnU-Net's `_0000` endings where there are several."""
        folders = find_image_folders(directory, ("imagesTr", "imagesTs"), ("labelsTr", "labelsTs"))
        return ChannelFolder(str(directory), self.slicing, folders)

    def left_out(self) -> list[LeftOut]:
        """List what is in no training pair, in the folders of training images and masks."""
        used = {path for images, mask in self._pairs().values() for path in (*images, mask)}
        folders = [self.root / name for name in ("imagesTr", "labelsTr")]
        others = [path for folder in folders for path in files_below(folder) if path not in used]
        unused = [
            LeftOut(path, f"No training pair of {self.root / 'dataset.json'} has it.", "unlisted")
            if is_image(path)
            else explain_unread(path)
            for path in others
        ]
        return [*unused, *(dead for folder in folders for dead in find_dead_links(folder))]

    def reading_settings(self) -> tuple[object, ...]:
        """How volumes are cut, and which values make up a region."""
        regions = self._described.regions if (self.root / "dataset.json").is_file() else {}
        return (self.slicing, *sorted(regions.items()))

    def file_labels(self, labels: LabelMap) -> LabelMap:
        """What mask files hold: for regions, which overlap, a label for each value."""
        return self._described.of_values() if labels.overlapping and self._described.regions else labels

    def read_masks(self, case: Case, labels: LabelMap, grid: Grid) -> UInt8[np.ndarray, "m d h w"]:
        """See `FileSource`; regions are united from the values of one file."""
        held = self.file_labels(labels)
        if held is labels:
            return super().read_masks(case, labels, grid)
        (mask,) = super().read_masks(case, held, grid)
        places = {value: place for place, value in enumerate(held.file_values, start=1)}
        regions = [[places[value] for value in self._region(name)] for name in labels.names]
        planes = [np.isin(mask, places_here).astype(np.uint8) for places_here in regions]
        return np.where(mask == IGNORE, np.uint8(IGNORE), np.stack(planes))

    def _region(self, name: str) -> tuple[int, ...]:
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
            expected = self._described.values.get(name.lower(), value)
            if expected != value:
                raise SettingError(
                    f"labels.names gives {name!r} the value {value}, but {self.root / 'dataset.json'} says that it is "
                    f"{expected}. Put the names into the order of dataset.json, or set labels.values."
                )

    @cached_property
    def _described(self) -> DescribedLabels:
        return read_labels(self._description().get("labels"))

    def _description(self) -> dict[str, Any]:
        path = self.root / "dataset.json"
        if not path.is_file():
            raise MissingDataError(
                f"Expected {path}, which does not exist. Set data.source.root to the folder that holds it."
            )
        try:
            description = read_json(path)
        except ValueError as error:
            raise DataError(f"{path} is not valid JSON: {error}.") from None
        if not isinstance(description, dict):
            raise DataError(
                f"{path} holds a {type(description).__name__}; expected an object with the data set's fields."
            )
        return description

    def _pairs(self) -> dict[str, tuple[tuple[Path, ...], Path]]:
        """The files of each case, whether they are there or not."""
        description = self._description()
        if description.get("dataset"):
            return self._listed_by_name(description["dataset"])
        return self._listed(description) if description.get("training") else self._found(description)

    def _listed_by_name(self, dataset: object) -> dict[str, tuple[tuple[Path, ...], Path]]:
        """The pairs that nnU-Net's `dataset` lists."""
        path = self.root / "dataset.json"
        if (entries := list_dataset(dataset)) is None:
            raise DataError(f"{path}: expected entries {{'images': [...], 'label': ...}} in dataset.")
        pairs: dict[str, tuple[tuple[Path, ...], Path]] = {}
        for entry in entries:
            name = str(entry["name"])
            if name in pairs:
                raise DataError(f"{path} lists the case {name} twice. Give each its own name.")
            images = tuple(inside(self.root, image, str(path)) for image in entry["images"])
            pairs[name] = (images, inside(self.root, entry["label"], str(path)))
        return pairs

    def _listed(self, description: dict[str, Any]) -> dict[str, tuple[tuple[Path, ...], Path]]:
        """The pairs that the Decathlon's `training` lists."""
        path = self.root / "dataset.json"
        pairs: dict[str, tuple[tuple[Path, ...], Path]] = {}
        for entry in _list(description["training"], path, "training"):
            try:
                image, mask = inside(self.root, entry["image"], str(path)), inside(self.root, entry["label"], str(path))
            except (TypeError, KeyError):
                raise DataError(
                    f"{path}: expected entries {{'image': …, 'label': …}} in training, got {entry!r}."
                ) from None
            if stem(mask) in pairs:
                raise DataError(f"{path} lists the case {stem(mask)} twice. Give each its own name.")
            channels = (image,) if image.is_file() else self._channel_files(image) or (image,)
            pairs[stem(mask)] = (channels, mask)
        return pairs

    def _found(self, description: dict[str, Any]) -> dict[str, tuple[tuple[Path, ...], Path]]:
        """The pairs that nnU-Net's naming implies."""
        path = self.root / "dataset.json"
        ending = description.get("file_ending", ".nii.gz")
        if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
            raise DataError(f"{path}: file_ending is {ending!r}; expected what the names end in, such as '.nii.gz'.")
        masks = sorted((self.root / "labelsTr").glob(f"[!.]*{ending}"))
        if not masks:
            raise MissingDataError(f"{self.root / 'labelsTr'} holds no file that ends in {ending}.")
        channels = len(_list(description.get("channel_names") or {"0": ""}, path, "channel_names"))
        names = {mask.name[: -len(ending)]: self._inside("labelsTr", mask.name) for mask in masks}
        images = {name: list_channels(self.root, name, ending, channels) for name in names}
        return {
            name: (tuple(inside(self.root, image, str(path)) for image in images[name]), mask)
            for name, mask in names.items()
        }

    def _channel_files(self, image: Path) -> tuple[Path, ...]:
        """nnU-Net v1 lists `liver_01.nii.gz` and stores `liver_01_0000.nii.gz`."""
        name, suffix = stem(image), image.name[len(stem(image)) :]
        found = sorted(image.parent.glob(f"{escape(name)}_[0-9][0-9][0-9][0-9]{escape(suffix)}"))
        return tuple(self._inside(path.parent.relative_to(self.root).as_posix(), path.name) for path in found)

    def _inside(self, folder: str, name: str) -> Path:
        return inside(self.root, f"{folder}/{name}", str(self.root / "dataset.json"))


def _list(entries: Any, path: Path, field: str) -> list[Any]:
    if not isinstance(entries, (list, dict)):
        raise DataError(f"{path}: {field} is {entries!r}; expected a list.")
    return list(entries)
