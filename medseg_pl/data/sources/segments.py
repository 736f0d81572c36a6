"""Segmentations of 3D Slicer as masks: segments are matched to labels by name, or by value where values are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import MaskValueError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources.named import NameMatcher, combine_named
from medseg_pl.io.slicer import Segment, find_segment, is_segmentation, read_layers, read_segments


def read_segmentations(paths: Sequence[Path], labels: LabelMap, geometry: Geometry) -> UInt8[np.ndarray, "m d h w"]:
    """Read the segmentations of one image as a stored mask; several files complement each other.

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
    """The label of each segment."""
    matcher = NameMatcher(labels, {})
    strange = [segment.name for segment in segments if not matcher.find(segment.name)]
    if not strange:
        return [segment.name for segment in segments]
    by_value = dict(zip(labels.file_values, labels.names, strict=True)) if labels.values is not None else {}
    values = [segment.value for segment in segments]
    if not by_value or len(set(values)) < len(values) or not set(values) <= set(by_value):
        shown = ", ".join(f"{segment.name!r} ({segment.value})" for segment in segments)
        raise MaskValueError(
            f"{path} holds the segments {shown}; labels.names is {', '.join(labels.names)}. Name the labels like the "
            "segments, or give their values with labels.values."
        )
    return [by_value[value] for value in values]
