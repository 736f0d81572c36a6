"""Report of a check: on the terminal, as JSON, and as a page with small pictures of the worst cases."""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medseg_pl import __version__
from medseg_pl.checks.file_checks import DAMAGE, list_cases
from medseg_pl.checks.findings import LEVELS, CaseFacts, Finding, LabelLookup, Level, MaskFacts
from medseg_pl.checks.inspection import inspect_cases
from medseg_pl.checks.pixel_measurement import index_values, sample_finite
from medseg_pl.checks.run_checks import CODES, Report, run_checks
from medseg_pl.checks.settings import CheckSettings, read_settings
from medseg_pl.core.errors import DataError, SettingError, count_noun, make_printable, name_options
from medseg_pl.core.intensity import PERCENTILES
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FileSource, Source
from medseg_pl.data.sources.base import abbreviate, note_doubtful_pattern, note_unknown_patients
from medseg_pl.data.sources.files import CaseGrid, bring_to_grid, read_image_file, read_mask_file
from medseg_pl.io.atomic_files import require_absent, write_text
from medseg_pl.io.case_pictures import COLORS, draw_contours, to_gray, widen_window
from medseg_pl.io.progress import show_progress

_SIDE = 224

_QUALITY = 80

MOST_PICTURES = 24
MOST_EXAMPLES = 8

_MOST_FILES = 200

_MOST_NAMES = 3

_MOST_LABELS = 12

_WIDTH = 80

_STYLES: dict[Level, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}


