"""`medseg evaluate`: scores of predictions made anywhere, by anything.

Masks are paired by name and scored on the grid of their reference, by the same code as in `medseg test`: masks with the
same voxels give the same table, byte for byte. `--json` prints the summary.

A data set in the UW-Madison layout is a reference, too: the cases of a `submission.csv` are scored on its slices.
"""

from __future__ import annotations

import math
import shlex
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import (
    TASKS,
    add_json,
    add_num_workers,
    parse_labels,
    parse_names,
    parse_once,
    parse_pattern,
)
from medseg_pl.core.errors import (
    DataError,
    MaskValueError,
    MissingDataError,
    SettingError,
    count_noun,
    count_part,
    make_printable,
)

if TYPE_CHECKING:
    from medseg_pl.cli.mask_pairs import Known, MaskPair
    from medseg_pl.core.labels import LabelMap, Task
    from medseg_pl.metrics import CaseMetric, CaseScore
    from medseg_pl.metrics.objects import ObjectRow

Tolerance = float | dict[str, float]

T = TypeVar("T")

_FAULTS_SHOWN = 5
_OBJECT_OPTIONS = {
    "thresholds": "thresholds",
    "matching": "matching",
    "connectivity": "connectivity",
    "size_bins": "size_bins_ml",
}
"""Options of the command, and what `ObjectMetric` calls them."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    references = "folder of annotated masks, pictures or volumes; or the data set of a submission.csv"
    add("--reference", type=Path, required=True, metavar="DIR", help=references)
    predictions = "folder of predicted masks with the same names, or of a submission.csv"
    add("--prediction", type=Path, required=True, metavar="DIR", help=predictions)
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make; must be absent or empty")
    raters = (
        "folders of the masks of other raters than that of --reference, with the same names; writes raters_evaluate.csv"
    )
    add("--raters", type=Path, nargs="+", metavar="DIR", help=raters)
    names = "liver,tumour for the values 1 and 2, or 1=liver,4=tumour; default: each value in the files is a label"
    add("--labels", type=parse_labels, metavar="LIST", help=names)
    tasks = "multilabel: each label in a sub-folder of its name; default: binary for one label, multiclass for several"
    add("--task", choices=TASKS, help=tasks)
    add("--ignore_value", type=int, metavar="V", help="value of voxels that nobody annotated; they do not count")
    patients = parser.add_mutually_exclusive_group()
    pattern = "regular expression whose parentheses find the patient in a case's name"
    patients.add_argument("--group", type=parse_pattern, metavar="REGEX", help=pattern)
    table = "table with the columns case_id and group, the patient, and annotated_labels if some were not looked for"
    patients.add_argument("--cases", type=Path, metavar="CSV", help=table)
    strata = "columns of --cases by which scores are reported too; default: site and scanner where they are there"
    add("--strata", type=parse_names, metavar="LIST", help=strata)
    tolerance = "of NSD, in mm or, without spacing, in pixels: 1.5, or liver=2,tumour=1; default: 1"
    add("--tolerance", type=parse_tolerance, metavar="T", help=tolerance)
    spacing = "y,x or z,y,x in mm, for raster files; without z, volumes are unknown"
    add("--spacing", type=parse_spacing, metavar="LIST", help=spacing)
    add("--no_distances", action="store_true", help="measure no HD, HD95, ASSD and NSD")
    add("--objects", action="store_true", help="count objects found, missed and invented; writes objects_evaluate.csv")
    thresholds = "least IoU of a match of objects, in whole percent; 0 asks for one shared voxel; default: 0,0.5"
    add("--thresholds", type=parse_numbers, metavar="LIST", help=thresholds)
    matching = "whether several predicted objects may stand for one of the reference; default: one_to_one"
    add("--matching", choices=["one_to_one", "many_to_one"], help=matching)
    connectivity = "whether voxels that touch at a corner are one object (full) or not (face); default: full"
    add("--connectivity", choices=["full", "face"], help=connectivity)
    bins = "limits in ml between the sizes by which recall is reported; default: quartiles"
    add("--size_bins", type=parse_numbers, metavar="LIST", help=bins)
    add("--shapes", action="store_true", help="measure clDice, for vessels, and boundary IoU")
    add("--missing_as_empty", action="store_true", help="score a reference without prediction as missed")
    add_num_workers(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Score two folders of masks."""
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        evaluate(arguments)
    if arguments.json:
        sys.stdout.write((arguments.output / "summary_evaluate.json").read_text(encoding="utf-8"))
    return 0


