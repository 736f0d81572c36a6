"""UW-Madison GI tract image segmentation, in Kaggle's layout."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, GeometryError, MissingDataError, SettingError, count_noun, strip_remedy
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    Source,
    describe_left_out,
    explain_missing_root,
    explain_unread,
    raise_or_report,
)
from medseg_pl.io import raster
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.paths import LeftOut, find_dead_links, is_picture, list_files, require_folder
from medseg_pl.io.regions import decode_runs, encode_runs
from medseg_pl.io.scores import write_rows

_SCAN = re.compile(r"slice_(\d+)_(\d+)_(\d+)_(\d+\.\d+)_(\d+\.\d+)\.(?i:png)")

_SUBMISSION = ("id", "class", "predicted")


class _SliceName(NamedTuple):
    """What the name of a slice says."""

    number: str
    width: int
    height: int
    spacing_mm: tuple[float, float]


class RunTable:
    """Masks as run lengths by slice and class: references or a submission.

    Args:
        path: A CSV in UTF-8.
        column: The column of the run lengths.

    Raises:
        DataError: It is no such table, or has two rows for a slice and a class.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.path = path
        self._runs = _read_runs(path, column)

    @property
    def classes(self) -> list[str]:
        """The classes, in the order of the table."""
        return list(dict.fromkeys(name for _, name in self._runs))

    @property
    def case_ids(self) -> list[str]:
        """The cases, in the order of the table."""
        return list(dict.fromkeys(row.rpartition("_slice_")[0] for row, _ in self._runs))

    @cached_property
    def slices(self) -> dict[str, set[str]]:
        """The numbers of the slices of each case, with their zeros."""
        slices: dict[str, set[str]] = defaultdict(set)
        for row, _ in self._runs:
            case_id, _, number = row.rpartition("_slice_")
            slices[case_id].add(number)
        return dict(slices)

    def draw(self, case: Case, labels: LabelMap) -> UInt8[np.ndarray, "m d h w"]:
        """Draw the labels on the slices of a case.

        Raises:
            SettingError: No row is of a label.
            DataError: A row is missing or does not fit its slice.
        """
        names = [_parse(path) for path in case.images]
        planes = [np.stack([self._draw_plane(case, each, label) for each in names]) for label in labels.names]
        return labels.combine(planes, f"Case {case.case_id}")

    def _draw_plane(self, case: Case, name: _SliceName, label: str) -> UInt8[np.ndarray, "h w"]:
        row = f"{case.case_id}_slice_{name.number}"
        runs = self._runs.get((row, label))
        if runs is None:
            known = sorted(self.classes)
            if label not in known:
                raise SettingError(
                    f"{self.path.name} knows no class {label!r}; labels.names may hold {', '.join(known)}."
                )
            raise MissingDataError(f"{self.path} has no row for {row}, class {label}. Complete the table.")
        return decode_runs(runs, (name.height, name.width), f"{self.path.name}, {row}, {label}").astype(np.uint8)


