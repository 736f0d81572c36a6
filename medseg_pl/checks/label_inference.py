"""Inference of labels, colors, ignore value and tolerance from masks that nobody has described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from medseg_pl.checks.findings import MaskFacts, MaskValue, MaskValueCount
from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.core.mask_values import format_marks
from medseg_pl.data.sources.base import abbreviate

UNNAMED = LabelMap(["foreground"], "binary")
"""Stands for the label of masks that tell none."""

# A value in fewer of the masks is taken for a stray one; a label that is as rare has to be named.
_LABEL_SHARE = 0.1
# 255 beside ids up to here is no id; most data sets mark with it what nobody annotated.
_HIGHEST_ID = 200
# Of the masks that hold anything: with more of them smeared, the set as a whole is.
_SMEARED = 0.5
# How far from a label compression leaves most values, and how far it leaves nearly all.
_CLOSE, _FAR = 24, 64

# A structure's pixels have a neighbor like themselves more often than not; a smoothed border's do not.
_COHERENT = 0.5

_STRUCTURE_SHARE = 0.005
# Fewer different values than this are not what compression or smoothing leave behind.
_FEW_STRAYS = 4
# JPEG leaves this share of the values that it changes this near to where they were, of 255; smoothing about half.
_NEAR, _MOSTLY = 24, 0.7
# Values near two that are as far apart are slips of a tool and no ids.
_WIDE_GAP = 128


@dataclass(frozen=True)
class LabelSettings:
    """What is set of labels; `None` where the masks have to tell.

    Args:
        values: The value of each label by its name, or `None` for 1, 2, 3 …
        task: How labels go together.
        ignore_value: The value of voxels that nobody annotated.
        colors: The color of each label by its name.
        tolerance: How far a value may be from that of its label.
    """

    values: Mapping[str, int | None] | None = None
    task: Task | None = None
    ignore_value: int | None = None
    colors: Mapping[str, tuple[int, int, int]] | None = None
    tolerance: float | None = None

    @property
    def names(self) -> list[str] | None:
        """The labels, where they are named at all."""
        if self.values is not None:
            return list(self.values)
        others = ("background", "ignore")
        return None if self.colors is None else [name for name in self.colors if name not in others]

    def describe(self, names: Sequence[str], task: Task | None = None, **inferred: object) -> LabelMap:
        """Describe labels by these settings, completed by what was inferred.

        Args:
            names: The labels.
            task: The inferred task.
            **inferred: Further settings, for those that are `None` here.
        """
        given = [value for value in (self.values or {}).values() if value is not None]
        settings = {
            "values": given or None,
            "ignore_value": self.ignore_value,
            "colors": self.colors,
            "tolerance": self.tolerance,
        }
        merged = {name: inferred.get(name) if value is None else value for name, value in settings.items()}
        usual: Task = "binary" if len(names) == 1 else "multiclass"
        # The numbers 1, 2, 3 … need not be written down.
        if merged["values"] == list(range(1, len(names) + 1)) and not given:
            merged["values"] = None
        return LabelMap(list(names), self.task or task or usual, **{**merged, "tolerance": merged["tolerance"] or 0})  # type: ignore[arg-type]


class Labeling(NamedTuple):
    """The labels of a data set.

    Attributes:
        labels: The labels of the masks; a stand-in where there is a problem.
        notes: What was concluded rather than read, in words.
        problem: Why the masks do not tell their labels, with the remedy; empty where they do.
    """

    labels: LabelMap
    notes: tuple[str, ...] = ()
    problem: str = ""


def infer_labels(masks: Sequence[MaskFacts], settings: LabelSettings, separate: Sequence[str] = ()) -> Labeling:
    """Infer the labels of masks where they are not set.

    Rare values, and those that compression or smoothing leave along borders, are no labels.

    Args:
        masks: The masks, or a sample of them.
        settings: The given settings.
        separate: The labels of data sets that keep each in files of its own.
    """
    masks = [mask for mask in masks if mask.finite]
    colored = sum(mask.colored for mask in masks)
    if settings.colors is None and colored > _SMEARED * sum(len(mask.values) > 1 for mask in masks):
        return _infer_colors([mask for mask in masks if mask.colored], settings)
    gray = [mask for mask in masks if not mask.colored]
    if separate:
        return _infer_separate(gray, settings, settings.names or list(separate))
    if settings.names is not None:
        labels = settings.describe(settings.names)
        if settings.tolerance is None and settings.colors is None and _are_smeared(gray):
            return _infer_tolerance(gray, labels, settings)
        return Labeling(labels)
    return _infer_values(gray, settings)


def _infer_values(masks: Sequence[MaskFacts], settings: LabelSettings) -> Labeling:
    candidates = [[value for value in _list_candidates(mask) if value[0] != settings.ignore_value] for mask in masks]
    frequent, rare = _part_by_frequency(candidates, len(masks))
    values = [int(value[0]) for value in frequent]
    if _are_smeared(masks):
        values = _drop_close(values, Counter(int(value[0]) for several in candidates for value in several))
    if not values:
        return Labeling(UNNAMED, problem=_explain_no_label(masks))
    if len(values) > 1 and values[-1] == 255 and 1 < values[-2] <= _HIGHEST_ID:
        others = format_marks([(value,) for value in values[:-1]])
        labels = settings.describe([f"label_{value}" for value in values[:-1]], values=values[:-1])
        problem = (
            f"The masks hold 255 beside {others}, and nothing says what it means. Set --ignore_value 255 if it marks "
            "what nobody annotated; else name it with --labels."
        )
        return Labeling(labels, _note_values(values[:-1], []), problem)
    if set(values) <= {1, 255}:
        labels = settings.describe(["foreground"])
        what = f"value {values[0]} is" if len(values) == 1 else "values 1 and 255 are"
        notes: tuple[str, ...] = (f"the masks' {what} taken for the label foreground",)
    else:
        labels = settings.describe([f"label_{value}" for value in values], values=values)
        notes = _note_values(values, [int(value[0]) for value in rare])
    if settings.tolerance is None and _are_smeared(masks):
        return _infer_tolerance(masks, labels, settings, notes)
    return Labeling(labels, notes)


def _infer_separate(masks: Sequence[MaskFacts], settings: LabelSettings, names: Sequence[str]) -> Labeling:
    """Infer the values of labels that have files of their own."""
    values: list[int] = []
    for index, name in enumerate(names):
        files = [mask for mask in masks if mask.label == index]
        frequent, _ = _part_by_frequency([_list_candidates(mask) for mask in files], len(files))
        candidates = _drop_close([int(value[0]) for value in frequent], Counter({int(v[0]): 1 for v in frequent}))
        if len(set(candidates) - {1, 255}) + bool({1, 255} & set(candidates)) > 1:
            listing = abbreviate([str(value) for value in candidates])
            problem = f"The masks of {name} hold {listing}; expected one value. Name them with --labels VALUE={name},…."
            return Labeling(settings.describe(names, "multilabel"), (), problem)
        values.append(candidates[0] if candidates else 1)
    usual = set(values) <= {1, 255}
    labels = settings.describe(names, "multilabel", values=None if usual else values)
    if settings.tolerance is None and _are_smeared(masks):
        return _infer_tolerance(masks, labels, settings)
    return Labeling(labels)


def _infer_colors(masks: Sequence[MaskFacts], settings: LabelSettings) -> Labeling:
    candidates = []
    for mask in masks:
        smeared = bool(find_smear(mask))
        candidates.append([count.value for count in mask.values if not smeared or _is_structure(count, mask)])
    frequent, rare = _part_by_frequency(candidates, len(masks))
    colors = [(int(r), int(g), int(b)) for r, g, b in frequent]
    if settings.names is not None:
        problem = f"The masks are in colors: {format_marks(frequent)}. Say with --colors which color each label has."
        return Labeling(settings.describe(settings.names), (), problem)
    voxels = Counter[tuple[int, ...]]()
    for mask in masks:
        voxels.update({tuple(map(int, count.value)): count.voxels for count in mask.values})
    ground = (0, 0, 0) if (0, 0, 0) in colors or not colors else max(colors, key=lambda color: voxels[color])
    colors = [color for color in colors if color != ground]
    if not colors:
        return Labeling(UNNAMED, problem="The masks hold a single color. Name the labels with --colors.")
    names = ["foreground"] if len(colors) == 1 else ["color_{:02x}{:02x}{:02x}".format(*color) for color in colors]
    table = {"background": ground} if ground != (0, 0, 0) else {}
    labels = settings.describe(names, colors={**table, **dict(zip(names, colors, strict=True))})
    notes = [f"the masks' colors {format_marks(colors)} are taken for labels, {ground} for the background"]
    notes += [f"the rare colors {abbreviate([str(color) for color in rare])} are taken for faults"] if rare else []
    if _are_smeared(masks):
        return _infer_tolerance(masks, labels, settings, tuple(notes))
    return Labeling(labels, tuple(notes))


def _infer_tolerance(
    masks: Sequence[MaskFacts], labels: LabelMap, settings: LabelSettings, notes: tuple[str, ...] = ()
) -> Labeling:
    """Infer the tolerance for smeared masks, or explain why none exists."""
    smeared = [mask for mask in masks if find_smear(mask)]
    label_values = _list_label_values(labels, colored=masks[0].colored)
    values = np.array([count.value for mask in smeared for count in mask.values])
    needed = float(np.abs(values[:, None] - label_values).max(axis=2).min(axis=1).max())
    gap = min(np.abs(first - second).max() for first, second in combinations(label_values, 2))
    most = float((gap - 1) // 2)
    smoothed = sum(is_smoothed(mask) for mask in smeared) > _SMEARED * len(smeared)
    if needed > most or (smoothed and len(label_values) > 2):
        why = "smoothed edges (anti-aliasing)" if smoothed else "the traces of JPEG compression"
        listing = format_marks([tuple(value) for value in label_values[1:]])
        problem = (
            f"The masks have {why} round {listing}, so values in between are not labels. "
            "Export them without smoothing, as PNG; or name the labels with --labels and set --tolerance."
        )
        return Labeling(labels, notes, problem)
    tolerance = min(most, float(_FAR)) if needed <= _FAR else most
    cause = "smoothed" if smoothed else "inexact"
    note = f"the masks' values are {cause}; up to {tolerance:g} from a label's they are read as it (labels.tolerance)"
    described = {name: getattr(labels, name) for name in ("values", "colors")}
    return Labeling(settings.describe(labels.names, labels.task, **described, tolerance=tolerance), (*notes, note))


def _list_label_values(labels: LabelMap, colored: bool) -> np.ndarray:
    """List the values of the background and of each label."""
    if colored and labels.colors is not None:
        colors = dict(labels.colors)
        return np.array([colors.pop("background", (0, 0, 0)), *colors.values()], dtype=float)
    alone = labels.values is None and (labels.overlapping or len(labels.names) == 1)
    return np.array([[value] for value in (0, *([255] if alone else labels.file_values))], dtype=float)


def _list_candidates(mask: MaskFacts) -> list[MaskValue]:
    """List the values of a mask that may be labels."""
    whole = [count for count in mask.values if count.value[0] > 0 and count.value[0] % 1 == 0]
    smear = find_smear(mask)
    if not smear:
        return [count.value for count in whole]
    main = [count for count in whole if _is_structure(count, mask) and count not in smear]
    if not main:  # a structure too small for its share: the commonest value that holds together
        coherent = (count for count in whole if count.coherence >= _COHERENT)
        main = sorted(coherent, key=lambda count: -count.voxels)[:1]
    if not main and whole and max(count.value[0] for count in whole) >= 255 - _CLOSE and not is_smoothed(mask):
        return [(255.0,)]  # compression has left no two pixels alike, but most of them near the ends
    return [count.value for count in main]


def _part_by_frequency(
    candidates: Sequence[Iterable[MaskValue]], masks: int
) -> tuple[list[MaskValue], list[MaskValue]]:
    """Divide values into common ones, with those between, and the others."""
    counts = Counter(value for several in candidates for value in several)
    least = max(2, _LABEL_SHARE * masks) if masks > 2 else 1
    frequent = sorted(value for value, number in counts.items() if number >= least)
    if frequent and len(frequent[0]) == 1 and frequent[-1][0] <= _HIGHEST_ID:  # of many organs some are rare
        frequent = sorted(value for value in counts if value[0] <= frequent[-1][0])
    return frequent, sorted(set(counts) - set(frequent))


def _are_smeared(masks: Sequence[MaskFacts]) -> bool:
    filled = [mask for mask in masks if len(mask.values) > 1]
    return sum(bool(find_smear(mask)) for mask in filled) > _SMEARED * len(filled)


def _drop_close(values: Sequence[int], counts: Mapping[int, int]) -> list[int]:
    """Drop values that compression has left beside a more frequent one.

    >>> _drop_close([254, 255], {254: 2, 255: 9})
    [255]
    """
    apart: list[int] = []
    for value in sorted(values, key=lambda value: (-counts[value], -value)):
        if all(abs(value - other) > _CLOSE for other in apart):
            apart.append(value)
    return sorted(apart)


def _note_values(values: Sequence[int], rare: Sequence[int]) -> tuple[str, ...]:
    """Note which values were taken for labels, and which for faults.

    >>> _note_values([255], [3])
    ("the masks' value 255 is taken for a label", 'the rare value 3 is taken for a fault; name it with --labels if not')
    """
    found, others = ", ".join(map(str, values)), abbreviate([str(value) for value in rare])
    taken = f"value {found} is taken for a label" if len(values) == 1 else f"values {found} are taken for labels"
    one = f"value {others} is taken for a fault; name it"
    fault = one if len(rare) == 1 else f"values {others} are taken for faults; name them"
    return (f"the masks' {taken}", f"the rare {fault} with --labels if not")[: 1 + bool(rare)]


def _explain_no_label(masks: Sequence[MaskFacts]) -> str:
    broken = next((mask for mask in masks if not mask.whole), None)
    if broken is None:
        return "The masks hold only the value 0. Name the labels with --labels."
    value = next(count.value[0] for count in broken.values if count.value[0] % 1)
    return (
        f"{broken.path} holds {value:g}, but labels are whole numbers. Export the masks again without interpolation, "
        "or name the labels with --labels and set --tolerance."
    )


def find_smear(mask: MaskFacts) -> list[MaskValueCount]:
    """Find mask values left along borders or near two extremes.

    Compression or smoothing has left them, so that they are no labels.
    """
    main = [count for count in mask.values if _is_structure(count, mask)]
    rest = [count for count in mask.values if count not in main and any(count.value)]
    if not rest:
        return []
    if mask.header.lossy or (len(rest) >= _FEW_STRAYS and not _are_coherent(rest)):
        return rest
    if mask.colored or not main:
        return []
    low, high = 0.0, max(count.value[0] for count in main)
    near = all(min(abs(count.value[0] - low), abs(count.value[0] - high)) <= _NEAR for count in mask.values)
    return [count for count in mask.values if count.value[0] not in (low, high)] if near and high >= _WIDE_GAP else []


def is_smoothed(mask: MaskFacts) -> bool:
    """Tell whether smeared values lie between those of the structures.

    Smoothing leaves them there; compression leaves them near the structures' values.
    """
    return _share_near_structures(mask, find_smear(mask)) <= _MOSTLY


def classify_smear(mask: MaskFacts, unknown: list[MaskValueCount]) -> str | None:
    """Name the cause of values that no label has.

    Returns:
        The code of compression or of smoothing; `None` for neither.
    """
    smear = [count for count in unknown if not _is_structure(count, mask)]
    if len(smear) < _FEW_STRAYS or _are_coherent(smear):
        return None
    return "mask-jpeg-artifacts" if _share_near_structures(mask, smear) > _MOSTLY else "mask-antialiased"


def _is_structure(count: MaskValueCount, mask: MaskFacts) -> bool:
    """Tell whether a value is a structure's, not a smeared border's."""
    return count.coherence >= _COHERENT and count.voxels >= _STRUCTURE_SHARE * mask.voxels


def _share_near_structures(mask: MaskFacts, smear: list[MaskValueCount]) -> float:
    """Compute the share of smeared pixels near a structure or an extreme."""
    main = [count for count in mask.values if _is_structure(count, mask)]
    everything = np.array([count.value for count in mask.values])
    true = np.array([everything.min(axis=0), everything.max(axis=0), *(count.value for count in main)])
    near = sum(c.voxels for c in smear if np.abs(true - np.array(c.value)).max(axis=1).min() <= _NEAR)
    return near / max(1, sum(count.voxels for count in smear))


def _are_coherent(counts: list[MaskValueCount]) -> bool:
    return sum(count.coherence * count.voxels for count in counts) > _COHERENT * sum(count.voxels for count in counts)
