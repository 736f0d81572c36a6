"""CSV tables of cases, and the source whose table names every file."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medseg_pl.core.errors import DataError, MissingDataError, SettingError, shorten, strip_remedy
from medseg_pl.core.geometry import Slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.core.validation import find_path_fault
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    abbreviate,
    explain_missing_root,
    make_case,
    parse_annotated_labels,
    raise_or_report,
)
from medseg_pl.data.sources.files import FileSource, check_mask_names, resolve_inside
from medseg_pl.data.sources.unlabeled import IMAGE_FOLDERS, MASK_FOLDERS, ImageFolder, find_image_folders

STRATA = ("site", "scanner")
"""Columns that are strata without being named, where a table has them."""

_COLUMNS_OF_SCORES = (
    *("case_id", "group", "label", "status", "unit"),
    *("tp", "fp", "fn", "dice", "iou", "precision", "recall", "hd", "hd95", "assd", "nsd"),
    *("volume_reference_ml", "volume_prediction_ml", "volume_difference_ml"),
)
"""What a stratum may not be called, since it becomes a column beside these."""


def read_text(path: Path, remedy: str) -> str:
    """Read a table in UTF-8, with or without a byte order mark.

    Raises:
        DataError: It is not UTF-8.
        MissingDataError: There is no such file.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. {remedy}")
    try:
        # Excel begins UTF-8 with a byte order mark
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}. Save it as UTF-8 from your spreadsheet.") from None


def read_table(path: Path, needed: Collection[str], expected: str, remedy: str) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV with the lines they end on.

    Args:
        path: The table.
        needed: Required columns.
        expected: All possible columns, for an error.
        remedy: What to do where there is no such file.

    Raises:
        DataError: A column is missing.
        MissingDataError: There is no such file, or it has no rows.
    """
    text = read_text(path, remedy)
    try:
        reader = csv.DictReader(io.StringIO(text))
        columns = reader.fieldnames or ()
        # What a row has beyond the header's columns, the reader gives under no name.
        rows = [(reader.line_num, {name: field for name, field in row.items() if name is not None}) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}. Save it anew from your spreadsheet.") from None
    missing = set(needed) - set(columns)
    if missing:
        raise DataError(
            f"{path} lacks columns: {', '.join(sorted(missing))}; expected {expected}; got {', '.join(columns)}."
        )
    if not rows:
        raise MissingDataError(f"{path} has no rows. Write one for each image.")
    return rows


def check_unique(names: Sequence[str], path: Path) -> None:
    """Check that no case has several rows in a table.

    Raises:
        DataError: A case has.
    """
    if len(set(names)) < len(names):
        repeated = [name for name, rows in Counter(names).items() if rows > 1]
        raise DataError(f"{path}: case_id stands in several rows: {abbreviate(sorted(repeated))}. Give each its own.")


def choose_strata_columns(columns: Collection[str], named: Sequence[str] | None, path: Path, setting: str) -> list[str]:
    """Choose the columns that are strata.

    Args:
        columns: All columns of the table.
        named: The requested ones; `None` where the user named none.
        path: The table's name in errors.
        setting: The setting that names them.

    Raises:
        DataError: A named column is not there.
        SettingError: A name is that of a column that every table of scores has.
    """
    if named is None:
        return [name for name in STRATA if name in columns]
    taken = [name for name in named if name in _COLUMNS_OF_SCORES]
    if taken:
        raise SettingError(
            f"{setting} names {abbreviate(taken)}, which is a column of every table of scores already. Leave it out."
        )
    missing = [name for name in named if name not in columns]
    if missing:
        raise DataError(f"{path} lacks columns that {setting} names: {', '.join(missing)}; got {', '.join(columns)}.")
    return list(dict.fromkeys(named))  # each once, in the order of the setting


def read_strata(row: Mapping[str, str | None], columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read the strata that a row fills in.

    Returns:
        Column and value of each.

    >>> read_strata({"case_id": "a", "site": "north", "scanner": " "}, ["site", "scanner"])
    (('site', 'north'),)
    """
    values = ((name, (row[name] or "").strip()) for name in columns)
    return tuple((name, value) for name, value in values if value)


def require_field(row: Mapping[str, str | None], column: str, where: str) -> str:
    """Return the field of a row, which must not be empty.

    Raises:
        DataError: The field is empty.
    """
    value = (row[column] or "").strip()
    if not value:
        raise DataError(f"{where}: the column {column} is empty. Fill it in or remove the row.")
    return value


SPLITS = ("train", "val", "test")

_EXPECTED = "case_id, group, image, mask and optionally split or fold, annotated_labels"
_REMEDY = "Set data.source.manifest to your CSV file."


