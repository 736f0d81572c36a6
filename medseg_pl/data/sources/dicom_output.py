"""What becomes of a mask that was predicted on a DICOM series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources.base import shown
from medseg_pl.io.dicom.seg_writer import ANATOMICAL_STRUCTURE, ORGAN, Concept, Segment
from medseg_pl.io.nifti import write_nifti

Output = Literal["seg", "nifti"]

UnevenSlices = Literal["refuse", "resample"]

Term = tuple[int | str, str, str]
"""A concept as it stands in a configuration, where most codes are numbers."""


def segments_of(labels: LabelMap, types: Mapping[str, Term], categories: Mapping[str, Term]) -> list[Segment]:
    """What the labels are as segments of a DICOM SEG.

    Raises:
        SettingError: A type or a category is that of no label.

    >>> segments_of(LabelMap(["liver"], "binary"), {"liver": (10200004, "SCT", "Liver")}, {})[0].type
    ('10200004', 'SCT', 'Liver')
    """
    check_known("property_types", types, labels)
    check_known("property_categories", categories, labels)
    return [
        Segment(
            name,
            category=_concept(categories.get(name, ANATOMICAL_STRUCTURE)),
            type=_concept(types.get(name, ORGAN)),
        )
        for name in labels.names
    ]


def write_as_nifti(
    directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap, geometry: Geometry
) -> None:
    """One file on the grid of the volume; for labels that may overlap, one folder for each label."""
    if not labels.overlapping:
        _write(directory / case.case_id, labels.decode(mask), geometry)
        return
    for index, (name, plane) in enumerate(zip(labels.names, mask, strict=True)):
        _write(directory / name / case.case_id, labels.decode_one(plane, index), geometry)


def check_known(setting: str, names: Iterable[str], labels: LabelMap) -> None:
    """Raise `SettingError` where a setting speaks of labels that there are not."""
    if unknown := [name for name in names if name not in labels.names]:
        raise SettingError(
            f"data.source.{setting} speaks of {shown(unknown)}, but labels.names is {', '.join(labels.names)}."
        )


def _write(stem: Path, values: NDArray[np.generic], geometry: Geometry) -> None:
    write_nifti(stem.with_name(f"{stem.name}.nii.gz"), values, geometry)


def _concept(term: Term) -> Concept:
    code, terminology, meaning = term
    return str(code), terminology, meaning