def draw_thumbnail(source: Source, facts: CaseFacts, labels: LabelMap) -> bytes | None:
    """Draw a JPEG of the slice with most of the mask.

    Args:
        source: Reads the case.
        facts: The case, and the values of its masks.
        labels: The labels of its masks.

    Returns:
        `None` where the image cannot be read.
    """
    try:
        image, mask = (
            _read_files(facts, LabelLookup(labels))
            if isinstance(source, FileSource) and source.has_value_masks(facts.case)
            else _read_volume(source, facts.case, labels)
        )
    except (DataError, MemoryError, *DAMAGE):
        return None
    if mask is not None and mask.shape != image.shape[1:]:
        mask = None
    index = image.shape[1] // 2 if mask is None else int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    picture = _render(image[:, index], None if mask is None else mask[index] != 0)
    if mask is not None:
        values = cv2.resize(mask[index].astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        planes = np.stack([values == number for number in range(1, len(labels.names) + 2)])
        picture = draw_contours(picture, planes)
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if done else None


def _read_files(facts: CaseFacts, lookup: LabelLookup) -> tuple[NDArray[Any], NDArray[Any] | None]:
    case = facts.case
    image, geometry = read_image_file(case.images[0])
    grid = CaseGrid(geometry, case.images[0], "image", "")
    masks = []
    for path in case.masks:
        try:
            masks.append(bring_to_grid(case.case_id, path, *read_mask_file(path), grid))
        except (DataError, *DAMAGE):
            return image, None
    if not masks or len({mask.shape for mask in masks}) > 1 or len(masks) != len(facts.masks):
        return image, None
    return image, np.max(
        [_to_labels(mask, each, lookup) for mask, each in zip(masks, facts.masks, strict=True)], axis=0
    )


def _to_labels(mask: NDArray[Any], facts: MaskFacts, lookup: LabelLookup) -> NDArray[np.uint8]:
    """Convert values to labels counted from 1; others get the number after the last."""
    indices, table = index_values(np.nan_to_num(mask))
    numbers = {0.0: 0} | {count.value[0]: lookup.find(count.value, facts) for count in facts.values}
    found = [numbers.get(float(value)) for value in table]
    other = len(lookup.labels.names) + 1
    codes = np.array([other if each is None else 0 if each == IGNORE else each for each in found], np.uint8)
    return np.asarray(codes[indices])


def _read_volume(source: Source, case: Case, labels: LabelMap) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        volume = source.read(case, labels)
    except (DataError, *DAMAGE):
        volume = source.read(replace(case, masks=()), labels)
    if volume.mask is None:
        return volume.image, None
    planes = labels.planes(volume.mask)
    return volume.image, np.max([plane * np.uint8(number) for number, plane in enumerate(planes, start=1)], axis=0)


def _render(planes: Shaped[np.ndarray, "c h w"], labeled: Bool[np.ndarray, "h w"] | None) -> UInt8[np.ndarray, "H W 3"]:
    """Render a slice within 224 pixels, colored where it has three channels."""
    values = sample_finite(planes)
    low, high = np.percentile(values, PERCENTILES).tolist() if values.size else (0.0, 1.0)
    if labeled is not None:
        low, high = widen_window(low, high, planes[:, labeled])
    shown = planes if len(planes) == 3 else planes[:1].repeat(3, axis=0)
    picture = np.stack([to_gray(plane, low, high) for plane in shown], axis=-1)
    scale = _SIDE / max(picture.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized: NDArray[np.uint8] = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    return resized


def check(arguments: argparse.Namespace) -> int:
    """Check a data set.

    Returns:
        1 where there is an error in the data, else 0.

    Raises:
        OutputExistsError: A file to be written is there already.
        SettingError: Wrong use.
    """
    require_absent(arguments.html)
    if arguments.patch and min(arguments.patch) < 1:
        raise SettingError(f"--patch needs a height and a width of at least 1 pixel; got {arguments.patch}.")
    settings = read_settings(arguments)
    report = _name_options(inspect_dataset(settings, arguments.num_workers), vars(arguments))
    if arguments.json:
        sys.stdout.write(f"{json.dumps(to_json(report, settings), indent=1)}\n")
    else:
        print_report(Console(width=_choose_width()), report, settings)
    if arguments.html is not None:
        write_page(arguments.html, report, settings)
        if not arguments.json:
            sys.stdout.write(f"Wrote {make_printable(str(arguments.html))}\n")
    return 1 if report.counts()["error"] else 0


def _name_options(report: Report, arguments: Mapping[str, Any]) -> Report:
    """Name settings in notes and findings as options of the command."""
    name = partial(name_options, arguments=arguments)
    findings = (replace(each, message=name(each.message), remedy=name(each.remedy)) for each in report.findings)
    return replace(report, notes=tuple(map(name, report.notes)), findings=tuple(findings))


def inspect_dataset(settings: CheckSettings, workers: int) -> Report:
    """Find the cases, read each, and run all rules."""
    listing = list_cases(settings.source)
    with warnings.catch_warnings(), show_progress("Checking cases", len(listing.cases)) as advance:
        warnings.simplefilter("ignore")  # decoders warn of damage, of which the findings speak
        labeling = settings.infer_labels(listing.cases)
        labels = labeling.labels
        cases = list(inspect_cases(settings.source, listing.cases, labels, settings.root, workers, advance))
    # One intact case is read as `fit` does: its source refuses labels that are not those of its files.
    if intact := next((facts for facts in cases if facts.image and facts.masks and not facts.findings), None):
        with suppress(DataError):  # which the findings tell in detail
            settings.source.read(intact.case, labels)
    tolerance_set = settings.opened.labels is not None or settings.label_settings.tolerance is not None
    report = run_checks(
        cases,
        listing.findings,
        labels,
        modalities=settings.opened.modalities,
        tolerance_found=bool(labels.tolerance) and not tolerance_set,
        patch=settings.patch,
        choose_splits=partial(settings.choose_splits, listing.cases),
    )
    unknown = note_unknown_patients(settings.source, listing.cases)
    doubtful = note_doubtful_pattern(settings.source, listing.cases)
    notes = (*labeling.notes, *settings.opened.notes, *report.notes, *unknown, *doubtful)
    lost = unknown or any(finding.code == "group-unknown" for finding in listing.findings)
    return replace(report, notes=notes, patients=None if lost else len({case.group for case in listing.cases}))


def print_report(console: Console, report: Report, settings: CheckSettings) -> None:
    """Print a table with a row for each code, what was read, and the verdict."""
    for note in report.notes:
        console.print(Text(f"Note: {note}."), soft_wrap=True)  # a pattern in it is copied whole
    if report.findings:
        console.print(_make_table(report.findings, settings.root))
    for line in summarize_data(report, settings):
        console.print(Text(make_printable(line)))
    console.print(Text(summarize_report(report), style="bold"), soft_wrap=True)


def to_json(report: Report, settings: CheckSettings) -> dict[str, Any]:
    """Return the content of `--json`."""
    return {
        "directory": make_printable(str(settings.root)),
        "notes": list(report.notes),
        "data": describe_dataset(report, settings),
        "counts": report.counts(),
        "codes": dict(Counter(finding.code for finding in report.findings)),
        "findings": [describe_finding(finding, settings.root) for finding in report.findings],
    }


def describe_dataset(report: Report, settings: CheckSettings) -> dict[str, Any]:
    """Describe the data in numbers."""
    images = [case.image for case in report.cases if case.image is not None]
    lookup = LabelLookup(report.labels)
    present = np.array([lookup.count_voxels(case.masks) for case in report.cases if case.masks], dtype=bool)
    shapes = np.array([image.geometry.shape for image in images])
    spacings = np.array([image.geometry.spacing_mm for image in images if image.geometry.spacing_mm is not None])
    return {
        "source": type(settings.source).__name__,
        "cases": len(report.cases),
        "patients": report.patients,
        "labels": lookup.find_marks([mask for case in report.cases for mask in case.masks]),
        "cases_with_label": dict(zip(report.labels.names, present.sum(axis=0).tolist(), strict=True))
        if len(present)
        else {},
        "channels": sorted({image.channels for image in images}),
        "types": dict(Counter(image.dtype for image in images)),
        "shapes": _summarize_extent(shapes),
        "spacings_mm": _summarize_extent(spacings),
    }


def _summarize_extent(lengths: Any) -> Mapping[str, list[float]]:
    """Give the smallest, the middle and the largest along each axis."""
    if not len(lengths):
        return {}
    ends = {"least": lengths.min(axis=0), "median": np.median(lengths, axis=0), "most": lengths.max(axis=0)}
    return {name: values.tolist() for name, values in ends.items()}


def summarize_data(report: Report, settings: CheckSettings) -> list[str]:
    """Summarize what was read in at most two lines: images, and labels."""
    data, lines = describe_dataset(report, settings), []
    images = [case.image for case in report.cases if case.image is not None]
    if images:
        flat = data["shapes"]["most"][0] == 1
        size = f"{_format_extent(data['shapes'], flat)} {'pixels' if flat else 'voxels (depth, height, width)'}"
        channels = f"{' or '.join(map(str, data['channels']))} channel{'s' * (data['channels'] != [1])}"
        spacing = f"{_format_extent(data['spacings_mm'], flat)} mm" if data["spacings_mm"] else "unknown"
        if 0 < (known := sum(image.geometry.spacing_mm is not None for image in images)) < len(images):
            spacing += f" in {known} of {len(images)} cases"
        lines.append(f"Images: {size}, {channels}, {' or '.join(sorted(data['types']))}, spacing {spacing}.")
    if data["cases_with_label"]:
        annotated = sum(bool(case.masks) for case in report.cases)
        found = enumerate(data["cases_with_label"].items(), start=1)
        labels = [f"{name}{_format_mark(data['labels'][name], index)} in {number}" for index, (name, number) in found]
        of_which = "" if annotated == len(report.cases) else " with a mask that can be read"
        whole = f"{count_noun(annotated, 'case')}{of_which}"
        lines.append(f"Labels: {abbreviate(labels, _MOST_LABELS)} of {whole}.")
    return lines


def _format_mark(mark: int | Sequence[int], index: int) -> str:
    """Write a label's value in files, where it is not the label's place in the list.

    >>> _format_mark(1, 1), _format_mark(255, 1), _format_mark([255, 0, 0], 2)
    ('', ' (value 255)', ' (color 255,0,0)')
    """
    if isinstance(mark, int):
        return "" if mark == index else f" (value {mark})"
    return f" (color {','.join(map(str, mark))})"


def _format_extent(extent: Mapping[str, Sequence[float]], flat: bool) -> str:
    """Write the least and the greatest length along each axis.

    >>> _format_extent({"least": [1, 64, 80], "most": [1, 64, 96]}, True)
    '64 x 80–96'
    >>> _format_extent({"least": [1, 0.5, 12240], "most": [1, 0.98765, 12240]}, True)
    '0.5–0.9877 x 12240'
    """
    sides = list(zip(extent["least"], extent["most"], strict=True))[int(flat) :]
    written = ((_format_length(least), _format_length(most)) for least, most in sides)
    return " x ".join(least if least == most else f"{least}–{most}" for least, most in written)


def _format_length(length: float) -> str:
    return f"{length:.0f}" if length == round(length) else f"{length:.4g}"


def summarize_report(report: Report) -> str:
    """Summarize the result in two lines: counts, and what to do."""
    counts, cases = report.counts(), count_noun(len(report.cases), "case")
    of_whom = ", patients unknown" if report.patients is None else f" of {count_noun(report.patients, 'patient')}"
    of_whom = of_whom if report.cases else ""
    numbers = ", ".join(count_noun(number, level) for level, number in counts.items())
    advice = "Correct the errors before training." if counts["error"] else "Nothing here keeps it from training."
    return f"{cases}{of_whom}: {numbers}.\n{advice}"


def describe_finding(finding: Finding, root: Path) -> dict[str, str]:
    """Describe a finding as it is shown.

    Returns:
        Printable texts.
    """
    file = finding.file
    relative = "" if file is None else file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
    return {
        "code": finding.code,
        "level": finding.level,
        "case_id": make_printable(finding.case_id),
        "file": make_printable(relative),
        "message": make_printable(finding.message.replace(f"{root}/", "")),
        "remedy": finding.remedy,
    }


def _group_by_code(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.code].append(finding)
    return groups


def write_page(path: Path, report: Report, settings: CheckSettings) -> None:
    """Write one HTML file that needs no other file."""
    # Names of files may be a stranger's: whatever stands in them is text and no markup.
    environment = Environment(
        loader=PackageLoader("medseg_pl.checks", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["count_noun"] = count_noun
    groups = [
        {"code": code, "kind": CODES[code], "findings": [describe_finding(f, settings.root) for f in findings]}
        for code, findings in _group_by_code(report.findings).items()
    ]
    examples = choose_examples(report)
    page = environment.get_template("page.html.j2").render(
        name=make_printable(settings.root.resolve().name),
        version=__version__,
        levels=LEVELS,
        counts=report.counts(),
        notes=report.notes,
        facts=describe_dataset(report, settings),
        groups=groups,
        outlines=_list_outlines(report),
        most_files=_MOST_FILES,
        pictures=_draw_cases(rank_worst_cases(report), report, settings),
        kind=examples.kind,
        faultless=examples.number,
        examples=_draw_cases([(name, []) for name in examples.chosen], report, settings),
    )
    write_text(path, page)


def _list_outlines(report: Report) -> list[tuple[str, tuple[int, int, int]]]:
    """List the labels with the colors of their outlines."""
    lookup = LabelLookup(report.labels)
    unknown = any(lookup.find_unknown(mask) for case in report.cases for mask in case.masks)
    names = [*report.labels.names, *["no label's value"] * unknown]
    return list(zip(names, itertools.cycle(COLORS), strict=False))


def rank_worst_cases(report: Report) -> list[tuple[str, list[Finding]]]:
    """Rank cases by their gravest finding, then by their number.

    A case with notes alone is not ranked.
    """
    by_case: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        if finding.case_id and finding.level != "note":
            by_case[finding.case_id].append(finding)
    names = {facts.case.case_id for facts in report.cases}
    ranked = sorted(
        ((name, findings) for name, findings in by_case.items() if name in names),
        key=lambda item: (min(LEVELS.index(finding.level) for finding in item[1]), -len(item[1]), item[0]),
    )
    return ranked[:MOST_PICTURES]


class Examples(NamedTuple):
    """Cases that are shown as good ones.

    Attributes:
        kind: What they have in common, in words.
        number: How many cases are of this kind.
        chosen: The names of some of them.
    """

    kind: str
    number: int
    chosen: list[str]


def choose_examples(report: Report) -> Examples:
    """Choose cases without a finding, evenly over the data set; with notes alone where there is none."""
    names = [facts.case.case_id for facts in report.cases if facts.masks]
    found = {finding.case_id for finding in report.findings}
    doubtful = {finding.case_id for finding in report.findings if finding.level != "note"}
    good, kind = [name for name in names if name not in found], "without a finding"
    if not good:
        good, kind = [name for name in names if name not in doubtful], "with notes alone"
    # Neighbors in the list are often of one patient, and alike.
    step = max(1, len(good) // MOST_EXAMPLES)
    return Examples(kind, len(good), good[::step][:MOST_EXAMPLES])


def _draw_cases(
    chosen: Sequence[tuple[str, Sequence[Finding]]], report: Report, settings: CheckSettings
) -> list[dict[str, Any]]:
    cases = {facts.case.case_id: facts for facts in report.cases}
    pictures = []
    for name, findings in chosen:
        readable = cases[name].image is not None
        jpeg = draw_thumbnail(settings.source, cases[name], report.labels) if readable else None
        data = None if jpeg is None else base64.b64encode(jpeg).decode("ascii")
        descriptions = [describe_finding(finding, settings.root) for finding in findings]
        pictures.append({"case_id": make_printable(name), "jpeg": data, "findings": descriptions})
    return pictures


def _make_table(findings: Sequence[Finding], root: Path) -> Table:
    table = Table(box=box.SIMPLE, width=_choose_width(), pad_edge=False)
    table.add_column("found", justify="right")
    table.add_column("level", no_wrap=True)
    table.add_column("code, what, where, and what to do", overflow="fold")
    for code, several in _group_by_code(findings).items():
        level = several[0].level
        table.add_row(str(len(several)), Text(level, _STYLES[level]), _describe_code(code, several, root))
    return table


def _describe_code(code: str, findings: Sequence[Finding], root: Path) -> Text:
    shown = [describe_finding(finding, root) for finding in findings]
    names = list(dict.fromkeys(one["file"] or one["case_id"] for one in shown if one["file"] or one["case_id"]))
    text = Text(code, style="bold").append(f": {CODES[code].meaning}\n", style="not bold")
    text.append(f"{'First: ' if len(shown) > 1 else ''}{shown[0]['message']}\n", style="dim not bold")
    for name in names[:_MOST_NAMES]:
        text.append(f"{name}\n", style="cyan not bold")
    text.append(f"and {len(names) - _MOST_NAMES} more\n" if len(names) > _MOST_NAMES else "", style="cyan not bold")
    return text.append(f"→ {shown[0]['remedy']}", style="not bold")


def _choose_width() -> int:
    """Choose the terminal's width, limited to what reads easily."""
    # Files and pipes get the same width.
    console = Console()
    return min(_WIDTH, console.width) if console.is_terminal else _WIDTH
