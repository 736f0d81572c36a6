"""Masks whose structures are known by name: outlines and segmentations of 3D Slicer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.errors import LabelOverlapError, MaskValueError, SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.io.dicom.references import Structure, match_structures
from medseg_pl.io.slicer import Segment, find_segment, is_segmentation, read_layers, read_segments

Overlaps = Literal["refuse", "last"]
"""What happens where exclusive labels overlap: an error, or the one drawn last wins."""


class NameMatcher:
    """Finds the labels that a name stands for, in any case and with spaces or underscores.

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

        Empty if it is skipped, `None` if it is unknown.
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
    """Put masks with names into a stored mask.

    Args:
        masks: Each name with its mask, those behind first.
        labels: The labels.
        matcher: Finds the label of a name.
        shape: Of each mask.
        source: What to call the file in an error.
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
            f"{source}: {overlap} voxels carry more than one label. Set labels.task to multilabel, or "
            "data.source.overlaps to last, where what was drawn last lies in front."
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
    """Name labels after the segments of all files; `None` unless all are segmentations."""
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
