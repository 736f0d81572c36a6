"""Image files with mask files: channels, grids, values, formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  its own documentation calls it so
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_pl.core.errors import (
    GeometryError,
    MaskValueError,
    MissingDataError,
    SettingError,
    UnreadableFileError,
)
from medseg_pl.core.geometry import Geometry, Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.files import (
    CaseGrid,
    FileSource,
    encode_mask_files,
    is_image,
    read_image_file,
    read_image_geometry,
    read_mask_file,
    resolve_inside,
)
from medseg_pl.io.raster import read_mask
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

BINARY = LabelMap(["lesion"], "binary")
ORGANS = LabelMap(["liver", "spleen"], "multiclass")
OVERLAPPING = LabelMap(["liver", "spleen"], "multilabel")


class Pairs(FileSource):
    """A plug-in of the smallest kind: files ending in `_0` and `_1` are channels."""

    def __init__(self, images: Path, masks: tuple[Path, ...] = ()) -> None:
        self.images = images
        self.masks = masks

    def cases(self) -> list[Case]:
        names = sorted(path.name.removesuffix("_0.png") for path in self.images.glob("*_0.png"))
        return [
            Case(
                case_id=name,
                group=name,
                images=tuple(self.images / f"{name}_{channel}.png" for channel in (0, 1)),
                masks=tuple(folder / f"{name}.png" for folder in self.masks),
            )
            for name in names
        ]

    def open_unlabeled(self, directory: Path) -> Source:
        return Pairs(directory)


class TestAPlugIn(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["b", "a", "c"]):
            for channel in (0, 1):
                save_raster(tmp_path / "images" / f"{name}_{channel}.png", noise((9, 12), 2 * seed + channel))
            for number, organ in enumerate(OVERLAPPING.names):
                save_raster(tmp_path / organ / f"{name}.png", blocks((9, 12), *[0] * number, 255, 255))
        return Subject(
            source=Pairs(tmp_path / "images", tuple(tmp_path / organ for organ in OVERLAPPING.names)),
            labels=OVERLAPPING,
            cases=3,
            images=tmp_path / "images",
            again=lambda d: Pairs(tmp_path / "images", tuple(d / organ for organ in OVERLAPPING.names)),
        )

    def test_channels_come_in_the_order_of_the_files(self, subject: Subject) -> None:
        volume = subject.source.read(subject.source.cases()[1], subject.labels)
        np.testing.assert_array_equal(volume.image[:, 0], np.stack([noise((9, 12), 0), noise((9, 12), 1)]))


def read(image: Path, *masks: Path, labels: LabelMap = BINARY) -> np.ndarray:
    mask = Pairs(image.parent).read(Case("p1", "p1", (image,), masks), labels).mask
    assert mask is not None
    return mask


def test_a_mask_of_another_size_names_both_files_and_both_sizes(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    mask = save_raster(tmp_path / "mask.png", blocks((12, 9), 1))
    with pytest.raises(GeometryError) as error:
        read(image, mask)
    assert str(error.value) == (
        f"Case p1: {mask} is 1 x 12 x 9 (depth, height, width), but the image {image} is 1 x 9 x 12 (depth, height, "
        "width). They must share one grid: export the mask again from this image, or remove the case."
    )


def test_channels_of_another_size_are_refused(tmp_path: Path) -> None:
    first = save_raster(tmp_path / "0.png", noise((9, 12)))
    second = save_raster(tmp_path / "1.png", noise((9, 13)))
    with pytest.raises(GeometryError, match=r"1\.png is 1 x 9 x 13 \(depth, height, width\), but the image .*0\.png"):
        Pairs(tmp_path).read(Case("p1", "p1", (first, second)), BINARY)


def grid_change(axis: int, scale: float = 1, shift: float = 0) -> np.ndarray:
    """Along one of x, y and z, in voxels."""
    moved = np.eye(4)
    moved[axis, axis], moved[axis, 3] = scale, shift
    return moved


@pytest.mark.parametrize(
    ("moved", "voxels"),
    [
        (grid_change(0, scale=-1), "10.0"),  # mirrored at the first of six columns
        (grid_change(1, shift=1), "1.0"),
        (grid_change(2, shift=-0.2), "0.2"),
        (grid_change(2, scale=1.5), "2.0"),  # four steps of 1.5 end at 6 instead of 4
    ],
    ids=["flipped", "shifted", "shifted a little", "of another spacing"],
)
@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 0.7, 4)])
def test_a_mask_that_lies_elsewhere_is_refused(
    tmp_path: Path, moved: np.ndarray, voxels: str, spacing_mm: tuple[float, float, float]
) -> None:
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 5)), spacing_mm)
    mask = save_volume(tmp_path / "mask.nii.gz", blocks((6, 7, 5), 1), spacing_mm, moved)
    with pytest.raises(GeometryError) as error:
        read(image, mask)
    assert str(error.value) == (
        f"Case p1: {mask} lies elsewhere in space (flipped, shifted, or of another spacing): a corner is {voxels} "
        f"voxels from where the image {image} has it. Export the mask again from this image, "
        "or correct the affine."
    )


@pytest.mark.parametrize("moved", [grid_change(0, shift=0.05), grid_change(2, scale=1.01), None])
def test_an_affine_that_was_rounded_is_the_same_grid(tmp_path: Path, moved: np.ndarray | None) -> None:
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 5)), (0.5, 0.7, 4))
    mask = save_volume(tmp_path / "mask.nii.gz", blocks((6, 7, 5), 1), (0.5, 0.7, 4), moved)
    np.testing.assert_array_equal(read(image, mask)[0], blocks((6, 7, 5), 1).T)


def test_channels_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    first = save_volume(tmp_path / "0.nii.gz", noise((6, 7, 5)))
    second = save_volume(tmp_path / "1.nii.gz", noise((6, 7, 5), 1), moved=grid_change(1, shift=3))
    with pytest.raises(GeometryError, match=r"1\.nii\.gz lies elsewhere in space .* 3\.0 voxels from where .*0\.nii"):
        Pairs(tmp_path).read(Case("p1", "p1", (first, second)), BINARY)


def test_each_of_several_masks_is_checked(tmp_path: Path) -> None:
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 5)))
    liver = save_volume(tmp_path / "liver.nii.gz", blocks((6, 7, 5), 1))
    spleen = save_volume(tmp_path / "spleen.nii.gz", blocks((6, 7, 5), 1), moved=grid_change(2, shift=1))
    with pytest.raises(GeometryError, match=r"spleen\.nii\.gz lies elsewhere in space"):
        read(image, liver, spleen, labels=OVERLAPPING)


def test_a_raster_mask_has_no_place_to_disagree_about(tmp_path: Path) -> None:
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 1)))
    mask = save_raster(tmp_path / "mask.png", blocks((7, 6), 1))
    np.testing.assert_array_equal(read(image, mask)[0, 0], blocks((7, 6), 1))


def test_a_mask_comes_with_its_grid(tmp_path: Path) -> None:
    volume = save_volume(tmp_path / "mask.nii.gz", blocks((6, 7, 5), 1, 2), (0.5, 0.7, 4))
    values, geometry = read_mask_file(volume)
    np.testing.assert_array_equal(values, blocks((6, 7, 5), 1, 2).T)
    assert geometry.shape == (5, 7, 6)
    assert geometry.spacing_mm == pytest.approx((4, 0.7, 0.5))
    assert geometry.affine is not None
    values, geometry = read_mask_file(save_raster(tmp_path / "mask.png", blocks((9, 12), 1)))
    np.testing.assert_array_equal(values, blocks((9, 12), 1)[None])
    assert geometry == Geometry((1, 9, 12))


def test_a_value_that_no_label_claims_names_the_file(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    mask = save_raster(tmp_path / "mask.png", blocks((9, 12), 1, 7))
    with pytest.raises(MaskValueError, match=r"mask\.png holds the value 7, which no label claims"):
        read(image, mask)


def test_one_mask_cannot_hold_labels_that_overlap(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    mask = save_raster(tmp_path / "mask.png", blocks((9, 12), 1, 2))
    with pytest.raises(GeometryError, match=r"has 1 mask file for the 2 labels liver, spleen\. .*task to multiclass"):
        read(image, mask, labels=OVERLAPPING)


def test_one_mask_for_each_exclusive_label_becomes_one_mask_of_indices(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    liver = save_raster(tmp_path / "liver.png", blocks((9, 12), 255))
    spleen = save_raster(tmp_path / "spleen.png", blocks((9, 12), 0, 1))
    np.testing.assert_array_equal(read(image, liver, spleen, labels=ORGANS)[0, 0], blocks((9, 12), 1, 2))


def test_exclusive_labels_that_overlap_are_counted(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    liver = save_raster(tmp_path / "liver.png", blocks((9, 12), 1, 1))
    spleen = save_raster(tmp_path / "spleen.png", blocks((9, 12), 0, 1))
    with pytest.raises(MaskValueError, match="Case p1: 24 voxels carry more than one label"):
        read(image, liver, spleen, labels=ORGANS)


def test_the_files_of_overlapping_masks_show_white(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "images" / "p1.png", noise((9, 12)))
    mask = np.stack([blocks((9, 12), 1), blocks((9, 12), 0, 1)])[:, None]
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), mask, OVERLAPPING)
    assert set(tree(tmp_path / "out")) == {"liver/p1.png", "spleen/p1.png"}
    np.testing.assert_array_equal(read_mask(tmp_path / "out/spleen/p1.png"), blocks((9, 12), 0, 255))


@pytest.mark.parametrize("name", ["p1.png", "p1.nii.gz"])
@pytest.mark.parametrize("values", [None, (4, 9), (40, 700)])
def test_overlapping_masks_are_written_as_they_are_read(
    tmp_path: Path, name: str, values: tuple[int, int] | None
) -> None:
    labels = LabelMap(["liver", "spleen"], "multilabel", values=values)
    image = tmp_path / "images" / name
    mask = np.stack([blocks((1, 9, 12), 0), blocks((9, 12), 0, 1)[None]])
    mask[0, 0, 2:5] = 1
    save_raster(image, noise((9, 12))) if name.endswith(".png") else save_volume(image, noise((12, 9, 1)))
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), mask, labels)
    written = [tmp_path / "out" / organ / name for organ in labels.names]
    np.testing.assert_array_equal(read(image, *written, labels=labels), mask)
    expected = values or ((255, 255) if name.endswith(".png") else (1, 1))
    assert [sorted(np.unique(read_mask_file(path)[0])) for path in written] == [[0, value] for value in expected]


@pytest.mark.parametrize(("value", "dtype"), [(3, np.uint8), (300, np.uint16)])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd", ".tif", ".png"])
def test_labels_alone_decide_the_type_of_masks(tmp_path: Path, suffix: str, value: int, dtype: type) -> None:
    """Neither the image's type nor what one mask holds mixes types in a folder; -1 is ignored and never written."""
    labels = LabelMap(["liver", "spleen"], "multiclass", values=[1, value], ignore_value=-1)
    path, shape = tmp_path / f"image{suffix}", (1 if suffix == ".png" else 3, 5, 6)
    image = noise(shape).astype(np.float32)
    if suffix == ".nii":
        save_volume(path, image.T)
    elif suffix == ".png":
        save_raster(path, noise(shape[1:]))
    elif suffix == ".tif":
        tifffile.imwrite(path, image, imagej=True)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(image), str(path))
    case = Case("p1", "p1", (path,))
    for highest in (0, 1, 2):
        mask = noise((1, *shape)) % (highest + 1)
        Pairs(tmp_path).write(tmp_path / str(highest), case, mask, labels)
        (written,) = (tmp_path / str(highest)).iterdir()
        pixels = read_mask_file(written)[0]
        assert pixels.dtype == dtype
        np.testing.assert_array_equal(pixels.reshape(shape), np.array([0, 1, value])[mask[0]])


