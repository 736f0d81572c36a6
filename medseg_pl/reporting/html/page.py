"""The page of a report: runs are read, put into templates, and written as one file that needs no other."""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medseg_pl import __version__
from medseg_pl.core.errors import SettingError, count_noun, make_printable
from medseg_pl.io.atomic_files import require_absent, write_text
from medseg_pl.io.case_pictures import COLORS
from medseg_pl.io.scores import LENGTHS, choose_numbered_paths, choose_scored_run, note_newest
from medseg_pl.metrics.statistics.intervals import format_interval, format_number, format_p
from medseg_pl.reporting.html import figures
from medseg_pl.reporting.html.cases import (
    SHOWN,
    CaseEntry,
    RunComparison,
    choose_names,
    compare_runs,
    list_calibration,
    list_case_entries,
    to_page_data,
)
from medseg_pl.reporting.html.figures import Curve
from medseg_pl.reporting.html.objects import ObjectList, list_object_entries
from medseg_pl.reporting.html.pictures import Pictures, load_pictures, split_gallery
from medseg_pl.reporting.markdown import fill_readme
from medseg_pl.reporting.methods import write_paper_notes
from medseg_pl.reporting.run import Run, compare_environments, compare_settings, read_run
from medseg_pl.reporting.summary import (
    audit_split,
    compute_mean_interval,
    describe_cases,
    list_findings,
    list_size_thirds,
    list_strata,
)
from medseg_pl.reporting.training_length import describe_best_weights, describe_length

_MOST_NOTES = 5

_MOST_RUNS = 8

_PACKAGE = "medseg_pl.reporting.html"

_SCRIPTS = ("theme.js", "cases.js", "drawing.js", "viewer.js", "page.js")

# Labels that are told apart in one drawing of lines.
_MOST_LINES = 10

_DRAWN = {"dice": "Dice", "hd95": "HD95", "nsd": "NSD"}


def write_report(arguments: argparse.Namespace) -> list[str]:
    """Write the page and the notes for a paper; fill the README.

    Returns:
        What is missing, a line each.

    Raises:
        OutputExistsError: The page is there already.
        SettingError: The page is no HTML, or a README is of several runs.
    """
    arguments.runs = [choose_scored_run(folder, arguments.stage) for folder in arguments.runs]
    if arguments.output is None and arguments.readme is None and arguments.methods is None:
        # After a test a run has other scores than after its training, and the page of these stays.
        (arguments.output,) = choose_numbered_paths(arguments.runs[0], "report.html")
    if arguments.output is not None and arguments.output.suffix.lower() not in (".html", ".htm"):
        raise SettingError(
            f"-o {arguments.output} is no .html file, and a page is HTML. Name it .html; a browser prints it as PDF."
        )
    if arguments.readme is not None and len(arguments.runs) > 1:
        raise SettingError(f"A README is of one run; {len(arguments.runs)} are given. Name one with --readme.")
    if arguments.methods is not None and len(arguments.runs) > 1:
        raise SettingError(f"Methods are of one run; {len(arguments.runs)} are given. Name one with --methods.")
    if len(arguments.runs) > _MOST_RUNS:
        raise SettingError(f"A page shows at most {_MOST_RUNS} runs; {len(arguments.runs)} are given. Name fewer.")
    require_absent(arguments.output, arguments.methods)
    runs = [read_run(folder, arguments.stage) for folder in arguments.runs]
    notes = [_print(note) for note in filter(None, (note_newest(run.table) for run in runs))]
    if arguments.readme is not None:
        notes += _fill_readme(arguments.readme, runs[0])
    if arguments.methods is not None:
        write_text(arguments.methods, write_paper_notes(runs[0]))
        _print(f"Wrote {arguments.methods}.")
    if arguments.output is not None:
        notes += _write_page(arguments, runs)
    return notes


def _fill_readme(path: Path, run: Run) -> list[str]:
    changed, without = fill_readme(path, run)
    notes = [_print(f"Note: {path} has no marks for {', '.join(without)}.")] if without else []
    _print(f"Filled {path}." if changed else f"{path} says what the run says already.")
    return notes


