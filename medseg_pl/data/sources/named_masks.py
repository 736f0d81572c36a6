"""Masks by name: files whose names follow from an image's, and structures of outlines and 3D Slicer's segmentations."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.errors import LabelOverlapError, MaskValueError, SettingError, count_noun
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.io.regions import (
    Segment,
    Structure,
    find_segment,
    is_segmentation,
    match_structures,
    read_layers,
    read_segments,
)

STEM = "{stem}"
"""Stands for the image's name without its suffix."""

_LAST = chr(0x10FFFF)
"""Comes after every letter of a name."""

Overlaps = Literal["refuse", "last"]
"""What happens where exclusive labels overlap: an error, or the one drawn last wins."""


class MaskPattern(NamedTuple):
    """A folder, and the names of masks in it.

    Attributes:
        folder: Below the root.
        name: Without suffix; `{stem}` stands for the image's name and `*` for anything but a slash.
        setting: The setting that gave it.
        image: The images' names; `{stem}` is what they share with their masks.
    """

    folder: str
    name: str
    setting: str
    image: str = STEM

    @property
    def several(self) -> bool:
        """Whether an image may have more than one file here."""
        return "*" in self.name

    def find_masks(self, image: str, names: Sequence[str]) -> list[str]:
        """Find the names of an image's masks, in the same sub-folder.

        Args:
            image: The image's name, without suffix and with sub-folders.
            names: All that there are, likewise, sorted.

        >>> MaskPattern("masks", "{stem}/*", "masks").find_masks("p1/a", ["p1/a/1", "p1/a/2", "p1/ab/1", "p2/a/1"])
        ['p1/a/1', 'p1/a/2']
        """
        path = PurePosixPath(image)
        if (shared := match_stem(path.name, self.image)) is None:
            return []
        parts = (path.parent / self.name).as_posix().replace(STEM, "\0").split("*")
        start, *rest = (part.replace("\0", shared) for part in parts)
        first = bisect_left(names, start)
        if not rest:  # without a pattern to compile for each of a million images
            return list(names[first : first + 1]) if start in names[first : first + 1] else []
        pattern = re.compile("[^/]*".join(re.escape(part) for part in (start, *rest)))
        alike = names[first : bisect_left(names, start + _LAST)]
        return [name for name in alike if pattern.fullmatch(name)]


def match_stem(name: str, pattern: str) -> str | None:
    """Return what an image's name shares with those of its masks.

    Returns:
        `None` where the name does not match.

    >>> match_stem("21_training", "{stem}_training"), match_stem("21_test", "{stem}_training")
    ('21', None)
    """
    before, _, after = pattern.partition(STEM)
    fits = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def parse_mask_path(text: str, mask_name: str, setting: str, image_name: str = STEM) -> MaskPattern:
    """Parse a setting: a folder of masks, or a path with `{stem}`.

    Args:
        text: The setting.
        mask_name: The name of masks in a folder.
        setting: The name of the setting.
        image_name: The names of images.

    Raises:
        SettingError: A name does not depend on the image, or a folder does.

    >>> parse_mask_path("masks/{stem}_liver", "{stem}", "masks")[:2]
    ('masks', '{stem}_liver')
    """
    parts = PurePosixPath(text).parts
    depth = next((depth for depth, part in enumerate(parts) if STEM in part), None)
    if depth is None:
        found = MaskPattern(text, mask_name, "data.source.mask_name", image_name)
    else:
        found = MaskPattern(PurePosixPath(*parts[:depth]).as_posix(), "/".join(parts[depth:]), setting, image_name)
    if image_name.count(STEM) != 1 or set("{}*/") & set(image_name.replace(STEM, "")):
        raise SettingError(
            f"data.source.image_name must contain {STEM} once, and no slash, star or other braces; got {image_name!r}."
        )
    if STEM not in found.name or set("{}") & set(found.name.replace(STEM, "")):
        raise SettingError(
            f"{found.setting} must contain {STEM}, the image's name, and no other braces; got {found.name!r}."
        )
    if set("{}*") & set(found.folder):
        raise SettingError(
            f"{setting} {text!r} names no single folder. Write the path of a mask, such as 'masks/{STEM}/*', where "
            "several files belong to an image."
        )
    return found


