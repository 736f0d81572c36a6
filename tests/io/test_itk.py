"""MetaImage and NRRD against SimpleITK and nibabel, and headers that must not be believed."""

from __future__ import annotations

import zlib
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg_pl.core.errors import MissingDataError, OutputExistsError, UnreadableFileError
from medseg_pl.io import size_limits
from medseg_pl.io.file_header import read_header
from medseg_pl.io.itk import find_data_files, read_itk, read_itk_geometry, read_itk_header, write_itk_mask_like
from medseg_pl.io.nifti import read_nifti

VOXELS = np.random.default_rng(0).integers(-500, 500, (4, 5, 6)).astype(np.int16)
OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
SUFFIXES = ["mha", "mhd", "nrrd", "nhdr"]


def oblique(voxels: np.ndarray = VOXELS, **options: Any) -> Any:
    image = sitk.GetImageFromArray(voxels, **options)
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(OBLIQUE.ravel().tolist())
    return image


def save(path: Path, image: Any, *, compressed: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "raw"])
@pytest.mark.parametrize("suffix", SUFFIXES)
class TestAgainstNifti:
    def test_the_same_volume_is_read_from_both(self, tmp_path: Path, suffix: str, compressed: bool) -> None:
        path = save(tmp_path / f"v.{suffix}", oblique(), compressed=compressed)
        array, geometry = read_itk(path)
        expected, expected_geometry = read_nifti(save(tmp_path / "v.nii.gz", oblique()))
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.int16
        assert geometry.shape == expected_geometry.shape
        np.testing.assert_allclose(geometry.affine, expected_geometry.affine, atol=1e-5)
        np.testing.assert_allclose(geometry.spacing_mm, (3.0, 0.8, 0.7), atol=1e-12)
        assert read_itk_geometry(path) == geometry

    def test_a_mask_comes_back_on_the_same_grid(self, tmp_path: Path, suffix: str, compressed: bool) -> None:
        template = save(tmp_path / f"v.{suffix}", oblique(), compressed=compressed)
        mask = (VOXELS > 0).astype(np.uint8)
        write_itk_mask_like(tmp_path / "out" / f"v.{suffix}", mask, template)
        written, image = (sitk.ReadImage(str(p)) for p in (tmp_path / "out" / f"v.{suffix}", template))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), mask)
        assert written.GetOrigin() == image.GetOrigin()
        np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-12)
        assert read_itk(tmp_path / "out" / f"v.{suffix}")[1] == read_itk(template)[1]


def test_nibabels_48_orientations_are_those_of_itk(tmp_path: Path) -> None:
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, axes] * np.array(signs) * (0.7, 0.8, 3.0)
        affine[:3, 3] = (10.0, -20.0, 30.0)
        nibabel.save(nibabel.Nifti1Image(VOXELS, affine), tmp_path / "v.nii")
        for suffix in ("mha", "nrrd"):
            array, geometry = read_itk(save(tmp_path / f"v.{suffix}", sitk.ReadImage(str(tmp_path / "v.nii"))))
            expected, expected_geometry = read_nifti(tmp_path / "v.nii")
            np.testing.assert_array_equal(array, expected)
            np.testing.assert_allclose(geometry.affine, expected_geometry.affine, atol=1e-5)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
