"""A folder of images beside a folder of masks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from medseg_pl.checks.file_checks import list_cases
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource, ManifestSource
from medseg_pl.data.synthetic import ORGANS
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

BINARY = LabelMap(["lesion"], "binary")
RED, YELLOW = (255, 0, 0), (255, 255, 0)
PALETTE = np.array([(0, 0, 0), RED, YELLOW], np.uint8)


def make(root: Path, images: list[str], masks: list[str], folder: str = "masks") -> Path:
    """Files that exist and hold nothing: pairing never looks inside."""
    for path in [*(Path("images", name) for name in images), *(Path(folder, name) for name in masks)]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


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


class TestOneSuffixForEachLabel(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        organs = ["stomach", "bowel"]
        for seed, name in enumerate(["p1/left", "p2/left"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            for number, organ in enumerate(organs):
                mask = blocks((9, 12), *[0] * number, 255, 255)
                save_raster(tmp_path / "masks" / f"{name}_{organ}.png", mask)
        return Subject(
            source=FolderSource(str(tmp_path), masks={o: f"masks/{{stem}}_{o}" for o in organs}),
            labels=LabelMap(organs, "multilabel"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks={o: str(d / o) for o in organs}),
        )


class TestSeveralFilesOfOneLabel(SourceContract):
    """A file for each nucleus, as competitions hand them out."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["b", "a", "a_b"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            for number in range(seed + 1):
                save_raster(tmp_path / "masks" / name / f"{number}.png", blocks((9, 12), *[0] * number, 255))
        return Subject(
            source=FolderSource(str(tmp_path), mask_name="{stem}/*"),
            labels=LabelMap(["nucleus"], "binary"),
            cases=3,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d)),
        )

    def test_the_label_is_where_any_of_them_has_it(self, subject: Subject) -> None:
        cases = subject.source.cases()
        assert [(case.case_id, len(case.masks)) for case in cases] == [("a", 2), ("a_b", 3), ("b", 1)]
        mask = subject.source.read(cases[1], subject.labels).mask
        np.testing.assert_array_equal(mask, blocks((9, 12), 1, 1, 1)[None, None])


class TestSeveralFilesOfSeveralLabels(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["a", "b"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            save_raster(tmp_path / "masks" / f"{name}_cell.png", blocks((9, 12), 255))
            for number in (1, 2):
                save_raster(tmp_path / "masks" / f"{name}_debris_{number}.png", blocks((9, 12), *[0] * number, 255))
        return Subject(
            source=FolderSource(str(tmp_path), masks={"cell": "masks/{stem}_cell*", "debris": "masks/{stem}_debris_*"}),
            labels=LabelMap(["cell", "debris"], "multiclass"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d)),
        )

    def test_each_file_goes_to_its_label(self, subject: Subject) -> None:
        mask = subject.source.read(subject.source.cases()[0], subject.labels).mask
        np.testing.assert_array_equal(mask, blocks((9, 12), 1, 2, 2)[None, None])

    def test_files_without_a_label_cannot_be_told_apart(self, subject: Subject, tmp_path: Path) -> None:
        source = FolderSource(str(tmp_path), mask_name="{stem}_*")
        with pytest.raises(GeometryError, match=r"Case a has 3 mask files for the 2 labels cell, debris"):
            source.read(source.cases()[0], subject.labels)


class TestColors(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["a", "b"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            save_raster(tmp_path / "masks" / f"{name}.png", PALETTE[blocks((9, 12), 1, 2)])
        return Subject(
            source=FolderSource(str(tmp_path)),
            labels=LabelMap(["liver", "spleen"], "multiclass", colors={"liver": RED, "spleen": YELLOW}),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d)),
        )

    def test_a_prediction_has_the_same_colors(self, subject: Subject, tmp_path: Path) -> None:
        (case, _), mask = subject.source.cases(), blocks((9, 12), 2, 1)[None, None]
        subject.source.write(tmp_path / "out", case, mask, subject.labels)
        with Image.open(tmp_path / "out/a.png") as written:
            assert written.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(written), PALETTE[blocks((9, 12), 2, 1)])

    def test_another_color_names_the_file(self, subject: Subject, tmp_path: Path) -> None:
        pixels = PALETTE[blocks((9, 12), 1, 2)].copy()
        pixels[0, :3] = (0, 0, 255)
        (tmp_path / "masks/a.png").unlink()
        path = save_raster(tmp_path / "masks/a.png", pixels)
        with pytest.raises(MaskValueError) as error:
            subject.source.read(subject.source.cases()[0], subject.labels)
        assert str(error.value) == (
            f"{path} holds the color (0, 0, 255), which no label claims, in 3 pixels; expected (0, 0, 0), (255, 0, "
            "0), (255, 255, 0). Name the labels and their colors with labels.names and labels.colors."
        )


