"""What the structures are called and how they are written in a mask.

The only module that knows the three tasks apart: `binary` (one label), `multiclass` (labels exclude each other) and
`multilabel` (labels may overlap). Everything else asks a `LabelMap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from medseg_pl.core.errors import MaskValueError, SettingError, count_noun, shorten
from medseg_pl.core.mask_values import Mark, check_colors, paint, translate
from medseg_pl.core.validation import find_name_fault

Task = Literal["binary", "multiclass", "multilabel"]

IGNORE = 255
"""Stored in place of the file's ignore value: these voxels count for no loss and no score."""


@dataclass(frozen=True)
class LabelMap:
    """The labels of a data set.

    A stored mask is `(M, ...)` uint8: `M = 1` with 0 for background and `i + 1` for label `i` where labels exclude
    each other, `M = len(names)` with 0 and 1 where they may overlap; 255 where the file says "ignore".

    Args:
        names: The labels, without the background.
        task: `binary`, `multiclass` or `multilabel`.
        values: The value of each label in the mask files. `None`: 1, 2, 3 … in the order of the names; in a file
            that holds one label only, both 1 and 255 mean the label.
        ignore_value: The value in the files that marks voxels nobody annotated.
        colors: The color of each label in mask pictures, such as `{stomach: [255, 0, 0]}`, which are then read by
            color and not by value; `background` is black unless it is given too, and `ignore` stands for what nobody
            annotated. A NIfTI file has no colors and keeps to `values`.
        tolerance: How far a value, or a channel of a color, may be from that of its label. Above 0, a file that
            holds one label only is 0/255 unless `values` says otherwise.
        partial: Whether there may be cases in which some labels were not looked for, as their data set says: these
            labels count there for no loss and no score.

    Raises:
        SettingError: The names, the values and the task do not fit together.

    >>> LabelMap(["stomach", "spleen"], "multiclass").classes
    3
    """

    names: Sequence[str]
    task: Task
    values: Sequence[int] | None = None
    ignore_value: int | None = None
    colors: Mapping[str, tuple[int, int, int]] | None = None
    tolerance: float = 0
    partial: bool = False

    def __post_init__(self) -> None:
        """Reject what cannot work before any file is read."""
        names = list(self.names)
        if self.task not in get_args(Task):
            raise SettingError(f"task must be one of {', '.join(get_args(Task))}; got {self.task!r}.")
        if not names or len(set(names)) != len(names):
            raise SettingError(f"labels.names must be one or more different names; got {names}.")
        self._check_names()
        if self.task == "binary" and len(names) != 1:
            raise SettingError(
                f"A binary task has one label; got {len(names)}: {', '.join(names)}. "
                "Use the task multiclass (labels exclude each other) or multilabel (labels may overlap)."
            )
        if len(names) > IGNORE - 1:
            raise SettingError(f"At most {IGNORE - 1} labels are supported; got {len(names)}.")
        self._check_values()
        if self.colors is not None:
            check_colors(self.colors, names)
        if not 0 <= self.tolerance < np.inf:
            raise SettingError(f"labels.tolerance must be a distance between values, at least 0; got {self.tolerance}.")

    def _check_names(self) -> None:
        for name in self.names:
            if (fault := find_name_fault(name)) is not None:
                raise SettingError(
                    f"The label {shorten(name)} {fault}; folders of masks get that name. Correct labels.names."
                )

    def _check_values(self) -> None:
        names = list(self.names)
        # Of labels that may overlap each has its own file, and all of these may be written alike.
        different = 1 if self.overlapping else len(names)
        if self.values is not None and (len(self.values) != len(names) or len(set(self.values)) < different):
            raise SettingError(
                f"labels.values needs one {'' if self.overlapping else 'different '}value for each of the "
                f"{count_noun(len(names), 'label')}; got {list(self.values)}."
            )
        if 0 in (self.values or ()):
            raise SettingError(
                f"labels.values {list(self.values or ())} gives a label the value 0, which is the background. Leave "
                "it out of labels.names and labels.values."
            )
        alone = self.overlapping or len(names) == 1  # a file holds one label, which may be written as 255
        taken = [0, 1, 255] if alone and self.values is None else [0, *self.file_values]
        if self.ignore_value in taken:
            raise SettingError(
                f"labels.ignore_value {self.ignore_value} is the value of the background or of a label too: {taken}. A "
                "value in the files can mean one thing only: correct labels.ignore_value or labels.values."
            )

    @property
    def overlapping(self) -> bool:
        """Whether a voxel can carry several labels."""
        return self.task == "multilabel"

    @property
    def has_ignored(self) -> bool:
        """Whether targets can hold voxels that nobody annotated."""
        # A label that overlaps others and was not looked for is ignored as a whole; others share the background.
        return self.ignore_value is not None or "ignore" in (self.colors or {}) or (self.partial and self.overlapping)

    def find_annotated(self, annotated: Sequence[str] | None) -> list[bool]:
        """Tell for each label whether it was annotated.

        Args:
            annotated: The names of the annotated labels; all where `None`.

        >>> LabelMap(["liver", "spleen"], "multiclass").find_annotated(["spleen"])
        [False, True]
        """
        return [annotated is None or name in annotated for name in self.names]

    @property
    def classes(self) -> int:
        """Number of logits for each pixel, with the background for exclusive labels."""
        return len(self.names) + (self.task == "multiclass")

    @property
    def mask_channels(self) -> int:
        """`M`, the channels of a stored mask."""
        return len(self.names) if self.overlapping else 1

    @property
    def file_values(self) -> tuple[int, ...]:
        """Return each label's value in a mask file of all labels."""
        return tuple(self.values) if self.values is not None else tuple(range(1, len(self.names) + 1))

    def encode(
        self, pixels: Shaped[np.ndarray, "..."], source: str = "mask", colored: bool = False
    ) -> UInt8[np.ndarray, "..."]:
        """Convert a mask file with all labels to stored indices.

        Args:
            pixels: Values as the file holds them, or `(3, ...)` colors.
            source: The file's name in errors.
            colored: Whether the file is read by color.

        Raises:
            MaskValueError: A value or a color belongs to no label.

        >>> LabelMap(["nucleus"], "binary").encode(np.array([0, 255]))
        array([0, 1], dtype=uint8)
        """
        if len(self.names) == 1:
            return self.encode_one(pixels, 0, source, colored)
        marks = self._list_marks(colored)
        return self._translate(pixels, {mark: i for i, mark in enumerate(marks, start=1)}, source, colored)

    def encode_one(
        self, pixels: Shaped[np.ndarray, "..."], index: int, source: str, colored: bool = False
    ) -> UInt8[np.ndarray, "..."]:
        """Convert a mask file of a single label to 0 and 1.

        The file writes the label as 1 or 255, or as the value or color that the settings give it.

        Args:
            pixels: Values as the file holds them, or `(3, ...)` colors.
            index: The label, counted from 0.
            source: The file's name in errors.
            colored: Whether the file is read by color.

        Raises:
            MaskValueError: A value or a color is not the label's, or may be the background's.
            SettingError: 1 or 255 may mean the label or, by `ignore_value`, voxels that nobody annotated.
        """
        if colored or self.values is not None:
            return self._translate(pixels, {self._list_marks(colored)[index]: 1}, source, colored)
        if self.ignore_value in (1, 255):
            raise SettingError(
                f"{source} holds one label, in which {self.ignore_value} may mean the label or, by "
                "labels.ignore_value, that nobody looked. Say with labels.values which value each label has."
            )
        if self.tolerance and pixels.max() == 1:
            raise MaskValueError(
                f"{source} holds nothing above 1, which may be the label or, by labels.tolerance, the background. Say "
                "with labels.values which value each label has, or set labels.tolerance to 0."
            )
        return self._translate(pixels, {(255,): 1} if self.tolerance else {(1,): 1, (255,): 1}, source, colored)

    @staticmethod
    def unite(masks: Sequence[UInt8[np.ndarray, "..."]]) -> UInt8[np.ndarray, "..."]:
        """Merge several 0/1 masks of one label.

        A voxel is 1 where any mask has the label, else 255 where any mask ignores it.

        >>> LabelMap.unite([np.array([1, 0, 255], np.uint8), np.array([255, 0, 0], np.uint8)])
        array([  1,   0, 255], dtype=uint8)
        """
        united: NDArray[np.uint8] = np.where((np.stack(masks) == 1).any(axis=0), 1, np.max(masks, axis=0))
        return united.astype(np.uint8)

    def combine(self, masks: Sequence[UInt8[np.ndarray, "..."]], source: str = "mask") -> UInt8[np.ndarray, "m ..."]:
        """Combine 0/1 masks of all labels into a stored mask.

        Args:
            masks: One for each label, in the order of the names.
            source: The file's name in errors.

        Raises:
            MaskValueError: Labels overlap although the task says that they exclude each other.
        """
        stack = np.stack(masks)
        if self.overlapping:
            return stack
        ignored = (stack == IGNORE).any(axis=0)
        overlap = int((((stack == 1).sum(axis=0) > 1) & ~ignored).sum())
        if overlap:
            raise MaskValueError(
                f"{source}: {count_noun(overlap, 'voxel carries', 'voxels carry')} more than one label, but the task "
                f"{self.task} lets a voxel carry one. Set labels.task to multilabel, or correct the masks."
            )
        order = np.arange(1, len(masks) + 1, dtype=np.uint8).reshape(-1, *([1] * (stack.ndim - 1)))
        merged: NDArray[np.uint8] = ((stack == 1) * order).max(axis=0, keepdims=True)
        merged[:, ignored] = IGNORE
        return merged

    def decode(self, mask: UInt8[np.ndarray, "1 ..."], colored: bool = False) -> NDArray[Any]:
        """Convert a stored mask of exclusive labels to the file's marks.

        Args:
            mask: Stored indices, see `LabelMap`.
            colored: Whether to return colors.

        Returns:
            Values `(...)`, or colors `(3, ...)`.
        """
        background, ignore = self._get_other_marks(colored)
        marks = [background] * 256
        marks[1 : len(self.names) + 1] = self._list_marks(colored)
        # No prediction has it, and -1 would make the type of all masks a signed one
        marks[IGNORE] = ignore if ignore is not None and IGNORE in mask[0] else background
        return paint(mask[0], marks)

    def decode_one(
        self, plane: UInt8[np.ndarray, "..."], index: int, visible: int = 1, colored: bool = False
    ) -> NDArray[Any]:
        """Convert the mask of one label to a file of its own.

        Args:
            plane: 0 and 1.
            index: The label, counted from 0.
            visible: The value to write where `values` gives the label none: 1, or 255 to be seen in a picture.
            colored: Whether the file is read by color.
        """
        own = self._list_marks(colored)[index] if colored or self.values is not None else (visible,)
        return paint(plane == 1, [self._get_other_marks(colored)[0], own])

    def planes(self, mask: UInt8[np.ndarray, "m ..."]) -> Bool[np.ndarray, "n ..."]:
        """Split a stored mask into a boolean mask for each label.

        Ignored voxels are in none of them.

        >>> LabelMap(["a", "b"], "multiclass").planes(np.array([[2, 0, 1]], np.uint8)).astype(int)
        array([[0, 0, 1],
               [1, 0, 0]])
        """
        values = np.ones(len(mask)) if self.overlapping else np.arange(1, len(self.names) + 1)
        found: NDArray[np.bool_] = mask == values.reshape(-1, *([1] * (mask.ndim - 1)))
        return found

    def plane(self, mask: UInt8[np.ndarray, "m ..."], index: int) -> Bool[np.ndarray, "..."]:
        """Select the voxels of one label.

        Args:
            mask: A stored mask, `(M, ...)`.
            index: The label, counted from 0.

        >>> LabelMap(["a", "b"], "multiclass").plane(np.array([[2, 0, 1]], np.uint8), 1)
        array([ True, False, False])
        """
        found: NDArray[np.bool_] = mask[index] == 1 if self.overlapping else mask[0] == index + 1
        return found

    def find_unannotated(self, mask: UInt8[np.ndarray, "m ..."], index: int) -> Bool[np.ndarray, "..."]:
        """Select the voxels in which a label was not annotated.

        Args:
            mask: A stored mask, `(M, ...)`.
            index: The label, counted from 0.
        """
        found: NDArray[np.bool_] = mask[index if self.overlapping else 0] == IGNORE
        return found

    def probability(self, probabilities: Float[np.ndarray, "k ..."], index: int) -> Float[np.ndarray, "..."]:
        """Select the plane of one label in probabilities.

        Args:
            probabilities: `(K, ...)` from `activate`.
            index: The label, counted from 0.
        """
        plane: NDArray[Any] = probabilities[index + (self.task == "multiclass")]
        return plane

    def distribution(self, probabilities: Float[np.ndarray, "k ..."], index: int) -> Float[np.ndarray, "c ..."]:
        """Stack the probabilities of all classes that compete with a label.

        They sum to 1.

        Args:
            probabilities: As `activate` returns them.
            index: The label, counted from 0.

        Returns:
            Background and all labels where they exclude each other; else absence and presence of the label.

        >>> LabelMap(["a", "b"], "multilabel").distribution(np.array([[0.9, 0.5], [0.25, 1.0]]), 1)
        array([[0.75, 0.  ],
               [0.25, 1.  ]])
        """
        if self.task == "multiclass":
            return probabilities
        plane = self.probability(probabilities, index)
        return np.stack([1 - plane, plane])

    def activate(self, logits: Float[Tensor, "b k ..."]) -> Float[Tensor, "b k ..."]:
        """Turn logits into probabilities: softmax for exclusive labels, else sigmoid."""
        return logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()

    def decide(self, probabilities: Float[Tensor, "b k ..."]) -> UInt8[Tensor, "b m ..."]:
        """Decide the stored mask from probabilities."""
        if self.task == "multiclass":
            # On the CPU `max` finds the index 20 times faster than `argmax`.
            return probabilities.max(dim=1, keepdim=True).indices.byte()
        return (probabilities > 0.5).byte()

    def target(self, mask: UInt8[Tensor, "b m ..."]) -> Tensor:
        """Convert a stored mask to the target of torch's and smp's losses.

        Returns:
            `(B, ...)` int64 where labels exclude each other, else `(B, N, ...)` float; ignored voxels are 255.
        """
        return mask[:, 0].long() if self.task == "multiclass" else mask.float()

    def _list_marks(self, colored: bool) -> list[Mark]:
        """List the color, or value, of each label in a file."""
        if not colored:
            return [(value,) for value in self.file_values]
        assert self.colors is not None, "without colors no file is read by color"
        return [tuple(self.colors[name]) for name in self.names]

    def _get_other_marks(self, colored: bool) -> tuple[Mark, Mark | None]:
        """Return the marks of the background and of voxels that nobody annotated."""
        if not colored:
            return (0,), None if self.ignore_value is None else (self.ignore_value,)
        others = {name: tuple(mark) for name, mark in (self.colors or {}).items() if name not in self.names}
        return others.get("background", (0, 0, 0)), others.get("ignore")

    def _translate(
        self, pixels: NDArray[Any], meaning: dict[Mark, int], source: str, colored: bool
    ) -> NDArray[np.uint8]:
        background, ignore = self._get_other_marks(colored)
        meaning = {background: 0, **meaning} if ignore is None else {background: 0, **meaning, ignore: IGNORE}
        try:
            return translate(pixels if colored else pixels[None], meaning, self.tolerance, source)
        except MaskValueError as error:
            # A file of one label among several does not tell the values of the others.
            alone = len(self.names) > 1 and 2 not in meaning.values()
            error.unclaimed = () if alone else error.unclaimed
            error.claimed = tuple(value for value in error.claimed if value != self.ignore_value)
            raise


def prepare_loss_inputs(
    logits: Float[Tensor, "b k ..."], target: Tensor
) -> tuple[Float[Tensor, "b k ..."], Float[Tensor, "b k ..."], Bool[Tensor, "b 1 ..."] | Bool[Tensor, "b k ..."]]:
    """Compute probabilities, one-hot target and validity for a loss of any task.

    Args:
        logits: `(B, K, ...)`.
        target: Class indices `(B, ...)` for exclusive labels; otherwise of the logits' shape. 255 is ignored.

    Returns:
        Probabilities, one-hot target and validity; ignored voxels are 0 in the target and false in the validity.
    """
    valid = target != IGNORE
    if target.ndim == logits.ndim:
        return logits.sigmoid(), target.where(valid, target.new_zeros(())).to(logits.dtype), valid
    classes = target.new_tensor(range(logits.shape[1])).view(1, -1, *([1] * (logits.ndim - 2)))
    one_hot = target.unsqueeze(1) == classes
    return logits.softmax(dim=1), one_hot.to(logits.dtype), valid.unsqueeze(1)