class TestShapes:
    def test_components_are_channels(self, tmp_path: Path, suffix: str) -> None:
        voxels = np.stack([VOXELS, -VOXELS], axis=-1)
        path = save(tmp_path / f"v.{suffix}", oblique(voxels, isVector=True))
        np.testing.assert_array_equal(read_itk(path)[0], np.stack([VOXELS, -VOXELS]))
        write_itk_mask_like(tmp_path / f"out.{suffix}", (VOXELS > 0).astype(np.uint8), path)
        assert read_itk(tmp_path / f"out.{suffix}")[1] == read_itk(path)[1]

    def test_a_fourth_axis_holds_channels(self, tmp_path: Path, suffix: str) -> None:
        path = save(tmp_path / f"v.{suffix}", sitk.GetImageFromArray(np.stack([VOXELS, -VOXELS]), isVector=False))
        np.testing.assert_array_equal(read_itk(path)[0], np.stack([VOXELS, -VOXELS]))
        assert read_itk(path)[1].shape == VOXELS.shape

    def test_a_plane_is_one_slice(self, tmp_path: Path, suffix: str) -> None:
        image = sitk.GetImageFromArray(VOXELS[0])
        image.SetSpacing((0.5, 2.0))
        path = save(tmp_path / f"v.{suffix}", image)
        array, geometry = read_itk(path)
        np.testing.assert_array_equal(array, VOXELS[None, :1])
        assert geometry.spacing_mm == (1.0, 2.0, 0.5)
        write_itk_mask_like(tmp_path / f"out.{suffix}", np.ones((1, 5, 6), np.uint8), path)
        written = sitk.ReadImage(str(tmp_path / f"out.{suffix}"))
        assert (written.GetDimension(), written.GetSpacing()) == (2, (0.5, 2.0))

    def test_doubles_become_single_precision(self, tmp_path: Path, suffix: str) -> None:
        path = save(tmp_path / f"v.{suffix}", oblique(VOXELS.astype(np.float64)))
        assert read_itk(path)[0].dtype == np.float32