class TestColorsInFilesOfTheirOwn(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        organs = ["liver", "spleen"]
        for seed, name in enumerate(["a", "b"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            save_raster(tmp_path / "liver" / f"{name}.png", PALETTE[blocks((9, 12), 1, 1)])
            save_raster(tmp_path / "spleen" / f"{name}.png", PALETTE[blocks((9, 12), 0, 2, 2)])
        return Subject(
            source=FolderSource(str(tmp_path), masks={o: o for o in organs}),
            labels=LabelMap(organs, "multilabel", colors={"liver": RED, "spleen": YELLOW}),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks={o: str(d / o) for o in organs}),
        )


@pytest.mark.parametrize("slicing", ["axial", "coronal", "sagittal", "thick"])
class TestSlicing(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path, slicing: Slicing) -> Subject:
        for seed, name in enumerate(["b", "a"]):
            image = noise((6, 7, 5), seed, dtype=np.int16)
            save_volume(tmp_path / "images" / f"{name}.nii.gz", image, spacing_mm=(7.5, 0.5, 0.6))
            save_volume(tmp_path / "masks" / f"{name}.nii.gz", blocks((6, 7, 5), 1, 2), spacing_mm=(7.5, 0.5, 0.6))
        return Subject(
            source=FolderSource(str(tmp_path), slicing=slicing),
            labels=LabelMap(["liver", "spleen"], "multiclass"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: FolderSource(str(tmp_path), masks=str(d), slicing=slicing),
        )

    def test_volumes_are_cut_across_the_axis(self, subject: Subject, slicing: Slicing) -> None:
        volume = subject.source.read(subject.source.cases()[1], subject.labels)
        # The file's axes run to the right, to the front and to the head; the first one is the thick one.
        axes = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1), "thick": (0, 2, 1)}[slicing]
        runs = {"axial": (1, -1, -1), "coronal": (-1, -1, -1), "sagittal": (1, -1, -1), "thick": (1, 1, 1)}[slicing]
        turned = tuple(slice(None, None, run) for run in runs)
        np.testing.assert_array_equal(volume.image[0], noise((6, 7, 5), 0, dtype=np.int16).transpose(axes)[turned])
        assert volume.mask is not None
        np.testing.assert_array_equal(volume.mask[0], blocks((6, 7, 5), 1, 2).transpose(axes)[turned])
        assert volume.geometry.spacing_mm == pytest.approx([(7.5, 0.5, 0.6)[axis] for axis in axes])

    def test_another_cut_is_read_anew(self, subject: Subject, tmp_path: Path) -> None:
        plain = FolderSource(str(tmp_path))
        assert plain.reading_settings() != subject.source.reading_settings()


class TestOneFolderForAll:
    def test_a_file_that_is_the_mask_of_an_image_is_no_image(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "a_mask.png", "p1/b (1).png", "p1/b (1)_mask.png")
        assert pairs(FolderSource(str(tmp_path), images=".", masks=".", mask_name="{stem}_mask")) == {
            "a": ("a.png", "a_mask.png"),
            "p1/b (1)": ("p1/b (1).png", "p1/b (1)_mask.png"),
        }

    def test_masks_may_lie_below_the_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "masks/a.png")
        assert pairs(FolderSource(str(tmp_path), images=".")) == {"a": ("a.png", "masks/a.png")}

    def test_several_masks_of_an_image(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "a_mask.png", "a_mask_1.png", "b.png", "b_mask.png")
        assert pairs(FolderSource(str(tmp_path), images=".", masks=".", mask_name="{stem}_mask*")) == {
            "a": ("a.png", "a_mask.png", "a_mask_1.png"),
            "b": ("b.png", "b_mask.png"),
        }

    def test_an_image_without_a_mask_is_still_one(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "a_mask.png", "b.png", "c_mask.png")
        with pytest.raises(
            MissingDataError, match=r"2 of 3 images have no mask in .*: .*b\.png, .*c_mask\.png; expected"
        ):
            FolderSource(str(tmp_path), images=".", masks=".", mask_name="{stem}_mask").cases()

    @pytest.mark.parametrize("name", ["{stem}", "{stem}*"])
    def test_an_image_is_not_its_own_mask(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, "a.png", "a_mask.png")
        with pytest.raises(SettingError) as error:
            FolderSource(str(tmp_path), images=".", masks=".", mask_name=name).cases()
        assert str(error.value) == (
            f"2 images would be masks of themselves: {tmp_path / 'a.png'}, {tmp_path / 'a_mask.png'}. Where images and "
            "masks share a folder, set data.source.mask_name to what sets them apart, such as '{stem}_mask'."
        )


