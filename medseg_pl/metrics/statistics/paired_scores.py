"""Which rows of two tables of scores belong together, and what each pair says of a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medseg_pl.core.errors import DataError, count_noun
from medseg_pl.io.scores import DISTANCES

Row = Mapping[str, str | int | float]

# The columns that say which of two runs is better. Counts, volumes and entropies do not.
HIGHER_IS_BETTER = {
    "dice": True,
    "iou": True,
    "precision": True,
    "recall": True,
    "nsd": True,
    "uw_madison": True,
    "hd": False,
    "hd95": False,
    "assd": False,
    "brier": False,
    "ece": False,
    "cl_dice": True,
    "topology_precision": True,
    "topology_sensitivity": True,
    "boundary_iou": True,
    "lesion_dice": True,
    "lesion_hd95": False,
    "count_error": False,
    # Of every threshold that `ObjectMetric` may have.
    **{
        f"object_{score}{suffix}": True
        for suffix in ("", *(f"_{percent}" for percent in range(1, 101)))
        for score in ("sensitivity", "precision", "f1", "sq", "pq")
    },
}


class Table(NamedTuple):
    """The rows of one run, and the file that errors shall name."""

    name: str
    rows: Sequence[Row]


class Matched(NamedTuple):
    """The paired rows of two tables, sorted by label and case.

    It also counts the rows of each that have no partner.
    """

    pairs: list[tuple[Row, Row]]
    only_a: int
    only_b: int


class PairedScores(NamedTuple):
    """One metric of one label in both runs.

    Attributes:
        cases: The cases that have a score in both.
        groups: The patient of each case.
        a: The score of each case in the first run.
        b: Its score in the second run.
        undefined: Cases left out, since neither run has a score: reference and predictions are empty.
        false_alarms_a: Cases without the label in which the first run found it and the second did not.
        false_alarms_b: Cases in which the second run found it and the first did not.
    """

    cases: list[str]
    groups: list[str]
    a: list[float]
    b: list[float]
    undefined: int
    false_alarms_a: int
    false_alarms_b: int


def match(a: Table, b: Table, *, allow_unpaired: bool = False) -> Matched:
    """Pair the rows of two tables by case and label.

    Args:
        a: The first table.
        b: The second table.
        allow_unpaired: Whether a row may be in one table only.

    Raises:
        DataError: A case and label is there twice, or is in one table only while `allow_unpaired` is not set; or the
            tables have none in common, or disagree about a group or the size of a reference.
    """
    rows_a, rows_b = _map_rows(a), _map_rows(b)
    only_a, only_b = sorted(rows_a.keys() - rows_b.keys()), sorted(rows_b.keys() - rows_a.keys())
    both = sorted(rows_a.keys() & rows_b.keys())
    if not both:
        _refuse_strangers(a, b)
    if (only_a or only_b) and not allow_unpaired:
        lacks = [f"{t.name} lacks {_quote_some(only)}" for t, only in ((b, only_a), (a, only_b)) if only]
        raise DataError(
            f"The runs were not scored on the same cases and labels: {'; '.join(lacks)}. Score both on the same cases, "
            "or leave these out with --allow_unpaired."
        )
    pairs = [(rows_a[key], rows_b[key]) for key in both]
    for row_a, row_b in pairs:
        _check_same_case(row_a, row_b, a.name, b.name)
    return Matched(pairs, len(only_a), len(only_b))


def _refuse_strangers(a: Table, b: Table) -> None:
    """Raise `DataError` for two tables without a row in common."""
    cases, labels = ([{str(row[column]) for row in table.rows} for table in (a, b)] for column in ("case_id", "label"))
    if cases[0] & cases[1] and not labels[0] & labels[1]:
        names = (f"{', '.join(sorted(each))} in {table.name}" for each, table in zip(labels, (a, b), strict=True))
        raise DataError(f"The labels have no name in common: {' and '.join(names)}. Score both with the same names.")
    raise DataError(
        f"{a.name} and {b.name} have no case and label in common. Train both with one split, or score the masks of "
        "both on other cases with medseg evaluate."
    )


def pair_scores(matched: Matched, metric: str, a: str, b: str) -> dict[str, PairedScores]:
    """Pair the scores of each label.

    Where both masks are empty in both runs, nobody has a score. Where the reference is empty and one run has found
    something, the other, which rightly has not, gets the best score there is: a false alarm costs its run.

    Args:
        matched: The paired rows.
        metric: A column of `HIGHER_IS_BETTER`.
        a: The first table's name in errors.
        b: The second table's.

    Raises:
        DataError: A score was not measured, is no finite number, or is in different units.
    """
    labels: dict[str, list[tuple[Row, float, float]]] = {}
    if metric in DISTANCES:
        _check_same_unit(matched.pairs, metric, a, b)
    for row_a, row_b in matched.pairs:
        pair = row_a, _read_score(row_a, metric, a), _read_score(row_b, metric, b)
        labels.setdefault(str(row_a["label"]), []).append(pair)
    return {label: _pair_label(pairs, float(HIGHER_IS_BETTER[metric])) for label, pairs in labels.items()}


def _pair_label(pairs: Sequence[tuple[Row, float, float]], best: float) -> PairedScores:
    """Pair the scores of one label under the rule for empty masks."""
    scored = [(row, a, b) for row, a, b in pairs if not (math.isnan(a) and math.isnan(b))]
    return PairedScores(
        cases=[str(row["case_id"]) for row, _, _ in scored],
        groups=[str(row["group"]) for row, _, _ in scored],
        a=[best if math.isnan(a) else a for _, a, _ in scored],
        b=[best if math.isnan(b) else b for _, _, b in scored],
        undefined=len(pairs) - len(scored),
        false_alarms_a=sum(math.isnan(b) for _, _, b in scored),
        false_alarms_b=sum(math.isnan(a) for _, a, _ in scored),
    )


def _read_score(row: Row, metric: str, name: str) -> float:
    """Read the score of a row, NaN where both masks are empty."""
    value = row.get(metric, math.nan)
    where = f"{name}: {metric} of case {row['case_id']}, label {row['label']},"
    if isinstance(value, str) or math.isinf(value):
        raise DataError(f"{where} is {value!r}, which is no score. Correct the file, or score the run again.")
    if math.isnan(value) and (row.get("status") != "undefined" or _count_reference_voxels(row, name)):
        raise DataError(
            f"{where} is empty although its status is {row.get('status')}: it was not measured. Score the run again "
            "with this metric, or compare another one with --metric."
        )
    return float(value)


def _check_same_case(row_a: Row, row_b: Row, a: str, b: str) -> None:
    """Check that two rows of one name can be of one case."""
    case = f"Case {row_a['case_id']}, label {row_a['label']}"
    if row_a.get("group") != row_b.get("group"):
        raise DataError(
            f"{case}: its patient (group) is {row_a.get('group')!r} in {a} and {row_b.get('group')!r} in {b}. One "
            "patient must have one name; score both runs with the same patients."
        )
    voxels_a, voxels_b = _count_reference_voxels(row_a, a), _count_reference_voxels(row_b, b)
    if voxels_a != voxels_b:
        raise DataError(
            f"{case}: the reference has {voxels_a:.15g} voxels in {a} and {voxels_b:.15g} in {b}, so the runs were "
            "scored against different references. Score both against the same one."
        )


def _count_reference_voxels(row: Row, name: str) -> float:
    """Add the true positives and false negatives of a row."""
    counts = [row.get(column, math.nan) for column in ("tp", "fn")]
    if any(isinstance(count, str) or not math.isfinite(count) for count in counts):
        raise DataError(
            f"{name}: case {row['case_id']}, label {row['label']} has no number in tp or fn, so nothing tells whether "
            "both runs were scored against the same reference. Score the run again."
        )
    return sum(float(count) for count in counts)


def _check_same_unit(pairs: Sequence[tuple[Row, Row]], metric: str, a: str, b: str) -> None:
    for row_a, row_b in pairs:
        if row_a.get("unit") != row_b.get("unit"):
            raise DataError(
                f"Case {row_a['case_id']}, label {row_a['label']}: {metric} is in {_name_unit(row_a)} in {a} and in "
                f"{_name_unit(row_b)} in {b}. Score both with the same spacing."
            )
    first = {_name_unit(row): row["case_id"] for row, _ in reversed(pairs)}
    if len(first) > 1:
        found = " and ".join(f"in {unit} in case {case_id}" for unit, case_id in sorted(first.items()))
        raise DataError(f"{metric} is {found}. Give all cases a spacing, or compare another metric.")


def _name_unit(row: Row) -> str:
    return str(row.get("unit") or "no known unit")


def _map_rows(table: Table) -> dict[tuple[str, str], Row]:
    rows: dict[tuple[str, str], Row] = {}
    for row in table.rows:
        if row.get("status") == "not_annotated":  # nothing to compare: the label was not looked for
            continue
        key = str(row["label"]), str(row["case_id"])
        if key in rows:
            raise DataError(f"{table.name} has case {key[1]}, label {key[0]} more than once. Case ids must be unique.")
        rows[key] = row
    return rows


def _quote_some(keys: Sequence[tuple[str, str]]) -> str:
    """Count cases and labels, and quote the first of them.

    >>> _quote_some([("liver", "c1"), ("liver", "c2"), ("liver", "c3"), ("spleen", "c1")])
    '4 rows (c1 liver, c2 liver, c3 liver …)'
    """
    named = (f"{case_id} {label}" for label, case_id in keys[:3])
    rows = count_noun(len(keys), "row")
    return f"{rows} ({', '.join(named)}{' …' if len(keys) > 3 else ''})"