class TestWhatTheLibraryDoesNotApply:
    def test_the_scaling_of_a_meta_image(self, tmp_path: Path) -> None:
        path = save(tmp_path / "v.mha", oblique(), compressed=False)
        scale = b"ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -1024\nElementType"
        path.write_bytes(path.read_bytes().replace(b"ElementType", scale))
        np.testing.assert_array_equal(read_itk(path)[0][0], VOXELS * 2.0 - 1024)
        assert read_header(path).scaled

    @pytest.mark.parametrize(("unit", "factor"), [("m", 1000), ("um", 0.001), ("mm", 1), ("", 1)])
    def test_units_of_length(self, tmp_path: Path, unit: str, factor: float) -> None:
        path = save(tmp_path / "v.nrrd", oblique())
        units = f'space units: "{unit}" "{unit}" "{unit}"\nkinds'.encode()
        path.write_bytes(path.read_bytes().replace(b"kinds", units, 1))
        _, geometry = read_itk(path)
        np.testing.assert_allclose(geometry.spacing_mm, np.array((3.0, 0.8, 0.7)) * factor)
        assert geometry.affine is not None
        np.testing.assert_allclose(np.array(geometry.affine)[:3, 3], np.array((-10, 20, 30)) * factor)

    def test_a_frame_to_the_right_and_front(self, tmp_path: Path) -> None:
        header = "NRRD0004\ntype: uint8\ndimension: 3\nspace: RAS\nsizes: 2 2 2\nencoding: raw\n"
        header += "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)\n\n"
        (tmp_path / "v.nrrd").write_bytes(header.encode() + bytes(8))
        affine = read_itk(tmp_path / "v.nrrd")[1].affine
        np.testing.assert_allclose(affine, [[0, 0, 2, 1], [0, 3, 0, 2], [4, 0, 0, 3], [0, 0, 0, 1]])

    def test_axes_that_are_not_at_right_angles(self, tmp_path: Path) -> None:
        header = "NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: 2 2 2\nencoding: raw\n"
        header += "space directions: (1,0,0) (0.5,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
        (tmp_path / "v.nrrd").write_bytes(header.encode() + bytes(8))
        geometry = read_itk(tmp_path / "v.nrrd")[1]
        np.testing.assert_allclose(geometry.affine, [[0, -0.5, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
        write_itk_mask_like(tmp_path / "out.nrrd", np.ones((2, 2, 2), np.uint8), tmp_path / "v.nrrd")
        np.testing.assert_allclose(read_itk(tmp_path / "out.nrrd")[1].affine, geometry.affine)

    def test_a_file_that_knows_its_spacing_alone_has_no_place(self, tmp_path: Path) -> None:
        header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 2 3\nencoding: raw\n\n"
        (tmp_path / "v.nrrd").write_bytes(header + bytes(8))
        geometry = read_itk(tmp_path / "v.nrrd")[1]
        assert (geometry.affine, geometry.spacing_mm) == (None, (3.0, 2.0, 1.0))

    def test_a_file_that_knows_nothing(self, tmp_path: Path) -> None:
        header = b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        (tmp_path / "v.mha").write_bytes(header + bytes(8))
        geometry = read_itk(tmp_path / "v.mha")[1]
        assert (geometry.affine, geometry.spacing_mm) == (None, None)


class TestDamage:
    @pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "raw"])
    @pytest.mark.parametrize("suffix", ["mha", "nrrd"])
    def test_a_file_that_is_cut_off(self, tmp_path: Path, suffix: str, compressed: bool) -> None:
        path = save(tmp_path / f"v.{suffix}", oblique(), compressed=compressed)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UnreadableFileError, match=rf"v\.{suffix}.*intact copy"):
            read_itk(path)

    def test_a_claim_of_too_much_is_not_decoded(self, tmp_path: Path) -> None:
        path = save(tmp_path / "v.mha", oblique(), compressed=False)
        path.write_bytes(path.read_bytes().replace(b"DimSize = 6 5 4", b"DimSize = 60000 50000 4"))
        assert read_header(path).too_large
        with pytest.raises(UnreadableFileError, match=r"v\.mha claims more than"):
            read_itk(path)

    def test_a_compressed_claim_that_cannot_be_held(self, tmp_path: Path) -> None:
        path = save(tmp_path / "v.nrrd", oblique())
        path.write_bytes(path.read_bytes().replace(b"sizes: 6 5 4", b"sizes: 600 500 40"))
        with pytest.raises(UnreadableFileError, match="claims 24,000,000 bytes of voxels"):
            read_itk_geometry(path)

    @pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "LIST", "slice%03d.raw 1 3 1"])
    @pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
    def test_voxels_outside_the_folder_are_not_read(self, tmp_path: Path, suffix: str, name: str) -> None:
        (tmp_path / "secret.raw").write_bytes(bytes(1000))
        path = save(tmp_path / "data" / f"v.{suffix}", oblique(), compressed=False)
        path.write_text(path.read_text().replace("v.raw", name))
        with pytest.raises(UnreadableFileError, match=rf"v\.{suffix}.*(outside its own folder|several files)"):
            read_itk(path)

    def test_a_link_does_not_lead_outside_either(self, tmp_path: Path) -> None:
        path = save(tmp_path / "data" / "v.mhd", oblique(), compressed=False)
        (tmp_path / "data" / "v.raw").rename(tmp_path / "v.raw")
        (tmp_path / "data" / "v.raw").symlink_to(tmp_path / "v.raw")
        with pytest.raises(UnreadableFileError, match="link that leaves the folder"):
            read_itk(path)

    def test_voxels_that_are_missing_are_named(self, tmp_path: Path) -> None:
        path = save(tmp_path / "v.mhd", oblique(), compressed=False)
        (tmp_path / "v.raw").unlink()
        with pytest.raises(MissingDataError, match=r"v\.mhd names its voxels v\.raw, which does not exist"):
            read_itk(path)

    @pytest.mark.parametrize("content", [b"", b"NRRD0004\n\n", b"ObjectType = Image\n", bytes(range(256)), b"NRRD"])
    def test_other_content(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "v.nrrd").write_bytes(content)
        with pytest.raises(UnreadableFileError, match=r"v\.nrrd .*cannot be read as MetaImage or NRRD"):
            read_itk(tmp_path / "v.nrrd")

    def test_more_axes_than_it_says(self, tmp_path: Path) -> None:
        path = save(tmp_path / "v.mha", oblique(), compressed=False)
        path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = 9"))
        with pytest.raises(UnreadableFileError, match="expected 2 to 4"):
            read_itk(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"v\.mha does not exist"):
            read_itk(tmp_path / "v.mha")

    def test_limits_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "v.mha", oblique())
        monkeypatch.setattr(size_limits, "MAX_VOXELS", 119)
        with pytest.raises(UnreadableFileError, match="claims more than 119 voxels"):
            read_itk(path)


