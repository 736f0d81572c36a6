"""Values that smoothing and compression leave round those of the structures in a mask."""

from __future__ import annotations

import numpy as np

from medseg_pl.checks.measurements import Marked, MaskFacts

COHERENT = 0.5
"""A structure's pixels have a neighbor like themselves more often than not; a smoothed border's do not."""

_MAIN_SHARE = 0.005
_FEW_STRAYS = 4
"""Fewer different values than this are not what compression or smoothing leave behind."""
_NEAR, _MOSTLY = 24, 0.7
"""JPEG leaves this share of the values that it changes this near to where they were, of 255; smoothing about half."""
_WIDE_GAP = 128
"""Values near two that are as far apart are slips of a tool and no ids."""


def is_main(mark: Marked, mask: MaskFacts) -> bool:
    """Whether a value is that of a structure and not of a smeared border."""
    return mark.coherence >= COHERENT and mark.voxels >= _MAIN_SHARE * mask.voxels


def find_smear(mask: MaskFacts) -> list[Marked]:
    """Find the values of a mask that are no labels but what is left along borders, or near two extremes."""
    main = [mark for mark in mask.marks if is_main(mark, mask)]
    rest = [mark for mark in mask.marks if mark not in main and any(mark.mark)]
    if not rest:
        return []
    if mask.header.lossy or (len(rest) >= _FEW_STRAYS and not _hold_together(rest)):
        return rest
    if mask.colored or not main:
        return []
    low, high = 0.0, max(mark.mark[0] for mark in main)
    near = all(min(abs(mark.mark[0] - low), abs(mark.mark[0] - high)) <= _NEAR for mark in mask.marks)
    return [mark for mark in mask.marks if mark.mark[0] not in (low, high)] if near and high >= _WIDE_GAP else []


def is_smoothed(mask: MaskFacts) -> bool:
    """Whether smeared values lie between those of the structures, as smoothing leaves them, and not near them."""
    return share_near(mask, find_smear(mask)) <= _MOSTLY


def share_near(mask: MaskFacts, smear: list[Marked]) -> float:
    """The share of smeared pixels that lie near a value of a structure or an extreme."""
    main = [mark for mark in mask.marks if is_main(mark, mask)]
    everything = np.array([mark.mark for mark in mask.marks])
    true = np.array([everything.min(axis=0), everything.max(axis=0), *(mark.mark for mark in main)])
    near = sum(m.voxels for m in smear if np.abs(true - np.array(m.mark)).max(axis=1).min() <= _NEAR)
    return near / max(1, sum(mark.voxels for mark in smear))


def kind_of_smear(mask: MaskFacts, strays: list[Marked]) -> str | None:
    """Name what has left values that no label claims: compression or smoothing, or `None` for neither."""
    smear = [mark for mark in strays if not is_main(mark, mask)]
    if len(smear) < _FEW_STRAYS or _hold_together(smear):
        return None
    return "mask-jpeg-artifacts" if share_near(mask, smear) > _MOSTLY else "mask-antialiased"


def _hold_together(marks: list[Marked]) -> bool:
    return sum(mark.coherence * mark.voxels for mark in marks) > COHERENT * sum(mark.voxels for mark in marks)
