"""Masks that are known by name, not by value: each name is matched to a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.errors import LabelOverlapError, MaskValueError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources.base import shown
from medseg_pl.io.dicom.references import Structure, matching

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
                f"{setting} names {shown(unknown)}, but labels.names is {', '.join(labels.names)}. Use the same names."
            )
        meant = [names.get(label, label) for label in labels.names]
        self.keys = [[one] if isinstance(one, str) else list(one) for one in meant]
        self.skip = list(skip)

    def find(self, name: str) -> list[int] | None:
        """Return the indices of the labels that a name stands for, empty if it is skipped, `None` if unknown."""
        structure = [Structure(0, name)]
        found = [index for index, keys in enumerate(self.keys) if matching(structure, keys)]
        return found if found or matching(structure, self.skip) else None


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
