"""What is kept of a case once it has been read: a few numbers, from which all findings follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medseg_pl.checks.findings import Finding
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Case
from medseg_pl.data.perceptual_hash import ImageSignature
from medseg_pl.io.file_header import FileHeader

Mark = tuple[float, ...]
"""What stands in a mask for a label: one value, or the three of a color."""


class Marked(NamedTuple):
    """One value or color of a mask file.

    Attributes:
        mark: The value, or the color.
        voxels: How many there are.
        coherence: The share of them whose neighbor in a row or a column is the same; borders smoothed by a program
            have little of it.
    """

    mark: Mark
    voxels: int
    coherence: float


class Specks(NamedTuple):
    """Connected components of one value.

    Attributes:
        value: The value.
        largest: Voxels of the largest one.
        tiny: How many components have a few voxels only.
        components: How many there are.
    """

    value: float
    largest: int
    tiny: int
    components: int


@dataclass(frozen=True)
class MaskFacts:
    """One mask file, or the mask of one label where a file holds none.

    Args:
        path: The file.
        label: The index of the label that it holds alone, `None` where it holds all.
        geometry: Its grid.
        header: What the file says of itself.
        voxels: How many there are.
        marks: What stands in it, the commonest first, a few hundred at most.
        distinct: How many different values or colors there are.
        finite: Whether all values are numbers.
        whole: Whether all values are whole numbers.
        colored: Whether it is read by color.
        specks: The components of each value, of masks with few values.
        stored: Whether values are those of a stored mask, 0 and 1, whatever the file holds.
    """

    path: Path
    label: int | None
    geometry: Geometry
    header: FileHeader
    voxels: int
    marks: tuple[Marked, ...]
    distinct: int
    finite: bool = True
    whole: bool = True
    colored: bool = False
    specks: tuple[Specks, ...] = ()
    stored: bool = False


@dataclass(frozen=True)
class ImageFacts:
    """All channels of one image.

    Args:
        path: The first file.
        headers: What each file says of itself.
        geometry: The grid of the first.
        grids: That of each file.
        channels: How many.
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
        signature: What copies of the image have in common; `None` of images of a single value.
        modality: What a DICOM file says of itself, or nothing.
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
    """How well the borders of a mask lie on the edges of its image, when moved.

    Attributes:
        shift: The pixels `(y, x)` by which the mask fits best.
        distance: The length of the shift in pixels of the image as it was looked at, large ones being shrunk.
        here: The mean gradient under the borders as they are, 1 being the average over all shifts.
        best: The same at the best shift.
    """

    shift: tuple[int, int]
    distance: float
    here: float
    best: float


@dataclass(frozen=True)
class CaseFacts:
    """One case.

    Args:
        case: Its files.
        image: What is known of its pixels, `None` where they cannot be read.
        masks: What is known of its masks, those that can be read.
        alignment: How mask and image fit, `None` where that cannot be told.
        overlap: Voxels that have several labels, where each label has a file of its own.
        findings: What reading it has shown.
    """

    case: Case
    image: ImageFacts | None = None
    masks: tuple[MaskFacts, ...] = ()
    alignment: Alignment | None = None
    overlap: int = 0
    findings: tuple[Finding, ...] = ()
