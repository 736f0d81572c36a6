"""Where masks are: names that follow from the image's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.errors import SettingError
from medseg_pl.data.sources.mask_paths import MaskPattern, parse_mask_path

LETTERS = st.text("ab_*.[(", min_size=1, max_size=6).filter(lambda name: name.strip("."))


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
