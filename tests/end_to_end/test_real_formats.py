"""Public files as people have them: every value, grid and label arrives as other libraries see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from medseg_pl.core.errors import MaskValueError
from medseg_pl.core.geometry import Geometry, Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.sources import FolderSource, ManifestSource
from medseg_pl.io import raster

pytestmark = pytest.mark.realdata

CORD = LabelMap(["cord"], "binary")
SPINE = {
    "t2": "t2_seg-manual",
    "t2s": "t2s_gmseg_manual",
    "mt1": "mt1_seg",
    "t2_fake_lesion": "t2_fake_lesion_lesion_seg",
}


def manifest(directory: Path, root: Path, **options: Any) -> ManifestSource:
    """The pairs of the spine, one of which has no mask."""
    rows = [f"{name},spine,{name}.nii.gz,{mask}.nii.gz" for name, mask in SPINE.items()]
    (directory / "cases.csv").write_text("\n".join(["case_id,group,image,mask", *rows, "mtr,spine,mtr.nii.gz,"]))
    return ManifestSource(str(directory / "cases.csv"), root=str(root / "spine_nifti"), **options)


def read(source: FolderSource | ManifestSource, name: str, labels: LabelMap) -> tuple[Case, Volume]:
    (case,) = (case for case in source.cases() if case.case_id == name)
    return case, source.read(case, labels)


STANDARD = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIR"}
"""Where columns, rows and slices run to, in nibabel's letters."""


