"""A table that names every file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import shown
from medseg_pl.data.sources.files import FileSource, check_mask_names, inside
from medseg_pl.data.sources.folder import FolderSource

SPLITS = ("train", "val", "test")


class ManifestSource(FileSource):
    """A CSV with the columns `case_id, group, image, mask` and, if you like, `split` or `fold`.

    ```
    case_id,group,image,mask,split
    p1_a,p1,images/p1_a.png,masks/p1_a.png,train
    ```

    `group` is the patient. Several channels stand in `image` separated by `;`. For labels that may overlap, the
    columns `mask_<label>` take the place of `mask`, in the order of `labels.names`. `split` is train, val or test;
    `fold` is the number of the fold in which the case is held out. Other columns are left alone.

    Args:
        manifest: The CSV file.
        root: The folder its paths start from, and may not leave; the manifest's own folder by default.
    """

    def __init__(self, manifest: str, root: str | None = None) -> None:
        self.manifest = Path(manifest)
        self.root = Path(root) if root else self.manifest.parent

    def cases(self) -> list[Case]:
        """One case for each row."""
        cases = [self._case(number, row) for number, row in self._rows()]
        names = [case.case_id for case in cases]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise DataError(f"{self.manifest}: case_id stands in several rows: {shown(repeated)}. Give each its own.")
        return sorted(cases, key=lambda case: case.case_id)

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """See `FileSource`; the columns `mask_<label>` hold the labels they name."""
        columns = self.reading_settings()
        if case.masks and columns:
            check_mask_names([str(name) for name in columns], labels, str(self.manifest))
        return super().read(case, labels)

    def reading_settings(self) -> tuple[object, ...]:
        """Which label each column stands for."""
        columns = next(csv.reader(io.StringIO(self._text())), [])
        return tuple(column.removeprefix("mask_") for column in columns if column.startswith("mask_"))

    def unlabelled(self, directory: Path) -> FolderSource:
        """Every image below a folder."""
        return FolderSource(str(directory), images=".", masks=None)

    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """The rows with the lines they end on."""
        reader = csv.DictReader(io.StringIO(self._text()))
        missing = {"case_id", "group", "image"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{self.manifest} lacks the column(s) {', '.join(sorted(missing))}; expected case_id, group, "
                f"image, mask and optionally split or fold; got {', '.join(reader.fieldnames or ())}."
            )
        rows = [(reader.line_num, row) for row in reader]
        if not rows:
            raise MissingDataError(f"{self.manifest} has no rows.")
        return rows

    def _text(self) -> str:
        if not self.manifest.is_file():
            raise MissingDataError(f"{self.manifest} does not exist. Set data.source.manifest to your CSV file.")
        try:
            return self.manifest.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.manifest} is not UTF-8: {error}. Save it as UTF-8 from your spreadsheet.") from None

    def _case(self, number: int, row: dict[str, str]) -> Case:
        where = f"{self.manifest}, line {number}"
        masks = [value for key, value in row.items() if key and (key == "mask" or key.startswith("mask_")) and value]
        return Case(
            case_id=_name(row, where),
            group=_filled(row, "group", where),
            images=tuple(self._file(part, where) for part in _filled(row, "image", where).split(";")),
            masks=tuple(self._file(mask, where) for mask in masks),
            split=_split(row.get("split"), where),
            fold=_fold(row.get("fold"), where),
        )

    def _file(self, relative: str, where: str) -> Path:
        path = inside(self.root, relative.strip(), where)
        if not path.is_file():
            raise MissingDataError(
                f"{where} names {path}, which does not exist. Correct the row, or set data.source.root."
            )
        return path


def _filled(row: dict[str, str], column: str, where: str) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise DataError(f"{where}: the column {column} is empty. Fill it in or remove the row.")
    return value


def _name(row: dict[str, str], where: str) -> str:
    """The case's id: predictions are written under it, so it may not lead out of their folder."""
    name = _filled(row, "case_id", where)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{where}: the case_id {name!r} leads out of a folder. Use a name without '..' and leading '/'."
        )
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
