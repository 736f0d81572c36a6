"""Masks by name: from the image's name, and segmentations of 3D Slicer, written by SimpleITK with Slicer's fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.checks.inspection import inspect_case
from medseg_pl.checks.layout_detection import detect_dataset
from medseg_pl.core.errors import GeometryError, MaskValueError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.sources.named_masks import MaskPattern, parse_mask_path
from tests.sample_files import noise

LETTERS = st.text("ab_*.[(", min_size=1, max_size=6).filter(lambda name: name.strip("."))

SHAPE = (5, 10, 12)

LIVER, SPLEEN = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)

LIVER[1:4, 2:6, 3:8] = True

SPLEEN[2:4, 5:9, 6:10] = True

ORGANS = LabelMap(["liver", "spleen"], "multiclass")

OVERLAPPING = LabelMap(["liver", "spleen"], "multilabel")

TURN = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def at(name: str) -> MaskPattern:
    return MaskPattern("masks", name, "data.source.mask_name")


class TestFound:
    @pytest.mark.parametrize(
        ("name", "image", "found"),
        [
            ("{stem}", "a", ["a"]),
            ("{stem}_seg", "a", ["a_seg"]),
            ("{stem}_*", "a", ["a_1", "a_2", "a_seg"]),
            ("{stem}*", "a", ["a", "a_1", "a_2", "a_seg", "ab", "ab_1"]),
            ("{stem}/*", "a", ["a/1", "a/2"]),
            ("{stem}/{stem}_*", "p1/c", ["p1/c/c_1"]),
            ("*_{stem}", "a", ["x_a", "y_a"]),
            ("{stem}_*", "p1/b", ["p1/b_1"]),
            ("{stem}", "gone", []),
        ],
    )
    def test_names_that_follow_from_the_image(self, name: str, image: str, found: list[str]) -> None:
        names = [
            "a",
            "a_1",
            "a_2",
            "a_seg",
            "ab",
            "ab_1",
            "a/1",
            "a/2",
            "a/deeper/3",
            "p1/b_1",
            "p1/c/c_1",
            "x_a",
            "y_a",
        ]
        assert at(name).find_masks(image, sorted(names)) == sorted(found)

    def test_what_stands_for_something_in_a_pattern_is_a_letter_in_a_name(self) -> None:
        assert at("{stem}_*").find_masks("scan (1) [b].v2", ["scan (1) [b].v2_mask", "scan (1) b-v2_mask"]) == [
            "scan (1) [b].v2_mask"
        ]
        assert at("{stem}").find_masks("a*", sorted(["a*", "ab"])) == ["a*"]
        assert at("{stem}").find_masks("{stem}", ["a", "{stem}"]) == ["{stem}"]

    @given(image=LETTERS, others=st.lists(LETTERS, max_size=8))
    def test_a_plain_name_is_found_exactly_once(self, image: str, others: list[str]) -> None:
        names = sorted({f"{name}_seg" for name in (image, *others)})
        assert at("{stem}_seg").find_masks(image, names) == [f"{image}_seg"]


class TestPlaceOf:
    @pytest.mark.parametrize(
        ("text", "folder", "name"),
        [
            ("masks", "masks", "{stem}_seg"),
            (".", ".", "{stem}_seg"),
            ("/data/masks", "/data/masks", "{stem}_seg"),
            ("masks/{stem}", "masks", "{stem}"),
            ("masks/liver/{stem}_liver", "masks/liver", "{stem}_liver"),
            ("/data/{stem}/*", "/data", "{stem}/*"),
            ("{stem}/masks/*", ".", "{stem}/masks/*"),
        ],
    )
    def test_a_folder_or_the_path_of_a_mask(self, text: str, folder: str, name: str) -> None:
        found = parse_mask_path(text, "{stem}_seg", "data.source.masks")
        assert (found.folder, found.name) == (folder, name)
        assert found.setting == f"data.source.{'masks' if '{stem}' in text else 'mask_name'}"
        assert found.several == ("*" in name)

    @pytest.mark.parametrize("name", ["mask", "*", "{stem}_{organ}", "{0}"])
    def test_a_name_depends_on_the_image_and_on_nothing_else(self, name: str) -> None:
        with pytest.raises(SettingError) as error:
            parse_mask_path("masks", name, "data.source.masks")
        assert str(error.value) == (
            f"data.source.mask_name must contain {{stem}}, the image's name, and no other braces; got {name!r}."
        )

    def test_so_does_the_path_of_a_mask(self) -> None:
        with pytest.raises(SettingError, match=r"data\.source\.masks must contain .* got '\{stem\}_\{organ\}'"):
            parse_mask_path("masks/{stem}_{organ}", "{stem}", "data.source.masks")

    @pytest.mark.parametrize("text", ["masks/*", "mask*/{stem}", "masks/{organ}"])
    def test_a_folder_does_not(self, text: str) -> None:
        with pytest.raises(SettingError, match=r"names no single folder\. Write the path of a mask, such as 'masks/"):
            parse_mask_path(text, "{stem}", "data.source.masks")


def placed(image: sitk.Image, start: tuple[int, int, int] = (0, 0, 0)) -> sitk.Image:
    """Lay an image on the oblique grid of all, from the voxel `start` `(x, y, z)` on."""
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetDirection(TURN)
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([float(index) for index in start]))
    return image


def save(
    root: Path, layers: list[np.ndarray], segments: list[tuple[str, int, int]], start: tuple[int, int, int] = (0, 0, 0)
) -> FolderSource:
    """Save an image `p1.nrrd` and its segmentation, whose segments are name, value and layer."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(placed(sitk.GetImageFromArray(noise(SHAPE, dtype=np.int16))), str(root / "images/p1.nrrd"))
    several = len(layers) > 1
    image = sitk.GetImageFromArray(np.stack(layers, axis=-1) if several else layers[0], isVector=several)
    placed(image, start)
    for number, (name, value, layer) in enumerate(segments):
        for field, text in {"Name": name, "LabelValue": str(value), "Layer": str(layer)}.items():
            image.SetMetaData(f"Segment{number}_{field}", text)
    sitk.WriteImage(image, str(root / "masks/p1.seg.nrrd"), useCompression=True)
    return FolderSource(str(root), mask_name="{stem}.seg")


