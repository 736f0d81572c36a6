"""Image files with mask files: channels, grids, values, formats."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_pl.core.errors import GeometryError, MaskValueError, MissingDataError, UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.files import FileSource, inside, is_image, read_mask_file
from medseg_pl.io.raster import read_mask
from tests.contracts.source_contract import SourceContract, Subject
from tests.small_files import blocks, noise, save_raster, save_volume, tree

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

    def unlabelled(self, directory: Path) -> Source:
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
        (grid_change(0, scale=-1, shift=5), "5.0"),  # mirrored in place: the first of six columns is the last
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
        f"Case p1: {mask} has the image's shape but lies elsewhere in space: its affine puts a corner {voxels} voxels "
        f"from where {image} has it (flipped, shifted, or of another spacing). Export the mask again from this image, "
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
    with pytest.raises(GeometryError, match=r"1\.nii\.gz has the image's shape but .* 3\.0 voxels from where .*0\.nii"):
        Pairs(tmp_path).read(Case("p1", "p1", (first, second)), BINARY)


def test_each_of_several_masks_is_checked(tmp_path: Path) -> None:
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 7, 5)))
    liver = save_volume(tmp_path / "liver.nii.gz", blocks((6, 7, 5), 1))
    spleen = save_volume(tmp_path / "spleen.nii.gz", blocks((6, 7, 5), 1), moved=grid_change(2, shift=1))
    with pytest.raises(GeometryError, match=r"spleen\.nii\.gz has the image's shape but lies elsewhere in space"):
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
    with pytest.raises(GeometryError, match=r"has 1 mask file\(s\) for the 2 labels liver, spleen\. .* use the task"):
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
    assert written.get_data_dtype() == template.get_data_dtype()
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, blocks((5, 7, 6), 1, 2))


def test_a_label_value_that_the_image_type_cannot_hold_survives(tmp_path: Path) -> None:
    labels = LabelMap(["liver", "spleen"], "multiclass", values=[40, 700])
    image = save_volume(tmp_path / "p1.nii.gz", noise((6, 7, 5)))
    Pairs(tmp_path).write(tmp_path / "out", Case("p1", "p1", (image,)), blocks((5, 7, 6), 1, 2)[None], labels)
    np.testing.assert_array_equal(labels.encode(read_mask_file(tmp_path / "out/p1.nii.gz")[0]), blocks((5, 7, 6), 1, 2))


def test_a_mask_with_channels_is_refused(tmp_path: Path) -> None:
    path = save_volume(tmp_path / "mask.nii.gz", np.zeros((4, 4, 3, 2), np.uint8))
    with pytest.raises(UnreadableFileError, match="is a mask with 2 channels; expected one value for each voxel"):
        read_mask_file(path)


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    path.write_bytes(b"ObjectType = Image")
    with pytest.raises(UnreadableFileError, match=r"scan\.mha is of no format that is read; expected one of \.png"):
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
        inside(tmp_path / "root", path, "table.csv")


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    save_raster(tmp_path / "secret.png", noise((4, 4)))
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MissingDataError, match="lies outside"):
        inside(tmp_path / "root", "link.png", "table.csv")


def test_a_path_with_dots_that_stays_inside_is_fine(tmp_path: Path) -> None:
    assert inside(tmp_path, "images/../a.png", "table.csv").resolve() == (tmp_path / "a.png").resolve()
