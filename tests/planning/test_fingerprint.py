"""A data set in numbers, counted by hand."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.sources import Source
from medseg_pl.planning.fingerprint import Fingerprint, _find_training_cases, compute_fingerprint

LABELS = LabelMap(["liver", "tumour"], "multiclass")


class InMemory(Source):
    """Volumes that were never files."""

    def __init__(self, directory: Path, volumes: list[Volume]) -> None:
        self._volumes = volumes
        self._files = [directory / f"{number}.bin" for number in range(len(volumes))]
        for number, file in enumerate(self._files):
            file.write_text(str(number))

    def cases(self) -> list[Case]:
        return [Case(file.stem, f"p{number // 2}", (file,), (file,)) for number, file in enumerate(self._files)]

    def read(self, case: Case, labels: LabelMap) -> Volume:
        return self._volumes[int(case.case_id)]

    def open_unlabeled(self, directory: Path) -> Source:
        raise NotImplementedError

    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        raise NotImplementedError


def volume(shape: tuple[int, int, int], spacing: tuple[float, float, float] | None, liver: int, tumour: int) -> Volume:
    """So many voxels of each label at the beginning; intensities 100 in the liver, 200 in the tumour, else -5."""
    mask = np.zeros(shape, np.uint8)
    mask.flat[:liver] = 1
    mask.flat[liver : liver + tumour] = 2
    image = np.choose(mask, [-5, 100, 200]).astype(np.int16)
    return Volume(image[None], mask[None], Geometry(shape, spacing))


def measured(tmp_path: Path, *volumes: Volume) -> Fingerprint:
    source = InMemory(tmp_path, list(volumes))
    cases = source.cases()
    index = CaseCache(tmp_path / "store", source, LABELS).build(cases, threads=1)
    return compute_fingerprint(cases, index, LABELS, ["mri"])


@pytest.fixture
def volumes() -> list[Volume]:
    return [
        volume((2, 4, 5), (3.0, 1.0, 1.0), liver=10, tumour=2),
        volume((4, 4, 5), (3.0, 1.0, 1.0), liver=6, tumour=0),
        volume((6, 8, 5), (3.0, 2.0, 1.0), liver=4, tumour=0),
    ]


def test_counted_by_hand(tmp_path: Path, volumes: list[Volume]) -> None:
    found = measured(tmp_path, *volumes)
    assert (found.cases, found.groups, found.slices, found.channels, found.depth) == (3, 2, 12, 1, 4)
    assert (found.modalities, found.types, found.lowest) == (("MRI",), ("int16",), (-5.0,))
    assert found.sizes == ((4, 5), (4, 5), (8, 5))
    assert found.spacing_mm == (3.0, 1.0, 1.0)
    assert found.label_shares == {"liver": 20 / 360, "tumour": 2 / 360}
    assert found.label_cases == {"liver": 3, "tumour": 1}
    assert found.foreground_intensities == ((100.0, 100.0),)  # the tumour lies in the fold that validates


def test_one_unknown_spacing_leaves_all_unknown(tmp_path: Path, volumes: list[Volume]) -> None:
    volumes[1] = replace(volumes[1], geometry=Geometry((4, 4, 5)))
    found = measured(tmp_path, *volumes)
    assert (found.spacing_mm, found.spacing_varies) == (None, 1.0)


def test_how_much_pixels_differ(tmp_path: Path) -> None:
    sizes = [1.0] * 5 + [2.0] * 5
    found = measured(tmp_path, *(volume((1, 4, 4), (1.0, size, 1.0), 2, 1) for size in sizes))
    assert found.spacing_varies == 2.0


def test_how_much_contrasts_and_labels_differ(tmp_path: Path) -> None:
    """Two patients with two scans each, of which one has three times the contrast and twice the label of the other."""
    scan, more = (volume((1, 4, 5), None, liver, tumour=0) for liver in (2, 4))
    found = measured(tmp_path, *[scan, replace(more, image=scan.image * 3)] * 2)
    assert found.contrast_varies == pytest.approx(2.8 / 1.2)  # percentiles of 1 and 3
    assert found.share_varies == pytest.approx(3.8 / 2.2)


def test_voxels_that_are_no_number_are_left_out(tmp_path: Path, volumes: list[Volume]) -> None:
    image = volumes[0].image.astype(np.float32)
    image[0, 0, 0, 0], image[0, 1, 3, 4] = np.nan, -np.inf
    found = measured(tmp_path, replace(volumes[0], image=image), volumes[1])
    assert found.lowest == (-5.0,)
    assert np.isfinite(found.foreground_intensities).all()


def test_nothing_annotated(tmp_path: Path) -> None:
    found = measured(tmp_path, volume((1, 4, 4), None, 0, 0), volume((1, 4, 4), None, 0, 0))
    assert found.label_cases == {"liver": 0, "tumour": 0}
    assert found.foreground_intensities == ((0.0, 1.0),)


def test_more_cases_than_a_process_may_have_files(tmp_path: Path) -> None:
    open_already = len(list(Path("/proc/self/fd").iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_already + 800, limits[1]))  # 256 cases stay open, of 3 files
    try:
        found = measured(tmp_path, *[volume((1, 4, 5), None, number % 7 + 1, 2) for number in range(300)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (found.cases, found.label_cases) == (300, {"liver": 300, "tumour": 300})


def test_validation_cases_say_nothing_of_intensities(tmp_path: Path, volumes: list[Volume]) -> None:
    """Two patients: the first has two volumes, of which one is bright."""
    for bright in range(4):
        scans = [volume((1, 4, 5), None, liver=10, tumour=2) for _ in range(4)]
        image = scans[bright].image.copy()
        image[image == 200] = 5000
        scans[bright] = replace(scans[bright], image=image)
        folder = tmp_path / str(bright)
        folder.mkdir()
        ((_, high),) = measured(folder, *scans).foreground_intensities
        source = InMemory(folder, scans)
        index = CaseCache(folder / "store", source, LABELS).build(source.cases(), threads=1)
        assert (high > 200) == (str(bright) in _find_training_cases(source.cases(), index))
