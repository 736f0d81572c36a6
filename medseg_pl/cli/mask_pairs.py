"""Two folders of masks, references beside predictions that anything may have made, paired by name.

```
reference/site1/p7.nii.gz     prediction/site1/p7.nii             one file with all labels: the case site1/p7
reference/stomach/p7.tif      prediction/stomach/p7.png           or one folder for each label that may overlap: p7
```

The patient of each case comes from a pattern in its name or from a table, which may hold more, such as the site.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from medseg_pl.core.errors import DataError, MaskValueError, MissingDataError, count_noun, count_part
from medseg_pl.core.labels import IGNORE, LabelMap, Task
from medseg_pl.core.types import Prediction
from medseg_pl.data.sources.base import (
    abbreviate,
    explain_unread,
    find_group,
    parse_annotated_labels,
    suggest_correction,
)
from medseg_pl.data.sources.files import CaseGrid, encode_mask_files, is_image, map_files_by_name, read_mask_file
from medseg_pl.data.sources.manifest import check_unique, choose_strata_columns, read_strata, read_table, require_field
from medseg_pl.io.file_header import is_lossy
from medseg_pl.io.paths import LeftOut, find_dead_links, is_volume_name, list_files, require_folder

MOST_LABELS = IGNORE - 1

_EXPECTED = "case_id, group and optionally annotated_labels, site, scanner or others"
_MARKED_SHOWN = 10


@dataclass(frozen=True)
class MaskPair:
    """One case by its files.

    Args:
        case_id: Its name without suffix, sub-folders included.
        references: One file with all labels, or one for each label.
        predictions: As the references; `None` where there is no file.
    """

    case_id: str
    references: tuple[Path, ...]
    predictions: tuple[Path | None, ...]

    @property
    def complete(self) -> bool:
        """Whether every reference has its prediction."""
        return None not in self.predictions

    @property
    def knows_spacing(self) -> bool:
        """Whether the references say how far pixels are apart."""
        return any(is_volume_name(path) for path in self.references)

    @property
    def group(self) -> str | None:
        """The patient, where the references say it."""
        return None

    @property
    def classes(self) -> list[str]:
        """The labels, where they have names beside the masks."""
        return []

    def read(self, labels: LabelMap, group: str, spacing_mm: tuple[float, float, float] | None = None) -> Prediction:
        """Decode both sides, see `read_pair`."""
        return read_pair(self, labels, group, spacing_mm)


def pair_folders(
    reference: Path, prediction: Path, labels: Sequence[str] | None = None
) -> tuple[list[MaskPair], list[str]]:
    """Pair references with predictions by name.

    Args:
        reference: The folder of references.
        prediction: The folder of predictions.
        labels: The labels' own folders on both sides, where there is one for each label.

    Returns:
        A pair for each reference, sorted, and the predictions without a reference.

    Raises:
        MissingDataError: A folder is not there or has no masks, a label of a reference is missing, or no reference has
            a prediction.
        DataError: Two files of a folder have one name, or there are files in a format that does not keep values.
    """
    folders = ["."] if labels is None else labels
    references = [_masks(reference / folder, "references") for folder in folders]
    predictions = [_masks(prediction / folder, "predictions") for folder in folders]
    names = sorted({name for files in references for name in files})
    _check_references(names, references, reference, folders)
    pairs = [
        MaskPair(name, tuple(f[name] for f in references), tuple(f.get(name) for f in predictions)) for name in names
    ]
    unmatched = sorted({name for files in predictions for name in files} - set(names))
    # Some may be missing, which an option allows; where all are, the names of one side are meant otherwise.
    if all(pair.predictions.count(None) == len(folders) for pair in pairs):
        raise MissingDataError(
            f"No reference in {reference} has a prediction of its name in {prediction}: one is {names[0]!r}, the other "
            f"{unmatched[0]!r}. Rename the files of one side, or name the folder above or below."
        )
    return pairs, unmatched


def list_left_out(directory: Path) -> list[LeftOut]:
    """List unread files of a mask folder that may be masks."""
    # `medseg predict` may write probabilities as .npz beside its masks.
    unread = (explain_unread(path) for path in list_files(directory) if not is_image(path) and path.suffix != ".npz")
    return [each for each in (*unread, *find_dead_links(directory)) if each.is_lost]


def read_outcomes(directory: Path) -> list[dict[str, str]] | None:
    """Read what `medseg predict` tells of each input.

    Args:
        directory: The folder of predicted masks.

    Returns:
        `None` where the folder holds no `predictions.csv` of medseg.
    """
    path = directory / "predictions.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    # Others may have a table of this name.
    return None if any(not {"input", "status", "reason"} <= row.keys() for row in rows) else rows


def list_marked(outcomes: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """List the inputs marked as unlike the training images, and why."""
    return [(row["input"], row["reason"]) for row in outcomes if row["status"] == "marked"]


def count_trained(outcomes: Sequence[Mapping[str, str]]) -> int:
    """Count the masks of cases that have the names of training cases."""
    return sum(row.get("trained") == "yes" for row in outcomes)


def describe_marked(marked: Sequence[tuple[str, str]]) -> str:
    """Describe marked inputs, the first of them with their findings.

    >>> describe_marked([("a.png", "F105 Inverted.")])
    'Marked as unlike the training images when predicted, scored as the others: 1. a.png: F105 Inverted.'
    """
    shown = [f"{name}: {reason}" for name, reason in marked[:_MARKED_SHOWN]]
    more = [f"And {len(marked) - _MARKED_SHOWN} more."] if len(marked) > _MARKED_SHOWN else []
    count = f"Marked as unlike the training images when predicted, scored as the others: {len(marked)}."
    return " ".join([count, *shown, *more])


def read_pair(
    pair: MaskPair, labels: LabelMap, group: str, spacing_mm: tuple[float, float, float] | None = None
) -> Prediction:
    """Decode both sides of one case, on the grid of its reference.

    A missing prediction is empty.

    Args:
        pair: The files.
        labels: How masks are encoded.
        group: The patient.
        spacing_mm: Along `(z, y, x)`, for a reference that does not know its own.

    Raises:
        DataError: A file cannot be used, or lies on another grid than the reference.
    """
    references = [read_mask_file(path) for path in pair.references]
    remedy = "write the prediction on the grid of its reference"
    grid = CaseGrid(references[0][1], pair.references[0], "reference", remedy)
    empty = np.zeros(grid.geometry.shape, np.uint8), grid.geometry
    predictions = [read_mask_file(path) if path is not None else empty for path in pair.predictions]
    paths = [path or Path("missing") for path in pair.predictions]
    return Prediction(
        case_id=pair.case_id,
        group=group,
        # What a file says of its spacing is truer than what is said of all files at once.
        geometry=replace(grid.geometry, spacing_mm=grid.geometry.spacing_mm or spacing_mm),
        mask=encode_mask_files(pair.case_id, paths, predictions, labels, grid),
        reference=encode_mask_files(pair.case_id, pair.references, references, labels, grid),
    )


def values_in(pair: MaskPair) -> tuple[frozenset[int], frozenset[int]]:
    """Find the values in both masks of a case, without the background.

    Raises:
        MaskValueError: A value is no whole number.
    """
    references = frozenset[int]().union(*(_values(path) for path in pair.references))
    return references, frozenset[int]().union(*(_values(path) for path in pair.predictions if path is not None))


def label_of_each_value(
    found: Sequence[tuple[frozenset[int], frozenset[int]]], task: Task | None = None, ignore_value: int | None = None
) -> tuple[LabelMap, str]:
    """Make a label for each value, and describe the labels.

    Args:
        found: The result of `values_in` for every case.
        task: `binary` for one label and `multiclass` for several, by default.
        ignore_value: The value that is no label.

    Raises:
        DataError: There is no value, more than there can be labels, or it is unknown whether 1 and 255 mean the same.

    >>> label_of_each_value([(frozenset({1, 2}), frozenset({1}))])[1]
    '1, 2 (in no prediction)'
    """
    references, predictions = (frozenset[int]().union(*side) - {ignore_value} for side in zip(*found, strict=True))
    values = sorted(references | predictions)
    if not values:
        raise DataError("All masks are empty, so their labels are unknown. Name them with --labels.")
    if len(values) > MOST_LABELS:
        raise DataError(
            f"The files hold {len(values)} different values, which are no labels. Are they images, or were masks "
            "resampled with interpolation? Name the labels with --labels to see which files hold other values."
        )
    # One side was written for programs and one for eyes; both mean the one label.
    if {frozenset(references), frozenset(predictions)} == {frozenset({1}), frozenset({255})}:
        (reference,), (prediction,) = references, predictions
        said = f"{reference} (written as {prediction} in the predictions)"
        return LabelMap([str(reference)], "binary", None, ignore_value), said
    # A file that holds both would prove that they are two labels.
    if values == [1, 255] and not any(side >= {1, 255} for sides in found for side in sides):
        raise DataError(
            "Some files hold the value 1 and others 255, never both: one label or two? Name one with --labels lesion, "
            "and both values mean it, or two with --labels 1=lesion,255=other."
        )
    only = {True: " (in no reference)", False: " (in no prediction)"}
    says = [f"{v}{'' if v in references & predictions else only[v in predictions]}" for v in values]
    task = task or ("binary" if len(values) == 1 else "multiclass")
    return LabelMap([str(value) for value in values], task, values, ignore_value), ", ".join(says)


def _values(path: Path) -> set[int]:
    found = np.unique(read_mask_file(path)[0])
    # Tested before `int`, which cuts 0.7 to the background without a word.
    strange = found[~np.isfinite(found) | (found != np.round(found))]
    if len(strange):
        raise MaskValueError(
            f"{path} holds the value {strange[0]:g}, but labels are whole numbers. Decide probabilities first, and "
            "resample masks without interpolation."
        )
    return {int(value) for value in found} - {0}


def _masks(directory: Path, what: str) -> dict[str, Path]:
    """List all masks below a folder, by name."""
    require_folder(directory, what, "Correct the path; labels that may overlap have one folder each, named like them.")
    files = [path for path in list_files(directory) if is_image(path)]
    lossy = sorted(str(path) for path in files if is_lossy(path))
    if lossy:
        raise DataError(
            f"{count_part(len(lossy), len(files), what.removesuffix('s'), 'is', 'are')} in a lossy format, which does "
            f"not keep the values of labels: {abbreviate(lossy)}. Save them as PNG from the original, or move them "
            "away if they are no masks."
        )
    if not files:
        raise MissingDataError(
            f"{directory} holds no mask that can be read; expected PNG, TIFF, NIfTI, MetaImage or NRRD files."
        )
    return map_files_by_name(files, directory, what)


def _check_references(
    names: Sequence[str], references: Sequence[dict[str, Path]], directory: Path, folders: Sequence[str]
) -> None:
    """Check that each case has the references of all labels."""
    sides = list(zip(folders, references, strict=True))
    lacking = [f"{folder}/{name}" for name in names for folder, files in sides if name not in files]
    if lacking:
        raise MissingDataError(
            f"{count_noun(len(lacking), 'reference is', 'references are')} not in {directory}: {abbreviate(lacking)}. "
            "A case needs a mask of each "
            "label, an empty one where the label is absent; add them, or leave the case out."
        )


class Known(NamedTuple):
    """Patients, strata and annotated labels by case id.

    Attributes:
        groups: The patient of each case.
        strata: Such as `{"site": "north"}`, for each case.
        annotated: The labels that were annotated in a case; all in cases without an entry.
    """

    groups: dict[str, str]
    strata: dict[str, dict[str, str]]
    annotated: Mapping[str, tuple[str, ...]] = {}


def known_by_name(names: Sequence[str], pattern: str | None, setting: str) -> Known:
    """Find the patient in each case's name by a pattern.

    Args:
        names: The cases.
        pattern: A regular expression; without it each case is its own patient.
        setting: The option that gives it, for errors.

    Raises:
        DataError: The pattern does not match every name.

    >>> known_by_name(["p1_a", "p1_b"], "^(p[0-9])", "--group").groups
    {'p1_a': 'p1', 'p1_b': 'p1'}
    """
    strangers = [name for name in names if pattern is not None and re.search(pattern, name) is None]
    if pattern is not None and strangers:
        raise DataError(
            f"{setting} {shlex.quote(pattern)} finds no patient in {len(strangers)} of "
            f"{count_noun(len(names), 'case')}: {abbreviate(strangers)}. Correct the pattern so that it matches "
            f"every name{suggest_correction(pattern, names)}."
        )
    return Known({name: find_group(name, pattern) for name in names}, {})


def known_by_table(names: Sequence[str], path: Path, strata: Sequence[str] | None) -> Known:
    """Read the patient and strata of each case from a CSV.

    Rows of other cases are ignored.

    Args:
        names: The cases.
        path: The table.
        strata: The columns that are strata; `site` and `scanner` where they are there, by default.

    Raises:
        DataError: A column or a case is missing, stands twice, or has no group.
    """
    rows = read_table(path, ("case_id", "group"), _EXPECTED, "Set --cases to your CSV file.")
    columns = choose_strata_columns(rows[0][1], strata, path, "--strata")
    # A field in quotes may have line breaks, so lines are counted by the reader and not by us.
    where = [f"{path}, line {number}" for number, _ in rows]
    ids = [normalize("NFC", require_field(row, "case_id", place)) for place, (_, row) in zip(where, rows, strict=True)]
    check_unique(ids, path)
    known = {name: (place, row) for name, place, (_, row) in zip(ids, where, rows, strict=True)}
    absent = [name for name in names if name not in known]
    if absent:
        raise DataError(
            f"{count_part(len(absent), len(names), 'case', 'has', 'have')} no row in {path}: {abbreviate(absent)}. Add "
            "them; case_id is the file's name without suffix and with sub-folders."
        )
    groups = {name: require_field(known[name][1], "group", known[name][0]) for name in names}
    annotated = {
        name: parse_annotated_labels(row.get("annotated_labels") or "", place) for name, (place, row) in known.items()
    }
    return Known(
        groups,
        {name: dict(read_strata(known[name][1], columns)) for name in names},
        {name: labels for name in names if (labels := annotated[name]) is not None},
    )