def _write_page(arguments: argparse.Namespace, runs: Sequence[Run]) -> list[str]:
    names = choose_names(arguments.runs[0], plain=arguments.names)
    notes = []
    if not names.kept:
        lost = "cannot be written to, so nobody can tell which case a hashed name is of"
        notes.append(_print(f"Note: {arguments.runs[0]} {lost}."))
    entries = list_case_entries(runs, names)
    compared = compare_runs(runs)
    for one in compared:
        if one.fault:
            shown = (
                f"compared by {', '.join(each.name for each in one.metrics)} alone" if one.metrics else "not compared"
            )
            notes.append(_print(f"Note: A and {one.letter} are {shown}. {one.fault}"))
    pictures = load_pictures(runs, entries, arguments.pictures) if arguments.pictures else Pictures()
    notes += [_print(f"Note: {note}") for note in list(dict.fromkeys(pictures.notes))[:_MOST_NOTES]]
    if arguments.pictures:
        _print(f"Pictures: {len(pictures.cases)} of {count_noun(len(entries), 'case')}.")
    write_text(arguments.output, render_page(runs, entries, compared, pictures, hashed=names.record is not None))
    _print(f"Wrote {arguments.output}, {arguments.output.stat().st_size / 1e6:.1f} MB.")
    return notes


def _print(line: str) -> str:
    """Print a line, and return it without the mark of a note."""
    sys.stdout.write(f"{make_printable(line)}\n")
    return make_printable(line).removeprefix("Note: ")