class TestTwoFiles:
    def test_a_damaged_header_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "v.mhd").write_bytes(b"damaged")
        assert list(find_data_files([tmp_path / "v.mhd"])) == []

    def test_their_voxels_are_found(self, tmp_path: Path) -> None:
        header = save(tmp_path / "v.mhd", oblique(), compressed=False)
        alone = save(tmp_path / "w.mha", oblique())
        assert list(find_data_files([header, alone, tmp_path / "a.png"])) == [tmp_path / "v.raw"]

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:
        template = save(tmp_path / "v.mhd", oblique())
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(OutputExistsError):
            write_itk_mask_like(template, np.zeros(VOXELS.shape, np.uint8), template)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / next(name for name in before if name != "v.mhd")).write_bytes(b"kept")
        with pytest.raises(OutputExistsError):
            write_itk_mask_like(tmp_path / "out" / "v.mhd", np.zeros(VOXELS.shape, np.uint8), template)
        assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"kept"]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_keys_of_a_segmentation_keep_their_spelling(tmp_path: Path) -> None:
    image = oblique(VOXELS.astype(np.uint8))
    image.SetMetaData("Segment0_Name", "left: kidney")
    assert read_itk_header(save(tmp_path / "v.nrrd", image)).fields["Segment0_Name"] == "left: kidney"


HEAD = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"


@pytest.mark.parametrize("fault", ["flipped", "cut", "short"])
def test_a_compressed_image_that_does_not_unpack_whole_is_refused(tmp_path: Path, fault: str) -> None:
    voxels = np.arange(16**3, dtype=np.int16).tobytes()
    packed = bytearray(zlib.compress(voxels[:-2] if fault == "short" else voxels))
    if fault == "flipped":
        packed[len(packed) // 2 : len(packed) // 2 + 3] = b"\xff\xff\xff"
    if fault == "cut":
        del packed[-len(packed) // 3 :]
    path = tmp_path / "a.mha"
    grid = b"CompressedData = True\nDimSize = 16 16 16\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
    path.write_bytes(HEAD + grid + b"ElementDataFile = LOCAL\n" + packed)
    with pytest.raises(UnreadableFileError, match=r"a\.mha .*intact copy"):
        read_itk(path)


def test_a_mask_lies_on_the_grid_of_an_image_in_micrometers(tmp_path: Path) -> None:
    path = tmp_path / "um.mha"
    grid = b"DistanceUnits = um\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 2 3 4\n"
    path.write_bytes(HEAD + grid + b"DimSize = 6 5 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(120))
    write_itk_mask_like(tmp_path / "mask.mha", np.zeros((4, 5, 6), np.uint8), path)
    image, mask = read_itk_geometry(path), read_itk_geometry(tmp_path / "mask.mha")
    assert image.spacing_mm == pytest.approx((0.004, 0.003, 0.002))
    assert mask.spacing_mm == pytest.approx(image.spacing_mm)
    np.testing.assert_allclose(mask.affine, image.affine)


def test_units_of_the_axes_are_those_of_the_spacings(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    fields = b"type: uint8\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nspacings: 2 3 4\n"
    path.write_bytes(b"NRRD0005\n" + fields + b'units: "um" "um" "um"\n\n' + bytes(120))
    assert read_itk_geometry(path).spacing_mm == pytest.approx((0.004, 0.003, 0.002))
