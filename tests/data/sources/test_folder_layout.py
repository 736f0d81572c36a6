"""Folders as people have them: the settings that pair their images and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.data.sources import FolderSource
from medseg_pl.data.sources.folder_layout import Pattern, find_folder_layout, find_patterns, find_patterns_within
from tests.sample_files import save_raster

PIXELS = np.zeros((4, 4), np.uint8)
BUSI = ["benign (1)", "benign (1)_mask", "benign (1)_mask_1", "benign (2)", "benign (2)_mask"]


def write(root: Path, *names: str) -> Path:
    for name in names:
        save_raster(root / name, PIXELS)
    return root


def settings_of(root: Path, **said: Any) -> dict[str, Any]:
    """The settings, once they have been tried."""
    found = find_folder_layout(root, said).settings
    cases = FolderSource(str(root), **found).cases()
    assert all(case.masks for case in cases)
    return {"cases": [case.case_id for case in cases], **found}


class TestTwoFolders:
    @pytest.mark.parametrize(
        ("images", "masks", "pattern"),
        [
            (["a", "b"], ["a", "b"], Pattern("{stem}", "{stem}")),
            (["ISIC_1", "ISIC_2"], ["ISIC_1_segmentation", "ISIC_2_segmentation"], ("{stem}", "{stem}_segmentation")),
            (["a", "b"], ["mask_a", "mask_b"], ("{stem}", "mask_{stem}")),
            (["21_training", "32_training"], ["21_manual1", "32_manual1"], ("{stem}_training", "{stem}_manual1")),
            (["img_01", "img_02"], ["mask_01", "mask_02"], ("img_{stem}", "mask_{stem}")),
            (["p10_0000", "p20_0000"], ["p10", "p20"], ("{stem}_0000", "{stem}")),
            (["a", "b"], ["a/1", "a/2", "b/1"], ("{stem}", "{stem}/*")),
            (["a", "b"], ["a_1", "a_2", "b_1"], ("{stem}", "{stem}_*")),
            (["p/a", "q/a"], ["p/a_seg", "q/a_seg"], ("{stem}", "{stem}_seg")),
        ],
    )
    def test_names(self, images: Sequence[str], masks: Sequence[str], pattern: tuple[str, str]) -> None:
        assert find_patterns(images, masks) == [pattern]

    def test_two_observers_are_not_chosen_between(self, tmp_path: Path) -> None:
        write(
            tmp_path, *(f"images/{n}.png" for n in "ab"), *(f"masks/{n}_{o}.png" for n in "ab" for o in ("1st", "2nd"))
        )
        with pytest.raises(SettingError, match=r"Say with --mask_name how masks are called: {stem}_1st, {stem}_2nd"):
            find_folder_layout(tmp_path, {})
        assert find_folder_layout(tmp_path, {"mask_name": "{stem}_1st"}).settings["mask_name"] == "{stem}_1st"

    def test_a_missing_mask_changes_no_pattern(self) -> None:
        assert find_patterns(["a", "b", "c"], ["a", "b"]) == [Pattern("{stem}", "{stem}")]
        assert find_patterns(["a", "b", "c"], ["a_seg", "b_seg"]) == [Pattern("{stem}", "{stem}_seg")]

    def test_names_that_have_nothing_in_common(self) -> None:
        assert find_patterns(["a", "b"], ["x", "y"]) == []


class TestOneFolder:
    @pytest.mark.parametrize(
        ("names", "pattern"),
        [
            (["a", "a_mask", "b", "b_mask"], ("{stem}", "{stem}_mask")),
            (["a", "b", "mask_a", "mask_b"], ("{stem}", "mask_{stem}")),
            (BUSI, ("{stem}", "{stem}_mask*")),
            (["1_image", "1_label", "2_image", "2_label"], ("{stem}_image", "{stem}_label")),
            (["p/p_1", "p/p_1_mask", "q/q_1", "q/q_1_mask"], ("{stem}", "{stem}_mask")),
        ],
    )
    def test_names(self, names: Sequence[str], pattern: tuple[str, str]) -> None:
        assert find_patterns_within(names) == [pattern]

    def test_sections_of_one_stack_are_of_one_patient(self, tmp_path: Path) -> None:
        write(
            tmp_path, *(f"{p}/{p}_{n}{end}.png" for p in ("TCGA_1", "TCGA_2") for n in (1, 2) for end in ("", "_mask"))
        )
        found = settings_of(tmp_path)
        assert (found["images"], found["masks"], found["mask_name"]) == (".", ".", "{stem}_mask")
        assert (found["group"], len(found["cases"])) == ("^(.+)/", 4)

    def test_folders_of_other_names_are_listed(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{folder}/{name}.png" for folder in ("outlines", "pictures") for name in "ab"))
        (tmp_path / "papers").mkdir()
        told = r"It has the folders outlines, pictures: name them with --images and --masks, or say with --mask_name"
        with pytest.raises(SettingError, match=told):
            find_folder_layout(tmp_path, {})

    def test_a_folder_too_high_or_too_low_is_answered_with_the_right_one(self, tmp_path: Path) -> None:
        write(tmp_path / "study", *(f"photos 1/{folder}/{name}.png" for folder in ("images", "masks") for name in "ab"))
        write(tmp_path / "study", "papers/figure.png")
        right = tmp_path / "study" / "photos 1"
        for wrong in (tmp_path / "study", right / "images", right / "masks"):
            with pytest.raises(SettingError) as caught:
                find_folder_layout(wrong, {})
            assert str(caught.value) == f"{wrong} has no folders of images and masks. Did you mean '{right}'?"

    def test_each_part_of_a_data_set_may_be_meant(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            *(f"{part}/{kind}/{n}.png" for part in ("train", "test") for kind in ("images", "masks") for n in "ab"),
        )
        with pytest.raises(SettingError, match=f"Did you mean {tmp_path}/test or {tmp_path}/train\\?$"):
            find_folder_layout(tmp_path, {})
        write(
            tmp_path,
            *(f"p{patient}/{kind}/{n}.png" for patient in range(9) for kind in ("images", "masks") for n in "ab"),
        )
        with pytest.raises(SettingError, match=r"p0 or .*p4 or one of 6 more\?$"):
            find_folder_layout(tmp_path, {})

    def test_masks_beside_no_folder_of_images_point_nowhere(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{folder}/{name}.png" for folder in ("masks", "scans") for name in "ab"))
        with pytest.raises(SettingError, match=r"Name their folders with --images and --masks"):
            find_folder_layout(tmp_path / "masks", {})

    def test_at_most_five_folders_are_listed(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"part {number}/a.png" for number in range(8)))
        with pytest.raises(SettingError, match=r"the folders part 0, .*, part 4 and 3 more: name them with --images"):
            find_folder_layout(tmp_path, {})
        (tmp_path / "part 7").rename(tmp_path / "images")
        with pytest.raises(
            SettingError, match=r"may hold the masks: part 0, .*, part 4 and 2 more\. Say which with --masks 'part 0'"
        ):
            find_folder_layout(tmp_path, {})

    def test_files_that_tell_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(
            SettingError,
            match=r"masks of which images\. Name their folders with --images and --masks, or say with --mask_n",
        ):
            find_folder_layout(write(tmp_path, "a.png", "b.png"), {})


class TestFolders:
    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"images": "scan"}, r"scan does not exist\. Did you mean --images scans\?"),
            ({"images": "x"}, r"x does not exist\. Correct --images\."),
            ({"images": "old scan"}, r"scan does not exist\. Did you mean --images 'old scans'\?"),
            ({"images": "scans", "masks": {"organ": "inner/mask"}}, r"mask does not .* --masks inner/masks\?"),
        ],
    )
    def test_a_given_folder_must_exist(self, said: dict[str, Any], message: str, tmp_path: Path) -> None:
        write(tmp_path, "scans/a.png", "old scans/a.png", "inner/masks/a.png")
        with pytest.raises(MissingDataError, match=message):
            find_folder_layout(tmp_path, said)

    def test_a_folder_for_each_label(self, tmp_path: Path) -> None:
        names = [f"images/{n}.png" for n in "ab"]
        write(tmp_path, *names, *(f"masks/{label}/{n}.png" for n in "ab" for label in ("liver", "spleen")))
        found = find_folder_layout(tmp_path, {})
        assert found.settings["masks"] == {"liver": "masks/liver", "spleen": "masks/spleen"}
        assert found.labels == ("liver", "spleen")
        assert found.notes == ("the folders liver, spleen in masks are taken for labels, which may overlap",)
        assert settings_of(tmp_path)["cases"] == ["a", "b"]

    def test_a_folder_for_each_label_with_its_name_in_files(self, tmp_path: Path) -> None:
        names = [f"images/{n}.png" for n in "ab"]
        write(tmp_path, *names, *(f"masks/{label}/{n}_{label}.png" for n in "ab" for label in ("liver", "spleen")))
        assert settings_of(tmp_path)["masks"]["spleen"] == "masks/spleen/{stem}_spleen"

    def test_folders_of_labels_that_were_named(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{folder}/{n}.png" for n in "ab" for folder in ("images", "liver", "spleen")))
        found = find_folder_layout(tmp_path, {"masks": {"liver": "liver", "spleen": "spleen"}})
        assert (found.settings["masks"], found.labels) == ({"liver": "liver", "spleen": "spleen"}, ("liver", "spleen"))

    def test_patients_folders_on_both_sides_are_no_labels(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"{folder}/{p}/{n}.png" for p in "pq" for n in "ab" for folder in ("Images", "masks")))
        found = settings_of(tmp_path)
        assert (found["images"], found["masks"], found["group"]) == ("Images", "masks", "^(.+)/")

    def test_numbered_sections(self, tmp_path: Path) -> None:
        names = [f"{p}_slice_{n}.png" for p in ("ct1", "ct2") for n in (1, 2, 3)]
        write(tmp_path, *(f"{folder}/{name}" for name in names for folder in ("images", "masks")))
        found = find_folder_layout(tmp_path, {}).settings
        assert {case.group for case in FolderSource(str(tmp_path), **found).cases()} == {"ct1", "ct2"}

    def test_images_of_other_names_are_none(self, tmp_path: Path) -> None:
        write(tmp_path, "images/1_img.png", "images/1_superpixels.png", "masks/1.png")
        source = FolderSource(str(tmp_path), image_name="{stem}_img")
        assert [(case.case_id, case.masks[0].name) for case in source.cases()] == [("1_img", "1.png")]
        with pytest.raises(SettingError, match=r"data\.source\.image_name must contain {stem} once"):
            FolderSource(str(tmp_path), image_name="img")
