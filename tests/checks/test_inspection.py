"""Cases read once: what is known of them, and what is wrong with their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_pl.checks.discovery import discover
from medseg_pl.checks.inspection import inspect_all, inspect_case
from medseg_pl.checks.measurements import CaseFacts
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource, ManifestSource, Source
from tests.checks.facts_of import codes
from tests.end_to_end.clean_sets import (
    LABELS,
    NAMES,
    SIZE,
    picture,
    write_folder,
    write_labels_apart,
)
from tests.sample_files import save_raster

EXCLUSIVE = LabelMap(list(LABELS), "multiclass")
APART = LabelMap(list(LABELS), "multilabel")


def inspected(source: Source, root: Path, labels: LabelMap | None = EXCLUSIVE, workers: int = 1) -> list[CaseFacts]:
    return list(inspect_all(source, discover(source).cases, labels, root, workers))


def test_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path)
    ticks: list[None] = []
    source = FolderSource(str(tmp_path))
    facts = list(inspect_all(source, source.cases(), EXCLUSIVE, tmp_path, 3, lambda: ticks.append(None)))
    assert [one.case.case_id for one in facts] == sorted(NAMES)
    assert len(ticks) == len(NAMES)
    image, mask = picture(0)
    assert facts[0].image is not None
    assert facts[0].image.geometry.shape == (1, *SIZE)
    assert (facts[0].image.lowest, facts[0].image.highest) == (image.min(), image.max())
    assert {m.mark[0]: m.voxels for m in facts[0].masks[0].marks} == {v: int((mask == v).sum()) for v in (0, 1, 2)}
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
