"""DICOM series with references of either format, written by pydicom and highdicom."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.sources import DicomSource
from medseg_pl.io.dicom.references import read_masks
from medseg_pl.io.dicom.series import open_series
from medseg_pl.io.nifti import read_nifti
from tests.contracts.source_contract import SourceContract, Subject
from tests.dicom_files import (
    ORIGIN,
    SECRET,
    SPACING,
    edit,
    save_projection,
    save_segmentation,
    save_series,
    save_structures,
    uid_of,
)
from tests.sample_files import save_raster, tree

SHAPE = (4, 6, 8)
ORGANS = LabelMap(["liver", "spleen"], "multiclass")
OVERLAPPING = LabelMap(["liver", "spleen"], "multilabel")
LIVER = LabelMap(["liver"], "binary")


def stored(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3000, SHAPE).astype(np.int16)


def organs(seed: int = 0, overlap: bool = False) -> np.ndarray:
    """Two segments, `(D, H, W, 2)`."""
    values = np.random.default_rng(seed).integers(0, 3 + overlap, SHAPE)
    return np.stack([(values == 1) | (values == 3), (values == 2) | (values == 3)], axis=-1).astype(np.uint8)


def box(top: float, left: float, bottom: float, right: float, d: int) -> np.ndarray:
    z, y, x = SPACING
    corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
    return np.add(ORIGIN, [(column * x, row * y, d * z) for row, column in corners])


def save_case(root: Path, name: str, seed: int = 0, overlap: bool = False, **options: Any) -> list[Path]:
    """A series and its segmentation, as archives lay them out: `name/ct/…` and `name/seg/1-1.dcm`."""
    paths = save_series(root / name / "ct", stored(seed), series=name, **options)
    save_segmentation(root / name / "seg" / "1-1.dcm", paths, organs(seed, overlap), ["Liver", "Spleen"])
    return paths


class Segmented(DicomSource):
    """The same series, with the DICOM SEG files that were written for them."""

    def __init__(self, root: str, masks: Path, **settings: Any) -> None:
        super().__init__(root, references=None, **settings)
        self.written = masks

    def cases(self) -> list[Case]:
        return [replace(case, masks=(self.written / f"{case.case_id}.dcm",)) for case in super().cases()]


class Predicted(DicomSource):
    """The same series, with the NIfTI files that were written for them."""

    def __init__(self, root: str, masks: Path, **settings: Any) -> None:
        super().__init__(root, references=None, **settings)
        self.written = masks

    def read(self, case: Case, labels: LabelMap) -> Volume:
        volume = super().read(case, labels)
        folders = labels.names if labels.overlapping else ["."]
        files = [read_nifti(self.written / folder / f"{case.case_id}.nii.gz") for folder in folders]
        for _, geometry in files:
            assert volume.geometry.distance_voxels(geometry) < 1e-4
        values = [values[0] for values, _ in files]
        mask = (
            labels.combine([v.astype(np.uint8) for v in values])
            if labels.overlapping
            else labels.encode(values[0])[None]
        )
        return Volume(volume.image, mask, volume.geometry)


class TestSegmentations(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["p2/day1", "p1/day2", "p1/day1"]):
            save_case(tmp_path / "data", name, seed)
        return Subject(
            source=DicomSource(str(tmp_path / "data")),
            labels=ORGANS,
            cases=3,
            images=tmp_path / "data",
            again=lambda masks: Segmented(str(tmp_path / "data"), masks),
        )

    def test_a_case_is_a_folder_and_its_group_the_first_one(self, subject: Subject) -> None:
        assert [(case.case_id, case.group) for case in subject.source.cases()] == [
            ("p1/day1/ct", "p1"),
            ("p1/day2/ct", "p1"),
            ("p2/day1/ct", "p2"),
        ]

    def test_pixels_are_not_needed_to_find_the_cases(self, subject: Subject) -> None:
        cases = subject.source.cases()
        for case in cases:
            for path in (*case.images, *case.masks):
                edit(path, PixelData=None)
        assert DicomSource(str(subject.images)).cases() == cases


class TestContoursThatOverlap(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        root = tmp_path / "data"
        for seed, name in enumerate(["a", "b"]):
            save_series(root / "images" / name, stored(seed), series=name)
            regions = {"LIVER": [box(0.5, 0.5, 4.5, 4.5, 1 + seed)], "spleen": [box(2.5, 2.5, 5.5, 6.5, 1 + seed)]}
            save_structures(root / "plans" / f"{name}.dcm", name, regions)
        return Subject(
            source=DicomSource(str(root), group="([ab])$"),
            labels=OVERLAPPING,
            cases=2,
            images=root,
            again=lambda masks: Segmented(str(root), masks),
        )

    def test_references_may_lie_in_a_folder_of_their_own(self, subject: Subject) -> None:
        assert [(case.case_id, case.group, case.masks[0].name) for case in subject.source.cases()] == [
            ("images/a", "a", "a.dcm"),
            ("images/b", "b", "b.dcm"),
        ]

    def test_a_voxel_may_carry_both(self, subject: Subject) -> None:
        mask = subject.source.read(subject.source.cases()[0], OVERLAPPING).mask
        assert mask is not None
        assert mask.sum(axis=(2, 3)).tolist() == [[0, 16, 0, 0], [0, 12, 0, 0]]
        assert (mask[0] & mask[1]).sum() == 4
        with pytest.raises(MaskValueError, match="Case images/a: 4 voxels carry more than one label"):
            subject.source.read(subject.source.cases()[0], ORGANS)


@pytest.mark.parametrize("labels", [ORGANS, OVERLAPPING], ids=["exclusive", "overlapping"])
class TestNifti(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path, labels: LabelMap) -> Subject:
        save_case(tmp_path / "data", "p1", overlap=labels.overlapping)
        return Subject(
            source=DicomSource(str(tmp_path / "data"), write_as="nifti"),
            labels=labels,
            cases=1,
            images=tmp_path / "data",
            again=lambda masks: Predicted(str(tmp_path / "data"), masks),
        )


class TestLabels:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        save_case(tmp_path, "p1")
        return tmp_path

    def read(self, root: Path, labels: LabelMap, **settings: Any) -> np.ndarray:
        source = DicomSource(str(root), **settings)
        mask = source.read(source.cases()[0], labels).mask
        assert mask is not None
        return mask

    def test_labels_come_in_the_order_of_their_names(self, root: Path) -> None:
        expected = organs()[..., 0] * 2 + organs()[..., 1]
        mask = self.read(root, LabelMap(["SPLEEN", "liver"], "multiclass"))
        np.testing.assert_array_equal(mask[0], expected)

    @pytest.mark.parametrize("keys", ["Spleen", 2, ["spleen"], [2], ["no such name", "spleen"]])
    def test_a_label_may_be_called_otherwise(self, root: Path, keys: Any) -> None:
        mask = self.read(root, LabelMap(["milz"], "binary"), segments={"milz": keys})
        np.testing.assert_array_equal(mask[0], organs()[..., 1])

    def test_several_segments_may_make_one_label(self, root: Path) -> None:
        mask = self.read(root, LabelMap(["organ"], "binary"), segments={"organ": ["liver", 2]})
        np.testing.assert_array_equal(mask[0], organs().max(axis=-1))

    def test_references_complement_each_other(self, root: Path) -> None:
        save_structures(root / "p1" / "rt.dcm", "p1", {"node": [box(0.5, 0.5, 4.5, 4.5, 1)]})
        labels = LabelMap(["node", "liver"], "multilabel")
        mask = self.read(root, labels)
        assert mask[0].sum() == 16
        np.testing.assert_array_equal(mask[1], organs()[..., 0])

    def test_a_label_in_two_references_is_ambiguous(self, root: Path) -> None:
        other = save_structures(root / "p1" / "rt.dcm", "p1", {"LIVER": [box(0.5, 0.5, 4.5, 4.5, 1)]})
        with pytest.raises(DataError) as error:
            self.read(root, LIVER)
        assert str(error.value) == (
            f"Case p1/ct: the label 'liver' is in 2 references, {other}, {root / 'p1/seg/1-1.dcm'}. Choose one with "
            "data.source.references, or move the others away."
        )
        np.testing.assert_array_equal(self.read(root, LIVER, references="*/seg/*")[0], organs()[..., 0])
        assert self.read(root, LIVER, references="*rt.dcm").sum() == 16

    def test_a_label_that_nobody_drew_is_named(self, root: Path) -> None:
        with pytest.raises(MissingDataError) as error:
            self.read(root, LabelMap(["liver", "pancreas"], "multiclass"))
        assert str(error.value) == (
            f"Case p1/ct: nothing drawn is called 'pancreas', the label 'pancreas'; in {root / 'p1/seg/1-1.dcm'}: "
            "1 'Liver', 2 'Spleen'. Name it with data.source.segments, or set data.source.missing_is_empty."
        )
        with pytest.raises(MissingDataError, match=r"nothing drawn is called 'Hepar' or 7, the label 'liver'; "):
            self.read(root, LIVER, segments={"liver": ["Hepar", 7]})

    def test_what_is_not_drawn_may_be_absent(self, root: Path) -> None:
        mask = self.read(root, LabelMap(["liver", "pancreas"], "multilabel"), missing_is_empty=True)
        np.testing.assert_array_equal(mask[0], organs()[..., 0])
        assert not mask[1].any()

    def test_a_segment_of_no_label_is_a_setting(self, root: Path) -> None:
        with pytest.raises(SettingError) as error:
            self.read(root, LIVER, segments={"lever": "Liver"})
        assert str(error.value) == "data.source.segments speaks of lever, but labels.names is liver. Name both alike."

    def test_another_name_for_a_label_is_read_again(self) -> None:
        settings = [
            DicomSource("data").reading_settings(),
            DicomSource("data", segments={"liver": 1}).reading_settings(),
            DicomSource("data", segments={"liver": "1"}).reading_settings(),
            DicomSource("data", missing_is_empty=True).reading_settings(),
            DicomSource("data", uneven_slices="resample").reading_settings(),
        ]
        assert len({repr(setting) for setting in settings}) == 5
        elsewhere = DicomSource("elsewhere", group="p(.)", images="a*").reading_settings()
        assert elsewhere == settings[0]  # none of which changes a voxel


class TestReferences:
    def test_series_without_a_reference_are_named(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1")
        for name in ("p2", "p3"):
            save_series(tmp_path / name, stored(), series=name)
        with pytest.raises(MissingDataError) as error:
            DicomSource(str(tmp_path)).cases()
        assert str(error.value) == (
            f"2 of 3 series below {tmp_path} have no reference (DICOM SEG or RTSTRUCT): p2, p3. Add the references, "
            "choose the series with data.source.images, or set data.source.skip_unreferenced."
        )
        for settings in ({"skip_unreferenced": True}, {"images": "p1/*"}):
            assert [case.case_id for case in DicomSource(str(tmp_path), **settings).cases()] == ["p1/ct"]  # type: ignore[arg-type]
        without = DicomSource(str(tmp_path), references=None).cases()
        assert [(case.case_id, case.masks) for case in without] == [("p1/ct", ()), ("p2", ()), ("p3", ())]

    def test_leaving_out_every_series_is_no_data_set(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1", stored())
        with pytest.raises(MissingDataError, match=r"1 of 1 series below .* has no reference"):
            DicomSource(str(tmp_path), skip_unreferenced=True).cases()

    def test_a_reference_whose_series_is_not_there_is_named(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1")
        lonely = save_structures(tmp_path / "lonely.dcm", "nowhere", {"liver": [box(0, 0, 1, 1, 0)]})
        with pytest.raises(MissingDataError) as error:
            DicomSource(str(tmp_path)).cases()
        assert str(error.value) == (
            f"1 of 2 references was drawn on a series that is not below {tmp_path}: {lonely}. Add the series, move "
            "the references away, or set data.source.references."
        )
        assert len(DicomSource(str(tmp_path), references="*/seg/*").cases()) == 1

    def test_references_of_series_that_were_not_chosen_are_none(self, tmp_path: Path) -> None:
        for name in ("p1", "p2"):
            save_case(tmp_path, name)
        assert [case.case_id for case in DicomSource(str(tmp_path), images="p2*").cases()] == ["p2/ct"]

    def test_a_reference_that_names_no_series_goes_by_its_coordinates(self, tmp_path: Path) -> None:
        save_series(tmp_path / "ct", stored(), series="ct")
        path = save_structures(tmp_path / "rt.dcm", "ct", {"liver": [box(0.5, 0.5, 4.5, 4.5, 1)]})
        dataset = dcmread(path)
        del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        dataset.save_as(path)
        (case,) = DicomSource(str(tmp_path)).cases()
        assert case.masks == (path,)
        save_series(tmp_path / "pet", stored(), series="pet")
        with pytest.raises(DataError) as error:
            DicomSource(str(tmp_path)).cases()
        assert str(error.value) == (f"{path} belongs to several series: ct, pet. Choose one with data.source.images.")
        assert DicomSource(str(tmp_path), images="ct").cases()[0].masks == (path,)

    def test_a_contour_on_a_slice_that_is_not_there(self, tmp_path: Path) -> None:
        save_series(tmp_path / "ct", stored(), series="ct")
        save_structures(tmp_path / "rt.dcm", "ct", {"liver": [box(0.5, 0.5, 4.5, 4.5, 9)]})
        source = DicomSource(str(tmp_path))
        with pytest.raises(GeometryError, match=r"rt\.dcm, region 'liver', contour 1, lies up to 15\.00 mm from the n"):
            source.read(source.cases()[0], LIVER)


class TestGroups:
    def test_the_root_itself_may_be_the_case(self, tmp_path: Path) -> None:
        save_series(tmp_path / "scan", stored())
        (case,) = DicomSource(str(tmp_path / "scan"), references=None).cases()
        assert (case.case_id, case.group) == ("scan", "scan")

    def test_a_pattern_finds_the_patient(self, tmp_path: Path) -> None:
        for name in ("site1/p7", "site1/p8", "site2/p7"):
            save_case(tmp_path, name)
        groups = [case.group for case in DicomSource(str(tmp_path), group=r"(site\d)/(p\d)").cases()]
        assert groups == ["site1_p7", "site1_p8", "site2_p7"]
        with pytest.raises(DataError, match="finds no patient in the case 'site1/p7/ct'"):
            DicomSource(str(tmp_path), group="(patient)").cases()

    def test_the_patient_id_may_decide_and_is_not_kept(self, tmp_path: Path) -> None:
        for name, patient in (("scan3", "A"), ("scan1", "B"), ("scan2", "A")):
            save_case(tmp_path, name, patient=patient)
        cases = DicomSource(str(tmp_path), group_by_patient_id=True).cases()
        assert [(case.case_id, case.group) for case in cases] == [
            ("scan1/ct", "scan1/ct"),
            ("scan2/ct", "scan2/ct"),
            ("scan3/ct", "scan2/ct"),
        ]

    def test_a_patient_who_is_not_named_is_unknown(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1", patient="")
        with pytest.raises(DataError) as error:
            DicomSource(str(tmp_path), group_by_patient_id=True).cases()
        assert str(error.value) == (
            f"p1/ct (below {tmp_path}) has no PatientID, so its patient is unknown and a split could leak. Set "
            "data.source.group in place of data.source.group_by_patient_id."
        )

    def test_two_patients_in_one_series(self, tmp_path: Path) -> None:
        paths = save_case(tmp_path, "p1")
        edit(paths[2], PatientID="another")
        with pytest.raises(DataError, match=r"p1/ct .* has more than one PatientID"):
            DicomSource(str(tmp_path), group_by_patient_id=True).cases()

    def test_settings_that_cannot_both_hold(self) -> None:
        with pytest.raises(SettingError, match="both say who is whom"):
            DicomSource("data", group="(p)", group_by_patient_id=True)
        with pytest.raises(SettingError, match="is not a regular expression"):
            DicomSource("data", group="(p")


class TestRefused:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"Expected DICOM series in the folder .*none, found nothing there"):
            DicomSource(str(tmp_path / "none")).cases()

    def test_no_series(self, tmp_path: Path) -> None:
        save_series(tmp_path / "us", stored(), SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
        with pytest.raises(MissingDataError) as error:
            DicomSource(str(tmp_path)).cases()
        assert str(error.value) == (
            f"{tmp_path} holds no CT, MR, PET or X-ray images that are called like '*' (4 DICOM files, 0 series). "
            "Set data.source.root or data.source.images."
        )

    def test_two_series_in_a_folder(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1")
        save_series(tmp_path / "p1/ct", stored()[:1], series="scout", names=["scout"])
        with pytest.raises(DataError, match=r"p1/ct holds 2 series: 4 images such as IM001\.dcm, 1 image such"):
            DicomSource(str(tmp_path)).cases()

    def test_a_series_that_lies_in_two_folders_would_leak(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1")
        shutil.copytree(tmp_path / "p1/ct", tmp_path / "p2/copy")
        with pytest.raises(DataError, match=r"p1/ct and p2/copy hold images of the same series"):
            DicomSource(str(tmp_path)).cases()

    def test_a_missing_slice(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1")[2].unlink()
        source = DicomSource(str(tmp_path))
        with pytest.raises(GeometryError, match=r"1 slice between them seems to be missing"):
            source.read(source.cases()[0], LIVER)


class TestWritten:
    def write(self, tmp_path: Path, labels: LabelMap, **settings: Any) -> np.ndarray:
        source = DicomSource(str(tmp_path / "in"), **settings).open_unlabeled(tmp_path / "in")
        (case,) = source.cases()
        mask = DicomSource(str(tmp_path / "in")).read(DicomSource(str(tmp_path / "in")).cases()[0], labels).mask
        assert mask is not None
        source.write(tmp_path / "out", case, mask, labels)
        return mask

    @pytest.mark.parametrize("labels", [ORGANS, OVERLAPPING], ids=["exclusive", "overlapping"])
    def test_one_segmentation_for_all_labels(self, tmp_path: Path, labels: LabelMap) -> None:
        save_case(tmp_path / "in", "p1", overlap=labels.overlapping)
        written = self.write(tmp_path, labels)
        assert list(tree(tmp_path / "out")) == ["p1/ct.dcm"]
        # Beside its series it is a reference like any other.
        shutil.copytree(tmp_path / "in" / "p1" / "ct", tmp_path / "again" / "p1" / "ct")
        shutil.copy(tmp_path / "out" / "p1" / "ct.dcm", tmp_path / "again" / "prediction.dcm")
        source = DicomSource(str(tmp_path / "again"))
        np.testing.assert_array_equal(source.read(source.cases()[0], labels).mask, written)

    def test_labels_may_be_given_a_meaning(self, tmp_path: Path) -> None:
        save_case(tmp_path / "in", "p1")
        abnormal = (49755003, "SCT", "Morphologically Abnormal Structure")
        self.write(
            tmp_path,
            ORGANS,
            property_types={"liver": (10200004, "SCT", "Liver")},
            property_categories={"spleen": abnormal},
        )
        liver, spleen = dcmread(tmp_path / "out/p1/ct.dcm").SegmentSequence
        assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
        assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
        assert spleen.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Organ"
        assert spleen.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"

    def test_settings_that_write_other_files_are_told_apart(self) -> None:
        meaning = {"liver": (10200004, "SCT", "Liver")}
        settings = [{}, {"write_as": "nifti"}, {"property_types": meaning}, {"property_categories": meaning}]
        sources = [DicomSource("data", **each) for each in settings]  # type: ignore[arg-type]
        assert len({repr(source.writing_settings()) for source in sources}) == 4
        assert len({repr(source.reading_settings()) for source in sources}) == 1

    def test_nifti_lies_on_the_grid_of_its_series(self, tmp_path: Path) -> None:
        """A voxel stays in its place of the body: DICOM counts to the left and back, NIfTI to the right and front."""
        save_case(tmp_path / "in", "p1")
        source = DicomSource(str(tmp_path / "in"), write_as="nifti")
        (case,) = source.cases()
        mask = np.zeros((1, *SHAPE), np.uint8)
        mask[0, 3, 2, 5] = 2
        source.write(tmp_path / "out", case, mask, ORGANS)
        assert list(tree(tmp_path / "out")) == ["p1/ct.nii.gz"]
        image = nibabel.load(tmp_path / "out/p1/ct.nii.gz")
        values = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        assert values.dtype == np.uint8
        ((x, y, z),) = np.argwhere(values == 2)
        place = np.add(ORIGIN, (5 * SPACING[2], 2 * SPACING[1], 3 * SPACING[0]))
        np.testing.assert_allclose((image.affine @ (x, y, z, 1))[:3], place * (-1, -1, 1), atol=1e-5)  # type: ignore[attr-defined]

    def test_labels_that_overlap_have_a_folder_each_as_nifti(self, tmp_path: Path) -> None:
        save_case(tmp_path / "in", "p1", overlap=True)
        self.write(tmp_path, OVERLAPPING, write_as="nifti")
        assert list(tree(tmp_path / "out")) == ["liver/p1/ct.nii.gz", "spleen/p1/ct.nii.gz"]

    @pytest.mark.parametrize("labels", [ORGANS, OVERLAPPING], ids=["exclusive", "overlapping"])
    def test_nobody_is_named_in_what_is_kept(self, tmp_path: Path, labels: LabelMap) -> None:
        save_case(tmp_path / "in", "p1")
        source = DicomSource(str(tmp_path / "in"), group_by_patient_id=True)
        (case,) = source.cases()
        index = CaseCache(tmp_path / "store", source, labels).build([case], threads=1)
        self.write(tmp_path, labels, write_as="nifti")
        kept = [*tree(tmp_path / "store").values(), *unpacked(tmp_path / "out")]
        assert index.locate_case(0).is_dir()
        assert len(kept) >= 6
        for secret in (SECRET, uid_of("p1"), uid_of("study"), uid_of("space")):
            assert secret not in repr((case, source.reading_settings(), source.writing_settings()))
            assert not any(secret.encode() in content for content in kept)


class TestStored:
    def test_a_changed_reference_is_read_again(self, tmp_path: Path) -> None:
        paths = save_case(tmp_path / "in", "p1")

        def entry(**settings: Any) -> Path:
            source = DicomSource(str(tmp_path / "in"), **settings)
            return CaseCache(tmp_path / "store", source, LIVER).build(source.cases(), threads=1).locate_case(0)

        first = entry()
        assert entry() == first
        assert entry(images="p1*", group="(p1)") == first
        assert entry(segments={"liver": 2}) != first
        save_segmentation(tmp_path / "in/p1/seg/1-1.dcm", paths, organs(7), ["Liver", "Spleen"])
        assert entry() != first


def unpacked(folder: Path) -> list[bytes]:
    import gzip

    read: Callable[[Path], bytes] = lambda path: gzip.decompress(path.read_bytes())  # noqa: E731
    return [read(path) for path in folder.rglob("*.nii.gz")]


class TestSeveralInOneFolder:
    def test_each_series_is_a_case_with_its_references(self, tmp_path: Path) -> None:
        for number, name in ((2, "a"), (3, "b")):
            names = [f"{name}{d}.dcm" for d in range(SHAPE[0])]
            paths = save_series(tmp_path / "p1", stored(number), series=name, names=names, SeriesNumber=number)
            save_segmentation(tmp_path / "p1" / f"seg_{name}.dcm", paths, organs(number), ["Liver", "Spleen"])
        source = DicomSource(str(tmp_path))
        cases = source.cases()
        assert [(case.case_id, case.group) for case in cases] == [("p1/series_2", "p1"), ("p1/series_3", "p1")]
        for case, seed in zip(cases, (2, 3), strict=True):
            volume = source.read(case, ORGANS)
            np.testing.assert_array_equal(volume.image[0], stored(seed) - 1024)
            assert volume.mask is not None
            np.testing.assert_array_equal(volume.mask[0], organs(seed)[..., 0] + 2 * organs(seed)[..., 1])

    def test_pictures_beside_a_series_are_no_masks_of_it(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1" / "ct", stored())
        save_raster(tmp_path / "p1" / "masks" / "001.png", np.eye(8, dtype=np.uint8))
        with pytest.raises(MissingDataError, match=r"1 other image, such as 001\.png\. Masks of DICOM are SEG"):
            DicomSource(str(tmp_path)).cases()


HEIGHTS_MM = (0.0, 2.5, 5.0, 10.0)


def place_unevenly(d: int) -> np.ndarray:
    return np.add(ORIGIN, (0, 0, HEIGHTS_MM[d]))


def outline(d: int) -> np.ndarray:
    """A box of 3 by 4 pixels on a slice of an uneven series."""
    _, y, x = SPACING
    corners = [(0.5, 1.5), (0.5, 5.5), (3.5, 5.5), (3.5, 1.5)]
    return np.add(place_unevenly(d), [(column * x, row * y, 0) for row, column in corners])


@pytest.mark.parametrize("labels", [ORGANS, OVERLAPPING], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("write_as", ["seg", "nifti"])
class TestUnevenSlices(SourceContract):
    """The contract of sources: what is written on an uneven series is read again as it was."""

    @pytest.fixture
    def subject(self, tmp_path: Path, labels: LabelMap, write_as: Any) -> Subject:
        root = tmp_path / "data"
        save_case(root, "p1", overlap=labels.overlapping, position=place_unevenly)
        again = {"seg": Segmented, "nifti": Predicted}[write_as]
        return Subject(
            source=DicomSource(str(root), write_as=write_as, uneven_slices="resample"),
            labels=labels,
            cases=1,
            images=root,
            again=lambda masks: again(str(root), masks, uneven_slices="resample"),
        )


class TestUneven:
    def open(self, root: Path, **settings: Any) -> tuple[DicomSource, Case]:
        source = DicomSource(str(root), uneven_slices="resample", **settings)
        (case,) = source.cases()
        return source, case

    def test_without_the_setting_the_error_names_it(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1", position=place_unevenly)
        source = DicomSource(str(tmp_path))
        with pytest.raises(GeometryError, match=r"set data\.source\.uneven_slices to resample"):
            source.read(source.cases()[0], ORGANS)

    def test_a_segmentation_goes_to_the_nearest_slices(self, tmp_path: Path) -> None:
        save_case(tmp_path, "p1", position=place_unevenly)
        volume = DicomSource.read(*self.open(tmp_path), ORGANS)
        drawn = organs()[..., 0] + 2 * organs()[..., 1]
        assert volume.mask is not None
        np.testing.assert_array_equal(volume.mask[0], drawn[[0, 1, 2, 2, 3]])
        assert volume.geometry.shape == volume.mask.shape[1:] == volume.image.shape[1:]

    def test_contours_are_drawn_on_their_slices_and_spread(self, tmp_path: Path) -> None:
        save_series(tmp_path / "p1", stored(), series="p1", position=place_unevenly)
        save_structures(tmp_path / "rt.dcm", "p1", {"liver": [outline(2), outline(3)]})
        mask = DicomSource.read(*self.open(tmp_path), LIVER).mask
        assert mask is not None
        assert mask[0].sum(axis=(1, 2)).tolist() == [0, 0, 12, 12, 12]

    def test_a_written_segmentation_refers_to_each_real_image(self, tmp_path: Path) -> None:
        paths = save_series(tmp_path / "in" / "p1", stored(), series="p1", position=place_unevenly)
        source = DicomSource(str(tmp_path / "in"), uneven_slices="resample").open_unlabeled(tmp_path / "in")
        (case,) = source.cases()
        mask = np.zeros((1, 5, *SHAPE[1:]), np.uint8)
        mask[:, 2:, 1:4, 2:6] = 1
        source.write(tmp_path / "out", case, mask, LIVER)
        written = tmp_path / "out" / "p1.dcm"
        (found,) = read_masks(written, [[1]], open_series(paths, resample=True))
        np.testing.assert_array_equal(found, mask[0][[0, 1, 2, 4]])
        dataset = dcmread(written)
        (referred,) = dataset.ReferencedSeriesSequence
        named = {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence}
        assert named == {dcmread(path).SOPInstanceUID for path in paths}
        heights = [
            float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) - ORIGIN[2]
            for frame in dataset.PerFrameFunctionalGroupsSequence
        ]
        assert sorted(heights) == [5, 10]  # and none between

    def test_nifti_holds_the_even_grid(self, tmp_path: Path) -> None:
        save_series(tmp_path / "in" / "p1", stored(), series="p1", position=place_unevenly)
        given = DicomSource(str(tmp_path / "in"), write_as="nifti", uneven_slices="resample")
        source = given.open_unlabeled(tmp_path / "in")
        (case,) = source.cases()
        mask = (np.random.default_rng(1).random((1, 5, *SHAPE[1:])) > 0.5).astype(np.uint8)
        source.write(tmp_path / "out", case, mask, LIVER)
        values, geometry = read_nifti(tmp_path / "out" / "p1.nii.gz")
        np.testing.assert_array_equal(values[0], mask[0])
        assert source.read(case, LIVER).geometry.distance_voxels(geometry) < 1e-4

    def test_resampling_is_logged_and_a_missing_slice_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        save_case(tmp_path / "uneven", "p1", position=lambda d: np.add(ORIGIN, (0, 0, (0, 1, 2.3, 3)[d])))
        DicomSource.read(*self.open(tmp_path / "uneven"), ORGANS)
        (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("medseg_pl"))
        assert message == "Case p1/ct: 4 uneven slices are resampled to 6, 0.60 mm apart."
        caplog.clear()
        paths = save_series(tmp_path / "gap" / "p1", stored(), series="p1")
        paths[1].unlink()
        DicomSource.read(*self.open(tmp_path / "gap", references=None), ORGANS)
        assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
        assert caplog.messages[1].startswith("Case p1: slices seem to be missing in 1 place and are interpolated.")


class TestProjections:
    def test_a_radiograph_and_its_segmentation(self, tmp_path: Path) -> None:
        pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
        mask = (pixels % 3 == 0)[None, ..., None].astype(np.uint8)
        for name in ("left", "right"):
            path = save_projection(tmp_path / "p1" / f"{name}.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
            turned = mask if name == "left" else 1 - mask
            save_segmentation(tmp_path / "p1" / f"seg_{name}.dcm", [path], turned, ["Liver"])
        source = DicomSource(str(tmp_path))
        left, right = source.cases()
        assert (left.case_id, right.case_id) == ("p1/left", "p1/right")
        volume = source.read(left, LIVER)
        assert volume.geometry.spacing_mm == (1.0, *SPACING[1:])
        np.testing.assert_array_equal(volume.image[0, 0], 65535 - pixels - 1024)  # small values are bright
        assert volume.mask is not None
        np.testing.assert_array_equal(volume.mask[0], mask[..., 0])
        other = source.read(right, LIVER).mask
        assert other is not None
        np.testing.assert_array_equal(other[0], 1 - mask[..., 0])

    @pytest.mark.parametrize("elements", [{}, {"ImagerPixelSpacing": None}, {"FrameOfReferenceUID": uid_of("space")}])
    def test_a_prediction_comes_back(self, elements: dict[str, Any], tmp_path: Path) -> None:
        pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
        path = save_projection(tmp_path / "in" / "p1" / "left.dcm", pixels, **elements)
        source = DicomSource(str(tmp_path / "in")).open_unlabeled(tmp_path / "in")
        (case,) = source.cases()
        volume = source.read(case, LIVER)
        assert (volume.geometry.spacing_mm is None) == (elements == {"ImagerPixelSpacing": None})
        mask = (pixels % 5 == 0)[None, None].astype(np.uint8)
        source.write(tmp_path / "out", case, mask, LIVER)
        written = tmp_path / "out" / "p1" / "left.dcm"
        (found,) = read_masks(written, [[1]], open_series([path]))
        np.testing.assert_array_equal(found, mask[0])