class NameMatcher:
    """Finds the labels that a name stands for.

    Upper and lower case are the same, and so are spaces and underscores.

    Args:
        labels: The labels.
        names: The names that make up a label, where they are others than its own.
        skip: Names that are background.
        setting: What `names` is called, for an error.

    Raises:
        SettingError: `names` speaks of a label that is not there.
    """

    def __init__(
        self,
        labels: LabelMap,
        names: Mapping[str, str | Sequence[str]],
        skip: Sequence[str] = (),
        setting: str = "data.source.categories",
    ) -> None:
        unknown = [label for label in names if label not in labels.names]
        if unknown:
            raise SettingError(
                f"{setting} names {abbreviate(unknown)}, but labels.names is {', '.join(labels.names)}. Use the same "
                "names."
            )
        meant = [names.get(label, label) for label in labels.names]
        self.keys = [[one] if isinstance(one, str) else list(one) for one in meant]
        self.skip = list(skip)

    def find(self, name: str) -> list[int] | None:
        """Find the labels that a name stands for.

        Returns:
            Empty if the name is skipped, `None` if it is unknown.
        """
        structure = [Structure(0, name)]
        found = [index for index, keys in enumerate(self.keys) if match_structures(structure, keys)]
        return found if found or match_structures(structure, self.skip) else None


def combine_named(
    masks: Iterable[tuple[str, Bool[np.ndarray, "..."]]],
    labels: LabelMap,
    matcher: NameMatcher,
    shape: tuple[int, ...],
    source: str,
    overlaps: Overlaps = "refuse",
) -> UInt8[np.ndarray, "m ..."]:
    """Combine masks with names into a stored mask.

    Args:
        masks: Each name with its mask, those behind first.
        labels: The labels.
        matcher: Finds the label of a name.
        shape: Of each mask.
        source: The file's name in errors.
        overlaps: What happens where exclusive labels overlap.

    Raises:
        MaskValueError: A name belongs to no label, or exclusive labels overlap.
    """
    planes = np.zeros((len(labels.names), *shape), np.uint8)
    for name, mask in masks:
        indices = matcher.find(name)
        if indices is None:
            raise MaskValueError(
                f"{source} holds {name!r}, which is none of {', '.join(labels.names)}. Add it to labels.names or "
                "data.source.categories, or list it in data.source.skip."
            )
        if overlaps == "last" and not labels.overlapping and indices:
            planes[:, mask] = 0
        for index in indices:
            planes[index][mask] = 1
    overlap = 0 if labels.overlapping else int((planes.sum(axis=0) > 1).sum())
    if overlap:
        raise LabelOverlapError(
            f"{source}: {count_noun(overlap, 'voxel carries', 'voxels carry')} more than one label. Set labels.task "
            "to multilabel, or data.source.overlaps to last, where what was drawn last lies in front."
        )
    return labels.combine(list(planes), source)


def read_segmentations(paths: Sequence[Path], labels: LabelMap, geometry: Geometry) -> UInt8[np.ndarray, "m d h w"]:
    """Read the segmentations of one image as a mask.

    Several files complement each other.

    Args:
        paths: The files.
        labels: The labels.
        geometry: The image's grid.

    Raises:
        MaskValueError: A segment belongs to no label, or exclusive labels overlap.
        GeometryError: A file lies on another grid.
    """
    masks = []
    for path in paths:
        if not is_segmentation(path):
            raise MaskValueError(f"{path} is no segmentation of 3D Slicer, but {paths[0]} is. Give one kind of mask.")
        layers = read_layers(path, geometry)
        segments = read_segments(path)
        names = _name_labels(segments, labels, path)
        masks += [(name, find_segment(layers, each, path)) for each, name in zip(segments, names, strict=True)]
    source = ", ".join(str(path) for path in paths)
    return combine_named(masks, labels, NameMatcher(labels, {}), geometry.shape, source)


def list_segment_labels(paths: Sequence[Path]) -> LabelMap | None:
    """List the segments of all files as labels.

    Returns:
        `None` unless all files are segmentations.
    """
    if not paths or not all(is_segmentation(path) for path in paths):
        return None
    names: dict[str, None] = {}
    overlapping = False
    for path in paths:
        segments = read_segments(path)
        names |= dict.fromkeys(segment.name for segment in segments)
        overlapping |= len({segment.layer for segment in segments}) > 1
    if not names:
        return None
    return LabelMap(list(names), "multilabel" if overlapping else "multiclass" if len(names) > 1 else "binary")


def _name_labels(segments: Sequence[Segment], labels: LabelMap, path: Path) -> list[str]:
    """Name the label of each segment."""
    matcher = NameMatcher(labels, {})
    strange = [segment.name for segment in segments if not matcher.find(segment.name)]
    if not strange:
        return [segment.name for segment in segments]
    # Names are what a person typed; values are right where somebody gave them.
    by_value = dict(zip(labels.file_values, labels.names, strict=True)) if labels.values is not None else {}
    values = [segment.value for segment in segments]
    if not by_value or len(set(values)) < len(values) or not set(values) <= set(by_value):
        shown = ", ".join(f"{segment.name!r} ({segment.value})" for segment in segments)
        raise MaskValueError(
            f"{path} holds the segments {shown}; labels.names is {', '.join(labels.names)}. Name the labels like the "
            "segments, or give their values with labels.values."
        )
    return [by_value[value] for value in values]
