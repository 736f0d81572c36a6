"""A folder of images beside a folder of masks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.commands.phantom import write_phantom
from medseg_pl.core.errors import DataError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource
from medseg_pl.functional.phantom import ORGANS
from tests.contracts.source_contract import SourceContract, Subject
from tests.small_files import blocks, noise, save_raster, save_volume, tree

BINARY = LabelMap(["lesion"], "binary")


def make(root: Path, images: list[str], masks: list[str], folder: str = "masks") -> Path:
    """Files that exist and hold nothing: pairing never looks inside."""
    for path in [*(Path("images", name) for name in images), *(Path(folder, name) for name in masks)]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def pairs(source: FolderSource) -> dict[str, tuple[str, ...]]:
    return {
        case.case_id: tuple(str(path.relative_to(source.root)) for path in (*case.images, *case.masks))
        for case in source.cases()
    }


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("folder") / "data"
    write_phantom(directory, "folder", cases=2, seed=0, slices=6, size=(40, 32))
    return directory


class TestOneMaskWithIds(SourceContract):
    @pytest.fixture
    def subject(self, phantom: Path, tmp_path: Path) -> Subject:
        shutil.copytree(phantom, tmp_path / "data")
        return Subject(
            source=FolderSource(str(tmp_path / "data"), group=r"^(case\d+)_"),
            labels=LabelMap(list(ORGANS), "multiclass"),
            cases=len(list((tmp_path / "data/images").iterdir())),
            images=tmp_path / "data/images",
            again=lambda d: FolderSource(str(tmp_path / "data"), masks=str(d)),
        )


class TestOneFolderForEachLabel(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        organs = ["stomach", "bowel"]
        for seed, name in enumerate(["p1/left.png", "p1/right.tif", "p2/left.bmp"]):
            save_raster(tmp_path / "images" / name, noise((9, 12), seed))
            for number, organ in enumerate(organs):
                mask = blocks((9, 12), *[0] * number, 255, 255)
                save_raster((tmp_path / "masks" / organ / name).with_suffix(".png"), mask)
        return Subject(
            source=FolderSource(str(tmp_path), masks={o: f"masks/{o}" for o in organs}, group="^(p.)/"),
            labels=LabelMap(organs, "multilabel"),
            cases=3,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks={o: str(d / o) for o in organs}),
        )

    def test_a_sub_folder_is_part_of_the_name(self, subject: Subject) -> None:
        cases = subject.source.cases()
        assert [(case.case_id, case.group) for case in cases] == [
            ("p1/left", "p1"),
            ("p1/right", "p1"),
            ("p2/left", "p2"),
        ]


class TestVolumes(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["sub-02", "sub-01"]):
            image = noise((6, 7, 5), seed, dtype=np.int16)
            save_volume(tmp_path / "images" / f"{name}.nii.gz", image, spacing_mm=(0.5, 0.5, 7.5))
            mask = blocks((6, 7, 5), 1)
            mask[..., 4] = 9
            save_volume(tmp_path / "masks" / f"{name}_seg.nii.gz", mask, spacing_mm=(0.5, 0.5, 7.5))
        return Subject(
            source=FolderSource(str(tmp_path), mask_name="{stem}_seg"),
            labels=LabelMap(["cord"], "binary", values=[1], ignore_value=9),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d)),
        )


def test_suffixes_may_differ(tmp_path: Path) -> None:
    source = FolderSource(str(make(tmp_path, ["a.jpg", "b.nii.gz", "c.v2.TIF"], ["a.png", "b.nii", "c.v2.png"])))
    assert pairs(source) == {
        "a": ("images/a.jpg", "masks/a.png"),
        "b": ("images/b.nii.gz", "masks/b.nii"),
        "c.v2": ("images/c.v2.TIF", "masks/c.v2.png"),
    }


def test_a_pattern_names_the_mask(tmp_path: Path) -> None:
    root = make(tmp_path, ["p1/a.png", "p1/b.png"], ["p1/lesion-a_seg.png", "p1/lesion-b_seg.png"])
    assert pairs(FolderSource(str(root), mask_name="lesion-{stem}_seg")) == {
        "p1/a": ("images/p1/a.png", "masks/p1/lesion-a_seg.png"),
        "p1/b": ("images/p1/b.png", "masks/p1/lesion-b_seg.png"),
    }


def test_files_that_are_no_images_are_left_alone(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "Thumbs.db", "._a.png", "notes.txt"], ["a.png", "a.json"])
    assert list(pairs(FolderSource(str(root)))) == ["a"]


def test_images_without_masks(tmp_path: Path) -> None:
    source = FolderSource(str(make(tmp_path, ["a.png"], [])), masks=None)
    assert pairs(source) == {"a": ("images/a.png",)}


def test_images_without_a_mask_are_counted_and_named(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "b.png", "c.png", "d.png", "e.png"], ["a.png"])
    before = tree(tmp_path)
    with pytest.raises(MissingDataError) as error:
        FolderSource(str(root)).cases()
    shown = ", ".join(str(root / "images" / f"{name}.png") for name in "bcd")
    assert str(error.value) == (
        f"4 of 5 images have no mask in {root / 'masks'}: {shown} and 1 more; expected the name '{{stem}}'. "
        "Add the masks, move the images away, or set data.source.mask_name."
    )
    assert tree(tmp_path) == before


def test_masks_without_an_image_are_counted_and_named(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png"], ["a.png", "b.png"])
    with pytest.raises(MissingDataError) as error:
        FolderSource(str(root)).cases()
    assert str(error.value) == (
        f"1 of 2 masks belong to no image in {root / 'images'}: {root / 'masks/b.png'}. "
        "Add the images, move the masks away, or set data.source.mask_name."
    )


def test_the_folder_of_the_label_that_lacks_a_mask_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "b.png"], ["a.png", "b.png"], folder="organs/liver")
    make(tmp_path, [], ["a.png"], folder="organs/spleen")
    source = FolderSource(str(root), masks={"liver": "organs/liver", "spleen": "organs/spleen"})
    with pytest.raises(MissingDataError, match=f"1 of 2 images have no mask in {root / 'organs/spleen'}: .*b.png"):
        source.cases()


def test_two_images_of_one_name_cannot_be_told_apart(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.jpg", "a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name, so images cannot be told apart"):
        FolderSource(str(root)).cases()


def test_two_masks_of_one_name_cannot_be_told_apart(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.jpg"], ["a.bmp", "a.png"])
    with pytest.raises(DataError, match=r"a\.bmp and .*a\.png have the same name, so masks cannot be told apart"):
        FolderSource(str(root)).cases()


@pytest.mark.parametrize(("missing", "setting"), [("images", "data.source.root"), ("masks", "data.source.masks")])
def test_a_missing_folder_names_the_setting(tmp_path: Path, missing: str, setting: str) -> None:
    root = make(tmp_path, ["a.png"], ["a.png"])
    (root / missing / "a.png").unlink()
    (root / missing).rmdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MissingDataError, match=f"Expected {missing} in the folder .*{missing}, found nothing there"):
        FolderSource(str(root)).cases()
    with pytest.raises(MissingDataError, match=setting):
        FolderSource(str(root)).cases()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_place_of_a_folder_is_called_a_file(tmp_path: Path) -> None:
    make(tmp_path, ["a.png"], [])
    (tmp_path / "masks").touch()
    with pytest.raises(MissingDataError, match="masks, found a file there"):
        FolderSource(str(tmp_path)).cases()


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, ["readme.txt"], [])
    with pytest.raises(MissingDataError, match=r"images holds no image that can be read\. Set data\.source\.root"):
        FolderSource(str(tmp_path), masks=None).cases()


@pytest.mark.parametrize("name", ["mask", "{stem}_{organ}", "{stem}/mask", "{0}"])
def test_the_mask_name_must_hold_the_images_name_and_no_more(name: str) -> None:
    with pytest.raises(SettingError) as error:
        FolderSource("data", mask_name=name)
    assert str(error.value) == (
        f"data.source.mask_name must contain {{stem}}, the image's name, and no other braces or slashes; got {name!r}."
    )


def test_a_broken_pattern_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match=r"data\.source\.group .* is not a regular expression"):
        FolderSource("data", group="(p")


def test_a_name_that_the_pattern_misses_is_an_error(tmp_path: Path) -> None:
    source = FolderSource(str(make(tmp_path, ["p1.png", "x.png"], ["p1.png", "x.png"])), group=r"p(\d)")
    with pytest.raises(DataError, match="does not match the case 'x'"):
        source.cases()


def test_folders_in_another_order_than_the_labels_are_refused(tmp_path: Path) -> None:
    save_raster(tmp_path / "images/a.png", noise((9, 12)))
    for organ in ("liver", "spleen"):
        save_raster(tmp_path / organ / "a.png", blocks((9, 12), 1))
    source = FolderSource(str(tmp_path), masks={"spleen": "spleen", "liver": "liver"})
    with pytest.raises(SettingError) as error:
        source.read(source.cases()[0], LabelMap(["liver", "spleen"], "multilabel"))
    assert str(error.value) == (
        "data.source.masks names the masks spleen, liver, but labels.names is liver, spleen. "
        "Name the same labels in the same order on both sides."
    )


def test_a_one_bit_mask_and_a_photograph(tmp_path: Path) -> None:
    photograph = noise((9, 12, 3))
    save_raster(tmp_path / "images/a.png", photograph)
    save_raster(tmp_path / "masks/a.png", blocks((9, 12), 1).astype(bool))
    source = FolderSource(str(tmp_path))
    volume = source.read(source.cases()[0], BINARY)
    np.testing.assert_array_equal(volume.image[:, 0], photograph.transpose(2, 0, 1))
    np.testing.assert_array_equal(volume.mask, blocks((9, 12), 1)[None, None])
    assert volume.geometry.spacing_mm is None


def test_a_stray_value_names_the_mask(tmp_path: Path) -> None:
    save_raster(tmp_path / "images/a.png", noise((9, 12)))
    save_raster(tmp_path / "masks/a.png", blocks((9, 12), 255, 254))
    source = FolderSource(str(tmp_path))
    with pytest.raises(MaskValueError, match=r"masks/a\.png holds the value 254, which no label claims"):
        source.read(source.cases()[0], BINARY)


@pytest.mark.realdata
def test_retinal_photographs_have_two_eyes_a_child(real_data: Path) -> None:
    source = FolderSource(str(real_data / "chase_db1"), masks="masks_1st", group=r"Image_(\d+)")
    cases = source.cases()
    assert (len(cases), len({case.group for case in cases})) == (28, 14)
    volume = source.read(cases[0], LabelMap(["vessel"], "binary"))
    assert (volume.image.shape, volume.image.dtype) == ((3, 1, 960, 999), np.uint8)
    assert volume.mask is not None
    assert 0.04 < volume.mask.mean() < 0.12  # vessels cover some 7 % of a fundus photograph


@pytest.mark.realdata
def test_every_nucleus_image_has_its_mask(real_data: Path) -> None:
    source = FolderSource(str(real_data / "nuclei"))
    cases = source.cases()
    assert len(cases) == 100
    volumes = [source.read(case, LabelMap(["nucleus"], "binary")) for case in cases[:10]]
    assert all(volume.image.shape[1:] == (1, 256, 256) for volume in volumes)
    assert all(volume.mask is not None and set(np.unique(volume.mask)) == {0, 1} for volume in volumes)