def as_nibabel_has_it(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`(x, y, z)` values, and the affine."""
    image: Any = nibabel.load(path)
    return np.asanyarray(image.dataobj), image.affine


def assert_same_places(geometry: Geometry, affine: np.ndarray, axes: tuple[int, int, int]) -> None:
    """Voxels lie where the file has them, when `(D, H, W)` are these axes of `(x, y, z)`."""
    for voxel in [(0, 0, 0), *np.eye(3, dtype=int), [length - 1 for length in geometry.shape]]:
        stored = np.zeros(3)
        stored[list(axes)] = voxel
        np.testing.assert_allclose(np.array(geometry.affine) @ (*voxel, 1), affine @ (*stored, 1), atol=1e-4)


class TestImageFormats:
    """One micrograph in many files: the deep ones hold it times 257, which is 255 stretched to 65535."""

    @pytest.mark.parametrize(
        "name",
        [
            "png_sample-8gray", "png_sample-8grayalpha", "png_sample-8rgb", "png_sample-8rgba",
            "tif_sample-8gray", "tif_sample-8rgb", "tif_sample-8rgba",
        ],
    )  # fmt: skip
    def test_8_bit_is_what_pillow_decodes(self, real_data: Path, name: str) -> None:
        path = real_data / "image_formats" / f"sub-{name}_SEM.{name[:3]}"
        with Image.open(path) as stored:
            expected = np.asarray(stored)
        expected = expected[None] if expected.ndim == 2 else expected[..., :3].transpose(2, 0, 1)
        np.testing.assert_array_equal(raster.read_image(path), expected)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    @pytest.mark.parametrize(("kind", "channels"), [("16gray", 1), ("16rgb", 3), ("16rgba", 3)])
    def test_16_bit_loses_no_bit(self, real_data: Path, suffix: str, kind: str, channels: int) -> None:
        folder = real_data / "image_formats"
        with Image.open(folder / "sub-png_sample-8rgb_SEM.png") as stored:
            shallow = np.asarray(stored)[..., :channels].transpose(2, 0, 1)
        image = raster.read_image(folder / f"sub-{suffix}_sample-{kind}_SEM.{suffix}")
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, shallow.astype(np.uint16) * 257)

    def test_every_file_was_looked_at(self, real_data: Path) -> None:
        assert len(list((real_data / "image_formats").iterdir())) == 13


class TestSpine:
    @pytest.mark.parametrize("name", SPINE)
    def test_image_and_mask_are_on_one_grid(self, real_data: Path, tmp_path: Path, name: str) -> None:
        case, volume = read(manifest(tmp_path, real_data), name, CORD)
        image, affine = as_nibabel_has_it(case.images[0])
        mask, _ = as_nibabel_has_it(case.masks[0])
        assert volume.mask is not None
        np.testing.assert_array_equal(volume.image[0], image.T)
        np.testing.assert_array_equal(volume.mask[0], mask.T)
        assert_same_places(volume.geometry, affine, (2, 1, 0))

    @pytest.mark.parametrize("name", SPINE)
    @pytest.mark.parametrize("slicing", ["file", "thick", *STANDARD])
    def test_slices_are_cut_as_asked_and_written_back(
        self, real_data: Path, tmp_path: Path, name: str, slicing: Slicing
    ) -> None:
        source = manifest(tmp_path, real_data, slicing=slicing)
        case, volume = read(source, name, CORD)
        image, affine = as_nibabel_has_it(case.images[0])
        seen, seen_affine = image, affine  # files whose last axis is the thick one are cut across it as they are
        if slicing in STANDARD:
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(STANDARD[slicing])))
            turned = nibabel.Nifti1Image(image, affine).as_reoriented(turn)
            seen, seen_affine = np.asanyarray(turned.dataobj), turned.affine
        np.testing.assert_array_equal(volume.image[0], seen.T)
        assert_same_places(volume.geometry, seen_affine, (2, 1, 0))
        half = (np.nan_to_num(volume.image) > np.nanmedian(volume.image)).astype(np.uint8)
        source.write(tmp_path / "out", case, half, CORD)
        written, same = as_nibabel_has_it(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(written, np.nan_to_num(image) > np.median(image))
        np.testing.assert_array_equal(same, affine)

    @pytest.mark.parametrize("slicing", ["file", "thick", "sagittal"])
    def test_holes_and_infinities_are_read_and_stored(self, real_data: Path, tmp_path: Path, slicing: Slicing) -> None:
        source = manifest(tmp_path, real_data, slicing=slicing)
        case, volume = read(source, "mtr", CORD)
        assert np.isneginf(volume.image).any()
        assert volume.mask is None
        stored = CaseCache(tmp_path / "store", source, CORD).build([case], threads=1)[0]
        np.testing.assert_array_equal(stored.image, volume.image)
        assert np.isfinite(stored.statistics).all()


def test_masks_beside_their_images_in_one_folder(real_data: Path) -> None:
    source = FolderSource(str(real_data / "cord_mri"), images=".", masks=".", mask_name="{stem}_seg-manual")
    cases = source.cases()
    assert [case.case_id for case in cases] == ["sub-unf01_T1w", "sub-unf01_T2star", "sub-unf01_T2w"]
    for case in cases:
        mask, _ = as_nibabel_has_it(case.masks[0])
        assert mask.dtype == np.float32  # whole numbers in real ones
        np.testing.assert_array_equal(source.read(case, CORD).mask, mask.T[None])


def test_a_case_named_image_with_a_mask_named_label(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,group,image,mask\nspleen,p1,image.nii.gz,label.nii.gz\n")
    source = ManifestSource(str(tmp_path / "cases.csv"), root=str(real_data / "spleen_ct"))
    _, volume = read(source, "spleen", LabelMap(["spleen"], "binary"))
    mask, affine = as_nibabel_has_it(real_data / "spleen_ct" / "label.nii.gz")
    np.testing.assert_array_equal(volume.mask, mask.T[None])
    assert_same_places(volume.geometry, affine, (2, 1, 0))
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.79, 0.79), abs=0.01)


class TestNerve:
    """Axon and myelin in files of their own, in another tree, with single pixels of 218 and 233."""

    LABELS = ("axon", "myelin")
    NEAR = "ses-02/micr/sub-rat3_ses-02_sample-data10_SEM"

    def source(self, real_data: Path) -> FolderSource:
        masks = "derivatives/labels/sub-rat3/{{stem}}_seg-{}-manual"
        return FolderSource(
            str(real_data / "sem_nerve"),
            images="sub-rat3",
            masks={label: masks.format(label) for label in self.LABELS},
            group="(ses-[0-9]+)",
        )

    def test_with_a_tolerance_they_count(self, real_data: Path) -> None:
        labels = LabelMap(self.LABELS, "multilabel", tolerance=40)
        source = self.source(real_data)
        assert len(source.cases()) == 4
        for case in source.cases():
            mask = source.read(case, labels).mask
            assert mask is not None
            for path, plane in zip(case.masks, mask, strict=True):
                with Image.open(path) as stored:
                    np.testing.assert_array_equal(plane[0], np.asarray(stored) > 127)

    @pytest.mark.parametrize("task", ["multilabel", "multiclass"])
    def test_without_one_the_error_says_which_would_do(self, real_data: Path, task: Any) -> None:
        source = self.source(real_data)
        with pytest.raises(MaskValueError) as error:
            read(source, self.NEAR, LabelMap(self.LABELS, task))
        assert "seg-axon-manual.png holds the value 233, which no label claims, in 1 voxel; expected 0, 1, 255." in str(
            error.value
        )
        assert str(error.value).endswith("set labels.tolerance to 22.")


def test_nuclei_are_0_and_255(real_data: Path) -> None:
    source = FolderSource(str(real_data / "nuclei"))
    for case in source.cases():
        with Image.open(case.masks[0]) as stored:
            expected = np.asarray(stored) == 255
        np.testing.assert_array_equal(source.read(case, LabelMap(["nucleus"], "binary")).mask, expected[None, None])


def test_vessels_are_bits(real_data: Path) -> None:
    source = FolderSource(str(real_data / "chase_db1"), masks="masks_2nd")
    for case in source.cases()[:6]:
        with Image.open(case.masks[0]) as stored:
            assert stored.mode == "1"
            expected = np.asarray(stored)
        np.testing.assert_array_equal(source.read(case, LabelMap(["vessel"], "binary")).mask, expected[None, None])