def test_a_mask_of_two_images_is_refused(tmp_path: Path) -> None:
    make(tmp_path, ["a.png", "a_b.png"], ["a_1.png", "a_b_1.png"])
    with pytest.raises(DataError) as error:
        FolderSource(str(tmp_path), mask_name="{stem}_*").cases()
    assert str(error.value) == (
        f"1 mask belongs to several images or labels: {tmp_path / 'masks/a_b_1.png'}. Make the names in "
        "data.source.masks or data.source.mask_name tell them apart."
    )


def test_a_mask_of_two_labels_is_refused(tmp_path: Path) -> None:
    make(tmp_path, ["a.png"], ["a.png"])
    with pytest.raises(DataError, match="1 mask belongs to several images or labels"):
        FolderSource(str(tmp_path), masks={"liver": "masks", "spleen": "masks"}).cases()


def test_labels_that_share_a_folder_leave_nothing_over(tmp_path: Path) -> None:
    make(tmp_path, ["a.png"], ["a_liver.png", "a_spleen.png", "a_kidney.png"])
    source = FolderSource(str(tmp_path), masks={o: f"masks/{{stem}}_{o}" for o in ("liver", "spleen")})
    with pytest.raises(MissingDataError) as error:
        source.cases()
    assert str(error.value) == (
        f"1 of 3 masks belongs to no image in {tmp_path / 'images'}: {tmp_path / 'masks/a_kidney.png'}. "
        "Add the images, move the masks away, or set data.source.masks."
    )


def test_the_place_that_has_no_mask_is_named(tmp_path: Path) -> None:
    make(tmp_path, ["a.png", "b.png"], ["a_liver.png", "a_spleen.png", "b_liver.png"])
    source = FolderSource(str(tmp_path), masks={o: f"masks/{{stem}}_{o}" for o in ("liver", "spleen")})
    with pytest.raises(
        MissingDataError, match=r"1 of 2 .* expected names after the pattern '\{stem\}_spleen'\. .* data\.source\.masks"
    ):
        source.cases()


def test_another_division_among_the_labels_is_read_anew() -> None:
    settings = [
        FolderSource("data", masks={"a": f"m/{{stem}}_{first}*", "b": f"m/{{stem}}_{second}*"}).reading_settings()
        for first, second in (("1", "2"), ("2", "1"))
    ]
    assert settings[0] != settings[1]


def test_a_picture_cannot_be_cut(tmp_path: Path) -> None:
    save_raster(tmp_path / "images/a.png", noise((9, 12)))
    source = FolderSource(str(tmp_path), masks=None, slicing="sagittal")
    with pytest.raises(GeometryError, match=r"Case a: .*images/a\.png does not say how it lies, so it cannot be cut"):
        source.read(source.cases()[0], BINARY)


def test_without_masks_volumes_are_cut_alike(tmp_path: Path) -> None:
    assert FolderSource(str(tmp_path), slicing="thick").open_unlabeled(tmp_path).slicing == "thick"


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


def test_what_is_hidden_is_left_alone(tmp_path: Path) -> None:
    """What a notebook keeps of images that were opened in it, and what a prediction notes among the masks it wrote."""
    make(tmp_path, ["a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png"], ["a.png", ".medseg/notes/1f.png"])
    assert pairs(FolderSource(str(tmp_path))) == {"a": ("images/a.png", "masks/a.png")}
    (case,) = FolderSource(str(tmp_path)).open_unlabeled(tmp_path / "images").cases()
    assert case.case_id == "a"


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
        f"4 of 5 images have no mask in {root / 'masks'}: {shown} and 1 more; expected names after the "
        "pattern '{stem}'. Add the masks, move the images away, or set data.source.mask_name."
    )
    assert tree(tmp_path) == before


