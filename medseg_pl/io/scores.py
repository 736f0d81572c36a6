"""Tables of scores and their summaries as files, cells that no spreadsheet computes, and logged metrics."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_pl.core.errors import MissingDataError, UnreadableFileError, count_noun, replace_controls
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.config_files import read_json
from medseg_pl.io.paths import suggest_similar
from medseg_pl.io.progress import announce_choice

Row = Mapping[str, str | int | float]

_RELIABILITY = ".medseg/reliability.json"
_RUNS = Path("runs")
"""Where a training puts its experiments, unless told otherwise."""
PREDICTIONS = "predictions"
"""The folder of a run that takes the masks which were scored."""

# The columns that every table of scores has; what they hold is text, even where it looks like a number
_NAMES = ("case_id", "group", "label", "status")

# Lengths in the unit of the row: mm, or px where the spacing is unknown.
LENGTHS = ("hd", "hd95", "assd", "lesion_hd95")
# All columns that change with that unit.
DISTANCES = (*LENGTHS, "nsd")


def read_rows(path: Path) -> list[dict[str, str | float]]:
    """Read a table that `write_rows` wrote.

    Names stay text. Another column holds numbers if all its fields are numbers or empty, where empty is NaN; otherwise
    it holds text.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: It is no table of scores: no UTF-8, no rows, a row of another length than the header, a
            column that is there twice or not at all.
    """
    header, lines = _split(path)
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    numbers = {name for name, fields in columns.items() if name not in _NAMES and all(map(_is_number, fields))}
    return [
        {name: _parse(field) if name in numbers else field for name, field in zip(header, line, strict=True)}
        for line in lines
    ]


def read_texts(path: Path) -> list[dict[str, str]]:
    """Read a table of scores with each field as text.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: It is no table of scores, see `read_rows`.
    """
    header, lines = _split(path)
    return [dict(zip(header, line, strict=True)) for line in lines]


def write_rows(path: Path, rows: Sequence[Row], *, columns: Sequence[str] = (), replace: bool = False) -> None:
    """Write rows as CSV, see `format_rows`."""
    write_text(path, format_rows(rows, columns), replace=replace)


def format_rows(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """Format rows as CSV with numbers in full precision.

    NaN is an empty field.

    Args:
        rows: By column.
        columns: Columns that come first, even without any row.
    """
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(write_cell, columns))
    writer.writerows([_format_field(row.get(name, "")) for name in columns] for row in rows)
    return buffer.getvalue()


def format_summary(summary: Mapping[str, Any]) -> str:
    """Format a summary as JSON that any parser reads: no NaN."""
    return json.dumps(summary, indent=1, allow_nan=False) + "\n"


def find_scores(path: Path, stage: str | None = None) -> Path:
    """Find the table of scores that a path means.

    Args:
        path: A table, or a folder of tables.
        stage: The scored stage; in a folder the test by default, or else the only stage there is.

    Returns:
        The newest table of the stage.

    Raises:
        MissingDataError: There is none, or there are several stages and none of them is the test.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingDataError(
            f"There is nothing at {path}. {suggest_run(path)}Name a run folder, such as runs/demo/version_0, or a "
            "table of scores (.csv)."
        )
    require_run_folder(path)
    stages = sorted({parse_stage(entry) or entry.name for entry in path.glob("scores_*.csv")})
    wanted = stage or ("test" if "test" in stages else stages[0] if len(stages) == 1 else None)
    if wanted in stages:
        return (list_tables(path, wanted) or [path / wanted])[-1]
    names = [entry.name for entry in sorted(path.glob("scores_*.csv"))]
    names = names or sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    found = ", ".join(names[:3]) + (" …" if len(names) > 3 else "") or "nothing"
    expected = f"scores_{stage}.csv" if stage else "scores_test.csv, or one other table of scores"
    raise MissingDataError(
        f"Expected {expected}, in {path}, found {found}. Name the file itself, or the folder of a run that was scored."
    )


def require_run_folder(folder: Path) -> None:
    """Check that a folder does not merely hold runs.

    Raises:
        MissingDataError: It does; the newest run is named.
    """
    if any(folder.glob("scores_*.csv")) or (folder / "checkpoints").is_dir():
        return
    # `runs` itself holds experiments, of which the one that was changed last is meant.
    within = sorted(folder.glob("[!.]*/"), key=lambda path: -path.stat().st_mtime)
    newest = next((run for each in (folder, *within) if (run := find_newest_run(each)) is not None), None)
    if newest is not None:
        raise MissingDataError(f"{folder} holds runs and is none itself. Name one, such as {shlex.quote(str(newest))}.")


