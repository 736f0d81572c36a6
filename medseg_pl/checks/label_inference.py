"""The one conclusion from masks that nobody has described: their labels, colors, ignore value and tolerance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from medseg_pl.checks.measurements import Mark, Marked, MaskFacts
from medseg_pl.checks.smears import COHERENT, find_smear, is_main, is_smoothed
from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.core.mask_values import format_marks
from medseg_pl.data.sources.base import abbreviate

UNNAMED = LabelMap(["foreground"], "binary")
"""Stands for the label of masks that tell none."""

_SHARE_OF_A_LABEL = 0.1
"""A value in fewer of the masks is taken for a stray one; a label that is as rare has to be named."""
_HIGHEST_ID = 200
"""255 beside ids up to here is no id; most data sets mark with it what nobody annotated."""
_SMEARED = 0.5
"""Of the masks that hold anything: with more of them smeared, the set as a whole is."""
_CLOSE, _FAR = 24, 64
"""How far from a label compression leaves most values, and how far it leaves nearly all."""
_BLACK: Mark = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class LabelSettings:
    """What was said of labels; `None` where the masks have to tell.

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
        """The labels, where they were named at all."""
        if self.values is not None:
            return list(self.values)
        others = ("background", "ignore")
        return None if self.colors is None else [name for name in self.colors if name not in others]

    def label_map(self, names: Sequence[str], task: Task | None = None, **found: object) -> LabelMap:
        """Describe labels by what was said of them, and by what was found where nothing was said."""
        given = [value for value in (self.values or {}).values() if value is not None]
        settings = {
            "values": given or None,
            "ignore_value": self.ignore_value,
            "colors": self.colors,
            "tolerance": self.tolerance,
        }
        merged = {name: found.get(name) if value is None else value for name, value in settings.items()}
        usual: Task = "binary" if len(names) == 1 else "multiclass"
        # The numbers 1, 2, 3 … need not be written down.
        if merged["values"] == list(range(1, len(names) + 1)) and not given:
            merged["values"] = None
        return LabelMap(list(names), self.task or task or usual, **{**merged, "tolerance": merged["tolerance"] or 0})  # type: ignore[arg-type]


class Labeling(NamedTuple):
    """The labels of a data set.

    Attributes:
        labels: What the masks hold; a stand-in where there is a problem.
        notes: What was concluded rather than read, in words.
        problem: Why the masks do not tell their labels, with the remedy; empty where they do.
    """

    labels: LabelMap
    notes: tuple[str, ...] = ()
    problem: str = ""


def find_labels(masks: Sequence[MaskFacts], said: LabelSettings, apart: Sequence[str] = ()) -> Labeling:
    """Conclude what masks hold, for everything that nobody has said.

    Rare values, and those that compression or smoothing leave along borders, are no labels.

    Args:
        masks: The masks, or a sample of them.
        said: What was said.
        apart: The labels of data sets that keep each in files of its own.
    """
    masks = [mask for mask in masks if mask.finite]
    colored = sum(mask.colored for mask in masks)
    if said.colors is None and colored > _SMEARED * sum(len(mask.marks) > 1 for mask in masks):
        return _find_colors([mask for mask in masks if mask.colored], said)
    values = [mask for mask in masks if not mask.colored]
    if apart:
        return _find_apart(values, said, said.names or list(apart))
    if said.names is not None:
        labels = said.label_map(said.names)
        if said.tolerance is None and said.colors is None and _are_smeared(values):
            return _tolerate(values, labels, said)
        return Labeling(labels)
    return _find_values(values, said)


def exclusive(values: dict[str, int]) -> LabelMap:
    """Labels that exclude each other, by name and file value, written as briefly as a configuration would.

    >>> exclusive({"liver": 1, "tumour": 2})
    LabelMap(names=['liver', 'tumour'], task='multiclass', ...)
    """
    return LabelSettings().label_map(list(values), values=list(values.values()))