@parse_once
def parse_tolerance(text: str) -> Tolerance:
    """Parse one number, or one for each label.

    Raises:
        ArgumentTypeError: It is no number, a label is repeated, or a part is no `label=number`.

    >>> parse_tolerance("1.5"), parse_tolerance("liver=2,tumour=1")
    (1.5, {'liver': 2.0, 'tumour': 1.0})
    """
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        if "=" not in text:
            return float(text)
        tolerances = {name.strip(): float(number) for name, _, number in parts}
        if all(tolerances) and len(tolerances) == len(parts):
            return tolerances
    except ValueError:
        pass
    raise ArgumentTypeError(f"expected one number, or liver=2,tumour=1, got {text!r}")


@parse_once
def parse_numbers(text: str) -> list[float]:
    """Parse numbers that are not negative.

    Raises:
        ArgumentTypeError: One of them is negative, infinite or no number.

    >>> parse_numbers("0,0.5")
    [0.0, 0.5]
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number < math.inf for number in numbers):
        raise ArgumentTypeError(f"expected numbers that are not negative, such as 0,0.5, got {text!r}")
    return numbers


@parse_once
def parse_spacing(text: str) -> tuple[float, ...]:
    """Parse two or three lengths in mm.

    Raises:
        ArgumentTypeError: There is another amount of them, or one is not a finite number above 0.

    >>> parse_spacing("0.5,0.25")
    (0.5, 0.25)
    """
    try:
        lengths = tuple(float(part) for part in text.split(","))
    except ValueError:
        lengths = ()
    if len(lengths) not in (2, 3) or not all(0 < length < math.inf for length in lengths):
        raise ArgumentTypeError(f"expected y,x or z,y,x in mm, such as 0.5,0.5, got {text!r}")
    return lengths


def evaluate(arguments: Namespace) -> None:
    """Pair masks, score them, and write and print the result.

    Nothing is written unless every case was scored.

    Raises:
        OutputExistsError: The output folder is not empty.
        SettingError: Options contradict each other or the files.
        DataError: Masks are missing, or some of them cannot be scored.
    """
    from medseg_pl.cli.mask_pairs import count_trained, describe_marked, list_marked, read_outcomes
    from medseg_pl.io.atomic_files import require_empty
    from medseg_pl.io.scores import note_trained, write_rows
    from medseg_pl.metrics import ObjectTable
    from medseg_pl.metrics.statistics.raters import describe_agreement, list_agreement_rows, summarize_agreement
    from medseg_pl.metrics.summary import print_scores, write_scores

    require_empty(arguments.output)
    _check_options(arguments)
    labels = _named_labels(arguments)
    pairs, unmatched, notes = _pair(arguments, labels)
    _check_pairs(arguments, pairs)
    known = _known(arguments, pairs)
    for line in [*_notes(arguments, pairs, unmatched), *notes]:
        sys.stdout.write(f"{make_printable(line)}\n")
    labels = labels or _labels_in_files(arguments, pairs)
    tolerance = None if arguments.no_distances else 1.0 if arguments.tolerance is None else arguments.tolerance
    objects_as = _list_object_options(arguments) if arguments.objects else None
    make = partial(make_metrics, labels, tolerance, objects=objects_as, shapes=arguments.shapes)
    facts = collect_facts(make(), pairs, unmatched)
    _check_annotated(known.annotated, labels, arguments.cases)
    scorer = partial(score, labels=labels, known=known, make=make, spacing=arguments.spacing)
    outcomes = read_outcomes(arguments.prediction)
    if marked := list_marked(outcomes or []):
        sys.stdout.write(f"{make_printable(describe_marked(marked))}\n")
    if outcomes is not None:
        facts |= {"n_marked": len(marked), "n_trained": count_trained(outcomes)}
    if trained := facts.get("n_trained"):
        sys.stdout.write(f"{note_trained(trained)}\n")
    scored = map_cases(pairs, scorer, arguments.num_workers, "Scoring")
    table = [row for rows, _ in scored for row in rows]
    rows = [row for _, rows in scored for row in rows]
    objects = ObjectTable(rows, arguments.size_bins or ()) if arguments.objects else None
    raters = _compare_raters(arguments, pairs, table, labels, scorer) if arguments.raters else {}
    if raters:
        facts["raters"] = summarize_agreement(raters, labels.names)
        write_rows(arguments.output / "raters_evaluate.csv", list_agreement_rows(raters))
    written = write_scores(
        arguments.output, "evaluate", table, labels.names, strata=known.strata, facts=facts, objects=objects
    )
    print_scores(*written, "evaluate")
    for line in describe_agreement(facts.get("raters", {})):
        sys.stdout.write(f"{make_printable(line)}\n")
    sys.stdout.write(f"See it on a page: medseg report {make_printable(shlex.quote(str(arguments.output)))}\n")


def _pair(arguments: Namespace, labels: LabelMap | None) -> tuple[Sequence[MaskPair], list[str], list[str]]:
    """Pair two tables of run lengths, or the files of two folders.

    Returns:
        Pairs, predictions without a reference, and notes.
    """
    from medseg_pl.cli.mask_pairs import list_left_out, pair_folders
    from medseg_pl.cli.run_lengths import holds_run_lengths, pair_tables
    from medseg_pl.data.sources.base import describe_left_out

    reference, prediction = arguments.reference, arguments.prediction
    if holds_run_lengths(reference):
        pairs, unmatched, rest = pair_tables(reference, prediction, all_cases=arguments.missing_as_empty)
        note = f"References without a prediction, left out: {rest}; --missing_as_empty scores them as missed."
        return pairs, unmatched, [note] if rest else []
    folders = labels.names if labels is not None and labels.overlapping else None
    notes = [
        f"Files of {option} that are not read, left out: {len(lost)} ({describe_left_out(lost)})"
        for option, folder in (("--reference", reference), ("--prediction", prediction))
        if (lost := list_left_out(folder))
    ]
    return *pair_folders(reference, prediction, folders), notes


def _compare_raters(
    arguments: Namespace,
    pairs: Sequence[MaskPair],
    table: list[CaseScore],
    labels: LabelMap,
    scorer: Callable[[MaskPair], tuple[list[CaseScore], Sequence[ObjectRow]]],
) -> dict[tuple[str, str], list[CaseScore]]:
    """Score the prediction against further raters, and raters pairwise.

    Raises:
        MissingDataError: A rater has no mask of a case.
        SettingError: Two raters have one name, or masks are run lengths.
    """
    from medseg_pl.cli.mask_pairs import pair_folders
    from medseg_pl.data.sources.base import abbreviate
    from medseg_pl.metrics.statistics.raters import PREDICTION

    folders = {path.resolve().name: path for path in (arguments.reference, *arguments.raters)}
    if len(folders) <= len(arguments.raters) or PREDICTION in folders or any(pair.classes for pair in pairs):
        raise SettingError(
            "--raters needs folders of masks with a name of their own each, other than that of --reference; got "
            f"{', '.join(map(str, arguments.raters))}. Rename or leave out those that are alike."
        )
    first, *others = folders
    tables = {(PREDICTION, first): table}
    names = labels.names if labels.overlapping else None
    scored = {pair.case_id for pair in pairs}
    for number, other in enumerate(others, start=1):
        for one in (PREDICTION, *list(folders)[:number]):
            folder = arguments.prediction if one == PREDICTION else folders[one]
            compared, _ = pair_folders(folders[other], folder, names)
            compared = [pair for pair in compared if pair.case_id in scored]
            if lacking := sorted(scored - {pair.case_id for pair in compared}):
                raise MissingDataError(
                    f"{count_part(len(lacking), len(scored), 'case', 'has', 'have')} no mask in {folders[other]}: "
                    f"{abbreviate(lacking)}. Each rater needs a mask of each case; add them, or leave the rater out."
                )
            results = map_cases(compared, scorer, arguments.num_workers, f"{one} – {other}")
            tables[one, other] = [row for rows, _ in results for row in rows]
    return tables


def make_metrics(
    labels: LabelMap,
    tolerance: Tolerance | None,
    *,
    objects: Mapping[str, Any] | None = None,
    shapes: bool = False,
) -> list[CaseMetric]:
    """Make the metrics of `medseg test`.

    Args:
        labels: The labels that are scored.
        tolerance: Of NSD; no distances are measured where `None`.
        objects: Settings of `ObjectMetric`; no objects where `None`.
        shapes: Whether centerlines and borders are scored.
    """
    from medseg_pl.metrics import (
        BoundaryMetric,
        CenterlineMetric,
        ObjectMetric,
        OverlapMetric,
        SurfaceMetric,
        VolumeMetric,
    )

    surface = [] if tolerance is None else [SurfaceMetric(labels, tolerance)]
    further: list[CaseMetric] = [] if objects is None else [ObjectMetric(labels, **objects)]
    further += [CenterlineMetric(labels), BoundaryMetric(labels)] if shapes else []
    return [OverlapMetric(labels), *surface, VolumeMetric(labels), *further]


def collect_facts(metrics: Sequence[CaseMetric], pairs: Sequence[MaskPair], unmatched: Sequence[str]) -> dict[str, Any]:
    """Collect what the summary says besides the scores."""
    from medseg_pl.metrics import SurfaceMetric

    tolerances = [metric.tolerance for metric in metrics if isinstance(metric, SurfaceMetric)]
    return {
        **({"nsd_tolerance": tolerances[0]} if tolerances else {}),
        "n_unmatched_predictions": len(unmatched),
        "n_missing_as_empty": sum(not pair.complete for pair in pairs),
    }


def score(
    pair: MaskPair,
    labels: LabelMap,
    known: Known,
    make: Callable[[], list[CaseMetric]],
    spacing: Sequence[float] | None,
) -> tuple[list[CaseScore], Sequence[ObjectRow]]:
    """Score one case, and list its objects if asked for.

    Args:
        pair: Its files.
        labels: The labels that are scored.
        known: The patient of each case, and the labels that were annotated in it.
        make: Makes the metrics.
        spacing: `(y, x)` or `(z, y, x)` in mm where the files do not know it; volumes stay unknown without `z`.
    """
    from medseg_pl.metrics import MetricTable, collect_objects

    ledger = MetricTable(make())
    thick = spacing is None or len(spacing) == 3
    read = pair.read(labels, known.groups[pair.case_id], _with_thickness(spacing))
    ledger.add(replace(read, annotated_labels=known.annotated.get(pair.case_id)))
    objects = collect_objects(ledger.metrics)
    unknown = {} if thick else {"volume_ml": math.nan}
    return (
        [row if thick else _without_volumes(row) for row in ledger.table([pair.case_id])],
        [{**row, **unknown} for row in objects.rows] if objects else [],
    )


def _with_thickness(spacing: Sequence[float] | None) -> tuple[float, float, float] | None:
    """Complete a spacing to `(z, y, x)`."""
    # A raster file is one slice, in which no distance depends on how thick it is.
    if spacing is None:
        return None
    *thickness, y, x = spacing
    return (thickness[0] if thickness else 1.0, y, x)


def _without_volumes(row: CaseScore) -> CaseScore:
    unknown = {name: math.nan for name in row.values if name.startswith("volume_")}
    return replace(row, values={**row.values, **unknown})


def _list_object_options(arguments: Namespace) -> dict[str, Any]:
    """List the settings of `ObjectMetric` that were given."""
    return {setting: value for option, setting in _OBJECT_OPTIONS.items() if (value := arguments[option]) is not None}


def _check_options(arguments: Namespace) -> None:
    """Raise `SettingError` where one option takes the sense from another."""
    if arguments.strata is not None and arguments.cases is None:
        raise SettingError(
            "--strata names columns of the table that --cases gives. Give it too, or leave --strata out."
        )
    if not arguments.objects and (given := [name for name in _OBJECT_OPTIONS if arguments[name] is not None]):
        raise SettingError(f"--{given[0]} needs --objects. Add it.")
    if arguments.tolerance is not None and arguments.no_distances:
        raise SettingError("--tolerance sets NSD's tolerance, but --no_distances skips NSD. Give one of the two.")
    if arguments.task == "multilabel" and arguments.labels is None:
        raise SettingError("--task multilabel needs --labels: the sub-folders that hold the masks are named like them.")


def _check_annotated(annotated: Mapping[str, Sequence[str]], labels: LabelMap, table: Path | None) -> None:
    """Raise `DataError` where the table names labels that there are not."""
    for case_id, names in annotated.items():
        if unknown := sorted(set(names) - set(labels.names)):
            raise DataError(
                f"{table}: annotated_labels of {case_id} names {', '.join(unknown)}; the labels are "
                f"{', '.join(labels.names)}. Name these, or set --labels."
            )


def _check_pairs(arguments: Namespace, pairs: Sequence[MaskPair]) -> None:
    """Check that predictions are complete, and that a given spacing is needed."""
    from medseg_pl.data.sources.base import abbreviate

    missing = [pair.case_id for pair in pairs if not pair.complete]
    if missing and not arguments.missing_as_empty:
        raise MissingDataError(
            f"{count_part(len(missing), len(pairs), 'reference', 'has', 'have')} no prediction in "
            f"{arguments.prediction}: "
            f"{abbreviate(missing)}. Add them, or set --missing_as_empty, which scores them as missed. To score the "
            "others alone, copy their references to a folder of their own."
        )
    knowing = [str(pair.references[0]) for pair in pairs if pair.knows_spacing]
    if knowing and arguments.spacing is not None:
        raise SettingError(
            "--spacing is for files that do not know their own, but "
            f"{count_noun(len(knowing), 'reference does', 'references do')}: {abbreviate(knowing)}. "
            "Leave it out, or score the raster files apart."
        )


def _named_labels(arguments: Namespace) -> LabelMap | None:
    from medseg_pl.core.labels import LabelMap

    if arguments.labels is None:
        return None
    names, values = list(arguments.labels), [value for value in arguments.labels.values() if value is not None]
    task: Task = arguments.task or ("binary" if len(names) == 1 else "multiclass")
    return LabelMap(names, task, values or None, arguments.ignore_value)


def _labels_in_files(arguments: Namespace, pairs: Sequence[MaskPair]) -> LabelMap:
    from medseg_pl.cli.mask_pairs import label_of_each_value, values_in
    from medseg_pl.core.labels import LabelMap

    if names := pairs[0].classes:
        sys.stdout.write(f"Labels, by the rows of the submission: {make_printable(', '.join(names))}.\n")
        return LabelMap(names, arguments.task or "multilabel", None, arguments.ignore_value)
    found = map_cases(pairs, values_in, arguments.num_workers, "Finding labels")
    labels, described = label_of_each_value(found, arguments.task, arguments.ignore_value)
    sys.stdout.write(f"Labels, by the values in the files: {make_printable(described)}.\n")
    return labels


def _known(arguments: Namespace, pairs: Sequence[MaskPair]) -> Known:
    from medseg_pl.cli.mask_pairs import Known, known_by_name, known_by_table

    names = [pair.case_id for pair in pairs]
    if arguments.cases is not None:
        return known_by_table(names, arguments.cases, arguments.strata)
    groups = {pair.case_id: pair.group for pair in pairs if pair.group is not None}
    if arguments.group is None and groups:
        return Known(groups, {})
    return known_by_name(names, arguments.group, "--group")


def _notes(arguments: Namespace, pairs: Sequence[MaskPair], unmatched: Sequence[str]) -> list[str]:
    """List what a reader should know before the scores, a line each."""
    from medseg_pl.data.sources.base import abbreviate, describe_doubtful_pattern

    lines = []
    if arguments.reference.resolve() == arguments.prediction.resolve():
        lines.append("--reference and --prediction are one folder, so every prediction is perfect.")
    if arguments.group is None and arguments.cases is None and pairs[0].group is None:
        lines.append(
            "Every case is taken for a patient of its own, so intervals assume that no patient has two cases; --group "
            "or --cases name the patients."
        )
    names = [pair.case_id for pair in pairs]
    if arguments.group is not None and (doubt := describe_doubtful_pattern(arguments.group, names, "--group")):
        lines.append(f"{doubt}.")
    if unmatched:
        lines.append(f"Predictions without a reference, left out: {len(unmatched)} ({abbreviate(list(unmatched))}).")
    missing = [pair.case_id for pair in pairs if not pair.complete]
    if missing:
        lines.append(f"References without a prediction, scored as missed: {len(missing)} ({abbreviate(missing)}).")
    return lines


def map_cases(pairs: Sequence[MaskPair], function: Callable[[MaskPair], T], workers: int, doing: str) -> list[T]:
    """Apply a function to several pairs at a time.

    Args:
        pairs: The cases.
        function: What to apply.
        workers: How many pairs at a time.
        doing: What goes on, for the progress.

    Returns:
        Results in the order of the pairs.

    Raises:
        DataError: Some cases cannot be used; the others are tried before it is raised.
    """
    from medseg_pl.io.progress import open_thread_pool, show_progress

    # Threads: of volumes of 256 x 256 x 64 two of them score half as many again as one, as two processes do. With
    # small volumes (hippocampus, 5 ms a case) they gain nothing, but processes would import torch first, which takes
    # as long as a thousand such cases.
    results: list[T] = []
    faults: list[DataError] = []
    with open_thread_pool(workers) as pool, show_progress(doing, len(pairs)) as advance:
        for future in [pool.submit(function, pair) for pair in pairs]:
            try:
                results.append(future.result())
            except DataError as error:
                faults.append(error)
            advance()
    if faults:
        raise _join_faults(faults, len(pairs))
    return results


def _join_faults(faults: Sequence[DataError], cases: int) -> DataError:
    """Join faults in one error, the first in their own words."""
    sentences = [str(fault) for fault in faults[:_FAULTS_SHOWN]]
    if len(faults) > _FAULTS_SHOWN:
        sentences.append(f"And {len(faults) - _FAULTS_SHOWN} more.")
    message = (
        f"{len(faults)} of {count_noun(cases, 'case')} cannot be scored, and nothing was written. {' '.join(sentences)}"
    )
    unknown = [fault for fault in faults if isinstance(fault, MaskValueError)]
    if not unknown:
        return DataError(message)
    claimed = {value for fault in unknown for value in fault.claimed}
    return MaskValueError(message, {value for fault in unknown for value in fault.unclaimed}, claimed)