def test_masks_without_an_image_are_counted_and_named(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png"], ["a.png", "b.png"])
    with pytest.raises(MissingDataError) as error:
        FolderSource(str(root)).cases()
    assert str(error.value) == (
        f"1 of 2 masks belongs to no image in {root / 'images'}: {root / 'masks/b.png'}. "
        "Add the images, move the masks away, or set data.source.mask_name."
    )


def test_the_folder_of_the_label_that_lacks_a_mask_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ["a.png", "b.png"], ["a.png", "b.png"], folder="organs/liver")
    make(tmp_path, [], ["a.png"], folder="organs/spleen")
    source = FolderSource(str(root), masks={"liver": "organs/liver", "spleen": "organs/spleen"})
    with pytest.raises(MissingDataError, match=f"1 of 2 images has no mask in {root / 'organs/spleen'}: .*b.png"):
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


@pytest.mark.parametrize("name", ["mask", "{stem}_{organ}", "{0}"])
def test_the_mask_name_must_hold_the_images_name_and_no_more(name: str) -> None:
    with pytest.raises(SettingError) as error:
        FolderSource("data", mask_name=name)
    assert str(error.value) == (
        f"data.source.mask_name must contain {{stem}}, the image's name, and no other braces; got {name!r}."
    )


def test_a_broken_pattern_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match=r"data\.source\.group .* is not a regular expression"):
        FolderSource("data", group="(p")


def test_a_name_that_the_pattern_misses_is_an_error(tmp_path: Path) -> None:
    source = FolderSource(str(make(tmp_path, ["p1.png", "x.png"], ["p1.png", "x.png"])), group=r"p(\d)")
    with pytest.raises(DataError, match="finds no patient in the case 'x'"):
        source.cases()


def test_the_error_of_a_pattern_suggests_one_from_all_names(tmp_path: Path) -> None:
    names = [f"p{patient}_{side}.png" for patient in (1, 2, 3) for side in "ab"]
    source = FolderSource(str(make(tmp_path, names, names)), group=r"(x\d)")
    with pytest.raises(DataError, match=re.escape(r"(perhaps '(p\d+)_')")):
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


class TestUnicode:
    """On a Mac, names are written with their accents apart: they look the same and are other bytes."""

    def test_forms_of_one_name_are_paired(self, tmp_path: Path) -> None:
        composed, apart = (normalize(form, "Müller") for form in ("NFC", "NFD"))
        make(tmp_path, [f"{composed}.png"], [f"{apart}_1.png", f"{apart}_2.png"])
        source = FolderSource(str(tmp_path), mask_name="{stem}_*")
        (case,) = source.cases()
        assert case.case_id == composed
        assert len(case.masks) == 2
        assert list_cases(source).findings == ()
        (bare,) = source.open_unlabeled(tmp_path / "images").cases()
        assert bare.case_id == composed

    def test_a_table_may_spell_otherwise_than_the_disk(self, tmp_path: Path) -> None:
        composed, apart = (normalize(form, "Müller.png") for form in ("NFC", "NFD"))
        make(tmp_path, [apart], [apart])
        row = f"a,a,images/{composed},masks/{composed}"
        (tmp_path / "table.csv").write_text(f"case_id,group,image,mask\n{row}\n", encoding="utf-8")
        (case,) = ManifestSource(str(tmp_path / "table.csv")).cases()
        assert case.images[0].is_file()


def test_a_table_says_which_labels_were_looked_for(tmp_path: Path) -> None:
    make(tmp_path, ["a.png", "b.png", "c.png"], ["a.png", "c.png"], "liver")
    make(tmp_path, [], ["b.png", "c.png"], "spleen")
    (tmp_path / "looked.csv").write_text("case_id,annotated_labels\na,liver\nb,spleen\n", encoding="utf-8")
    folders = {"liver": "liver", "spleen": "spleen"}
    source = FolderSource(str(tmp_path), masks=folders, annotated_labels="looked.csv")
    cases = source.cases()
    assert [case.annotated_labels for case in cases] == [("liver",), ("spleen",), None]
    assert [source.count_label_files(case) for case in cases] == [[1, 0], [0, 1], [1, 1]]
    assert [len(case.masks) for case in cases] == [1, 1, 2]
    with pytest.raises(MissingDataError, match=r"1 of 3 images has no mask in .*liver"):
        FolderSource(str(tmp_path), masks=folders).cases()
    (tmp_path / "looked.csv").write_text("case_id,annotated_labels\nz,liver\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"looked\.csv names 1 case that is not there: z\. Correct case_id"):
        source.cases()
