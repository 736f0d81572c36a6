"""What headers of volumes say of time and of spacing, said once."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_pl.__main__ import SayOnce
from medseg_pl.checks.inspection import inspect_case
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.time_axes import find_time_axes
from tests.checks.facts_of import codes


def save(path: Path, shape: tuple[int, ...], unit: str = "unknown") -> Path:
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, shape, np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("shape", "unit", "times"), [((8, 8, 4, 10), "sec", 10), ((8, 8, 4, 4), "unknown", 0)])
def test_points_in_time_are_named(tmp_path: Path, shape: tuple[int, ...], unit: str, times: int) -> None:
    case = Case("p1", "p1", (save(tmp_path / "cine.nii.gz", shape, unit),))
    notes = find_time_axes([case])
    assert [f"cine.nii.gz has {times} points in time" in note for note in notes] == [True] * bool(times)
    facts = inspect_case(FolderSource(str(tmp_path)), case, labels=LabelMap(["a"], "binary"), root=tmp_path)
    assert codes(facts.findings) == ["time-axis"] * bool(times)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_spacing_of_nothing_is_a_finding(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / "a.nii", (8, 8, 4))
    content = bytearray(path.read_bytes())
    content[80:92] = bytes(12)
    path.write_bytes(content)
    nibabel.imageglobals.logger.disabled = True
    try:
        if suffix == ".nii.gz":
            path.unlink()
            path = tmp_path / "a.nii.gz"
            path.write_bytes(gzip.compress(bytes(content)))
        case = Case("p1", "p1", (path,))
        facts = inspect_case(FolderSource(str(tmp_path)), case, labels=LabelMap(["a"], "binary"), root=tmp_path)
    finally:
        nibabel.imageglobals.logger.disabled = False
    assert codes(facts.findings) == ["spacing-unset"]


def test_a_library_says_a_thing_once() -> None:
    records = [logging.LogRecord("nibabel.global", 30, "", 0, text, None, None) for text in ("a", "b", "a")]
    once = SayOnce()
    assert [once.filter(record) for record in records] == [True, True, False]