class ManifestSource(FileSource):
    """Cases listed in a CSV.

    Its columns are `case_id, group, image, mask` and, if you like, `split` or `fold`, `site` and `scanner`.

    ```
    case_id,group,image,mask,split,site
    p1_a,p1,images/p1_a.png,masks/p1_a.png,train,north
    ```

    `group` is the patient. Several channels stand in `image` separated by `;`. For labels that may overlap, the
    columns `mask_<label>` take the place of `mask`, in the order of `labels.names`. `split` is train, val or test;
    `fold` is the number of the fold in which the case is held out. `site` and `scanner` are strata: scores are also
    reported by their values, and a case may leave them empty. `annotated_labels` names the labels that were looked for
    in a case, separated by `;`, and is empty where all were; the columns `mask_<label>` of others are then empty. Other
    columns are left alone.

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

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each row."""
        try:
            remedy = explain_missing_root(self.manifest, _REMEDY)
            rows = read_table(self.manifest, ("case_id", "group", "image"), _EXPECTED, remedy)
            strata = choose_strata_columns(rows[0][1], self.strata, self.manifest, "data.source.strata")
        except DataError as error:
            raise_or_report(error, [Problem("listing-invalid", str(error), "", self.manifest)], on_problem)
            return []
        cases: dict[str, Case] = {}
        repeated: list[str] = []
        for number, row in rows:
            where = f"Line {number}" if on_problem else f"{self.manifest}, line {number}"
            try:
                name, group, image = (require_field(row, column, where) for column in ("case_id", "group", "image"))
                split, fold = _split(row.get("split"), where), _fold(row.get("fold"), where)
                annotated = parse_annotated_labels(row.get("annotated_labels") or "", where)
                if on_problem is None:
                    _check_name(name, where)
            except DataError as error:
                problem = Problem("listing-invalid", strip_remedy(str(error)), row["case_id"] or "", self.manifest)
                raise_or_report(error, [problem], on_problem)
                continue
            if name in cases:
                repeated.append(name)
                if on_problem is not None:
                    on_problem(Problem("duplicate-name", f"{where} repeats the case {name}.", name, self.manifest))
                continue
            images = self._resolve_files(name, image.split(";"), where, on_problem)
            listed = self._list_mask_names(name, row, annotated, where, on_problem)
            masks = self._resolve_files(name, listed, where, on_problem)
            if images:
                fields = (name, group, images, masks, split, fold, read_strata(row, strata), annotated)
                cases.update({case.case_id: case for case in make_case(on_problem, self.manifest, *fields)})
        if on_problem is None:
            check_unique([*cases, *repeated], self.manifest)
        return sorted(cases.values(), key=lambda case: case.case_id)

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case; the columns `mask_<label>` hold its labels.

        Raises:
            SettingError: The columns name other labels, or name them in another order.
            DataError: A file cannot be used as it is.
        """
        columns = self.read_mask_labels()
        if case.masks and columns:
            check_mask_names(columns, labels, str(self.manifest))
        return super().read(case, labels)

    def reading_settings(self) -> tuple[object, ...]:
        """Return the slicing, and which label each column stands for."""
        return (self.slicing, *self.read_mask_labels())

    def open_unlabeled(self, directory: Path) -> ImageFolder:
        """Open the images below a folder, or in a data set's own."""
        folders = find_image_folders(directory, IMAGE_FOLDERS, MASK_FOLDERS)
        return ImageFolder(str(directory), self.slicing, folders)

    def count_label_files(self, case: Case) -> Sequence[int]:
        """Count the masks of labels with columns; 0 if not annotated."""
        if case.annotated_labels is None or not (columns := self.read_mask_labels()):
            return super().count_label_files(case)
        return [int(name in case.annotated_labels) for name in columns]

    def read_mask_labels(self) -> list[str]:
        """Read which labels have a column of their own, in order."""
        # The first line alone: this is asked for each case that is read, and a table may be long.
        with self.manifest.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
        return [column.removeprefix("mask_") for column in columns if column.startswith("mask_")]

    def _list_mask_names(
        self,
        case_id: str,
        row: dict[str, str],
        annotated: Sequence[str] | None,
        where: str,
        on_problem: OnProblem | None,
    ) -> list[str]:
        fields = {key: (value or "").strip() for key, value in row.items() if re.fullmatch("mask(_.*)?", key)}
        names = [name for name in fields.values() if name]
        # One mask of all labels is there whatever was looked for.
        partial = annotated is not None and "mask" not in fields
        needed = [f"mask_{name}" for name in annotated or ()] if partial else list(fields)
        wrong = [key for key in dict.fromkeys([*needed, *fields]) if bool(fields.get(key)) != (key in needed)]
        if names and wrong:
            reason = f"annotated_labels is {';'.join(annotated or ())}" if partial else "others name masks"
            remedy = "Fill in those of annotated_labels alone" if partial else "Fill in all of them or none"
            is_filled = "filled in" if fields.get(wrong[0]) else "empty"
            error = DataError(f"{where}: the column {wrong[0]} is {is_filled}, but {reason}. {remedy}.")
            problem = Problem("listing-invalid", strip_remedy(str(error)), case_id, self.manifest)
            raise_or_report(error, [problem], on_problem)
        if not names and on_problem is not None:  # no error: such a case can be predicted, but not trained on
            on_problem(Problem("missing-mask", f"{where} names no mask.", case_id, self.manifest))
        return names

    def _resolve_files(
        self, case_id: str, names: Sequence[str], where: str, on_problem: OnProblem | None
    ) -> tuple[Path, ...]:
        """Find the files of a row, or none if one is missing."""
        paths = []
        for name in names:
            try:
                path = resolve_inside(self.root, name.strip(), where)
            except MissingDataError as error:
                problem = Problem("listed-path-outside", f"The entry names {name!r}.", case_id, self.manifest)
                raise_or_report(error, [problem], on_problem)
                return ()
            if not path.is_file():
                remedy = explain_missing_root(self.root, "Correct the row, or set data.source.root.")
                missing = MissingDataError(f"{where} names {path}, which does not exist. {remedy}")
                message = f"{self.manifest.name} names {name}."
                raise_or_report(missing, [Problem("listed-file-missing", message, case_id, path)], on_problem)
                return ()
            paths.append(path)
        return tuple(paths)


def _check_name(name: str, where: str) -> None:
    """Raise `DataError` where a case's name leads out of its folder."""
    if (fault := find_path_fault(name)) is not None:
        raise DataError(f"{where}: the case_id {shorten(name)} {fault}. Use a plain name.")


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