def _find_values(masks: Sequence[MaskFacts], said: LabelSettings) -> Labeling:
    held = [[mark for mark in _labels_of_mask(mask) if mark[0] != said.ignore_value] for mask in masks]
    kept, stray = _frequent(held, len(masks))
    values = [int(mark[0]) for mark in kept]
    if _are_smeared(masks):
        values = _without_close(values, Counter(int(mark[0]) for marks in held for mark in marks))
    if not values:
        return Labeling(UNNAMED, problem=_why_nothing(masks))
    if len(values) > 1 and values[-1] == 255 and 1 < values[-2] <= _HIGHEST_ID:
        others = format_marks([(value,) for value in values[:-1]])
        labels = said.label_map([f"label_{value}" for value in values[:-1]], values=values[:-1])
        problem = (
            f"The masks hold 255 beside {others}, and nothing says what it means. Set --ignore_value 255 if it marks "
            "what nobody annotated; else name it with --labels."
        )
        return Labeling(labels, _about_values(values[:-1], []), problem)
    if set(values) <= {1, 255}:
        labels = said.label_map(["foreground"])
        what = f"value {values[0]} is" if len(values) == 1 else "values 1 and 255 are"
        said_so = f"the masks' {what} taken for the label foreground"
        notes: tuple[str, ...] = (said_so,)
    else:
        labels = said.label_map([f"label_{value}" for value in values], values=values)
        notes = _about_values(values, [int(mark[0]) for mark in stray])
    if said.tolerance is None and _are_smeared(masks):
        return _tolerate(masks, labels, said, notes)
    return Labeling(labels, notes)


def _find_apart(masks: Sequence[MaskFacts], said: LabelSettings, names: Sequence[str]) -> Labeling:
    """Conclude what stands for each label where each has files of its own."""
    values: list[int] = []
    for index, name in enumerate(names):
        own = [mask for mask in masks if mask.label == index]
        kept, _ = _frequent([_labels_of_mask(mask) for mask in own], len(own))
        found = _without_close([int(mark[0]) for mark in kept], Counter({int(mark[0]): 1 for mark in kept}))
        if len(set(found) - {1, 255}) + bool({1, 255} & set(found)) > 1:
            problem = (
                f"The masks of {name} hold {abbreviate([str(value) for value in found])}; expected one value. Name "
            )
            return Labeling(said.label_map(names, "multilabel"), (), f"{problem}them with --labels VALUE={name},….")
        values.append(found[0] if found else 1)
    usual = set(values) <= {1, 255}
    labels = said.label_map(names, "multilabel", values=None if usual else values)
    return _tolerate(masks, labels, said) if said.tolerance is None and _are_smeared(masks) else Labeling(labels)


def _find_colors(masks: Sequence[MaskFacts], said: LabelSettings) -> Labeling:
    held = [[mark.mark for mark in mask.marks if _is_color(mark, mask)] for mask in masks]
    kept, stray = _frequent(held, len(masks))
    colors = [(int(r), int(g), int(b)) for r, g, b in kept]
    shown_colors = format_marks(kept)
    if said.names is not None:
        problem = f"The masks are in colors: {shown_colors}. Say with --colors which color each label has."
        return Labeling(said.label_map(said.names), (), problem)
    voxels = Counter[tuple[int, ...]]()
    for mask in masks:
        voxels.update({tuple(map(int, mark.mark)): mark.voxels for mark in mask.marks})
    ground = (0, 0, 0) if (0, 0, 0) in colors or not colors else max(colors, key=lambda color: voxels[color])
    colors = [color for color in colors if color != ground]
    if not colors:
        return Labeling(UNNAMED, problem="No color but one stands in the masks. Name the labels with --colors.")
    names = [_name_color(color, len(colors)) for color in colors]
    table = {"background": ground} if ground != (0, 0, 0) else {}
    labels = said.label_map(names, colors={**table, **dict(zip(names, colors, strict=True))})
    notes = [f"the masks' colors {format_marks(colors)} are taken for labels, {ground} for the background"]
    notes += [f"the rare colors {abbreviate([str(mark) for mark in stray])} are taken for faults"] if stray else []
    return _tolerate(masks, labels, said, tuple(notes)) if _are_smeared(masks) else Labeling(labels, tuple(notes))