def read(source: FolderSource, labels: LabelMap) -> np.ndarray:
    mask = source.read(source.cases()[0], labels).mask
    assert mask is not None
    return mask


EXCLUSIVE = np.where(SPLEEN, 1, np.where(LIVER, 2, 0)).astype(np.uint8)
"""Slicer counts segments as they were made: here the spleen came first."""


def test_segments_are_known_by_name_and_not_by_value(tmp_path: Path) -> None:
    source = save(tmp_path, [EXCLUSIVE], [("Spleen", 1, 0), ("Liver", 2, 0)])
    np.testing.assert_array_equal(read(source, ORGANS)[0], np.where(SPLEEN, 2, np.where(LIVER, 1, 0)))


def test_values_count_where_they_are_given(tmp_path: Path) -> None:
    source = save(tmp_path, [EXCLUSIVE], [("Segment_1", 1, 0), ("Segment_2", 2, 0)])
    labels = LabelMap(["liver", "spleen"], "multiclass", [2, 1])
    np.testing.assert_array_equal(read(source, labels)[0], np.where(SPLEEN, 2, np.where(LIVER, 1, 0)))


def test_names_that_no_label_has_are_refused(tmp_path: Path) -> None:
    source = save(tmp_path, [EXCLUSIVE], [("Segment_1", 1, 0), ("Liver", 2, 0)])
    with pytest.raises(MaskValueError, match=r"p1\.seg\.nrrd holds the segments 'Segment_1' \(1\).*labels\.values"):
        read(source, ORGANS)


