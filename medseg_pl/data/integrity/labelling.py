"""Which labels masks hold where nobody has named them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medseg_pl.core.labels import LabelMap
from medseg_pl.data.integrity.facts import MaskFacts
from medseg_pl.data.integrity.masks import is_main
from medseg_pl.data.recognition import exclusive
from medseg_pl.data.sources.base import shown

UNNAMED = LabelMap(["foreground"], "binary")
"""Stands for the label of masks that tell none."""

_SHARE_OF_A_LABEL = 0.1
_FEW_VALUES = 8
_HIGHEST_ID = 200
"""255 beside ids up to here is no id; most data sets mark with it what nobody annotated."""


def labels_in(masks: Sequence[MaskFacts]) -> tuple[LabelMap, tuple[str, ...]]:
    """The labels whose values stand in many masks, under names of our making, with notes on what was concluded.

    Rare values, and those that compression or smoothing leave along borders, are no labels.
    """
    holding = Counter(value for mask in masks for value in _ids(mask))
    least = max(2, _SHARE_OF_A_LABEL * len(masks)) if len(masks) > 2 else 1
    kept = sorted(value for value, number in holding.items() if number >= least)
    if len(kept) > 1 and kept[-1] == 255 and 1 < kept[-2] <= _HIGHEST_ID:
        kept = kept[:-1]
    if not kept:
        return UNNAMED, ()
    if set(kept) <= {1, 255}:
        said = " and ".join(str(value) for value in kept)
        return UNNAMED, (f"the masks' value {said} is taken for the label foreground",)
    stray = sorted(set(holding) - set(kept))
    notes = [f"the masks' values {', '.join(map(str, kept))} are taken for labels"]
    notes += [f"the rare values {shown([str(v) for v in stray])} are taken for faults"] if stray else []
    return exclusive({f"label_{value}": value for value in kept}), tuple(notes)


def _ids(mask: MaskFacts) -> list[int]:
    """The values of a mask that may be labels."""
    if mask.coloured or not mask.finite:
        return []
    return [
        int(mark.mark[0])
        for mark in mask.marks
        if mark.mark[0] > 0 and mark.mark[0] % 1 == 0 and (mask.distinct <= _FEW_VALUES or is_main(mark, mask))
    ]