class UWMadisonSource(Source):
    """Abdominal MRI with large bowel, small bowel and stomach.

    Scans for radiotherapy of the gastro-intestinal tract.

    ```
    root/train/case123/case123_day20/scans/slice_0001_266_266_1.50_1.50.png      16-bit gray
    root/train.csv                                                               id, class, segmentation (run lengths)
    ```

    The fields of a name are number, width, height (pixels) and the pixel spacings in the same order (mm). A case is
    one day of one patient, a volume; its group is the patient. The organs can overlap: three labels, not three
    classes.

    Args:
        root: The folder that holds `train` and `train.csv`.
        slice_spacing_mm: From slice to slice; the data set's is 3 mm.

    References:
        UW-Madison GI Tract Image Segmentation, Kaggle, 2022.
    """

    def __init__(self, root: str, slice_spacing_mm: float = 3.0) -> None:
        self.root = Path(root)
        self.slice_spacing_mm = slice_spacing_mm

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each day of a patient."""
        remedy = "Set data.source.root to the folder that holds train.csv."
        require_folder(self.root, "the UW-Madison data", explain_missing_root(self.root, remedy))
        table = self.root / "train.csv"
        if not table.is_file():
            message = f"{table} does not exist."
            error = MissingDataError(f"{message} {remedy}")
            raise_or_report(error, [Problem("listing-invalid", message)], on_problem)
        cases, left_out = _find_scans(self.root / "train", masks=(table,))
        names = {case.case_id for case in cases}
        wrong = [each for each in left_out if each.kind == "unlisted"]
        for folder, reason, _ in wrong:
            code, path = ("duplicate-name", folder) if folder.name in names else ("listing-invalid", folder / "scans")
            problem = Problem(code, strip_remedy(reason), folder.name, path)
            raise_or_report(DataError(f"{folder}: {reason}"), [problem], on_problem)
        if not cases and not wrong:
            raise MissingDataError(
                f"{self.root / 'train'} holds no case*/case*_day*/scans/slice_*.png. Check data.source.root."
            )
        return cases

    def list_left_out(self) -> list[LeftOut]:
        """List the files among the scans that are no slices."""
        return _find_scans(self.root / "train", masks=())[1]

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Stack the slices in numerical order, and draw the runs.

        Raises:
            DataError: A slice is missing, or a row is missing or does not fit its slice.
            GeometryError: The names of the slices differ in size or spacing.
        """
        names = [_parse(path) for path in case.images]
        _check_stack(case, names)
        spacing_x, spacing_y = names[0].spacing_mm
        image = np.stack([_slice(path, name) for path, name in zip(case.images, names, strict=True)])
        # Names give x before y; geometry is (z, y, x).
        geometry = Geometry(image.shape, (self.slice_spacing_mm, spacing_y, spacing_x))
        if case.masks:
            self._check_all_there(case, names)
        mask = self.references.draw(case, labels) if case.masks else None
        return Volume(image[None], mask, geometry)

    def open_unlabeled(self, directory: Path) -> Source:
        """Open the scans below a folder, without a table."""
        return _Scans(str(directory), self.slice_spacing_mm)

    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """Write the rows of one case, in the columns of a submission."""
        rows = [
            [f"{case.case_id}_slice_{_parse(path).number}", name, encode_runs(plane)]
            for index, path in enumerate(case.images)
            for name, plane in zip(labels.names, labels.planes(mask[:, index]), strict=True)
        ]
        write_rows(
            directory / "cases" / f"{case.case_id}.csv", [dict(zip(_SUBMISSION, row, strict=True)) for row in rows]
        )

    def finish(self, directory: Path) -> None:
        """Join the cases to `submission.csv`."""
        parts = sorted((directory / "cases").glob("*.csv"))
        # From the files and not from memory: an interrupted prediction has written some of them before.
        rows = [line for part in parts for line in part.read_text(encoding="utf-8").splitlines()[1:]]
        write_text(directory / "submission.csv", "\n".join([",".join(_SUBMISSION), *rows]) + "\n", replace=True)

    def reading_settings(self) -> tuple[object, ...]:
        """Return the slice spacing, which stands in no file."""
        return (self.slice_spacing_mm,)

    def _check_all_there(self, case: Case, names: Sequence[_SliceName]) -> None:
        """Check that no slice of the table is missing at the end of a scan, where no gap shows it."""
        missing = self.references.slices.get(case.case_id, set()) - {name.number for name in names}
        if missing:
            raise MissingDataError(
                f"Case {case.case_id} ({case.images[0].parent}): {self.references.path.name} has rows of slice "
                f"{min(missing)}, whose file is missing. Restore it, or remove its rows."
            )

    @cached_property
    def references(self) -> RunTable:
        """The table of the references."""
        return RunTable(self.root / "train.csv", "segmentation")


class _Scans(UWMadisonSource):
    """Scans without a table, as in the competition's test set.

    A scan that is no case hides no other.
    """

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        remedy = "Set --input to the folder above the case folders."
        require_folder(self.root, "scans in the UW-Madison layout", remedy)
        cases, left_out = _find_scans(self.root, masks=())
        if not cases:
            said = describe_left_out(left_out)
            raise MissingDataError(f"{self.root} holds no scan that can be read. {said + ' ' if said else ''}{remedy}")
        return cases

    def list_left_out(self) -> list[LeftOut]:
        return _find_scans(self.root, masks=())[1]


