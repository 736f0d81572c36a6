"""Images without masks, a folder of them or a single file: the input of `predict`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medseg_pl.core.errors import MissingDataError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.types import Case
from medseg_pl.data.sources.base import OnProblem, describe_left_out, explain_unread, name_other_source
from medseg_pl.data.sources.files import FileSource, is_image
from medseg_pl.data.sources.named_masks import STEM, MaskPattern, match_stem
from medseg_pl.io.paths import LeftOut, find_dead_links, list_files, name_below, stem

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentations", "gt")
"""What folders are called in data sets whose settings do not say it."""

_NUMBERED = re.compile(r"(.+)_(\d{4})")


class DatasetNames(NamedTuple):
    """Names that tell masks from images in a data set's folder.

    Attributes:
        images: The images' folder, below the root.
        image_name: The images' names.
        places: The places of masks.
    """

    images: str = "."
    image_name: str = STEM
    places: tuple[MaskPattern, ...] = ()


_ANY_NAMES = DatasetNames()


class ImageFolder(FileSource):
    """Every image below a folder, or one image file.

    A file that is no case hides no other. Images that share a name, such as `a.png` and `a.jpg`, keep their suffix in
    the names of their cases.

    Args:
        path: The folder, or the file.
        slicing: Across which axis volumes are cut into slices.
        folders: Which folders below `path` hold the images; the whole of it by default.
        names: What images and masks are called; a mask of an image in the folder is no image.
    """

    def __init__(
        self, path: str, slicing: Slicing = "file", folders: Sequence[str] = (), names: DatasetNames = _ANY_NAMES
    ) -> None:
        self.path = Path(path)
        self.slicing = slicing
        self.folders = tuple(folders)
        self.names = names

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each image.

        Raises:
            MissingDataError: There is no image.
        """
        cases, left_out = self._sort_files()
        if not cases:
            said = name_other_source(left_out, "DicomSource") or describe_left_out(left_out) + " "
            raise MissingDataError(
                f"{self.path} holds no image that can be read. {said.lstrip()}Give images of the kind that the model "
                "was trained on with --input."
            )
        return cases

    def list_left_out(self) -> list[LeftOut]:
        """List the files that are in no case."""
        return self._sort_files()[1]

    def reading_settings(self) -> tuple[object, ...]:
        """Return how volumes are cut."""
        return (self.slicing,)

    def open_unlabeled(self, directory: Path) -> ImageFolder:
        """Open the images of another folder."""
        return type(self)(str(directory), self.slicing, names=self.names)

    def _sort_files(self) -> tuple[list[Case], list[LeftOut]]:
        """Sort what is below the path into cases and the rest."""
        if not self.path.exists():
            raise MissingDataError(f"--input {self.path} does not exist. Give a folder of images, or an image.")
        paths = list(self._list_files())
        left_out = [explain_unread(path) for path in paths if not is_image(path)]
        left_out += (
            [] if self.path.is_file() else [dead for root in self._list_roots() for dead in find_dead_links(root)]
        )
        images = [path for path in paths if is_image(path)]
        excluded = {} if self.path.is_file() else _exclude_files(images, self.path, self.names)
        left_out += [LeftOut(path, reason, "side-file") for path, reason in excluded.items()]
        named, alike = _name_files([path for path in images if path not in excluded], self._find_base())
        cases, apart = self._group_files(named)
        return sorted(cases, key=lambda case: case.case_id), [*left_out, *alike, *apart]

    def _group_files(self, named: Mapping[str, Path]) -> tuple[list[Case], list[LeftOut]]:
        """Make cases of files by their names."""
        return [Case(name, name, (path,)) for name, path in named.items()], []

    def _list_files(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
        else:
            for root in self._list_roots():
                yield from list_files(root)

    def _list_roots(self) -> list[Path]:
        return [self.path / folder for folder in self.folders] or [self.path]

    def _find_base(self) -> Path:
        """Find the folder that the names of cases begin below."""
        if self.path.is_file():
            return self.path.parent
        return self._list_roots()[0] if len(self.folders) == 1 else self.path


class ChannelFolder(ImageFolder):
    """Images with a file for each channel of a case.

    They are called `<case>_0000` and so on, as nnU-Net names them.
    """

    def _list_files(self) -> Iterator[Path]:
        """Yield the other channels of a single file, too."""
        number = _NUMBERED.fullmatch(stem(self.path))
        if not (self.path.is_file() and number):
            yield from super()._list_files()
            return
        suffix = self.path.name[len(stem(self.path)) :]
        for path in sorted(self.path.parent.iterdir()):
            other = _NUMBERED.fullmatch(stem(path))
            if other and other[1] == number[1] and path.name.endswith(suffix):
                yield path

    def _group_files(self, named: Mapping[str, Path]) -> tuple[list[Case], list[LeftOut]]:
        """Group numbered channels, if numbers begin with 0000 somewhere."""
        # Numbered pictures of a series also end in four digits; nnU-Net's channels begin with 0000.
        if not any(name.endswith("_0000") for name in named):
            return super()._group_files(named)
        channels: dict[str, dict[int, Path]] = defaultdict(dict)
        single: dict[str, Path] = {}
        for name, path in named.items():
            if number := _NUMBERED.fullmatch(name):
                channels[number[1]][int(number[2])] = path
            else:
                single[name] = path
        cases, left_out = super()._group_files(single)
        for name, numbered in channels.items():
            if sorted(numbered) != list(range(len(numbered))) or name in single:
                first = next((number for number in range(len(numbered)) if number not in numbered), 0)
                missing = f"is not numbered like the channels of {name}" if name in single else "is missing"
                reason = f"{name}_{first:04d} {missing}: channels are numbered from _0000 without a gap."
                left_out += [LeftOut(path, reason) for path in numbered.values()]
            else:
                cases.append(Case(name, name, tuple(numbered[number] for number in sorted(numbered))))
        return cases, left_out


def find_image_folders(directory: Path, images: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Find the image folders in the root of a data set.

    Args:
        directory: The folder that the user gave.
        images: The names of image folders in such data sets.
        masks: The names of mask folders, which are no input.

    Returns:
        None where the directory is itself a folder of images.
    """
    inside = [name for name in images if name != "." and (directory / name).is_dir()]
    if not inside or any((directory / name).is_dir() for name in masks if name != "."):
        return inside
    folders = [directory / name for name in inside]
    elsewhere = (path for path in list_files(directory) if not any(path.is_relative_to(f) for f in folders))
    return [] if any(is_image(path) for path in elsewhere) else inside


def _exclude_files(paths: Sequence[Path], directory: Path, names: DatasetNames) -> dict[Path, str]:
    """Find the files whose names make them no images, with reasons."""
    other = [path for path in paths if match_stem(name_below(path, path.parent), names.image_name) is None]
    if len(other) == len(paths):  # a folder of other names, such as a test set's, and not one with something beside
        other = []
    reasons = dict.fromkeys(other, f"Not an image by data.source.image_name, {names.image_name!r}.")
    masks = _find_masks(paths, directory, names)
    # A mask has no mask: what would be one of it is an image.
    return reasons | {mask: f"The mask of {image.name}." for mask, image in masks.items() if image not in masks}


def _find_masks(paths: Sequence[Path], directory: Path, names: DatasetNames) -> dict[Path, Path]:
    """Find the masks among files, each with its image."""
    masks: dict[Path, Path] = {}
    for place in names.places:
        folders = {(names.images, place.folder)}
        if PurePosixPath(place.folder).is_relative_to(names.images):
            folders.add((".", PurePosixPath(place.folder).relative_to(names.images).as_posix()))
        for image_folder, mask_folder in folders:
            images = _group_by_name(paths, directory / image_folder)
            candidates = _group_by_name(paths, directory / mask_folder)
            ordered = sorted(candidates)
            for name, (image, *_) in images.items():
                found = (mask for mask in place.find_masks(name, ordered) if image not in candidates[mask])
                masks.update((path, image) for mask in found for path in candidates[mask])
    return masks


def _group_by_name(paths: Sequence[Path], folder: Path) -> dict[str, list[Path]]:
    """Group files below a folder by their names without suffix."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_relative_to(folder):
            groups[name_below(path, folder)].append(path)
    return groups


def _name_files(paths: Sequence[Path], base: Path) -> tuple[dict[str, Path], list[LeftOut]]:
    """Name files without suffix; list those that would share a name."""
    plain = {path: name_below(path, base) for path in paths}
    # `a.png` and `a.jpg` would overwrite each other's prediction.
    counts = Counter(plain.values())
    named = {name: path for path, name in plain.items() if counts[name] == 1}
    left_out = []
    for path, name in plain.items():
        if counts[name] > 1:
            whole = path.relative_to(base).as_posix()
            if named.setdefault(whole, path) != path:
                left_out.append(LeftOut(path, f"{named[whole]} has the same name. Rename one."))
    return named, left_out