def test_a_written_mask_has_the_values_of_the_files(tmp_path: Path) -> None:
    labels = LabelMap(["liver", "spleen"], "multiclass", values=[40, 700])
    image = save_raster(tmp_path / "images" / "p1.jpg", noise((9, 12)))
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), blocks((9, 12), 1, 2)[None, None], labels)
    values = read_mask(tmp_path / "out/p1.png")
    assert sorted(np.unique(values)) == [0, 40, 700]
    np.testing.assert_array_equal(labels.encode(values), blocks((9, 12), 1, 2))


def test_a_volume_comes_back_with_its_own_header(tmp_path: Path) -> None:
    image = save_volume(tmp_path / "p1.nii.gz", noise((6, 7, 5), dtype=np.int16), spacing_mm=(0.5, 0.6, 2.5))
    case = Case("p1", "p1", (image,))
    volume = Pairs(tmp_path).read(case, ORGANS)
    assert volume.geometry.shape == (5, 7, 6)
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.6, 0.5))
    Pairs(tmp_path).write(tmp_path / "out", case, blocks((5, 7, 6), 1, 2)[None], ORGANS)
    written, template = nibabel.load(tmp_path / "out/p1.nii.gz"), nibabel.load(image)
    np.testing.assert_array_equal(written.affine, template.affine)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, blocks((5, 7, 6), 1, 2))


