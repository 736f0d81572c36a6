"""What was drawn on a series, whichever the format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.dicom import rtstruct, segmentation
from medseg_pl.io.dicom.headers import damage, kind_of, read_dataset
from medseg_pl.io.dicom.series import Series
from medseg_pl.io.dicom.structures import Structure


def read_structures(path: Path) -> list[Structure]:
    """What a SEG or an RTSTRUCT holds, by number and name.

    Raises:
        UnreadableFileError: The file is neither, or it is damaged.
    """
    return rtstruct.read_regions(path) if _has_contours(path) else segmentation.read_segments(path)


def read_masks(path: Path, wanted: Sequence[Collection[int]], series: Series) -> list[Bool[np.ndarray, "d h w"]]:
    """Masks of structures on the slices of the series they were drawn on, as the files hold them.

    Args:
        path: The file.
        wanted: For each mask the numbers of the structures that it unites.
        series: What was drawn on.

    Raises:
        GeometryError: Something is drawn where the series has no pixel.
        UnreadableFileError: The file cannot be decoded.
    """
    read = rtstruct.read_contours if _has_contours(path) else segmentation.read_segmentation
    return read(path, wanted, series)


def _has_contours(path: Path) -> bool:
    dataset = read_dataset(path)
    with damage(path):
        kind = kind_of(dataset)
    if kind not in ("segmentation", "structures"):
        raise UnreadableFileError(f"{path} is neither a DICOM SEG nor an RTSTRUCT. Move it away.")
    return kind == "structures"
