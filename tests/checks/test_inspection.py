"""Inspection of files, scans and series."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from medseg_pl.checks.file_checks import list_cases
from medseg_pl.checks.findings import CaseFacts
from medseg_pl.checks.inspection import inspect_case, inspect_cases
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import DicomSource, FolderSource, ManifestSource, Source, UWMadisonSource
from medseg_pl.data.sources.dicom_cases import UnevenSlices
from tests.checks.samples import codes
from tests.dicom_files import edit, save_series
from tests.end_to_end.clean_sets import (
    DEPTH,
    LABELS,
    NAMES,
    SIZE,
    picture,
    scan,
    write_dicom,
    write_folder,
    write_labels_apart,
    write_scans,
)
from tests.sample_files import save_raster

EXCLUSIVE = LabelMap(list(LABELS), "multiclass")
APART = LabelMap(list(LABELS), "multilabel")


def inspected(source: Source, root: Path, labels: LabelMap | None = EXCLUSIVE, workers: int = 1) -> list[CaseFacts]:
    return list(inspect_cases(source, list_cases(source).cases, labels, root, workers))


def test_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path)
    ticks: list[None] = []
    source = FolderSource(str(tmp_path))
    facts = list(inspect_cases(source, source.cases(), EXCLUSIVE, tmp_path, 3, lambda: ticks.append(None)))
    assert [one.case.case_id for one in facts] == sorted(NAMES)
    assert len(ticks) == len(NAMES)
    image, mask = picture(0)
    assert facts[0].image is not None
    assert facts[0].image.geometry.shape == (1, *SIZE)
    assert (facts[0].image.lowest, facts[0].image.highest) == (image.min(), image.max())
    assert {c.value[0]: c.voxels for c in facts[0].masks[0].values} == {v: int((mask == v).sum()) for v in (0, 1, 2)}
    assert facts[0].alignment is not None
    assert facts[0].alignment.shift == (0, 0)


def test_workers_change_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = FolderSource(str(tmp_path))
    one, three = (
        [
            (f.case, f.masks, f.alignment, f.image and f.image.digest)
            for f in inspected(source, tmp_path, workers=workers)
        ]
        for workers in (1, 3)
    )
    assert one == three


def test_labels_in_files_of_their_own(tmp_path: Path) -> None:
    write_labels_apart(tmp_path)
    source = FolderSource(str(tmp_path), masks={label: label for label in LABELS})
    facts = inspected(source, tmp_path, APART)[0]
    assert [mask.label for mask in facts.masks] == [0, 1]
    assert facts.overlap == 0
    mask = picture(0)[1]
    save_raster(tmp_path / "organ" / f"{NAMES[0]}.png", (mask > 0).astype(np.uint8))
    assert inspected(source, tmp_path, APART)[0].overlap == int((mask == 2).sum())


def test_another_number_of_masks_than_labels(tmp_path: Path) -> None:
    write_labels_apart(tmp_path)
    source = FolderSource(str(tmp_path), masks={"organ": "organ"})
    case = source.cases()[0]
    facts = inspect_case(source, case, labels=APART, root=tmp_path)
    assert (codes(facts.findings), facts.masks) == (["mask-count"], ())
    assert facts.image is not None


def test_several_files_of_one_label_are_united(tmp_path: Path) -> None:
    mask = picture(0)[1]
    save_raster(tmp_path / "images" / "a.png", picture(0)[0])
    for value in (1, 2):
        save_raster(tmp_path / "masks" / "a" / f"{value}.png", (mask >= value).astype(np.uint8))
    source = FolderSource(str(tmp_path), mask_name="{stem}/*")
    facts = inspect_case(source, source.cases()[0], labels=LabelMap(["x"], "binary"), root=tmp_path)
    assert [m.label for m in facts.masks] == [0, 0]
    assert facts.overlap == 0


def test_a_damaged_image_does_not_hide_its_mask(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "images" / f"{NAMES[0]}.png").write_bytes(b"")
    facts = inspected(FolderSource(str(tmp_path)), tmp_path)[0]
    assert (facts.image, len(facts.masks), facts.alignment) == (None, 1, None)
    assert codes(facts.findings) == ["empty-file"]


def test_a_damaged_mask_does_not_hide_its_image(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "masks" / f"{NAMES[0]}.png").write_bytes(b"")
    facts = inspected(FolderSource(str(tmp_path)), tmp_path)[0]
    assert facts.image is not None
    assert facts.masks == ()
    assert codes(facts.findings) == ["empty-file"]


def test_channels_of_different_shapes_are_both_known(tmp_path: Path) -> None:
    for name, pixels in (("a", picture(0)[0]), ("b", picture(1)[0][:-1]), ("m", picture(0)[1])):
        save_raster(tmp_path / f"{name}.png", pixels)
    (tmp_path / "t.csv").write_text("case_id,group,image,mask\nx,p,a.png;b.png,m.png\n")
    facts = inspected(ManifestSource(str(tmp_path / "t.csv")), tmp_path)[0]
    assert facts.image is not None
    assert [grid.shape for grid in facts.image.grids] == [(1, *SIZE), (1, SIZE[0] - 1, SIZE[1])]


EXCLUSIVE = LabelMap(list(LABELS), "multiclass")
APART = LabelMap(list(LABELS), "multilabel")


def inspect_volumes(source: Source, labels: LabelMap) -> list[CaseFacts]:
    return [inspect_case(source, case, labels=labels, root=Path()) for case in list_cases(source).cases]


@pytest.mark.parametrize("write", [write_scans, write_dicom])
def test_stacks(tmp_path: Path, write: object) -> None:
    dicom = write is write_dicom
    (write_dicom if dicom else write_scans)(tmp_path)
    source: Source = DicomSource(str(tmp_path)) if dicom else UWMadisonSource(str(tmp_path))
    facts = inspect_volumes(source, EXCLUSIVE if dicom else APART)[0]
    mask = scan(0, (DEPTH, *SIZE))[1]
    assert facts.image is not None
    assert facts.image.geometry.shape == mask.shape
    assert facts.image.modality == ("CT" if dicom else "")
    counted = [{count.value[0]: count.voxels for count in one.values} for one in facts.masks]
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
    facts = inspect_volumes(UWMadisonSource(str(tmp_path)), APART)
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
    facts = inspect_volumes(UWMadisonSource(str(tmp_path)), APART)[0]
    assert codes(facts.findings) == ["empty-file", "truncated-png", "slice-gap"]


def test_series_that_are_no_volume(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    first, second, third = (sorted((tmp_path / f"p{number}_a" / "ct").iterdir()) for number in range(3))
    edit(first[2], PixelSpacing=[9.0, 9.0])
    second[3].write_bytes(second[3].read_bytes()[:-500])
    third[1].unlink()
    facts = inspect_volumes(DicomSource(str(tmp_path)), EXCLUSIVE)
    assert [codes(one.findings) for one in facts] == [["slices-differ"], ["unreadable-case"], ["slice-gap"]]
    assert "IM004.dcm" in facts[1].findings[0].message


def test_a_series_that_is_resampled_is_no_error(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3000, (10, 16, 16)).astype(np.int16)
    heights = {"even": range(10), "gap": [0, 1, 2, 3, 5, 6, 7, 8, 9, 10], "uneven": [0, 1, 2, 3, 4, 5, 7, 9, 11, 13]}
    for name, places in heights.items():
        save_series(tmp_path / name, stored, series=name, position=lambda d, places=places: (0, 0, places[d] * 3))  # type: ignore[misc]
    refused, resampled = (
        inspect_volumes(DicomSource(str(tmp_path), references=None, uneven_slices=setting), EXCLUSIVE)
        for setting in get_args(UnevenSlices)
    )
    assert [codes(one.findings) for one in refused] == [[], ["slice-gap"], ["slice-gap"]]
    assert [codes(one.findings) for one in resampled] == [[], ["slices-interpolated"], ["slices-resampled"]]
    gap, uneven = (one.findings[0] for one in resampled[1:])
    assert (gap.level, uneven.level) == ("warning", "note")
    assert gap.message.endswith("1 slice between them seems to be missing.")
    assert uneven.message == (
        f"{tmp_path / 'uneven'}: slices are 3.00 to 6.00 mm apart (5 of 3.00 mm, 4 of 6.00 mm); a volume has even "
        "distances. Resampled to 14 slices, 3.00 mm apart."
    )
    assert [one.image.geometry.shape[0] for one in resampled if one.image] == [10, 11, 14]
    edit(next((tmp_path / "uneven").iterdir()), PixelSpacing=[9.0, 9.0])
    found = inspect_volumes(DicomSource(str(tmp_path), references=None, uneven_slices="resample"), EXCLUSIVE)
    assert codes(found[2].findings) == ["slices-differ"]


def test_a_label_that_was_not_drawn(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    facts = inspect_volumes(DicomSource(str(tmp_path)), LabelMap(["organ", "spleen"], "multiclass"))[0]
    assert codes(facts.findings) == ["unreadable-case"]
    assert "nothing drawn is called 'spleen'" in facts.findings[0].message
    assert facts.image is not None