def suggest_run(path: Path) -> str:
    """Ask whether a run of nearly the same name was meant, or one below `runs`; empty if none is there.

    Args:
        path: The missing folder or file.
    """
    below = _RUNS / path
    return (
        f"Did you mean {shlex.quote(str(below))}? "
        if below.exists()
        else suggest_similar(path) or suggest_similar(below)
    )


def find_newest_run(experiment: Path) -> Path | None:
    """Find the run folder with the highest number."""
    runs = _list_runs(experiment)
    return runs[-1] if runs else None


def _list_runs(experiment: Path) -> list[Path]:
    """List the run folders of an experiment, by their numbers."""
    found = [path for path in experiment.glob("version_*") if re.fullmatch(r"version_\d+", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("version_")))


def choose_run(folder: Path, *wanted: str) -> Path:
    """Choose the run that a folder means.

    Args:
        folder: A run folder, or an experiment with several.
        wanted: Patterns, one of which must have a file in the run.

    Returns:
        The newest run of an experiment that has such a file, or the newest of all, for want of one; else the folder.
    """

    def has_wanted(run: Path) -> bool:
        return any(any(run.glob(pattern)) for pattern in wanted)

    if has_wanted(folder) or not (runs := _list_runs(folder)):
        return folder
    return ([run for run in runs if has_wanted(run)] or runs)[-1]


def choose_scored_run(path: Path, stage: str | None = None) -> Path:
    """Choose the run whose scores a path means, and announce one of several.

    Args:
        path: A run folder, an experiment with several, or anything else, which is returned.
        stage: The scored stage.
    """
    # Written last: a table without it is of a command that was stopped.
    run = choose_run(path, f"summary_{stage or ''}*.json")
    if run != path:
        announce_choice(run)
    return run


def list_tables(folder: Path, stage: str) -> list[Path]:
    """List the tables of a stage, oldest first.

    A later one has a higher number, see `choose_numbered_paths`. Tables without a summary beside them come first: their
    run was stopped in between.
    """
    tables = [path for path in folder.glob(f"scores_{stage}*.csv") if parse_stage(path) == stage]
    return sorted(tables, key=lambda path: (locate_summary(path).is_file(), _parse_number(path)))


def note_newest(table: Path | None) -> str:
    """Note that a table is the newest of several; empty for one."""
    stage = table and parse_stage(table)
    older = [path.name for path in list_tables(table.parent, stage) if path != table] if table and stage else []
    return f"Note: {table} is read, the newest scores of {stage}; older ones: {', '.join(older)}." if older else ""


def locate_summary(table: Path) -> Path:
    """Return where the summary of a table is.

    >>> locate_summary(Path("run/scores_val_2.csv")).as_posix()
    'run/summary_val_2.json'
    """
    return table.with_name(table.name.replace("scores_", "summary_", 1)).with_suffix(".json")


def read_objects(table: Path) -> list[dict[str, str | float]]:
    """Read the table of objects beside a table of scores.

    Returns:
        Empty where there is no table, or no object.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    path = _locate_objects(table)
    return [] if path is None else read_rows(path)


def read_object_texts(table: Path) -> list[dict[str, str]]:
    """Read the same table as it is written, each field as text."""
    path = _locate_objects(table)
    return [] if path is None else read_texts(path)


def _locate_objects(table: Path) -> Path | None:
    """Find the table of objects; `None` where it is missing or empty."""
    path = table.with_name(table.name.replace("scores_", "objects_", 1))
    has_rows = path.is_file() and len(path.read_text(encoding="utf-8-sig").splitlines()) > 1
    return path if has_rows else None


def parse_stage(path: Path) -> str | None:
    """Parse the stage from the name of a table.

    >>> parse_stage(Path("scores_val_2.csv")), parse_stage(Path("ours.csv"))
    ('val', None)
    """
    match = re.fullmatch(r"scores_([a-z]+)(_\d+)?\.csv", path.name)
    return match.group(1) if match else None


def predictions_beside(table: Path) -> Path:
    """Return where the masks are that a table scores.

    >>> predictions_beside(Path("run/scores_val_2.csv")).as_posix()
    'run/predictions/val_2'
    """
    return table.with_name(PREDICTIONS) / table.stem.removeprefix("scores_")


def pictures_in(predictions: Path) -> Path:
    """Return the folder of pictures, which nothing takes for masks."""
    return predictions / ".medseg" / "pictures"


def write_reliability(predictions: Path, bins: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write the binned probabilities of each label, for `read_reliability`.

    Args:
        predictions: The folder of the scored masks.
        bins: By label the lists `voxels`, `positives` and `probability`, sums in each bin.
    """
    write_text(predictions / _RELIABILITY, json.dumps(bins) + "\n", replace=True)