def test_a_label_value_that_the_image_type_cannot_hold_survives(tmp_path: Path) -> None:
    labels = LabelMap(["liver", "spleen"], "multiclass", values=[40, 700])
    image = save_volume(tmp_path / "p1.nii.gz", noise((6, 7, 5)))
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), blocks((5, 7, 6), 1, 2)[None], labels)
    np.testing.assert_array_equal(labels.encode(read_mask_file(tmp_path / "out/p1.nii.gz")[0]), blocks((5, 7, 6), 1, 2))


SAVE: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "mask.png": save_raster,
    "mask.tif": lambda path, pixels: tifffile.imwrite(path, pixels) or path,
    "mask.nii.gz": lambda path, pixels: save_volume(path, pixels.T[..., None]),
}


def read_beside_an_image(folder: Path, name: str, pixels: np.ndarray, labels: LabelMap) -> list[list[int]]:
    image = "image.nii.gz" if name.endswith(".nii.gz") else "image.png"
    SAVE[image.replace("image", "mask")](folder / image, noise(pixels.shape))
    mask: list[list[int]] = read(folder / image, SAVE[name](folder / name, pixels), labels=labels)[0, 0].tolist()
    return mask


@pytest.mark.parametrize("name", SAVE)
class TestValuesAsPeopleHaveThem:
    """The same in pictures and in volumes."""

    def test_0_and_255(self, tmp_path: Path, name: str) -> None:
        assert read_beside_an_image(tmp_path, name, np.array([[0, 255, 0]], np.uint8), BINARY) == [[0, 1, 0]]

    def test_values_with_gaps(self, tmp_path: Path, name: str) -> None:
        labels = LabelMap(["liver", "spleen"], "multiclass", values=[600, 20], ignore_value=9)
        assert read_beside_an_image(tmp_path, name, np.array([[0, 20, 600, 9]], np.uint16), labels) == [[0, 2, 1, 255]]

    def test_values_near_0_and_255(self, tmp_path: Path, name: str) -> None:
        labels = LabelMap(["axon"], "binary", tolerance=40)
        assert read_beside_an_image(tmp_path, name, np.array([[0, 3, 218, 255]], np.uint8), labels) == [[0, 0, 1, 1]]


