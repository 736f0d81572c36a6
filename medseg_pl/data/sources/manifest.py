"""A table that names every file."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.names import path_fault
from medseg_pl.core.text import shorten
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.csv_table import check_unique, filled, read_table, strata_columns, strata_of
from medseg_pl.data.sources.files import FileSource, check_mask_names, inside
from medseg_pl.data.sources.unlabeled import IMAGE_FOLDERS, MASK_FOLDERS, ImageFolder, find_image_folders

SPLITS = ("train", "val", "test")

_EXPECTED = "case_id, group, image, mask and optionally split or fold"
_REMEDY = "Set data.source.manifest to your CSV file."


class ManifestSource(FileSource):
    """A CSV with the columns `case_id, group, image, mask` and, if you like, `split` or `fold`, `site` and `scanner`.

    ```
    case_id,group,image,mask,split,site
    p1_a,p1,images/p1_a.png,masks/p1_a.png,train,north
    ```

    `group` is the patient. Several channels stand in `image` separated by `;`. For labels that may overlap, the
    columns `mask_<label>` take the place of `mask`, in the order of `labels.names`. `split` is train, val or test;
    `fold` is the number of the fold in which the case is held out. `site` and `scanner` are strata: scores are also
    reported by their values, and a case may leave them empty. Other columns are left alone.

    Args:
        manifest: The CSV file.
        root: The folder its paths start from, and may not leave; the manifest's own folder by default.
        strata: The columns that are strata, all of which must be there; null for `site` and `scanner` where they are.
        slicing: How volumes are cut into slices: `file` across their last axis, `thick` across the largest spacing,
            both with rows and columns as they are stored; `axial`, `coronal` or `sagittal` as radiologists see them,
            whichever way the volume was stored.
    """

    def __init__(
        self,
        manifest: str,
        root: str | None = None,
        strata: Sequence[str] | None = None,
        slicing: Slicing = "file",
    ) -> None:
        self.manifest = Path(manifest)
        self.root = Path(root) if root else self.manifest.parent
        self.strata = strata
        self.slicing = slicing

    def cases(self) -> list[Case]:
        """One case for each row."""
        rows = read_table(self.manifest, ("case_id", "group", "image"), _EXPECTED, _REMEDY)
        strata = strata_columns(rows[0][1], self.strata, self.manifest, "data.source.strata")
        cases = [self._case(number, row, strata) for number, row in rows]
        check_unique([case.case_id for case in cases], self.manifest)
        return sorted(cases, key=lambda case: case.case_id)

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """See `FileSource`; the columns `mask_<label>` hold the labels they name."""
        columns = self.mask_labels()
        if case.masks and columns:
            check_mask_names(columns, labels, str(self.manifest))
        return super().read(case, labels)

    def reading_settings(self) -> tuple[object, ...]:
        """How volumes are cut, and which label each column stands for."""
        return (self.slicing, *self.mask_labels())

    def unlabeled(self, directory: Path) -> ImageFolder:
        """Every image below a folder; of a data set's root those in its folder of images."""
        folders = find_image_folders(directory, IMAGE_FOLDERS, MASK_FOLDERS)
        return ImageFolder(str(directory), self.slicing, folders)

    def mask_labels(self) -> list[str]:
        """Name the labels that have a column of their own, in the order of the columns."""
        # The first line alone: this is asked for each case that is read, and a table may be long.
        with self.manifest.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
        return [column.removeprefix("mask_") for column in columns if column.startswith("mask_")]

    def _case(self, number: int, row: dict[str, str], strata: Sequence[str]) -> Case:
        where = f"{self.manifest}, line {number}"
        masks = {key: (value or "").strip() for key, value in row.items() if key and re.fullmatch("mask(_.*)?", key)}
        if any(masks.values()) and not all(masks.values()):
            empty = next(key for key, value in masks.items() if not value)
            raise DataError(
                f"{where}: the column {empty} is empty, but others name masks. Fill in all of them or none."
            )
        return Case(
            case_id=_name(row, where),
            group=filled(row, "group", where),
            images=tuple(self._file(part, where) for part in filled(row, "image", where).split(";")),
            masks=tuple(self._file(mask, where) for mask in masks.values() if mask),
            split=_split(row.get("split"), where),
            fold=_fold(row.get("fold"), where),
            strata=strata_of(row, strata),
        )

    def _file(self, relative: str, where: str) -> Path:
        path = inside(self.root, relative.strip(), where)
        if not path.is_file():
            raise MissingDataError(
                f"{where} names {path}, which does not exist. Correct the row, or set data.source.root."
            )
        return path


def _name(row: dict[str, str], where: str) -> str:
    """The case's id: predictions are written under it, so it may not lead out of their folder."""
    name = filled(row, "case_id", where)
    if (fault := path_fault(name)) is not None:
        raise DataError(f"{where}: the case_id {shorten(name)} {fault}. Use a plain name.")
    return name


def _split(value: str | None, where: str) -> str | None:
    name = (value or "").strip() or None
    if name is not None and name not in SPLITS:
        raise DataError(f"{where}: split is {name!r}; expected {', '.join(SPLITS)}, or nothing.")
    return name


def _fold(value: str | None, where: str) -> int | None:
    text = (value or "").strip()
    if text and not text.isdecimal():
        raise DataError(f"{where}: fold is {text!r}; expected 0, 1, 2 …, or nothing.")
    return int(text) if text else None
