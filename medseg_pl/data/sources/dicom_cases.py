"""Cases of a DICOM tree, and the masks that are written for them."""

from __future__ import annotations

from collections import defaultdict
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
from medseg_pl.data.sources.base import abbreviate, explain_unread
from medseg_pl.io import dicom
from medseg_pl.io.nifti import write_nifti
from medseg_pl.io.paths import LeftOut, find_dead_links

_MIXED = "They have no numbers that tell them apart."


def sort_series(tree: dicom.DicomTree) -> tuple[list[Case], list[LeftOut]]:
    """Sort a tree into cases, one for each series, and the rest.

    A series that may be incomplete is no case: one with a damaged file in its folder, or in several folders.
    """
    left_out = list_unused(tree)
    left_out += [LeftOut(path, str(error).removeprefix(f"{path} ")) for path, error in tree.damaged.items()]
    left_out += [LeftOut(e.path, "A reference, no image.", "side-file") for e in tree.references.values()]
    # Copies of a series in two folders would double its slices, or be two patients of one split.
    homes: dict[str, set[str]] = defaultdict(set)
    for folder, entries in tree.images.items():
        for entry in entries:
            homes[entry.series].add(folder)
    cases: list[Case] = []
    for name, series in tree.series.items():
        if reason := _find_fault(tree.name_folder(series[0]), series, homes, tree):
            left_out.append(LeftOut(series[0].path.parent, reason))
        else:
            cases.append(Case(name, name.split("/")[0], tuple(entry.path for entry in series)))
    return sorted(cases, key=lambda case: case.case_id), left_out


def list_unused(tree: dicom.DicomTree) -> list[LeftOut]:
    """List the files of a tree that are neither images nor references."""
    left_out = [
        LeftOut(entry.path, "The index of a medium, no image.", "side-file")
        # Some media have an index whose header names no class; its name is fixed by the standard (PS3.10).
        if "Directory" in entry.content or entry.path.name.upper() == "DICOMDIR"
        else LeftOut(entry.path, f"{entry.content or 'DICOM of no kind'} is not read; CT, MR, PET and X-rays are.")
        for entry in tree.entries
        if entry.kind == "other"
    ]
    return [*left_out, *(_explain_foreign(path) for path in tree.others), *find_dead_links(tree.root)]


def _explain_foreign(path: Path) -> LeftOut:
    found = explain_unread(path)
    if found.kind == "side-file":
        return found
    return LeftOut(path, "It is no DICOM file; data.source FolderSource reads pictures and NIfTI.")


def _find_fault(
    folder: str, series: list[dicom.DicomFile], homes: Mapping[str, set[str]], tree: dicom.DicomTree
) -> str:
    """Explain why the images of a series are no case."""
    if mixed := dicom.describe_mixed_series([(entry.series, entry.path) for entry in series]):
        return f"{mixed} {_MIXED}"
    # A damaged file does not say which series it is of, so every series of its folder may lack it.
    damaged = [path.name for path in tree.damaged if path.parent == series[0].path.parent]
    if damaged:
        return f"{damaged[0]} beside the series cannot be read, so a slice may be missing. Replace or remove it."
    if others := sorted(homes[series[0].series] - {folder}):
        return f"{', '.join(others)} has images of the same series. Put them into one folder, or move the copy away."
    return ""


Output = Literal["seg", "nifti"]

UnevenSlices = Literal["refuse", "resample"]

Term = tuple[int | str, str, str]
"""A concept as it stands in a configuration, where most codes are numbers."""


def describe_segments(
    labels: LabelMap, types: Mapping[str, Term], categories: Mapping[str, Term]
) -> list[dicom.Segment]:
    """Describe labels as segments of a DICOM SEG.

    Args:
        labels: The labels.
        types: Code, terminology and meaning of each label's type, by label.
        categories: The same of its category.

    Raises:
        SettingError: A type or a category is that of no label.

    >>> describe_segments(LabelMap(["liver"], "binary"), {"liver": (10200004, "SCT", "Liver")}, {})[0].type
    ('10200004', 'SCT', 'Liver')
    """
    check_known("property_types", types, labels)
    check_known("property_categories", categories, labels)
    return [
        dicom.Segment(
            name,
            category=_make_concept(categories.get(name, dicom.ANATOMICAL_STRUCTURE)),
            type=_make_concept(types.get(name, dicom.ORGAN)),
        )
        for name in labels.names
    ]


def write_as_nifti(
    directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap, geometry: Geometry
) -> None:
    """Write a mask as NIfTI, overlapping labels in a folder each."""
    if not labels.overlapping:
        _write(directory / case.case_id, labels.decode(mask), geometry)
        return
    for index, (name, plane) in enumerate(zip(labels.names, mask, strict=True)):
        _write(directory / name / case.case_id, labels.decode_one(plane, index), geometry)


def check_known(setting: str, names: Iterable[str], labels: LabelMap) -> None:
    """Check that a setting names only labels that exist.

    Raises:
        SettingError: It names another one.
    """
    if unknown := [name for name in names if name not in labels.names]:
        raise SettingError(
            f"data.source.{setting} speaks of {abbreviate(unknown)}, but labels.names is {', '.join(labels.names)}. "
            "Name both alike."
        )


def _write(stem: Path, values: NDArray[np.generic], geometry: Geometry) -> None:
    write_nifti(stem.with_name(f"{stem.name}.nii.gz"), values, geometry)


def _make_concept(term: Term) -> dicom.Concept:
    # YAML reads most codes as numbers; DICOM has them as text (SH).
    code, terminology, meaning = term
    return str(code), terminology, meaning