def render_page(
    runs: Sequence[Run],
    entries: Sequence[CaseEntry],
    compared: Sequence[RunComparison],
    pictures: Pictures,
    *,
    hashed: bool,
) -> str:
    """Render the page.

    Args:
        runs: The runs, the first being the one that the others are compared with.
        entries: The cases of all runs.
        compared: The comparison of each other run with the first.
        pictures: The pixels.
        hashed: Whether names are hashed.
    """
    places = {entry.case_id: entry.number for entry in entries}
    objects = [list_object_entries(run, entries, pictures.notes, pictures=bool(pictures.cases)) for run in runs]
    script = "\n".join(_read_file(name) for name in _SCRIPTS)
    return (
        _make_environment()
        .get_template("page.html.j2")
        .render(
            version=__version__,
            runs=[_describe_run(run, index, places, objects[index]) for index, run in enumerate(runs)],
            labels=_list_labels(runs),
            entries=entries,
            scored=describe_cases(runs, len(entries)),
            outlines=list(zip(_list_labels(runs), itertools.cycle(COLORS), strict=False)),
            places=places,
            hashed=hashed,
            spreads=_draw_distributions(runs, places),
            compared=compared,
            pictures=pictures,
            gallery=split_gallery(entries, pictures),
            settings=compare_settings(runs),
            environment=compare_environments(runs),
            colors=[_make_shades(color) for color in (*COLORS, *_MORE)],
            style=Markup(_read_file("page.css")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            data={
                "runs": [run.title for run in runs],
                "labels": _list_labels(runs),
                "colors": COLORS,
                "overlapping": pictures.overlapping,
                "columns": [[column, *named] for column, named in SHOWN.items()],
                "lengths": LENGTHS,
                "cases": to_page_data(entries),
            },
        )
    )


# Further colors of drawings, for those with many lines.
_MORE = ((86, 180, 233), (204, 121, 167), (213, 94, 0), (148, 103, 189), (140, 86, 75))


def _describe_run(run: Run, index: int, numbers: Mapping[str, int], objects: ObjectList) -> dict[str, Any]:
    letter = chr(ord("A") + index)
    training = {
        "curves": [drawing for drawing in _draw_curves(run, letter) if drawing],
        "length": describe_length(run).strip(" ,"),
        "best_weights": describe_best_weights(run),
        "fold_report": _suggest_fold_report(run),
    }
    strata = {
        "strata": list_strata(run),
        "sizes": list_size_thirds(run),
        "size_drawing": figures.draw_size_and_score(run, numbers, letter),
    }
    return {
        **training,
        "has_training": any(training.values()),
        **strata,
        "has_strata": any(strata.values()),
        "letter": letter,
        "title": run.title,
        "stage": run.stage,
        "summary": run.summary,
        "interval": compute_mean_interval(run),
        "answers": list_findings(run),
        "objects": objects,
        "has_objects": bool(run.summary.get("objects")),
        "recall_drawing": figures.draw_recall_by_size(run, letter),
        "calibration": list_calibration(run),
        "calibration_command": _suggest_calibration(run),
        "reliability": figures.draw_reliability(run.reliability, run.labels, letter),
        "proof": audit_split(run),
        "digest": ((run.environment or {}).get("data") or {}).get("sha256"),
    }


def _draw_curves(run: Run, letter: str) -> list[Markup | None]:
    if run.folds:
        return [_draw_fold_curves(run, *each, letter) for each in (("val/loss", "loss"), ("val/dice", "Dice"))]
    labels = run.labels if len(run.labels) <= _MOST_LINES else []
    dice = [Curve(run, "val/dice", "mean", 11)]
    dice += [Curve(run, f"val/dice/{name}", name, index) for index, name in enumerate(labels)]
    if len(labels) == 1:  # whose curve is the mean's
        dice = [Curve(run, "val/dice", labels[0], 0)]
    rates = sorted({column for row in run.log for column in row if column.startswith("lr-")})
    return [
        figures.draw_curves(
            [Curve(run, "train/loss", "training", 1), Curve(run, "val/loss", "validation", 0)], "loss", f"loss-{letter}"
        ),
        figures.draw_curves(dice, "validation Dice", f"dice-{letter}"),
        figures.draw_curves([Curve(run, name, name, 5) for name in rates[:1]], "learning rate", f"rate-{letter}"),
    ]


def _draw_fold_curves(run: Run, column: str, what: str, letter: str) -> Markup | None:
    """Draw a value of each fold's log."""
    curves = [Curve(fold, column, f"fold {index}", index) for index, fold in enumerate(run.folds)]
    return figures.draw_curves(curves, f"validation {what}", f"{what}-{letter}")


def _suggest_fold_report(run: Run) -> str:
    """Return the command that reports one fold, if the run has folds."""
    if not run.folds:
        return ""
    return f"medseg report {quote(str(Path('runs', run.folder.resolve().name, run.summary['folds']['runs'][0])))}"


def _suggest_calibration(run: Run) -> str:
    """Return the command that measures the calibration of a run, if one does."""
    commands = {"val": "validate", "test": "test"}
    experiment = (run.config or {}).get("experiment")
    if run.stage not in commands or not experiment:
        return ""
    # As `fit` names its folders: the page tells nothing of where these are.
    folder = quote(str(Path("runs", str(experiment), run.folder.resolve().name)))
    return f"medseg {commands[run.stage]} --ckpt_path {folder} --model.metrics+=medseg_pl.CalibrationMetric"


def _draw_distributions(runs: Sequence[Run], places: Mapping[str, int]) -> list[Markup]:
    measured = [metric for metric in _DRAWN if any(metric in run.summary["foreground_mean"] for run in runs)]
    units = {unit for run in runs for unit in run.summary.get("units", ())}
    names = {metric: f"{name}, {' or '.join(sorted(units))}" if metric in LENGTHS else name
             for metric, name in _DRAWN.items()}  # fmt: skip
    return [figures.draw_distribution(runs, metric, names[metric], places) for metric in measured]


def _list_labels(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(label for run in runs for label in run.labels))


def _make_shades(color: Sequence[int]) -> tuple[str, str]:
    """Make a color for light pages and one for dark."""
    # A bright line is lost on white.
    light = [round(part * min(1.0, 330 / (sum(color) or 1))) for part in color]
    return f"rgb({light[0]} {light[1]} {light[2]})", f"rgb({color[0]} {color[1]} {color[2]})"


def _read_file(name: str) -> str:
    return files(_PACKAGE).joinpath("page", name).read_text(encoding="utf-8")


def _make_environment() -> Environment:
    # Names of labels, cases and settings may be a stranger's: whatever stands in them is text and no markup.
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count_noun": count_noun,
        "number": format_number,
        "interval": format_interval,
        "p": format_p,
    }
    return environment