@pytest.mark.parametrize("name", ["mask.tif", "mask.nii.gz"])
class TestRealNumbers:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_whole_ones_are_values(self, tmp_path: Path, name: str, dtype: type) -> None:
        assert read_beside_an_image(tmp_path, name, np.array([[0.0, 2.0, 1.0]], dtype), ORGANS) == [[0, 2, 1]]

    def test_fractions_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(MaskValueError) as error:
            read_beside_an_image(tmp_path, name, np.array([[0.0, 0.5, 1.0]], np.float32), ORGANS)
        assert str(error.value) == (
            f"{tmp_path / name} holds the value 0.5, which no label claims, in 1 voxel; expected 0, 1, 2. Name the "
            "labels and their file values with labels.names and labels.values, or set labels.ignore_value. Values "
            "between whole numbers are what interpolation leaves: resample masks with nearest neighbor, or round them "
            "with labels.tolerance."
        )

    def test_a_tolerance_rounds(self, tmp_path: Path, name: str) -> None:
        labels = LabelMap(["liver", "spleen"], "multiclass", tolerance=0.4)
        assert read_beside_an_image(tmp_path, name, np.array([[0.25, 1.75, 1.0]], np.float32), labels) == [[0, 2, 1]]


@pytest.mark.parametrize(("slope", "inter"), [(1 / 255, 0.0), (1 / 3, 0.0), (0.5, -1.5), (0.1, -1.0)])
def test_a_volume_whose_header_scales_holds_whole_numbers(tmp_path: Path, slope: float, inter: float) -> None:
    image = save_volume(tmp_path / "image.nii", noise((4, 3, 2)))
    wanted = np.random.default_rng(0).integers(0, 3, (4, 3, 2))
    stored = nibabel.Nifti1Image(np.round((wanted - inter) / slope).astype(np.int16), nibabel.load(image).affine)
    stored.header.set_slope_inter(slope, inter)
    # As it stands: nibabel would undo the scaling while it saves.
    raw = stored.header.copy()
    raw["vox_offset"], raw["magic"] = 352, b"n+1"
    (tmp_path / "mask.nii").write_bytes(raw.binaryblock + bytes(4) + np.asarray(stored.dataobj).tobytes(order="F"))
    np.testing.assert_array_equal(read(image, tmp_path / "mask.nii", labels=ORGANS)[0], wanted.T)


