"""A folder of images beside a folder of masks."""

from __future__ import annotations

from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import check_pattern, group_of, shown
from medseg_pl.data.sources.files import FileSource, check_mask_names, is_image
from medseg_pl.io.files import require_folder
from medseg_pl.io.nifti import stem


class FolderSource(FileSource):
    r"""Images and masks paired by name.

    ```
    root/images/patient7_a.png      root/masks/patient7_a.png                     one mask with ids, or 0/255
                                    root/stomach/patient7_a.png, root/bowel/…     or one folder for each label
    ```

    Raster files (PNG, TIFF, JPEG, BMP) and NIfTI volumes; sub-folders belong to the case's name.

    Args:
        root: The folder that holds everything.
        images: The images' folder, below `root`.
        masks: The masks' folder, below `root`; or one folder for each label, `{stomach: stomach, bowel: bowel}`, in
            the order of `labels.names`; or null for images without masks.
        mask_name: The mask's name without suffix, given the image's: `"{stem}_seg"` pairs `a.png` with `a_seg.png`.
        group: A regular expression whose parentheses find the patient in a case's name; without it every image is
            its own patient. Set it wherever a patient has several images: `Image_(\d+)`.
    """

    def __init__(
        self,
        root: str,
        images: str = "images",
        masks: str | dict[str, str] | None = "masks",
        mask_name: str = "{stem}",
        group: str | None = None,
    ) -> None:
        if "{stem}" not in mask_name or set("{}/") & set(mask_name.replace("{stem}", "")):
            raise SettingError(
                "data.source.mask_name must contain {stem}, the image's name, and no other braces or slashes; "
                f"got {mask_name!r}."
            )
        check_pattern(group)
        self.root = Path(root)
        self.images = images
        self.masks = masks
        self.mask_name = mask_name
        self.group = group

    def cases(self) -> list[Case]:
        """One case for each image, with its mask; nothing on either side may be left over."""
        images = self._files(self.images, "images")
        masks = [(folder, self._files(folder, "masks")) for folder in self._mask_folders()]
        for folder, found in masks:
            self._check_pairs(images, found, folder)
        return [
            Case(
                case_id=name,
                group=group_of(name, self.group),
                images=(path,),
                masks=tuple(found[self._mask_of(name)] for _, found in masks),
            )
            for name, path in sorted(images.items())
        ]

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """See `FileSource`; a folder for each label holds the label that it is given to."""
        if case.masks and isinstance(self.masks, dict):
            check_mask_names(list(self.masks), labels, "data.source.masks")
        return super().read(case, labels)

    def reading_settings(self) -> tuple[object, ...]:
        """Which label each folder stands for."""
        return tuple(self.masks) if isinstance(self.masks, dict) else ()

    def unlabelled(self, directory: Path) -> FolderSource:
        """Every image below a folder."""
        return FolderSource(str(directory), images=".", masks=None)

    def _mask_folders(self) -> list[str]:
        if self.masks is None:
            return []
        return [self.masks] if isinstance(self.masks, str) else list(self.masks.values())

    def _mask_of(self, name: str) -> str:
        path = Path(name)
        return path.with_name(self.mask_name.replace("{stem}", path.name)).as_posix()

    def _files(self, folder: str, what: str) -> dict[str, Path]:
        """Name without suffix, sub-folders included, to path."""
        setting = "Set data.source.root to your data" if what == "images" else "Set data.source.masks"
        directory = require_folder(self.root / folder, what, f"{setting}, or correct the folder's name.")
        files: dict[str, Path] = {}
        for path in sorted(directory.rglob("*")):
            if not (is_image(path) and path.is_file()):
                continue
            name = path.relative_to(directory).with_name(stem(path)).as_posix()
            if name in files:
                raise DataError(
                    f"{files[name]} and {path} have the same name, so {what} cannot be told apart. Rename one."
                )
            files[name] = path
        if not files:
            raise MissingDataError(f"{directory} holds no image that can be read. Set data.source.root to your data.")
        return files

    def _check_pairs(self, images: dict[str, Path], masks: dict[str, Path], folder: str) -> None:
        expected = {self._mask_of(name): path for name, path in images.items()}
        lonely = [str(path) for name, path in expected.items() if name not in masks]
        if lonely:
            raise MissingDataError(
                f"{len(lonely)} of {len(images)} images have no mask in {self.root / folder}: {shown(lonely)}; "
                f"expected the name {self.mask_name!r}. Add the masks, move the images away, or set "
                "data.source.mask_name."
            )
        orphans = [str(path) for name, path in masks.items() if name not in expected]
        if orphans:
            raise MissingDataError(
                f"{len(orphans)} of {len(masks)} masks belong to no image in {self.root / self.images}: "
                f"{shown(orphans)}. Add the images, move the masks away, or set data.source.mask_name."
            )