def read_reliability(table: Path) -> dict[str, dict[str, list[float]]]:
    """Read the binned probabilities beside a table of scores.

    Returns:
        Bins by label; empty where nothing was measured.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    path = predictions_beside(table) / _RELIABILITY
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        lists = {
            label: {name: [float(value) for value in bins[name]] for name in ("voxels", "positives", "probability")}
            for label, bins in content.items()
        }
        if any(len(set(map(len, bins.values()))) > 1 for bins in lists.values()):
            raise ValueError("its bins do not fit together")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFileError(f"{path} is damaged: {error}. Remove it, or run medseg test again.") from None
    return lists


SCORED_AGAIN = "the validation cases are scored again. They chose the weights: scores are a little too good."
"""What to know of a test without test cases."""

SCORED_BY_CHOICE = (
    "Scores are a little too good: these cases chose the weights. Publish those of a test, or of medseg crossval."
)
"""What to know of the scores that end a training."""

SCORED_BY_FOLD = "Scores are a little too good: each fold chose its best weights by the cases that it scored."
"""What to know of a cross-validation."""


def note_trained(masks: int) -> str:
    """Say that scored masks are of training cases, by what `medseg predict` noted.

    >>> note_trained(1)
    'Scores are too good: 1 mask is of a case with the name of a training case.'
    """
    which = "mask is of a case with the name" if masks == 1 else "masks are of cases with the names"
    return f"Scores are too good: {masks} {which} of {'a training case' if masks == 1 else 'training cases'}."


def knows_patients(groups: Iterable[tuple[str, str]]) -> bool:
    """Tell whether groups are patients, and not each case for itself.

    Args:
        groups: Pairs of a case and its group.

    >>> knows_patients([("p1_a", "p1"), ("p2_a", "p2")]), knows_patients([("p1_a", "p1_a"), ("p2_a", "p2_a")])
    (True, False)
    """
    return any(case_id != group for case_id, group in groups)


def name_group(summary: Mapping[str, Any]) -> str:
    """Name what a summary's intervals are drawn over: patients, or cases of unknown ones."""
    return "patient" if summary.get("patients_known", True) else "case"


def count_cases(summary: Mapping[str, Any], noun: str = "case") -> str:
    """Count cases, and their patients where they are known.

    >>> count_cases({"n_cases": 4, "n_groups": 1}), count_cases({"n_cases": 4, "n_groups": 4, "patients_known": False})
    ('4 cases of 1 patient', '4 cases')
    """
    cases = count_noun(summary.get("n_cases", 0), noun)
    group = name_group(summary)
    return cases if group == "case" else f"{cases} of {count_noun(summary.get('n_groups', 0), group)}"


def describe_scored_cases(summary: Mapping[str, Any], stage: str) -> str:
    """Count a summary's cases, and name validation cases behind a test.

    >>> describe_scored_cases({"n_cases": 4, "n_groups": 1, "scored": {"side": "val"}}, "test")
    '4 validation cases of 1 patient, scored again'
    """
    again = stage == "test" and (summary.get("scored") or {}).get("side") == "val"
    return f"{count_cases(summary, 'validation case' if again else 'case')}{', scored again' if again else ''}"


def choose_numbered_paths(directory: Path, *names: str) -> list[Path]:
    """Choose free paths for files that belong together.

    They are `name_2`, `name_3` … where one is taken, so that nothing is overwritten. The number is higher than any
    there is, so that the highest one is the newest.

    >>> [path.name for path in choose_numbered_paths(Path("nowhere"), "scores.csv", "summary.json")]
    ['scores.csv', 'summary.json']
    """
    paths = [directory / name for name in names]
    return _add_number(paths, _find_highest_number(paths) + 1)