def test_a_volume_has_no_colors_and_keeps_to_values(tmp_path: Path) -> None:
    labels = LabelMap(["liver", "spleen"], "multiclass", colors={"liver": (255, 0, 0), "spleen": (0, 255, 0)})
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 5)))
    mask = save_volume(tmp_path / "mask.nii.gz", blocks((6, 7, 5), 1, 2))
    np.testing.assert_array_equal(read(image, mask, labels=labels)[0], blocks((6, 7, 5), 1, 2).T)
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), blocks((5, 7, 6), 2, 1)[None], labels)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "out/p1.nii.gz", labels)[0], blocks((5, 7, 6), 2, 1))


def test_labels_that_have_colors_are_not_read_by_value(tmp_path: Path) -> None:
    labels = LabelMap(["lesion"], "binary", colors={"lesion": (255, 255, 255)})
    image = save_raster(tmp_path / "image.png", noise((9, 12)))
    np.testing.assert_array_equal(
        read(image, save_raster(tmp_path / "a.png", blocks((9, 12), 255)), labels=labels)[0, 0], blocks((9, 12), 1)
    )
    with pytest.raises(
        MaskValueError, match=r"b\.png holds the color \(1, 1, 1\), which no label claims, in 24 pixels"
    ):
        read(image, save_raster(tmp_path / "b.png", blocks((9, 12), 1)), labels=labels)


def test_a_value_that_no_picture_can_hold_is_not_written(tmp_path: Path) -> None:
    image = save_raster(tmp_path / "p1.png", noise((9, 12)))
    for value in (-1, 70_000):
        labels = LabelMap(["lesion"], "binary", values=[value])
        with pytest.raises(SettingError, match=r"p1\.png cannot hold labels\.values from .*; expected 0 to 65535"):
            Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), blocks((9, 12), 1)[None, None], labels)
    assert not (tmp_path / "out").exists()


