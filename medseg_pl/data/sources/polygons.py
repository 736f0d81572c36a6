"""Images with outlines: COCO, labelme, CVAT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
from jaxtyping import Bool, UInt8

from medseg_pl.core.errors import DataError, GeometryError, MissingDataError, SettingError, count_noun, count_part
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    abbreviate,
    check_pattern,
    explain_missing_root,
    explain_unread,
    find_group,
    make_case,
    raise_or_report,
)
from medseg_pl.data.sources.files import CaseGrid, FileSource, is_image, map_files_by_name
from medseg_pl.data.sources.named_masks import NameMatcher, Overlaps, combine_named
from medseg_pl.data.sources.unlabeled import IMAGE_FOLDERS, MASK_FOLDERS, ImageFolder, find_image_folders
from medseg_pl.io.annotations import SUFFIXES, load_json, read_annotations
from medseg_pl.io.paths import LeftOut, find_dead_links, list_files, require_folder, stem
from medseg_pl.io.regions import AnnotatedImage, draw_region

_SETTING = "data.source.annotations"


class PolygonSource(FileSource):
    r"""Pictures with the outlines that an annotation tool wrote.

    ```
    images/a.png, images/b.png     annotations.json          annotations: annotations.json     COCO: one file for all
                                   annotations.xml           annotations: annotations.xml      CVAT for images 1.1
                                   annotations/a.json …      annotations: annotations          labelme: one for each
    a.png, a.json                                            images: ., annotations: .         labelme, side by side
    ```

    A pixel belongs to an outline if its center lies inside. Categories are matched to labels by name, in any case and
    with spaces or underscores. Of COCO polygons and run lengths are read, of labelme polygons, rectangles, circles and
    masks, of CVAT polygons, boxes, ellipses and masks; anything without an area is an error. An image that is in no
    annotation file is an error, too: nobody said that it shows nothing.

    Args:
        root: The folder that holds everything.
        images: The images' folder, below `root`.
        annotations: The file of all images, or a folder with one for each, below `root`.
        categories: The categories that make up a label where they are called otherwise: `{lesion: [tumor, cyst]}`.
        skip: Categories that are background.
        overlaps: Where labels that exclude each other overlap: `refuse` for an error, `last` for the one drawn last.
        group: A regular expression whose parentheses find the patient in a case's name; without it every image is
            its own patient. Set it wherever a patient has several images: `Image_(\d+)`.

    References:
        Lin et al., "Microsoft COCO: common objects in context", ECCV 2014. labelme: https://github.com/wkentaro/labelme.
        CVAT: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat.
    """

    def __init__(
        self,
        root: str,
        images: str = "images",
        annotations: str = "annotations.json",
        categories: dict[str, str | list[str]] | None = None,
        skip: Sequence[str] = (),
        overlaps: Overlaps = "refuse",
        group: str | None = None,
    ) -> None:
        check_pattern(group)
        self.root = Path(root)
        self.images = images
        self.annotations = annotations
        self.categories = categories or {}
        self.skip = tuple(skip)
        self.overlaps: Overlaps = overlaps
        self.group = group

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each image, with the file of its annotations."""
        images = self._find_images(on_problem)
        whole = self.root / self.annotations
        files = self._find_annotation_files(on_problem) if self._has_folder else dict.fromkeys(self._entries, whole)
        lonely = sorted(set(images) - set(files))
        if lonely:
            error = MissingDataError(
                f"{count_part(len(lonely), len(images), 'image', 'has', 'have')} no annotations in {whole}: "
                f"{abbreviate([str(images[name]) for name in lonely])}. Annotate them (also with nothing), move them "
                f"away, or set {_SETTING}."
            )
            message = "The image has no annotations."
            problems = [Problem("missing-mask", message, name, images[name]) for name in lonely]
            raise_or_report(error, problems, on_problem)
        orphans = sorted(set(files) - set(images))
        if orphans:
            error = MissingDataError(
                f"{count_noun(len(orphans), 'annotated image is', 'annotated images are')} not in "
                f"{self.root / self.images}: {abbreviate(orphans)}. Add them, or set data.source.images."
            )
            problems = [
                Problem("missing-image", f"The annotated image {n} is not there.", n, files[n]) for n in orphans
            ]
            raise_or_report(error, problems, on_problem)
        cases = []
        for name, path in sorted(images.items()):
            group = find_group(name, self.group, path, on_problem, images)
            cases += make_case(on_problem, path, name, group, (path,), (files[name],) if name in files else ())
        return cases

    def read_masks(self, case: Case, labels: LabelMap, grid: CaseGrid) -> UInt8[np.ndarray, "m d h w"]:
        """Draw the outlines of one case.

        Raises:
            GeometryError: The outlines were drawn on an image of another size.
            MaskValueError: A category belongs to no label, or exclusive labels overlap.
        """
        entry, where = self._find_annotations(case), f"{case.masks[0]}, {case.images[0].name}"
        if grid.geometry.shape != (1, *entry.size):
            raise GeometryError(
                f"Case {case.case_id}: {case.masks[0]} was drawn on {entry.size[0]} x {entry.size[1]} pixels, but "
                f"{case.images[0]} is {' x '.join(map(str, grid.geometry.shape[1:]))}. Annotate this image itself."
            )
        matcher = NameMatcher(labels, self.categories, self.skip)
        return combine_named(_draw_regions(entry, where), labels, matcher, entry.size, where, self.overlaps)[:, None]

    def has_value_masks(self, case: Case) -> bool:
        """Return false: outlines are no files of values."""
        return False

    def find_categories(self) -> list[str]:
        """List the categories that are drawn somewhere, sorted."""
        return sorted({region.category for case in self.cases() for region in self._find_annotations(case).regions})

    def open_unlabeled(self, directory: Path) -> ImageFolder:
        """Open the images below a folder, or in a data set's own."""
        return ImageFolder(str(directory), "file", find_image_folders(directory, [self.images], []))

    def list_left_out(self) -> list[LeftOut]:
        """List what is not read in the folder of images."""
        folder = self.root / self.images
        others = [path for path in list_files(folder) if not is_image(path)]
        unread = [explain_unread(path) for path in others if path.suffix.lower() not in SUFFIXES]
        return [*unread, *find_dead_links(folder)]

    def reading_settings(self) -> tuple[object, ...]:
        """Return which categories make up a label, and what lies in front."""
        named = sorted((name, repr(meant)) for name, meant in self.categories.items())
        return (named, self.skip, self.overlaps)

    @property
    def _has_folder(self) -> bool:
        return (self.root / self.annotations).is_dir()

    @cached_property
    def _entries(self) -> dict[str, AnnotatedImage]:
        """What the file of all images holds, by case."""
        images = self._find_images()
        entries: dict[str, AnnotatedImage] = {}
        for entry in read_annotations(self.root / self.annotations):
            name = self._find_case(entry, images)
            if name in entries:
                raise DataError(
                    f"{self.root / self.annotations} lists the image {entry.name} twice. Keep one of the entries."
                )
            entries[name] = entry
        return entries

    def _find_images(self, on_problem: OnProblem | None = None) -> dict[str, Path]:
        remedy = explain_missing_root(self.root, "Set data.source.root to your data.")
        directory = require_folder(self.root / self.images, "images", remedy)
        files = map_files_by_name(filter(is_image, list_files(directory)), directory, "images", on_problem)
        if not files:
            raise MissingDataError(f"{directory} holds no image that can be read. Set data.source.root to your data.")
        return files

    def _find_annotation_files(self, on_problem: OnProblem | None) -> dict[str, Path]:
        directory = self.root / self.annotations
        files = (path for path in list_files(directory) if path.suffix.lower() in SUFFIXES)
        return map_files_by_name(files, directory, "annotations", on_problem)

    def _find_case(self, entry: AnnotatedImage, images: dict[str, Path]) -> str:
        """Find the case whose file an entry names, by path or name."""
        path = PurePosixPath(normalize("NFC", entry.name))
        if not path.name:
            return entry.name
        below_root = path.relative_to(self.images) if path.is_relative_to(self.images) else path
        # Tools write the path from the root, from the images' folder, or the bare name; the fullest that fits is meant.
        for candidate in (path, below_root, PurePosixPath(path.name)):
            name = candidate.with_name(stem(Path(candidate.name))).as_posix()
            # The suffix counts: a.png may be a picture of another size than the a.jpg that was drawn on.
            if name in images and normalize("NFC", images[name].name) == path.name:
                return name
        return entry.name

    def _find_annotations(self, case: Case) -> AnnotatedImage:
        if not self._has_folder:
            return self._entries[case.case_id]
        entries = read_annotations(case.masks[0])
        # The only entry is taken whatever it names: labelme keeps the name that the image had while it was drawn on.
        if len(entries) == 1:
            return entries[0]
        named = [entry for entry in entries if PurePosixPath(entry.name).name == case.images[0].name]
        if len(named) != 1:
            raise DataError(
                f"{case.masks[0]} holds {count_noun(len(entries), 'image')}, {len(named)} of them "
                f"{case.images[0].name}; expected "
                f"one. Give the file itself with {_SETTING} if it is that of all images."
            )
        return named[0]