def test_layers_may_overlap(tmp_path: Path) -> None:
    layers = [LIVER.astype(np.uint8), SPLEEN.astype(np.uint8)]
    source = save(tmp_path, layers, [("liver", 1, 0), ("spleen", 1, 1)])
    np.testing.assert_array_equal(read(source, OVERLAPPING), np.stack(layers))
    with pytest.raises(MaskValueError, match="carry more than one label"):
        read(source, ORGANS)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_part_of_the_grid_is_put_in_its_place(tmp_path: Path, layers: int) -> None:
    part = EXCLUSIVE[1:4, 2:9, 3:10]
    segments = [("spleen", 1, 0), ("liver", 2, layers - 1)]
    source = save(tmp_path, [part] * layers, segments, start=(3, 2, 1))
    np.testing.assert_array_equal(read(source, ORGANS)[0], np.where(SPLEEN, 2, np.where(LIVER, 1, 0)))


def test_a_part_may_reach_beyond_the_image_where_it_is_empty(tmp_path: Path) -> None:
    larger = np.pad(EXCLUSIVE, 2)
    source = save(tmp_path, [larger], [("spleen", 1, 0), ("liver", 2, 0)], start=(-2, -2, -2))
    np.testing.assert_array_equal(read(source, ORGANS)[0], np.where(SPLEEN, 2, np.where(LIVER, 1, 0)))
    larger[0] = 1
    source = save(tmp_path, [larger], [("spleen", 1, 0), ("liver", 2, 0)], start=(-2, -2, -2))
    with pytest.raises(GeometryError, match=r"p1\.seg\.nrrd marks voxels outside its image"):
        read(source, ORGANS)


@pytest.mark.parametrize("change", ["spacing", "half a voxel"])
def test_another_grid_is_refused(tmp_path: Path, change: str) -> None:
    source = save(tmp_path, [EXCLUSIVE], [("spleen", 1, 0), ("liver", 2, 0)])
    path = tmp_path / "masks/p1.seg.nrrd"
    image = sitk.ReadImage(str(path))
    if change == "spacing":
        image.SetSpacing((0.7, 0.8, 3.5))
    else:
        image.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([0.5, 0.0, 0.0]))
    sitk.WriteImage(image, str(path))
    with pytest.raises(GeometryError, match=r"p1\.seg\.nrrd lies on another grid than its image"):
        read(source, ORGANS)


def test_a_label_that_was_not_drawn_is_absent(tmp_path: Path) -> None:
    source = save(tmp_path, [LIVER.astype(np.uint8)], [("liver", 1, 0)])
    np.testing.assert_array_equal(read(source, ORGANS)[0], LIVER)


def test_check_and_plan_take_the_names_of_the_segments(tmp_path: Path) -> None:
    source = save(tmp_path, [EXCLUSIVE], [("Spleen", 1, 0), ("Liver", 2, 0)])
    (tmp_path / "masks/p1.seg.nrrd").rename(tmp_path / "masks/p1.nrrd")  # the fields count, not the name
    found = detect_dataset(tmp_path)
    assert found.labels == LabelMap(["Spleen", "Liver"], "multiclass")
    (case,) = found.source.cases()
    facts = inspect_case(found.source, case, labels=found.labels, root=tmp_path)
    assert not facts.findings
    assert {each.value[0]: each.voxels for each in facts.masks[0].values if each.value[0]} == {
        1.0: int(SPLEEN.sum()),
        2.0: int((LIVER & ~SPLEEN).sum()),
    }
    facts = inspect_case(source, case, labels=ORGANS, root=tmp_path)
    assert not facts.findings
    facts = inspect_case(source, case, labels=LabelMap(["liver"], "binary"), root=tmp_path)
    assert [finding.code for finding in facts.findings] == ["mask-unknown-value"]