def write_numbered_files(directory: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    """Write files that belong together, numbered as `choose_numbered_paths` says.

    If the files with the highest number agree as far as they exist, the rest that a stopped process left out is added
    to them, and nothing is written twice.

    Args:
        directory: Their folder.
        texts: The content of each, by its name without a number.

    Returns:
        The path of each.
    """
    names = [directory / name for name in texts]
    highest = _find_highest_number(names)
    paths = _add_number(names, max(highest, 1))
    if any(
        path.exists() and path.read_bytes() != text.encode() for path, text in zip(paths, texts.values(), strict=True)
    ):
        paths = _add_number(names, highest + 1)
    for path, text in zip(paths, texts.values(), strict=True):
        if not path.exists():
            write_text(path, text)
    return dict(zip(texts, paths, strict=True))


def _add_number(paths: Sequence[Path], number: int) -> list[Path]:
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") if number > 1 else path for path in paths]


def _find_highest_number(paths: Sequence[Path]) -> int:
    """Find the highest number among files of these names, 0 without any."""
    taken = [
        _parse_number(other)
        for path in paths
        for other in path.parent.glob(f"{path.stem}*{path.suffix}")
        if re.fullmatch(rf"{re.escape(path.stem)}(_\d+)?", other.stem)
    ]
    return max(taken, default=0)


def _parse_number(path: Path) -> int:
    """Parse the number at a name's end, 1 without one."""
    match = re.search(r"_(\d+)$", path.stem)
    return int(match[1]) if match else 1


def _split(path: Path) -> tuple[list[str], list[list[str]]]:
    """Split a table of scores into header and lines of text."""
    if not path.is_file():
        raise MissingDataError(f"There is no table of scores {path}. Name a scores_<stage>.csv that medseg wrote.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a spreadsheet marks its UTF-8
            lines = [list(map(read_cell, line)) for line in csv.reader(file, strict=True) if line]
            header = lines.pop(0) if lines else []
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path} is not a table in UTF-8 with commas: {error}.") from error
    _check_header(path, header)
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise UnreadableFileError(
                f"{path}: row {number} has {len(line)} fields where the header has {len(header)}. The file was cut off "
                "or edited; write it again with medseg test or medseg evaluate."
            )
    if not lines:
        raise UnreadableFileError(f"{path} has a header and no rows: no case was scored.")
    return header, lines


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Check that the columns are those of a score table, each once."""
    wrong = [f"no column {name}" for name in _NAMES if name not in header]
    wrong += [f"the column {name} twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    if wrong:
        found = ", ".join(header[:8]) + (" …" if len(header) > 8 else "") or "nothing"
        raise UnreadableFileError(
            f"{path} is no table of scores: it has {' and '.join(wrong)}. Expected comma-separated columns "
            f"{', '.join(_NAMES)} and the scores, as medseg test and medseg evaluate write them; found {found}."
        )


def _is_number(field: str) -> bool:
    try:
        _parse(field)
    except ValueError:
        return False
    return True


def _parse(field: str) -> float:
    return float(field) if field else math.nan


def _format_field(value: str | int | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))  # numpy's own repr names its type
    return write_cell(value) if isinstance(value, str) else str(value)


_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001  spreadsheets take wide ones as well
# In front of a field, it tells a spreadsheet that text follows
_MARK = "'"


def write_cell(text: str) -> str:
    r"""Make text printable and harmless to a spreadsheet.

    A mark in front keeps it from being read as a formula.

    >>> [write_cell(text) for text in ("=1+1", "a\x1b[2J", "-0.5", "'=1", "stomach")]
    ["'=1+1", 'a�[2J', '-0.5', "''=1", 'stomach']
    """
    shown = replace_controls(text)
    return f"{_MARK}{shown}" if _is_formula(shown.lstrip(_MARK)) else shown


def read_cell(field: str) -> str:
    """Undo `write_cell`, but for what could not be printed.

    >>> [read_cell(field) for field in ("'=1+1", "-0.5", "''=1", "'quoted'")]
    ['=1+1', '-0.5', "'=1", "'quoted'"]
    """
    marked = field.startswith(_MARK) and _is_formula(field.lstrip(_MARK))
    return field.removeprefix(_MARK) if marked else field


def _is_formula(text: str) -> bool:
    if not text.startswith(_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read `metrics.csv` without the partial row that a killed process may leave."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [{name: value for name, value in row.items() if value} for row in csv.DictReader(io.StringIO(whole))]