def _draw_regions(entry: AnnotatedImage, where: str) -> Iterator[tuple[str, Bool[np.ndarray, "h w"]]]:
    for region in entry.regions:
        yield region.category, draw_region(region, entry.size, where)


_HEAD = 4096
_SAMPLED = 200


def find_polygon_settings(directory: Path) -> dict[str, str] | None:
    """Find the `images` and `annotations` of a `PolygonSource`.

    Returns:
        `None` where the folder has none, or has masks.

    Raises:
        SettingError: Several files may be that of all images.
    """
    images = next((name for name in IMAGE_FOLDERS if (directory / name).is_dir()), ".")
    others = [path for path in directory.glob("[!.]*") if path.is_dir() and path.name != images]
    # Images in another folder are masks, and pixels that somebody exported win over outlines.
    if any(any(map(is_image, islice(list_files(path), _SAMPLED))) for path in others):
        return None
    for place in (directory, *(directory / name for name in MASK_FOLDERS), directory / images):
        found = _find_annotation_files(place)
        whole = [path for path in found if not _is_labelme(path)]
        if found and not whole:
            return {"images": images, "annotations": place.relative_to(directory).as_posix()}
        if len(whole) > 1:
            raise SettingError(
                f"{place} holds several annotation files: {abbreviate([path.name for path in whole])}. Move all but "
                "one away, or name one with data.source.annotations of PolygonSource."
            )
        if whole:
            return {"images": images, "annotations": whole[0].relative_to(directory).as_posix()}
    return None


def _find_annotation_files(folder: Path) -> list[Path]:
    """Find annotation files in a folder itself."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    # A folder of labelme has a file for each image: a few tell what they all are.
    return [path for path in files[:_SAMPLED] if _is_annotations(path)]


def _is_annotations(path: Path) -> bool:
    if path.suffix.lower() == ".xml":
        with path.open("rb") as file:
            # CVAT's root element; parsing an XML of a stranger only to know its kind is not worth the risk.
            return b"<annotations" in file.read(_HEAD)
    return bool({"shapes", "images"} & set(_keys(path)))


def _is_labelme(path: Path) -> bool:
    return path.suffix.lower() == ".json" and "shapes" in _keys(path)


def _keys(path: Path) -> list[str]:
    try:
        content = load_json(path)
    except DataError:
        return []
    return list(content) if isinstance(content, Mapping) else []
