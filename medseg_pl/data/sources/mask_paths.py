"""Mask names that follow from an image's name, for one file or for several."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from medseg_pl.core.errors import SettingError

STEM = "{stem}"
"""Stands for the image's name without its suffix."""

_LAST = chr(0x10FFFF)
"""Comes after every letter of a name."""


class MaskPattern(NamedTuple):
    """A folder, and the names that masks have in it.

    Attributes:
        folder: Below the root.
        name: Without suffix; `{stem}` stands for the image's name and `*` for anything but a slash.
        setting: Where it was set.
        image: What images are called; `{stem}` is what they share with their masks.
    """

    folder: str
    name: str
    setting: str
    image: str = STEM

    @property
    def several(self) -> bool:
        """Whether an image may have more than one file here."""
        return "*" in self.name

    def find_masks(self, image: str, names: Sequence[str]) -> list[str]:
        """Find the names of an image's masks, in the same sub-folder.

        Args:
            image: The image's name, without suffix and with sub-folders.
            names: All that there are, likewise, sorted.

        >>> MaskPattern("masks", "{stem}/*", "masks").find_masks("p1/a", ["p1/a/1", "p1/a/2", "p1/ab/1", "p2/a/1"])
        ['p1/a/1', 'p1/a/2']
        """
        path = PurePosixPath(image)
        if (shared := match_stem(path.name, self.image)) is None:
            return []
        parts = (path.parent / self.name).as_posix().replace(STEM, "\0").split("*")
        start, *rest = (part.replace("\0", shared) for part in parts)
        first = bisect_left(names, start)
        if not rest:  # without a pattern to compile for each of a million images
            return list(names[first : first + 1]) if start in names[first : first + 1] else []
        pattern = re.compile("[^/]*".join(re.escape(part) for part in (start, *rest)))
        alike = names[first : bisect_left(names, start + _LAST)]
        return [name for name in alike if pattern.fullmatch(name)]


def match_stem(name: str, pattern: str) -> str | None:
    """Return what an image's name shares with those of its masks.

    >>> match_stem("21_training", "{stem}_training"), match_stem("21_test", "{stem}_training")
    ('21', None)
    """
    before, _, after = pattern.partition(STEM)
    fits = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def parse_mask_path(text: str, mask_name: str, setting: str, image_name: str = STEM) -> MaskPattern:
    """Parse a setting: a folder of masks, or a path with `{stem}`.

    Args:
        text: The setting.
        mask_name: The name of masks in a folder.
        setting: What the setting is called.
        image_name: What images are called.

    Raises:
        SettingError: A name does not depend on the image, or a folder does.

    >>> parse_mask_path("masks/{stem}_liver", "{stem}", "masks")[:2]
    ('masks', '{stem}_liver')
    """
    parts = PurePosixPath(text).parts
    depth = next((depth for depth, part in enumerate(parts) if STEM in part), None)
    if depth is None:
        found = MaskPattern(text, mask_name, "data.source.mask_name", image_name)
    else:
        found = MaskPattern(PurePosixPath(*parts[:depth]).as_posix(), "/".join(parts[depth:]), setting, image_name)
    if image_name.count(STEM) != 1 or set("{}*/") & set(image_name.replace(STEM, "")):
        raise SettingError(
            f"data.source.image_name must contain {STEM} once, and no slash, star or other braces; got {image_name!r}."
        )
    if STEM not in found.name or set("{}") & set(found.name.replace(STEM, "")):
        raise SettingError(
            f"{found.setting} must contain {STEM}, the image's name, and no other braces; got {found.name!r}."
        )
    if set("{}*") & set(found.folder):
        raise SettingError(
            f"{setting} {text!r} names no single folder. Write the path of a mask, such as 'masks/{STEM}/*', where "
            "several files belong to an image."
        )
    return found