class TestSlicing:
    """Whatever way a volume is cut, what is written is on the file's own grid."""

    @pytest.mark.parametrize("slicing", ["file", "axial", "coronal", "sagittal", "thick"])
    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**20), dtype=st.sampled_from(["u1", "<i2", ">i2", "<f4"]))
    def test_a_mask_goes_through_unchanged(
        self, tmp_path_factory: pytest.TempPathFactory, slicing: Slicing, seed: int, dtype: str
    ) -> None:
        folder = tmp_path_factory.mktemp("oblique")
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * rng.uniform(0.3, 8.0, 3), rng.uniform(-200, 200, 3)
        header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
        header.set_data_dtype(np.dtype(dtype))
        stored = rng.integers(0, 3, (4, 5, 6)).astype(dtype)
        nibabel.save(nibabel.Nifti1Image(stored, affine, header), folder / "p1.nii")

        source, case = Pairs(folder), Case("p1", "p1", (folder / "p1.nii",), (folder / "p1.nii",))
        source.slicing = slicing
        volume = source.read(case, ORGANS)
        assert volume.mask is not None
        source.write(folder / "out", case, volume.mask, ORGANS)
        # All but the type is the image's, to the last byte
        header.set_data_dtype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(stored.astype(np.uint8), affine, header), folder / "expected.nii")
        assert (folder / "out/p1.nii").read_bytes() == (folder / "expected.nii").read_bytes()

        placed = np.array(nibabel.load(folder / "p1.nii").affine)
        for voxel in np.ndindex(*volume.geometry.shape):
            where = np.array(volume.geometry.affine) @ (*voxel, 1)
            i, j, k = np.round((np.linalg.inv(placed) @ where)[:3]).astype(int)
            np.testing.assert_allclose((placed @ (i, j, k, 1)), where, atol=1e-3)
            assert volume.image[(0, *voxel)] == stored[i, j, k]
            assert volume.mask[(0, *voxel)] == stored[i, j, k]

    def test_every_channel_is_cut_alike(self, tmp_path: Path) -> None:
        paths = tuple(save_volume(tmp_path / f"{n}.nii.gz", noise((6, 7, 5), n)) for n in (0, 1))
        source = Pairs(tmp_path)
        source.slicing = "sagittal"
        image = source.read(Case("p1", "p1", paths), BINARY).image
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(
            image, np.stack([noise((6, 7, 5), n).transpose(0, 2, 1)[:, ::-1, ::-1] for n in (0, 1)])
        )

    def test_without_a_place_a_direction_is_refused(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(noise((6, 7, 5)), None)
        nibabel.save(image, tmp_path / "p1.nii")
        source = Pairs(tmp_path)
        source.slicing = "axial"
        with pytest.raises(GeometryError, match=r"Case p1: .*p1\.nii does not say how it lies, so it cannot be cut as"):
            source.read(Case("p1", "p1", (tmp_path / "p1.nii",)), BINARY)


def test_several_files_of_a_label_are_checked_like_one(tmp_path: Path) -> None:
    grid = CaseGrid(Geometry((1, 9, 12)), Path("image.png"), "image", "export it again")
    paths = [Path("liver_1.png"), Path("liver_2.png"), Path("spleen.png")]
    planes = [blocks((9, 12), 255)[None], blocks((9, 12), 0, 1)[None], blocks((9, 12), 0, 0, 1)[None]]
    masks = [(plane, Geometry((1, 9, 12))) for plane in planes]
    np.testing.assert_array_equal(
        encode_mask_files("p1", paths, masks, ORGANS, grid, [2, 1])[0, 0], blocks((9, 12), 1, 1, 2)
    )
    with pytest.raises(MaskValueError, match=r"liver_2\.png holds the value 7"):
        encode_mask_files("p1", paths, [masks[0], (planes[1] * 7, masks[1][1]), masks[2]], ORGANS, grid, [2, 1])
    with pytest.raises(GeometryError, match=r"has 3 mask files for the 2 labels"):
        encode_mask_files("p1", paths, masks, ORGANS, grid)


def test_the_grid_of_an_image_needs_no_decoding(tmp_path: Path) -> None:
    for path in (save_raster(tmp_path / "a.png", noise((9, 12))), save_volume(tmp_path / "a.nii.gz", noise((6, 7, 5)))):
        assert read_image_geometry(path) == read_image_file(path)[1]


def test_a_mask_with_channels_is_refused(tmp_path: Path) -> None:
    path = save_volume(tmp_path / "mask.nii.gz", np.zeros((4, 4, 3, 2), np.uint8))
    with pytest.raises(UnreadableFileError, match="is a mask with 2 channels; expected one value for each voxel"):
        read_mask_file(path)


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.svg"
    path.write_bytes(b"<svg/>")
    with pytest.raises(UnreadableFileError, match=r"scan\.svg is of no format that is read; expected one of \.png"):
        Pairs(tmp_path).read(Case("p1", "p1", (path,)), BINARY)


@pytest.mark.parametrize(
    ("name", "read"),
    [("a.png", True), ("a.TIFF", True), ("a.nii.gz", True), ("._a.png", False), ("a.csv", False), ("Thumbs.db", False)],
)
def test_images_are_known_by_their_names(name: str, read: bool) -> None:
    assert is_image(Path(name)) is read


@pytest.mark.parametrize("path", ["../outside.png", "images/../../outside.png", "/etc/passwd"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(MissingDataError, match=r"table\.csv names '.*', which lies outside .* Move the file inside"):
        resolve_inside(tmp_path / "root", path, "table.csv")


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    save_raster(tmp_path / "secret.png", noise((4, 4)))
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MissingDataError, match="lies outside"):
        resolve_inside(tmp_path / "root", "link.png", "table.csv")


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(MissingDataError, match=r"table\.csv names '.*', which is no file: .*\. Correct the name\."):
        resolve_inside(tmp_path, path, "table.csv")


def test_a_link_to_a_folder_outside_is_refused(tmp_path: Path) -> None:
    save_raster(tmp_path / "elsewhere" / "a.png", noise((4, 4)))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(MissingDataError, match="lies outside"):
        resolve_inside(tmp_path / "root", "images/a.png", "table.csv")


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    save_raster(tmp_path / "real" / "a.png", noise((4, 4)))
    (tmp_path / "images").symlink_to(tmp_path / "real", target_is_directory=True)
    assert resolve_inside(tmp_path, "images/a.png", "table.csv").is_file()


def test_a_path_with_dots_that_stays_inside_is_fine(tmp_path: Path) -> None:
    assert resolve_inside(tmp_path, "images/../a.png", "table.csv").resolve() == (tmp_path / "a.png").resolve()
