"""Findings of `medseg check` with their codes, and the measurements of cases from which they follow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from medseg_pl.core.errors import MaskValueError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.perceptual_hash import ImageSignature
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.file_header import FileHeader

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""An error makes training fail or scores wrong, a warning is probably a fault, a note is worth knowing."""

MaskValue = tuple[float, ...]
"""One value of a mask, or the three of a color."""

TINY = 3
"""Voxels of the largest component that may be a slip of the pen."""

Split = Mapping[str, Sequence[str]]
"""The case ids of `train`, `val` and `test`."""


class Code(NamedTuple):
    """One kind of finding.

    Its name stays the same from release to release.

    Attributes:
        level: How bad it is.
        meaning: The fault, in a line.
        remedy: What to do, as a sentence.
    """

    level: Level
    meaning: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Args:
        code: The name of its kind.
        level: How bad it is.
        case_id: The case, or nothing where it is about the whole data set.
        file: The file that is at fault, or `None`.
        message: What was expected, and what came.
        remedy: What to do now.
    """

    code: str
    level: Level
    case_id: str
    file: Path | None
    message: str
    remedy: str


class Codes(dict[str, Code]):
    """The codes of one subject by name.

    They are declared beside the rules that find them.
    """

    def find(self, code: str, message: str, case_id: str = "", file: Path | None = None) -> Finding:
        """Make a finding of a declared kind.

        Args:
            code: The name of the kind.
            message: What was expected, and what came.
            case_id: The case, or nothing where it is about the whole data set.
            file: The file that is at fault.
        """
        level, _, remedy = self[code]
        return Finding(code, level, case_id, file, message, remedy)


def error(meaning: str, remedy: str) -> Code:
    """Declare a code for what fails training or falsifies scores."""
    return Code("error", meaning, remedy)


def warning(meaning: str, remedy: str) -> Code:
    """Declare a code for a probable fault."""
    return Code("warning", meaning, remedy)


def note(meaning: str, remedy: str = "Nothing must be done.") -> Code:
    """Declare a code for something worth knowing."""
    return Code("note", meaning, remedy)


class MaskValueCount(NamedTuple):
    """One value or color of a mask file.

    Attributes:
        value: The value, or the color.
        voxels: How many there are.
        coherence: The share of them whose neighbor in a row or a column is the same; borders smoothed by a program
            have little of it.
    """

    value: MaskValue
    voxels: int
    coherence: float


class SmallComponents(NamedTuple):
    """Connected components of one value.

    Attributes:
        value: The value.
        largest: Voxels of the largest one.
        tiny: How many have `TINY` voxels at most.
        number: How many there are.
    """

    value: float
    largest: int
    tiny: int
    number: int


@dataclass(frozen=True)
class MaskFacts:
    """One mask file, or the mask of one label without a file.

    Args:
        path: The file.
        label: The index of the label that it holds alone, `None` where it holds all.
        geometry: Its grid.
        header: Its header.
        voxels: The number of its voxels.
        values: Its values, the commonest first, a few hundred at most.
        distinct: The number of different values or colors.
        finite: Whether all values are numbers.
        whole: Whether all values are whole numbers.
        colored: Whether it is read by color.
        components: The connected components of each value, of masks with few values.
        stored: Whether values are those of a stored mask, 0 and 1, whatever the file holds.
    """

    path: Path
    label: int | None
    geometry: Geometry
    header: FileHeader
    voxels: int
    values: tuple[MaskValueCount, ...]
    distinct: int
    finite: bool = True
    whole: bool = True
    colored: bool = False
    components: tuple[SmallComponents, ...] = ()
    stored: bool = False


@dataclass(frozen=True)
class ImageFacts:
    """All channels of one image.

    Args:
        path: The first file.
        headers: The header of each file.
        geometry: The grid of the first.
        grids: That of each file.
        channels: The number of channels.
        dtype: The type of the values.
        finite: The share of values that are numbers.
        lowest: The smallest number.
        highest: The largest one.
        ends: The smallest and the largest number of each channel.
        percentiles: The 1st, 50th and 99th percentile.
        at_top: The share of values that are the highest one.
        below_top: The share of values just below it.
        contrast: Mean of the middle less mean of the rim, in standard deviations.
        constant: The channels that hold a single value.
        digest: The same for images with the same pixels.
        signature: Properties that copies of the image share; `None` of images of a single value.
        modality: The modality that a DICOM file names, or nothing.
        turned_bright: Whether a DICOM file stores bright as low (MONOCHROME1).
    """

    path: Path
    headers: tuple[FileHeader, ...]
    geometry: Geometry
    grids: tuple[Geometry, ...]
    channels: int
    dtype: str
    finite: float
    lowest: float
    highest: float
    ends: tuple[tuple[float, float], ...]
    percentiles: tuple[float, float, float]
    at_top: float
    below_top: float
    contrast: float
    constant: tuple[int, ...]
    digest: bytes
    signature: ImageSignature | None
    modality: str = ""
    turned_bright: bool = False


class Alignment(NamedTuple):
    """How well the borders of a moved mask lie on image edges.

    Attributes:
        shift: The pixels `(y, x)` by which the mask fits best.
        distance: The length of the shift in pixels of the examined image; large images are shrunk.
        here: The mean gradient under the borders as they are, 1 being the average over all shifts.
        best: The mean gradient at the best shift.
    """

    shift: tuple[int, int]
    distance: float
    here: float
    best: float


@dataclass(frozen=True)
class CaseFacts:
    """The facts of one case.

    Args:
        case: Its files.
        image: The facts of its pixels, `None` where they cannot be read.
        masks: The facts of its readable masks.
        alignment: How mask and image fit, `None` where that cannot be told.
        overlap: Voxels that have several labels, where each label has a file of its own.
        findings: The findings made while reading it.
    """

    case: Case
    image: ImageFacts | None = None
    masks: tuple[MaskFacts, ...] = ()
    alignment: Alignment | None = None
    overlap: int = 0
    findings: tuple[Finding, ...] = ()


class LabelLookup:
    """Finds the label of each value or color in a mask.

    Args:
        labels: The labels that masks should hold.
    """

    def __init__(self, labels: LabelMap) -> None:
        self.labels = labels
        self._known: dict[tuple[MaskValue, int | None, bool, bool], int | None] = {}

    def find(self, value: MaskValue, mask: MaskFacts) -> int | None:
        """Return the label of a value.

        Returns:
            The label counted from 1, 0 for background, 255 for ignored voxels, `None` where it is no label's value.
        """
        # Hundreds of masks share a few values, and encoding one by itself costs as much as encoding an array.
        key = (value, mask.label, mask.colored, mask.stored)
        if key not in self._known:
            self._known[key] = self._encode(value, mask)
        return self._known[key]

    def find_unknown(self, mask: MaskFacts) -> list[MaskValueCount]:
        """List the values of a mask that no label has."""
        return [count for count in mask.values if self.find(count.value, mask) is None]

    def count_voxels(self, masks: Sequence[MaskFacts]) -> list[int]:
        """Count the voxels of each label in a case's readable masks."""
        voxels = [0] * len(self.labels.names)
        for mask in masks:
            for count in mask.values:
                index = self.find(count.value, mask)
                # 255, what nobody annotated, is no label, although `find` returns it.
                if index is not None and 0 < index <= len(voxels):
                    voxels[index - 1] += count.voxels
        return voxels

    def find_marks(self, masks: Sequence[MaskFacts]) -> dict[str, int | list[int]]:
        """Find each label's commonest value or color in mask files, by default the one of the settings."""
        voxels: dict[int | None, Counter[MaskValue]] = defaultdict(Counter)
        for mask in masks:
            for count in () if mask.stored else mask.values:
                voxels[self.find(count.value, mask)][count.value] += count.voxels
        marks: dict[str, int | list[int]] = dict(zip(self.labels.names, self.labels.file_values, strict=True))
        for number, name in enumerate(self.labels.names, start=1):
            for mark, _ in voxels[number].most_common(1):
                marks[name] = int(mark[0]) if len(mark) == 1 else [int(part) for part in mark]
        return marks

    def _encode(self, value: MaskValue, mask: MaskFacts) -> int | None:
        if mask.colored and self.labels.colors is None:
            return None
        if mask.stored:
            # Stored masks of a label alone hold 0 and 1, whatever value the label has in files of all labels.
            number = int(value[0])
            return number if number in (0, IGNORE) or mask.label is None else mask.label + 1
        # With a tolerance a file of nothing above 1 is refused as unclear; 255 beside it says which kind of file it is.
        beside = [255.0] if self.labels.tolerance and not mask.colored else []
        pixels = np.array([[part, *beside] for part in value])
        pixels = pixels if mask.colored else pixels[0]
        try:
            if mask.label is None:
                return int(self.labels.encode(pixels, "mask", mask.colored)[0])
            encoded = int(self.labels.encode_one(pixels, mask.label, "mask", mask.colored)[0])
        except MaskValueError:
            return None
        return mask.label + 1 if encoded == 1 else encoded