def _find_scans(directory: Path, masks: tuple[Path, ...]) -> tuple[list[Case], list[LeftOut]]:
    """Find the cases below a folder, and what is no case."""
    scans: dict[Path, list[Path]] = {}
    left_out = find_dead_links(directory)
    for path in list_files(directory):
        if path.parent.name == "scans" and path.suffix.lower() == ".png":
            scans.setdefault(path.parent.parent, []).append(path)
        else:
            lost = LeftOut(path, "It lies in no folder called scans.")
            left_out.append(lost if is_picture(path) else explain_unread(path))
    cases: dict[str, Case] = {}
    for folder, paths in scans.items():
        wrong = next((path for path in paths if not _SCAN.fullmatch(path.name)), None)
        if wrong is not None:
            remedy = "expected a name like slice_0001_266_266_1.50_1.50.png. Rename or remove the file."
            left_out.append(LeftOut(folder, f"{wrong.name}: {remedy}", "unlisted"))
        elif folder.name in cases:
            other = cases[folder.name].images[0].parent.parent
            left_out.append(LeftOut(folder, f"{other} has the same name. Move one of them away.", "unlisted"))
        else:
            ordered = tuple(sorted(paths, key=_slice_number))
            cases[folder.name] = Case(folder.name, folder.name.split("_")[0], ordered, masks)
    return [case for _, case in sorted(cases.items())], left_out


def _slice_number(path: Path) -> int:
    return int(_parse(path).number)


def _check_stack(case: Case, names: list[_SliceName]) -> None:
    """Check that slices have one size and spacing and no gap."""
    where = f"Case {case.case_id} ({case.images[0].parent})"
    numbers = [int(name.number) for name in names]
    # Slices of the set begin at any number, but a gap would shift everything behind it.
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        wrong = next(after for before, after in pairwise(numbers) if after != before + 1)
        raise DataError(
            f"{where}: slice {wrong} follows no slice {wrong - 1}. Restore what is missing, remove what is twice."
        )
    if len({(name.width, name.height, name.spacing_mm) for name in names}) > 1:
        raise GeometryError(
            f"{where}: the names of the slices differ in size or spacing. Check which files belong here."
        )
    if not min(names[0].spacing_mm) > 0:
        raise GeometryError(
            f"{where}: the names say that pixels are {names[0].spacing_mm} mm apart. Correct the names."
        )


def _parse(path: Path) -> _SliceName:
    match = _SCAN.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: expected a name like slice_0001_266_266_1.50_1.50.png. Rename or remove the file.")
    number, width, height, first, second = match.groups()
    return _SliceName(number, int(width), int(height), (float(first), float(second)))


def _slice(path: Path, name: _SliceName) -> UInt8[np.ndarray, "h w"] | np.ndarray:
    pixels = raster.read_image(path)
    if pixels.shape != (1, name.height, name.width):
        channels, height, width = pixels.shape
        raise GeometryError(
            f"{path} is {width} x {height} pixels with {count_noun(channels, 'channel')}, but its name says "
            f"{name.width} x {name.height} and one channel. Replace the file with an intact copy."
        )
    plane: np.ndarray = pixels[0]
    return plane


def _read_runs(table: Path, column: str) -> dict[tuple[str, str], str]:
    """Read the run lengths by slice and class."""
    # A run-length row is longer than the 131,072 characters that the module allows.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with table.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            missing = {"id", "class", column} - set(reader.fieldnames or ())
            rows = [] if missing else list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table} is no CSV in UTF-8: {error}. Save it as such.") from error
    if missing or not rows:
        raise DataError(
            f"{table} {'lacks columns: ' + ', '.join(sorted(missing)) if missing else 'has no rows'}; "
            f"expected rows with id, class and {column}, separated by commas. Restore the competition's table."
        )
    runs = {(row["id"], row["class"]): row[column] or "" for row in rows}
    if len(runs) < len(rows):
        twice, count = Counter((row["id"], row["class"]) for row in rows).most_common(1)[0]
        raise DataError(f"{table} has {count_noun(count, 'row')} for {twice[0]}, class {twice[1]}. Keep one of them.")
    return runs
