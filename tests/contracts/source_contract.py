"""What every source keeps to. A source's test inherits it with one line and provides the fixture `subject`."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import OutputExistsError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from tests.sample_files import tree


@dataclass(frozen=True)
class Subject:
    """A source over a small data set that the test has made.

    Args:
        source: The source; its cases have the ids that the same files get without labels.
        labels: What its masks hold; every label occurs in some case.
        cases: How many cases there are.
        images: The folder that `open_unlabeled` is given, with the files of all cases below it.
        again: A source over the same images, and over the masks that `write` and `finish` have put into a folder.
    """

    source: Source
    labels: LabelMap
    cases: int
    images: Path
    again: Callable[[Path], Source]


class SourceContract(ABC):
    """Cases are known without being read, volumes are on one grid, and what is written reads back."""

    @pytest.fixture
    @abstractmethod
    def subject(self, tmp_path: Path) -> Subject:
        """The source under test, with its files in `tmp_path`."""

    def test_cases_are_sorted_and_unique(self, subject: Subject) -> None:
        names = [case.case_id for case in subject.source.cases()]
        assert names == sorted(set(names))
        assert len(names) == subject.cases

    def test_cases_are_the_same_every_time(self, subject: Subject) -> None:
        assert subject.source.cases() == subject.source.cases()

    def test_every_file_of_a_case_exists(self, subject: Subject) -> None:
        for case in subject.source.cases():
            assert case.images
            assert case.masks
            assert all(path.is_file() for path in (*case.images, *case.masks))

    def test_finding_the_cases_decodes_no_file(self, subject: Subject) -> None:
        cases = subject.source.cases()
        for path in {path for case in cases for path in (*case.images, *case.masks)}:
            path.write_bytes(b"neither an image nor a mask")
        assert subject.source.cases() == cases

    def test_image_mask_and_geometry_share_one_grid(self, subject: Subject) -> None:
        for case in subject.source.cases():
            volume = subject.source.read(case, subject.labels)
            assert volume.mask is not None
            assert volume.image.ndim == 4
            assert volume.geometry.shape == volume.image.shape[1:]
            assert volume.mask.shape == (subject.labels.mask_channels, *volume.image.shape[1:])
            assert volume.mask.dtype == np.uint8
            assert min(volume.geometry.spacing_mm or (1,)) > 0

    def test_masks_hold_every_label_and_nothing_else(self, subject: Subject) -> None:
        labels = subject.labels
        volumes = [subject.source.read(case, labels) for case in subject.source.cases()]
        masks = [volume.mask for volume in volumes if volume.mask is not None]
        if labels.overlapping:
            found = [{int(value) for mask in masks for value in np.unique(mask[i])} for i in range(len(labels.names))]
            assert all({0, 1} <= values <= {0, 1, IGNORE} for values in found)
        else:
            values = {int(value) for mask in masks for value in np.unique(mask)}
            assert set(range(len(labels.names) + 1)) <= values <= {*range(len(labels.names) + 1), IGNORE}

    def test_reading_twice_gives_the_same_voxels(self, subject: Subject) -> None:
        case = subject.source.cases()[0]
        first, second = (subject.source.read(case, subject.labels) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.mask, second.mask)
        assert first.geometry == second.geometry

    def test_without_labels_the_same_images_are_found(self, subject: Subject) -> None:
        labeled = {case.case_id: case for case in subject.source.cases()}
        bare_source = subject.source.open_unlabeled(subject.images)
        bare = {case.case_id: case for case in bare_source.cases()}
        assert {name: _resolved(case) for name, case in bare.items()} == {
            name: _resolved(case) for name, case in labeled.items()
        }
        for name, case in bare.items():
            volume = bare_source.read(case, subject.labels)
            assert case.masks == ()
            assert volume.mask is None
            expected = subject.source.read(labeled[name], subject.labels)
            np.testing.assert_array_equal(volume.image, expected.image)
            assert volume.geometry == expected.geometry

    @pytest.mark.parametrize("bare", [False, True], ids=["labeled", "unlabeled"])
    def test_what_is_written_reads_back(self, subject: Subject, tmp_path: Path, bare: bool) -> None:
        labels = subject.labels
        writer = subject.source.open_unlabeled(subject.images) if bare else subject.source
        written = _changed_masks(subject)
        for case in writer.cases():
            writer.write(tmp_path / "written", case, written[case.case_id], labels)
        writer.finish(tmp_path / "written")
        again = subject.again(tmp_path / "written")
        for case in again.cases():
            np.testing.assert_array_equal(again.read(case, labels).mask, written[case.case_id])

    def test_nothing_is_overwritten(self, subject: Subject, tmp_path: Path) -> None:
        inputs = tree(subject.images)
        case, mask = subject.source.cases()[0], next(iter(_changed_masks(subject).values()))
        subject.source.write(tmp_path / "written", case, mask, subject.labels)
        first = tree(tmp_path / "written")
        assert first
        with pytest.raises(OutputExistsError, match="exists already and is not overwritten"):
            subject.source.write(tmp_path / "written", case, 1 - np.minimum(mask, 1), subject.labels)
        assert tree(tmp_path / "written") == first
        assert tree(subject.images) == inputs

    def test_it_can_be_sent_to_another_process(self, subject: Subject) -> None:
        copy = pickle.loads(pickle.dumps(subject.source))
        assert copy.cases() == subject.source.cases()
        case = copy.cases()[-1]
        np.testing.assert_array_equal(
            copy.read(case, subject.labels).mask, subject.source.read(case, subject.labels).mask
        )
        assert copy.reading_settings() == subject.source.reading_settings()


def _changed_masks(subject: Subject) -> dict[str, np.ndarray]:
    """Masks unlike the references: mirrored, and a prediction leaves nothing open."""
    masks = {}
    for case in subject.source.cases():
        mask = subject.source.read(case, subject.labels).mask
        assert mask is not None
        masks[case.case_id] = np.ascontiguousarray(np.where(mask == IGNORE, 0, mask)[..., ::-1, :].astype(np.uint8))
    return masks


def _resolved(case: Case) -> tuple[Path, ...]:
    return tuple(path.resolve() for path in case.images)