class LabelCounts(NamedTuple):
    """Label counts of a case, known to the cache without opening files.

    Attributes:
        geometry: Its grid.
        label_voxels: The number of voxels of each label; `None` without a reference.
    """

    geometry: Geometry
    label_voxels: Sequence[int] | None


class AnnotatedCase(NamedTuple):
    """A case with the voxels of each label, `None` without a reference."""

    case: Case
    voxels: Sequence[int] | None


@dataclass(frozen=True)
class Dataset:
    """The facts of a data set for the rules.

    Args:
        labels: The labels that masks should hold.
        annotated: The cases with their label counts.
        geometries: The grid of each image, by case id; of those that could be read.
        splits: The splits that are to be checked.
        patch: How images are resized for the network; `None` where that is not known.
        cases: The facts of each case; nothing in quick checks, which read no file.
        modalities: The modality of each channel as the data set says, such as `CT`; one name stands for all channels.
        tolerance_found: Whether the tolerance of the labels was concluded from the masks, and not set.
    """

    labels: LabelMap
    annotated: Sequence[AnnotatedCase]
    geometries: Mapping[str, Geometry]
    splits: Sequence[Split] = ()
    patch: Resize | None = None
    cases: Sequence[CaseFacts] = ()
    modalities: Sequence[str] = ()
    tolerance_found: bool = False

    @cached_property
    def lookup(self) -> LabelLookup:
        """Finds the label of each value."""
        return LabelLookup(self.labels)

    @cached_property
    def images(self) -> list[tuple[str, ImageFacts]]:
        """The images that could be read, by case id."""
        return [(facts.case.case_id, facts.image) for facts in self.cases if facts.image is not None]
