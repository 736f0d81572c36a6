"""Layout of a folder of images and masks: the settings of `FolderSource` that pair them."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.sources.files import is_image
from medseg_pl.data.sources.named_masks import STEM
from medseg_pl.io.paths import find_similar_path, is_picture, list_files, name_below

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr")
_MASK_WORDS = re.compile(r"mask|seg|label|annot|manual|truth|(^|[_\-. ])gt|roi|contour", re.IGNORECASE)
_FOLDERS_SHOWN = 5
_SECTION = r"[_-]?(?:slice|section|sec|sl|z|frame)[_-]?\d+"


class Pattern(NamedTuple):
    """Names of images and masks that belong together.

    Attributes:
        image: The image's name, with `{stem}` for what both share.
        mask: The mask's name.
    """

    image: str
    mask: str


SAME = Pattern(STEM, STEM)


class FolderLayout(NamedTuple):
    """The settings that pair the images and masks of a folder.

    Attributes:
        settings: Of `FolderSource`, without the root.
        labels: Those that have a folder of their own.
        notes: What was concluded rather than read, in words.
    """

    settings: dict[str, Any]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_image_folder(directory: Path) -> str | None:
    """Find the folder of images.

    Returns:
        `.` where images have no folder of their own.
    """
    named = {path.name.lower(): path.name for path in sorted(directory.glob("[!.]*")) if path.is_dir()}
    known = next((named[name] for name in IMAGE_FOLDERS if name in named), None)
    return known or ("." if any(map(is_image, list_files(directory))) else None)


def find_folder_layout(directory: Path, said: Mapping[str, Any]) -> FolderLayout:
    """Find the settings of a folder that the user left open.

    Args:
        directory: The data set.
        said: The given ones of `images`, `masks`, `image_name`, `mask_name`, `group` and `slicing`.

    Raises:
        MissingDataError: There are no images, or a given folder does not exist.
        SettingError: Several folders or names may be those of masks, or none.
    """
    _require_given_folders(directory, said)
    images = said.get("images") or find_image_folder(directory)
    if images is None:
        raise MissingDataError(f"{directory} holds no image that can be read. Give the folder that holds them.")
    given = {name: value for name, value in said.items() if value is not None}
    names = _list_names(directory / images)
    masks = given.get("masks")
    labels: tuple[str, ...] = tuple(masks) if isinstance(masks, Mapping) else ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = {"images": images}
    if masks is None:
        folder = _find_mask_folder(directory, images)
        places = _find_label_folders(directory, folder, names) if folder != images else {}
        if places:
            labels, settings = tuple(places), settings | {"masks": places}
            notes = (f"the folders {', '.join(places)} in {folder} are taken for labels, which may overlap",)
        else:
            settings["masks"] = folder
    else:
        settings["masks"] = dict(masks) if isinstance(masks, Mapping) else masks
    if isinstance(settings["masks"], str) and STEM not in settings["masks"] and not given.keys() & {"mask_name"}:
        settings |= _name_settings(_find_pattern(directory, images, settings["masks"], names))
    settings |= {name: value for name, value in given.items() if name not in settings}
    found = [name for name in names if _is_image_name(name, settings)]
    if "group" not in settings and (group := _find_group(found, directory / images)):
        settings["group"] = group
        by = f"data.source.group {shlex.quote(group)}"
        notes = (*notes, f"the images in which {by} finds the same are taken for one patient")
    return FolderLayout({"images": images, **settings}, labels, notes)


def _require_given_folders(directory: Path, said: Mapping[str, Any]) -> None:
    """Raise `MissingDataError` for `--images` or `--masks` that are not there."""
    masks = said.get("masks")
    given = {"images": [said.get("images")], "masks": list(masks.values()) if isinstance(masks, Mapping) else [masks]}
    for option, names in given.items():
        for name in names:
            # A path with a pattern ends in the names of files.
            if name is None or STEM in name or "*" in name or (directory / name).is_dir():
                continue
            near = find_similar_path(directory / name, Path.is_dir)
            similar = near and shlex.quote(str(PurePosixPath(name).with_name(near.name)))
            remedy = f"Correct --{option}." if similar is None else f"Did you mean --{option} {similar}?"
            raise MissingDataError(f"The folder {directory / name} does not exist. {remedy}")


def find_patterns(images: Sequence[str], masks: Sequence[str]) -> list[Pattern]:
    """Find the names by which images and masks of two folders pair.

    Args:
        images: Names without suffix, with sub-folders.
        masks: Likewise.

    Returns:
        One pattern, or several that fit equally well.

    >>> find_patterns(["21_training", "22_training"], ["21_manual1", "22_manual1"])
    [Pattern(image='{stem}_training', mask='{stem}_manual1')]
    >>> find_patterns(["a", "b"], ["a_seg", "b_seg"])
    [Pattern(image='{stem}', mask='{stem}_seg')]
    """
    known = set(masks)
    candidates = list(dict.fromkeys([SAME, *_list_around_stem(images, masks), *_list_both_affixed(images, masks)]))
    found = {pattern: _match(pattern, images, known) for pattern in candidates}
    best = max((matched, len(used)) for matched, used in found.values())
    equal = [pattern for pattern in candidates if (found[pattern][0], len(found[pattern][1])) == best]
    # A pattern that leaves images out is worth no question.
    if best[0] < len(images) or SAME in equal:
        return [SAME if SAME in equal else equal[0]] if any(best) else []
    # Patterns that choose the same masks are one answer in two spellings.
    different = {frozenset(found[pattern][1]): pattern for pattern in reversed(equal)}
    return [pattern for pattern in equal if pattern in different.values()]


def find_patterns_within(names: Sequence[str]) -> list[Pattern]:
    """Find the names that tell images from masks in one folder.

    >>> find_patterns_within(["a", "a_mask", "b", "b_mask"])
    [Pattern(image='{stem}', mask='{stem}_mask')]
    >>> find_patterns_within(["1_image", "1_label", "2_image", "2_label"])
    [Pattern(image='{stem}_image', mask='{stem}_label')]
    """
    known = set(names)
    affixes = Counter(pattern for name in names for pattern in _list_affixed(name, known))
    covering = []
    for pattern, _ in affixes.most_common():
        images = [name for name in names if _find_masks(name, pattern, known)]
        masks = {mask for name in images for mask in _find_masks(name, pattern, known)}
        if images and set(images) | masks == known and not masks & set(images):
            covering.append(pattern)
    if covering:
        return covering[:1]
    classes: dict[str, set[str]] = defaultdict(set)
    for name in names:
        path = PurePosixPath(name)
        start = max(path.name.rfind(mark) for mark in "_-. ")
        classes[path.name[start:] if start > 0 else ""].add(name[: len(name) - len(path.name) + max(start, 0)])
    if len(classes) == 2 and len({frozenset(keys) for keys in classes.values()}) == 1 and "" not in classes:
        mask = [ending for ending in classes if _MASK_WORDS.search(ending)]
        if len(mask) == 1:
            (image,) = (ending for ending in classes if ending != mask[0])
            return [Pattern(STEM + image, STEM + mask[0])]
    return [pattern for pattern, count in affixes.most_common() if count == affixes.most_common(1)[0][1]]


def _find_pattern(directory: Path, images: str, folder: str, names: Sequence[str]) -> Pattern:
    apart = folder != images
    patterns = find_patterns(names, _list_names(directory / folder)) if apart else find_patterns_within(names)
    if len(patterns) == 1:
        return patterns[0]
    if not patterns and apart:
        return SAME  # the source says which files have no partner
    if not apart and (near := _find_nearby_layouts(directory)):
        # All of them: the first of test and train is not the one to train on.
        meant = " or ".join(shlex.quote(str(path)) for path in near[:_FOLDERS_SHOWN])
        more = f" or one of {len(near) - _FOLDERS_SHOWN} more" if len(near) > _FOLDERS_SHOWN else ""
        raise SettingError(f"{directory} has no folders of images and masks. Did you mean {meant}{more}?")
    options = abbreviate([pattern.mask for pattern in patterns]) or f"such as '{STEM}_mask'"
    ask = "Say" if apart else f"{_ask_for_folders(directory)}, or say"
    raise SettingError(
        f"{directory / folder} does not tell which files are masks of which images. {ask} with --mask_name how masks "
        f"are called: {options}."
    )


def _find_nearby_layouts(directory: Path) -> list[Path]:
    """Find folders of images and masks one level below or above."""
    place = directory.resolve()
    above = [place.parent] if place.name.lower() in IMAGE_FOLDERS or _MASK_WORDS.search(place.name) else []
    near = [path for path in [*_list_image_folders(directory), *above] if find_image_folder(path) not in (None, ".")]
    return [path for path in near if len(_list_image_folders(path)) > 1]


def _ask_for_folders(directory: Path) -> str:
    """Ask which folders hold images and masks, and name those that may."""
    found = [path.name for path in _list_image_folders(directory)]
    if not found:
        return "Name their folders with --images and --masks"
    has = f"It has the folder{'s' * (len(found) > 1)} {abbreviate(found, _FOLDERS_SHOWN)}"
    return f"{has}: name them with --images and --masks"


def _list_image_folders(directory: Path) -> list[Path]:
    """List the folders in a folder that hold images, themselves or further below."""
    inside = sorted(path for path in directory.glob("[!.]*") if path.is_dir())
    return [path for path in inside if any(map(is_image, list_files(path)))]


def _name_settings(pattern: Pattern) -> dict[str, str]:
    """Return settings for names that are not the usual ones."""
    settings = {"image_name": pattern.image, "mask_name": pattern.mask}
    return {name: value for name, value in settings.items() if value != STEM}


def _find_mask_folder(directory: Path, images: str) -> str:
    if images == ".":
        return images
    found = [path.name for path in _list_image_folders(directory) if path.name != images]
    if len(found) == 1:
        return found[0]
    if not found and any(_MASK_WORDS.search(PurePosixPath(name).name) for name in _list_names(directory / images)):
        return images
    if not found:
        raise SettingError(f"Beside {directory / images} there is no folder of masks. Say which with --masks.")
    raise SettingError(
        f"Beside {directory / images} there are several folders that may hold the masks: "
        f"{abbreviate(found, _FOLDERS_SHOWN)}. Say which with --masks {shlex.quote(found[0])}, or name the label "
        f"of each: --masks liver={shlex.quote(found[0])},…"
    )


def _find_label_folders(directory: Path, folder: str, images: Sequence[str]) -> dict[str, str]:
    """Find inner folders with a mask of every image, one per label."""
    inner = sorted(path for path in (directory / folder).glob("[!.]*") if path.is_dir())
    if not inner or any(is_image(path) for path in (directory / folder).iterdir() if path.is_file()):
        return {}
    places = {}
    for path in inner:
        masks = _list_names(path)
        if len(masks) < len(images) or not (patterns := find_patterns(images, masks)):
            return {}
        matched, used = _match(patterns[0], images, set(masks))
        if patterns[0].image != STEM or (matched, len(used)) != (len(images), len(masks)):
            return {}
        plain = patterns[0] == SAME
        places[path.name] = f"{folder}/{path.name}" + ("" if plain else f"/{patterns[0].mask}")
    return places


def _find_group(names: Sequence[str], folder: Path) -> str | None:
    """Find the pattern of patients whose sections are images of their own."""
    if not all(is_picture(path) for path in list_files(folder) if is_image(path)):
        return None
    # A folder says more than a name, so it is asked first.
    for group in (r"^(.+)/", rf"^(.+?){_SECTION}"):
        matches = [re.search(group, name) for name in names]
        patients = Counter(match[1] for match in matches if match)
        if all(matches) and len(patients) > 1 and len(patients) < len(names):
            return group
    return None


def _is_image_name(name: str, settings: Mapping[str, Any]) -> bool:
    """Check by patterns whether a name is that of an image."""
    if settings["images"] == settings["masks"] and _is_match(settings.get("mask_name", STEM), name):
        return bool(settings.get("mask_name", STEM) == STEM)
    return _is_match(settings.get("image_name", STEM), name)


def _is_match(pattern: str, name: str) -> bool:
    parts = [re.escape(part).replace(r"\*", ".*") for part in pattern.split(STEM)]
    return re.fullmatch(".+".join(parts), PurePosixPath(name).name) is not None


def _list_names(folder: Path) -> list[str]:
    """List the images below a folder by their names without suffix."""
    if not folder.is_dir():
        return []
    files = (path for path in list_files(folder) if is_image(path))
    return sorted({name_below(path, folder) for path in files})


def _list_around_stem(images: Sequence[str], masks: Sequence[str]) -> Iterator[Pattern]:
    """List patterns in which the image's whole name stands in its mask's."""
    first = PurePosixPath(images[0]) if images else PurePosixPath()
    own = [PurePosixPath(mask) for mask in masks if first.name in mask]
    endings = []
    for mask in own:
        if mask.parent == first.parent and first.name in mask.name:
            for found in re.finditer(re.escape(first.name), mask.name):
                before, after = mask.name[: found.start()], mask.name[found.end() :]
                yield Pattern(STEM, f"{before}{STEM}{after}")
                endings += [after] if not before else []
    # Numbered files are parts of one mask; files of other endings are those of other observers.
    shared = _find_common_start(endings).rstrip("0123456789") if len(endings) > 1 else ""
    if shared and all(ending[len(shared) :].isdecimal() for ending in endings):
        yield Pattern(STEM, f"{STEM}{shared}*")
    if any(mask.parent == first for mask in own):
        yield Pattern(STEM, f"{STEM}/*")


def _list_both_affixed(images: Sequence[str], masks: Sequence[str]) -> Iterator[Pattern]:
    """List patterns in which images and masks have affixes of their own."""
    (i_before, i_after), (m_before, m_after) = _find_affixes(images), _find_affixes(masks)
    for image in (("", i_after), (i_before, ""), (i_before, i_after)):
        for mask in (("", m_after), (m_before, ""), (m_before, m_after)):
            if image != ("", ""):
                yield Pattern(f"{image[0]}{STEM}{image[1]}", f"{mask[0]}{STEM}{mask[1]}")


def _find_affixes(names: Sequence[str]) -> tuple[str, str]:
    """Find what all names begin and end with, digits left out."""
    last = [PurePosixPath(name).name for name in names]
    if len(last) < 2:
        return "", ""
    # `img_1` of `img_10, img_12` is no affix: its digits tell images apart.
    before = re.sub(r"[0-9]+$", "", _find_common_start(last))
    after = _find_common_start([name[::-1] for name in last])[::-1]
    return before, re.sub(r"^[^_\-. ]+", "", after)


def _find_common_start(texts: Sequence[str]) -> str:
    """Find the text that all texts begin with.

    It suffices to compare the first and the last in order.

    >>> _find_common_start(["mask_10", "mask_12"])
    'mask_1'
    """
    first, last = min(texts), max(texts)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _list_affixed(name: str, known: set[str]) -> Iterator[Pattern]:
    """List patterns by which a name is the mask of another one."""
    path = PurePosixPath(name)
    head = name[: len(name) - len(path.name)]
    for mark in re.finditer(r"[_\-. ]", path.name):
        if head + path.name[: mark.start()] in known:
            ending = path.name[mark.start() :]
            yield Pattern(STEM, STEM + ending)
            yield Pattern(STEM, STEM + re.sub(r"[_\-. ]?[0-9]+$", "", ending) + "*")
        if head + path.name[mark.end() :] in known:
            yield Pattern(STEM, path.name[: mark.end()] + STEM)


def _find_masks(name: str, pattern: Pattern, known: set[str]) -> set[str]:
    path = PurePosixPath(name)
    mask = (path.parent / pattern.mask.replace(STEM, path.name)).as_posix()
    if not mask.endswith("*"):
        return {mask} & known
    return {other for other in known if other.startswith(mask[:-1])}


def _match(pattern: Pattern, images: Sequence[str], masks: set[str]) -> tuple[int, set[str]]:
    """Count the images with a mask by a pattern; collect these masks."""
    before, _, after = pattern.image.partition(STEM)
    matched = 0
    found: set[str] = set()
    for name in images:
        path = PurePosixPath(name)
        if not (path.name.startswith(before) and path.name.endswith(after)):
            continue
        key = path.name[len(before) : len(path.name) - len(after)]
        own = (
            _find_masks((path.parent / key).as_posix() if key else "", Pattern(STEM, pattern.mask), masks)
            if key
            else set()
        )
        matched, found = matched + bool(own), found | own
    return matched, found
