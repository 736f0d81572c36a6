"""Scans and series: what is known of them, and which slice is at fault."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from medseg_pl.checks.discovery import discover
from medseg_pl.checks.measurements import CaseFacts
from medseg_pl.checks.series_inspection import inspect_stack
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import DicomSource, Source, UWMadisonSource
from medseg_pl.data.sources.dicom_cases import UnevenSlices
from tests.checks.facts_of import codes
from tests.dicom_files import edit, save_series
from tests.end_to_end.clean_sets import DEPTH, LABELS, SIZE, scan, write_dicom, write_scans

EXCLUSIVE = LabelMap(list(LABELS), "multiclass")
APART = LabelMap(list(LABELS), "multilabel")


def inspected(source: Source, labels: LabelMap) -> list[CaseFacts]:
    return [inspect_stack(source, case, labels) for case in discover(source).cases]


@pytest.mark.parametrize("write", [write_scans, write_dicom])
def test_stacks(tmp_path: Path, write: object) -> None:
    dicom = write is write_dicom
    (write_dicom if dicom else write_scans)(tmp_path)
    source: Source = DicomSource(str(tmp_path)) if dicom else UWMadisonSource(str(tmp_path))
    facts = inspected(source, EXCLUSIVE if dicom else APART)[0]
    mask = scan(0, (DEPTH, *SIZE))[1]
    assert facts.image is not None
    assert facts.image.geometry.shape == mask.shape
    assert facts.image.modality == ("CT" if dicom else "")
    counted = [{m.mark[0]: m.voxels for m in one.marks} for one in facts.masks]
    if dicom:  # labels that exclude each other share one mask
        assert counted == [{value: int((mask == value).sum()) for value in (0, 1, 2)}]
    else:
        assert [one[1] for one in counted] == [int((mask == 1).sum()), int((mask == 2).sum())]
    assert facts.findings == ()


def test_a_mask_that_cannot_be_drawn_leaves_the_scan(tmp_path: Path) -> None:
    write_scans(tmp_path)
    table = (tmp_path / "train.csv").read_text().splitlines()
    table[1] = table[1].rsplit(",", 1)[0] + ",5 99999"
    (tmp_path / "train.csv").write_text("\n".join(table) + "\n")
    facts = inspected(UWMadisonSource(str(tmp_path)), APART)
    assert codes(facts[0].findings) == ["unreadable-case"]
    assert "a run leaves the image" in facts[0].findings[0].message
    assert facts[0].image is not None
    assert all(one.findings == () for one in facts[1:])


def test_slices_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    write_scans(tmp_path)
    slices = sorted((tmp_path / "train" / "case0" / "case0_day1" / "scans").iterdir())
    slices[1].write_bytes(b"")
    slices[4].write_bytes(slices[4].read_bytes()[:60])
    slices[6].unlink()
    facts = inspected(UWMadisonSource(str(tmp_path)), APART)[0]
    assert codes(facts.findings) == ["empty-file", "truncated-png", "slice-gap"]


def test_series_that_are_no_volume(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    first, second, third = (sorted((tmp_path / f"p{number}_a" / "ct").iterdir()) for number in range(3))
    edit(first[2], PixelSpacing=[9.0, 9.0])
    second[3].write_bytes(second[3].read_bytes()[:-500])
    third[1].unlink()
    facts = inspected(DicomSource(str(tmp_path)), EXCLUSIVE)
    assert [codes(one.findings) for one in facts] == [["slices-differ"], ["unreadable-case"], ["slice-gap"]]
    assert "IM004.dcm" in facts[1].findings[0].message


def test_a_series_that_is_resampled_is_no_error(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3000, (10, 16, 16)).astype(np.int16)
    heights = {"even": range(10), "gap": [0, 1, 2, 3, 5, 6, 7, 8, 9, 10], "uneven": [0, 1, 2, 3, 4, 5, 7, 9, 11, 13]}
    for name, places in heights.items():
        save_series(tmp_path / name, stored, series=name, position=lambda d, places=places: (0, 0, places[d] * 3))  # type: ignore[misc]
    refused, resampled = (
        inspected(DicomSource(str(tmp_path), references=None, uneven_slices=setting), EXCLUSIVE)
        for setting in get_args(UnevenSlices)
    )
    assert [codes(one.findings) for one in refused] == [[], ["slice-gap"], ["slice-gap"]]
    assert [codes(one.findings) for one in resampled] == [[], ["slices-interpolated"], ["slices-resampled"]]
    gap, uneven = (one.findings[0] for one in resampled[1:])
    assert (gap.level, uneven.level) == ("warning", "note")
    assert gap.message.endswith("1 slice(s) between them seem to be missing.")
    assert uneven.message == (
        f"{tmp_path / 'uneven'}: slices are 3.00 to 6.00 mm apart (5 of 3.00 mm, 4 of 6.00 mm); a volume has even "
        "distances. Resampled to 14 slices, 3.00 mm apart."
    )
    assert [one.image.geometry.shape[0] for one in resampled if one.image] == [10, 11, 14]
    edit(next((tmp_path / "uneven").iterdir()), PixelSpacing=[9.0, 9.0])
    found = inspected(DicomSource(str(tmp_path), references=None, uneven_slices="resample"), EXCLUSIVE)
    assert codes(found[2].findings) == ["slices-differ"]


def test_a_label_that_was_not_drawn(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    facts = inspected(DicomSource(str(tmp_path)), LabelMap(["organ", "spleen"], "multiclass"))[0]
    assert codes(facts.findings) == ["unreadable-case"]
    assert "nothing drawn is called 'spleen'" in facts.findings[0].message
    assert facts.image is not None
