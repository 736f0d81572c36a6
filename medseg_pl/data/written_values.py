"""Which values training masks are written with, so that predictions look like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FileSource, Source
from medseg_pl.data.sources.files import by_color, read_mask_file

_SAMPLED = 8


def find_mask_values(source: Source, cases: Sequence[Case], labels: LabelMap) -> list[int] | None:
    """Find whether files of one label hold 1 or 255, from a sample of them.

    Args:
        source: Made the cases.
        cases: Those that are trained on.
        labels: How masks are read; where they have values of their own, these are written.

    Returns:
        The value of each label; `None` where files do not leave the choice, or hold no label.
    """
    alone = labels.overlapping or len(labels.names) == 1
    if labels.values is not None or not alone or not isinstance(source, FileSource):
        return None
    found: list[set[int]] = [set() for _ in labels.names]
    for case in cases[:: max(1, len(cases) // _SAMPLED)]:
        if not source.reads_marks(case):  # structures that are known by name have no value of their own
            return None
        shares = source.mask_shares(case) if labels.overlapping else [len(case.masks)]
        if len(shares) != len(found) or any(by_color(path, labels) for path in case.masks):
            return None
        owners = [label for label, share in enumerate(shares) for _ in range(share)]
        for path, label in zip(case.masks, owners, strict=True):
            found[label] |= _read_values(path, labels)
    seen = set[int]().union(*found)
    return [255 if (values or seen) == {255} else 1 for values in found] if seen else None


def use_mask_values(labels: LabelMap, values: Sequence[int] | None) -> LabelMap:
    """Give labels the values of their training masks, where the settings give them none.

    >>> use_mask_values(LabelMap(["lesion"], "binary"), [255]).file_values
    (255,)
    """
    return labels if values is None or labels.values is not None else replace(labels, values=list(values))


def _read_values(path: Path, labels: LabelMap) -> set[int]:
    values = np.unique(read_mask_file(path, labels)[0])
    if labels.tolerance:  # then 255 stands for the label, as `LabelMap` reads it
        return {255} if (values > labels.tolerance).any() else set()
    return {value for value in (1, 255) if value in values and value != labels.ignore_value}
