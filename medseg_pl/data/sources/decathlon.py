"""Folders described by a `dataset.json`: the Medical Segmentation Decathlon, and nnU-Net's raw data."""

from __future__ import annotations

import json
import re
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import Source, check_pattern, group_of, shown
from medseg_pl.data.sources.files import FileSource, inside, is_image
from medseg_pl.data.sources.unlabelled import ChannelFolder, find_image_folders
from medseg_pl.data.sources.unread import explain_unread
from medseg_pl.io.files import LeftOut, files_below, find_dead_links
from medseg_pl.io.suffixes import stem


class DecathlonSource(FileSource):
    """`imagesTr`, `labelsTr` and a `dataset.json`.

    Both dialects are read: the Decathlon's own, whose `training` lists pairs of files, and nnU-Net v2's, whose
    `file_ending` and `channel_names` describe files such as `imagesTr/liver_01_0000.nii.gz` with the channel behind
    the case's name.

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

    def unlabelled(self, directory: Path) -> Source:
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
        """How volumes are cut: all else is in the files."""
        return (self.slicing,)

    def _check_labels(self, labels: LabelMap) -> None:
        for name, value in zip(labels.names, labels.file_values, strict=True):
            expected = self._described.get(name.lower(), value)
            if expected != value:
                raise SettingError(
                    f"labels.names gives {name!r} the value {value}, but {self.root / 'dataset.json'} says that it is "
                    f"{expected}. Put the names into the order of dataset.json, or set labels.values."
                )

    @cached_property
    def _described(self) -> dict[str, int]:
        return values_by_name(self._description().get("labels"))

    def _description(self) -> dict[str, Any]:
        path = self.root / "dataset.json"
        if not path.is_file():
            raise MissingDataError(
                f"Expected {path}, which does not exist. Set data.source.root to the folder that holds it."
            )
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
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
        return self._listed(description) if description.get("training") else self._found(description)

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
        return {
            name: (
                tuple(self._inside("imagesTr", f"{name}_{channel:04d}{ending}") for channel in range(channels)),
                mask,
            )
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


def values_by_name(labels: object) -> dict[str, int]:
    """Name to value, of `{"0": "background", "1": "liver"}` and of `{"background": 0, "liver": 1}`.

    nnU-Net's regions, which are lists of values, are left out.
    """
    if not isinstance(labels, dict):
        return {}
    pairs = [(name, value) if isinstance(value, int) else (value, name) for name, value in labels.items()]
    return {str(name).lower(): int(value) for name, value in pairs if isinstance(name, str) and str(value).isdigit()}
