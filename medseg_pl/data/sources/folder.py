"""A folder of images beside a folder of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from medseg_pl.core.errors import DataError, MissingDataError, SettingError, count_noun, count_part, strip_remedy
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    abbreviate,
    check_pattern,
    explain_missing_root,
    explain_unread,
    find_group,
    make_case,
    parse_annotated_labels,
    raise_or_report,
)
from medseg_pl.data.sources.files import FileSource, check_mask_names, is_image, map_files_by_name
from medseg_pl.data.sources.manifest import check_unique, read_table, require_field
from medseg_pl.data.sources.named_masks import STEM, MaskPattern, match_stem, parse_mask_path
from medseg_pl.data.sources.unlabeled import DatasetNames, ImageFolder, find_image_folders
from medseg_pl.io.paths import LeftOut, find_dead_links, list_files, name_below, require_folder, stem

_SETTING = "data.source.masks"
_ANNOTATED = "data.source.annotated_labels"

Pairs = Mapping[str, list[list[Path]]]
"""The masks of each image, pattern by pattern."""


class FolderSource(FileSource):
    r"""Images and masks paired by name.

    ```
    images/a.png   masks/a.png                          masks: masks                       one mask with ids, or 0/255
                   masks/a_seg.png                      mask_name: "{stem}_seg"
                   masks/a/1.png, masks/a/2.png …       mask_name: "{stem}/*"              several files of one label
                   stomach/a.png, bowel/a.png           masks: {stomach: stomach, bowel: bowel}
                   masks/a_stomach.png, …               masks: {stomach: "masks/{stem}_stomach", …}
    a.png          a_mask.png                           images: ., masks: ., mask_name: "{stem}_mask"
    21_train.tif   21_manual.gif                        image_name: "{stem}_train", mask_name: "{stem}_manual"
    ```

    Pictures and volumes of every format; sub-folders belong to the case's name. `*` stands for anything but a slash,
    and a label is where any of its files has it. A file that is the mask of an image is no image.

    Args:
        root: The folder that holds everything.
        images: The images' folder, below `root`.
        masks: The masks' folder, below `root`, or the path of a mask, where it holds `{stem}`; or one of either for
            each label, in the order of `labels.names`; or null for images without masks.
        mask_name: The mask's name in a folder, without suffix, given the image's: `"{stem}_seg"` pairs `a.png` with
            `a_seg.png`.
        image_name: The image's own name, where it has an ending that its mask does not have; files of other names are
            no images.
        group: A regular expression whose parentheses find the patient in a case's name; without it every image is
            its own patient. Set it wherever a patient has several images: `Image_(\d+)`.
        slicing: How volumes are cut into slices: `file` across their last axis, `thick` across the largest spacing,
            both with rows and columns as they are stored; `axial`, `coronal` or `sagittal` as radiologists see them,
            whichever way the volume was stored.
        annotated_labels: A CSV below `root` with the columns `case_id` and `annotated_labels`, which names the labels
            that were looked for in a case, separated by `;`; all were in cases that it does not name.
    """

    def __init__(
        self,
        root: str,
        images: str = "images",
        masks: str | dict[str, str] | None = "masks",
        mask_name: str = "{stem}",
        group: str | None = None,
        slicing: Slicing = "file",
        image_name: str = STEM,
        annotated_labels: str | None = None,
    ) -> None:
        check_pattern(group)
        self.root = Path(root)
        self.images = images
        self.masks = masks
        self.group = group
        self.slicing = slicing
        self.image_name = image_name
        self.annotated_labels = annotated_labels
        folders = masks if isinstance(masks, dict) else {"": masks or "."}
        patterns = tuple(parse_mask_path(text, mask_name, _SETTING, image_name) for text in folders.values())
        self.mask_patterns: tuple[MaskPattern, ...] = () if masks is None else patterns

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each image, with its masks."""
        images = {
            n: path for n, path in self._list_files(self.images, "images", on_problem).items() if self.is_image_name(n)
        }
        folders = dict.fromkeys(pattern.folder for pattern in self.mask_patterns)
        masks = {folder: self._list_files(folder, "masks", on_problem) for folder in folders}
        pairs = self._pair_files(images, masks)
        # Images and masks may share a folder, so what some image has for a mask is taken out of the images afterwards.
        taken = {path for mask_lists in pairs.values() for paths in mask_lists for path in paths}
        images = {name: path for name, path in images.items() if path not in taken}
        pairs = {name: pairs[name] for name in images}
        annotated = self._read_annotated_labels(images, on_problem)
        incomplete = self._check_pairs(images, masks, pairs, annotated, on_problem)
        self._check_unshared(pairs, on_problem)
        cases = []
        for name, path in sorted(images.items()):
            needed = self._find_needed(annotated.get(name))
            files = [mask for paths, is_needed in zip(pairs[name], needed, strict=True) if is_needed for mask in paths]
            group = find_group(name, self.group, path, on_problem, images)
            fields = (name, group, (path,), tuple(files) if name not in incomplete else (), None, None, ())
            cases += make_case(on_problem, path, *fields, annotated.get(name))
        return cases

    def is_image_name(self, name: str) -> bool:
        """Check whether a name without suffix is that of an image."""
        return match_stem(PurePosixPath(name).name, self.image_name) is not None

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case, each label from the pattern given to it.

        Raises:
            SettingError: `masks` names other labels, or names them in another order.
            DataError: A file cannot be used as it is.
        """
        if case.masks and isinstance(self.masks, dict):
            check_mask_names(list(self.masks), labels, _SETTING)
        return super().read(case, labels)

    def count_label_files(self, case: Case) -> list[int]:
        """Count the masks of each label: one, or those of its pattern."""
        # Without `*` a pattern has exactly one file, and no path has to be matched again.
        if not any(pattern.several for pattern in self.mask_patterns):
            return [int(is_needed) for is_needed in self._find_needed(case.annotated_labels)] if case.masks else []
        return [sum(self._is_at(path, pattern, case.case_id) for path in case.masks) for pattern in self.mask_patterns]

    def reading_settings(self) -> tuple[object, ...]:
        """Return which label each pattern stands for, and the slicing."""
        # Other names change which files are read, and the cache knows files by themselves.
        several = [pattern.name for pattern in self.mask_patterns if pattern.several]
        return (self.slicing, *(self.masks if isinstance(self.masks, dict) else ()), *several)

    def open_unlabeled(self, directory: Path) -> ImageFolder:
        """Open the images below a folder, and leave out masks of them."""
        folders = find_image_folders(directory, [self.images], [pattern.folder for pattern in self.mask_patterns])
        return ImageFolder(
            str(directory), self.slicing, folders, DatasetNames(self.images, self.image_name, self.mask_patterns)
        )

    def list_left_out(self) -> list[LeftOut]:
        """List what is not read in the folders of images and masks."""
        folders = dict.fromkeys(self.root / folder for folder in (self.images, *(p.folder for p in self.mask_patterns)))
        unread = {path: explain_unread(path) for folder in folders for path in list_files(folder) if not is_image(path)}
        return [*unread.values(), *(dead for folder in folders for dead in find_dead_links(folder))]

    def _list_files(self, folder: str, what: str, on_problem: OnProblem | None) -> dict[str, Path]:
        """Map names without suffix, sub-folders included, to paths, sorted by name."""
        setting = "Set data.source.root to your data" if what == "images" else f"Set {_SETTING}"
        directory = self.root / folder
        # With a collector the folder may be missing: its images are then reported one by one.
        if on_problem is None:
            require_folder(
                directory, what, explain_missing_root(self.root, f"{setting}, or correct the folder's name.")
            )
        files = map_files_by_name(filter(is_image, list_files(directory)), directory, what, on_problem)
        if not files and on_problem is None:
            raise MissingDataError(f"{directory} holds no image that can be read. Set data.source.root to your data.")
        return dict(sorted(files.items()))

    def _pair_files(self, images: Mapping[str, Path], masks: Mapping[str, Mapping[str, Path]]) -> Pairs:
        pairs: dict[str, list[list[Path]]] = {name: [] for name in images}
        for pattern in self.mask_patterns:
            files, names = masks[pattern.folder], list(masks[pattern.folder])
            for image, mask_lists in pairs.items():
                mask_lists.append([files[name] for name in pattern.find_masks(image, names)])
        alone = [
            str(images[name])
            for name, mask_lists in pairs.items()
            if any(images[name] in paths for paths in mask_lists)
        ]
        if alone:
            raise SettingError(
                f"{count_noun(len(alone), 'image')} would be masks of themselves: {abbreviate(alone)}. Where images "
                "and masks share a folder, set data.source.mask_name to what sets them apart, such as '{stem}_mask'."
            )
        return pairs

    def _check_pairs(
        self,
        images: Mapping[str, Path],
        masks: Mapping[str, Mapping[str, Path]],
        pairs: Pairs,
        annotated: Mapping[str, tuple[str, ...] | None],
        on_problem: OnProblem | None,
    ) -> set[str]:
        """Find unpaired images and masks; return the images without a mask."""
        used = {
            *images.values(),
            *(path for mask_lists in pairs.values() for paths in mask_lists for path in paths),
        }
        needed = {name: self._find_needed(annotated.get(name)) for name in images}
        incomplete = {
            name: path
            for name, path in images.items()
            if not all(paths for paths, is_needed in zip(pairs[name], needed[name], strict=True) if is_needed)
        }
        if on_problem is not None:
            unused = {path for files in masks.values() for path in files.values()} - used
            for problem in _describe_unpaired(incomplete, unused):
                on_problem(problem)
            return set(incomplete)
        for index, pattern in enumerate(self.mask_patterns):
            lonely = [str(path) for name, path in images.items() if needed[name][index] and not pairs[name][index]]
            if lonely:
                raise MissingDataError(
                    f"{count_part(len(lonely), len(images), 'image', 'has', 'have')} no mask in "
                    f"{self.root / pattern.folder}: "
                    f"{abbreviate(lonely)}; expected names after the pattern {pattern.name!r}. "
                    f"Add the masks, move the images away, or set {pattern.setting}."
                )
            orphans = [str(path) for path in masks[pattern.folder].values() if path not in used]
            if orphans:
                raise MissingDataError(
                    f"{count_part(len(orphans), len(masks[pattern.folder]), 'mask', 'belongs', 'belong')} to no image "
                    f"in {self.root / self.images}: {abbreviate(orphans)}. Add the images, move the masks away, or set "
                    f"{pattern.setting}."
                )
        return set()

    def _check_unshared(self, pairs: Pairs, on_problem: OnProblem | None) -> None:
        """Find files that two images or labels would share as mask."""
        uses = Counter(path for mask_lists in pairs.values() for paths in mask_lists for path in paths)
        shared = {path: times for path, times in sorted(uses.items()) if times > 1}
        if shared:
            error = DataError(
                f"{count_noun(len(shared), 'mask belongs', 'masks belong')} to several images or labels: "
                f"{abbreviate(list(map(str, shared)))}. Make "
                f"the names in {_SETTING} or data.source.mask_name tell them apart."
            )
            problems = [
                Problem("shared-mask", f"The mask belongs to {count_noun(times, 'image')} or labels.", "", path)
                for path, times in shared.items()
            ]
            raise_or_report(error, problems, on_problem)

    def _find_needed(self, annotated: Collection[str] | None) -> list[bool]:
        """Tell which patterns a case needs; those of unannotated labels are not."""
        labels = list(self.masks) if isinstance(self.masks, dict) else [""] * len(self.mask_patterns)
        return [annotated is None or not label or label in annotated for label in labels]

    def _read_annotated_labels(
        self, images: Collection[str], on_problem: OnProblem | None
    ) -> dict[str, tuple[str, ...] | None]:
        """Read the annotated labels of the cases in the table."""
        if self.annotated_labels is None:
            return {}
        path = self.root / self.annotated_labels
        try:
            rows = read_table(path, ("case_id", "annotated_labels"), "these two", f"Correct {_ANNOTATED}.")
            check_unique([row["case_id"] for _, row in rows], path)
            annotated = {
                require_field(row, "case_id", f"{path}, line {number}"): parse_annotated_labels(
                    row["annotated_labels"] or "", f"{path}, line {number}"
                )
                for number, row in rows
            }
            if unknown := sorted(annotated.keys() - set(images)):
                raise DataError(
                    f"{path} names {count_noun(len(unknown), 'case that is', 'cases that are')} not there: "
                    f"{abbreviate(unknown)}. Correct case_id: the image's name without suffix and with sub-folders."
                )
        except DataError as error:
            raise_or_report(error, [Problem("listing-invalid", strip_remedy(str(error)), "", path)], on_problem)
            return {}
        return annotated

    def _is_at(self, path: Path, pattern: MaskPattern, image: str) -> bool:
        folder = self.root / pattern.folder
        return path.is_relative_to(folder) and bool(pattern.find_masks(image, [name_below(path, folder)]))


def _describe_unpaired(images: Mapping[str, Path], masks: Iterable[Path]) -> Iterator[Problem]:
    """Describe images without masks and masks without images."""
    # A pair that fits on Windows and macOS, where names are compared without case, is no pair on Linux.
    by_lower = {stem(path).lower(): path for path in masks}
    matched = set()
    for name, path in images.items():
        other = by_lower.get(stem(path).lower())
        if other is None:
            yield Problem("missing-mask", "The image has no mask, or not one for each label.", name, path)
        else:
            matched.add(other)
            message = f"The only mask of nearly this name is {other.name}."
            yield Problem("pair-differs-by-case", message, name, path)
    for path in sorted(set(by_lower.values()) - matched):
        yield Problem("missing-image", "The mask belongs to no image.", "", path)