def _tolerate(
    masks: Sequence[MaskFacts], labels: LabelMap, said: LabelSettings, notes: tuple[str, ...] = ()
) -> Labeling:
    """Find the tolerance with which smeared masks can be read, or say why there is none."""
    smeared = [mask for mask in masks if find_smear(mask)]
    marks = _all_marks(labels, colored=masks[0].colored)
    strays = np.array([mark.mark for mask in smeared for mark in mask.marks])
    needed = float(np.abs(strays[:, None] - marks).max(axis=2).min(axis=1).max())
    gap = min(np.abs(first - second).max() for first, second in combinations(marks, 2))
    most = float((gap - 1) // 2)
    smoothed = sum(is_smoothed(mask) for mask in smeared) > _SMEARED * len(smeared)
    if needed > most or (smoothed and len(marks) > 2):
        why = "smoothed edges (anti-aliasing)" if smoothed else "the traces of JPEG compression"
        problem = (
            f"The masks have {why} round {format_marks([tuple(m) for m in marks[1:]])}, so what lies between is no "
            "label. Export them without smoothing, as PNG; or name the labels with --labels and set --tolerance."
        )
        return Labeling(labels, notes, problem)
    tolerance = min(most, float(_FAR)) if needed <= _FAR else most
    cause = "smoothed" if smoothed else "inexact"
    said_so = (
        f"the masks' values are {cause}; up to {tolerance:g} from a label's they are read as it (labels.tolerance)"
    )
    described = {name: getattr(labels, name) for name in ("values", "colors")}
    return Labeling(said.label_map(labels.names, labels.task, **described, tolerance=tolerance), (*notes, said_so))


def _all_marks(labels: LabelMap, colored: bool) -> np.ndarray:
    """What stands for the background and for each label."""
    if colored and labels.colors is not None:
        own = dict(labels.colors)
        return np.array([own.pop("background", (0, 0, 0)), *own.values()], dtype=float)
    alone = labels.values is None and (labels.overlapping or len(labels.names) == 1)
    return np.array([[value] for value in (0, *([255] if alone else labels.file_values))], dtype=float)


def _labels_of_mask(mask: MaskFacts) -> list[Mark]:
    """The values of a mask that may be labels."""
    whole = [mark for mark in mask.marks if mark.mark[0] > 0 and mark.mark[0] % 1 == 0]
    smear = find_smear(mask)
    if not smear:
        return [mark.mark for mark in whole]
    main = [mark for mark in whole if is_main(mark, mask) and mark not in smear]
    if not main:  # a structure too small for its share: the commonest value that holds together
        main = sorted((mark for mark in whole if mark.coherence >= COHERENT), key=lambda mark: -mark.voxels)[:1]
    if not main and whole and max(mark.mark[0] for mark in whole) >= 255 - _CLOSE and not is_smoothed(mask):
        return [(255.0,)]  # compression has left no two pixels alike, but most of them near the ends
    return [mark.mark for mark in main]


def _is_color(mark: Marked, mask: MaskFacts) -> bool:
    return is_main(mark, mask) if find_smear(mask) else True


def _frequent(held: Sequence[Iterable[Mark]], masks: int) -> tuple[list[Mark], list[Mark]]:
    """Marks that stand in many masks, or between those that do, and the others."""
    holding = Counter(mark for marks in held for mark in marks)
    least = max(2, _SHARE_OF_A_LABEL * masks) if masks > 2 else 1
    kept = sorted(mark for mark, number in holding.items() if number >= least)
    if kept and len(kept[0]) == 1 and kept[-1][0] <= _HIGHEST_ID:  # of many organs some are rare
        kept = sorted(mark for mark in holding if mark[0] <= kept[-1][0])
    return kept, sorted(set(holding) - set(kept))


def _are_smeared(masks: Sequence[MaskFacts]) -> bool:
    marked = [mask for mask in masks if len(mask.marks) > 1]
    return sum(bool(find_smear(mask)) for mask in marked) > _SMEARED * len(marked)


def _without_close(values: Sequence[int], holding: Mapping[int, int]) -> list[int]:
    """Values without those that compression has left beside a more frequent one.

    >>> _without_close([254, 255], {254: 2, 255: 9})
    [255]
    """
    kept: list[int] = []
    for value in sorted(values, key=lambda value: (-holding[value], -value)):
        if all(abs(value - other) > _CLOSE for other in kept):
            kept.append(value)
    return sorted(kept)


def _about_values(values: Sequence[int], stray: Sequence[int]) -> tuple[str, ...]:
    notes = [f"the masks' values {', '.join(map(str, values))} are taken for labels"]
    rare = abbreviate([str(value) for value in stray])
    notes += [f"the rare values {rare} are taken for faults; name them with --labels if not"] if stray else []
    return tuple(notes)


def _why_nothing(masks: Sequence[MaskFacts]) -> str:
    broken = next((mask for mask in masks if not mask.whole), None)
    if broken is None:
        return "No value but 0 stands in the masks. Name the labels with --labels."
    value = next(mark.mark[0] for mark in broken.marks if mark.mark[0] % 1)
    return (
        f"{broken.path} holds {value:g}, but labels are whole numbers. Export the masks again without interpolation, "
        "or name the labels with --labels and set --tolerance."
    )


def _name_color(color: tuple[int, int, int], count: int) -> str:
    return "foreground" if count == 1 else "color_{:02x}{:02x}{:02x}".format(*color)
