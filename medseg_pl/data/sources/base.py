"""Base class of data sources, and why a file is in no case."""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, SettingError, count_noun, make_printable
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.core.validation import Recorded, find_pattern_fault
from medseg_pl.io.file_header import detect_format
from medseg_pl.io.paths import DETACHED, PICTURES, VOLUMES, LeftOut, find_suffix


class Problem(NamedTuple):
    """A fault in the names or lists of a data set.

    Attributes:
        code: Its kind, one of those of `medseg check`, such as `missing-mask`.
        message: The fault, in one sentence without advice.
        case_id: The case, empty where it concerns no single one.
        path: The file or folder.
    """

    code: str
    message: str
    case_id: str = ""
    path: Path | None = None


OnProblem = Callable[[Problem], None]
SourceT = TypeVar("SourceT", bound="Source")


class Source(Recorded, ABC):
    """A data set: its cases, and how to read and write one.

    A source of your own is one file with a subclass; it enters by its `class_path` in the configuration. Nothing is
    decoded in `cases`, and `read` is called once for each case: what it returns is kept in the store.

    Attributes:
        orientation: Axis codes that volumes are brought to where their files say how they lie, and masks back from;
            `None` leaves them as the slicing cuts them.
    """

    orientation: str | None = None

    @abstractmethod
    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List all cases with their files, sorted by `case_id`.

        No pixels are read.

        Args:
            on_problem: Called with each problem, after which the listing goes on: one bad case hides no other. Without
                it the first problem is raised. A source of your own may leave the parameter out.

        Raises:
            MissingDataError: A folder, a file or half of a pair is missing.
        """

    @abstractmethod
    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode one case; its mask is `None` if the case has none.

        Args:
            case: One of `cases`.
            labels: The meaning of the values in its masks.

        Raises:
            DataError: A file cannot be used as it is.
        """

    @abstractmethod
    def open_unlabeled(self, directory: Path) -> Source:
        """Open images of the same kind without masks, for `predict`.

        Files that are no case are for `list_left_out` to name, and hide no case.

        Args:
            directory: The folder of images, or an image.
        """

    @abstractmethod
    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """Write a predicted mask in the format and grid of its image.

        Args:
            directory: The folder of predictions.
            case: The case, whose id names the file.
            mask: As `LabelMap.decide` gives it, `(M, D, H, W)`.
            labels: The meaning of its values or channels.
        """

    def read_modality(self, case: Case) -> str:
        """Read the modality from the header, empty where the format has none."""
        return ""

    def orient(self: SourceT, orientation: str | None) -> SourceT:
        """Return a source whose volumes have other axis codes.

        Args:
            orientation: See `find_axis_codes`.
        """
        oriented = copy(self)
        oriented.orientation = orientation
        return oriented

    def list_left_out(self) -> list[LeftOut]:
        """List the inputs that are in no case, and why."""
        return []

    def finish(self, directory: Path) -> None:
        """Join the written files after the last case.

        It is called again after an interrupted prediction, and replaces what it wrote before.
        """

    def reading_settings(self) -> tuple[object, ...]:
        """Return settings that change what `read` returns for the same files.

        These are all attributes unless a source overrides this: a root, for example, may change without the pixels
        changing.
        """
        return tuple(sorted((name, repr(value)) for name, value in vars(self).items() if name[0] != "_"))

    def writing_settings(self) -> tuple[object, ...]:
        """Return settings that change what `write` makes of the same mask."""
        return ()


def raise_or_report(error: DataError, problems: Iterable[Problem], on_problem: OnProblem | None) -> None:
    """Raise an error, or report its problems.

    Args:
        error: Names all problems, for a caller who reads one text.
        problems: The same faults one by one, for a report.
        on_problem: Takes each problem; `None` raises the error instead.

    Raises:
        DataError: The error, where nobody takes the problems.
    """
    if on_problem is None:
        raise error
    for problem in problems:
        on_problem(problem)


def make_case(on_problem: OnProblem | None, path: Path, *fields: Any) -> list[Case]:
    """Make a case, if results can be written under its name.

    Args:
        on_problem: Takes the problem; without it the error is raised.
        path: Where the name stands.
        fields: Those of `Case`, the name first.

    Returns:
        The case, or nothing.
    """
    try:
        return [Case(*fields)]
    except DataError as error:
        message = str(error).removesuffix(" Rename it.")
        raise_or_report(error, [Problem("bad-name", message, make_printable(str(fields[0])), path)], on_problem)
        return []


def explain_missing_root(root: Path, remedy: str) -> str:
    """Say what to do about a data set that is not where it should be.

    Args:
        root: The folder, or a file, that the source was given.
        remedy: What to do where the path is absolute, or something is there.
    """
    if root.is_absolute() or root.exists():
        return remedy
    # A plan keeps the path as it was typed, so that it can move with its data.
    return (
        f"The path is relative to the current folder, {Path.cwd()}: start where the configuration was made, or give "
        "--data_root DIR."
    )


_GROUP = "--data.source.group"
_EXAMPLE = r"(patient\d+)_"
# Fewer patients, each with so many cases, are rather visits or sites if names suggest so many times as many.
_FEW_PATIENTS, _CASES_OF_EACH, _SEVERAL = 5, 10, 3


def find_group(
    case_id: str,
    pattern: str | None,
    path: Path | None = None,
    on_problem: OnProblem | None = None,
    case_ids: Iterable[str] = (),
) -> str:
    """Find the patient in a case's name by a pattern.

    Args:
        case_id: The name.
        pattern: A regular expression.
        path: Where the name stands.
        on_problem: Takes the problem of a pattern that does not match; the case is then its own patient.
        case_ids: The names of all cases, from which the error suggests another pattern.

    Raises:
        DataError: The pattern does not match.

    >>> find_group("Image_01L", "Image_([0-9]+)")
    '01'
    """
    if pattern is None:
        return case_id
    shown = shlex.quote(pattern)  # as it is typed: a literal of Python would double each backslash
    if (match := re.search(pattern, case_id)) is None:
        # Only the error suggests a pattern: to look through all names for each that is reported takes minutes.
        if on_problem is None:
            raise DataError(
                f"The pattern {shown} finds no patient in the case {case_id!r}, so a split could leak. Correct "
                f"data.source.group so that it matches every name{suggest_correction(pattern, case_ids)}, or leave it "
                "out."
            )
        on_problem(Problem("group-unknown", f"The pattern {shown} finds no patient in {case_id!r}.", case_id, path))
        return case_id
    # An alternative that did not match is None; where none of them did, the whole match is the patient.
    return "_".join(part for part in match.groups() if part is not None) or match.group(0)


def note_unknown_patients(source: Source, cases: Sequence[Case]) -> list[str]:
    r"""Note that each case counts as a patient if nothing identifies patients.

    Args:
        source: The data set.
        cases: Its cases.
    """
    # Only a source that looks for patients in names has a pattern; tables and folders of patients name them.
    if getattr(source, "group", "") is not None or any(case.group != case.case_id for case in cases):
        return []
    pattern = suggest_group_pattern([case.case_id for case in cases])
    example = f"{'as with' if pattern is None else 'perhaps'} {_GROUP} {shlex.quote(pattern or _EXAMPLE)}"
    return [f"every image is taken for a patient of its own; where one has several, find patients in names, {example}"]


def note_doubtful_pattern(source: Source, cases: Sequence[Case]) -> list[str]:
    """Note that the pattern of a source hardly finds the patients.

    Args:
        source: The data set.
        cases: Its cases.
    """
    given = getattr(source, "group", None)
    fault = given is not None and describe_doubtful_pattern(given, [case.case_id for case in cases], _GROUP)
    return [fault] if fault else []


def describe_doubtful_pattern(pattern: str, case_ids: Sequence[str], setting: str) -> str:
    """Describe why a pattern hardly finds the patients, and what may be meant.

    Args:
        pattern: The given one.
        case_ids: The names of all cases.
        setting: What gives the pattern.

    Returns:
        Empty where nothing speaks against it.
    """
    suggested = _suggest_other_pattern(pattern, case_ids)
    fault = _describe_lost_patients(pattern, case_ids) or _describe_number(pattern, case_ids, suggested)
    meant = (
        f"perhaps {setting} {shlex.quote(suggested)} is meant, which finds {_count_patients(suggested, case_ids)}"
        if suggested
        else "see that its parentheses are around the patient"
    )
    return f"{setting} {shlex.quote(pattern)} {fault}; {meant}" if fault else ""


def _count_patients(pattern: str, case_ids: Iterable[str]) -> int:
    return len({find_group(name, pattern) for name in case_ids})


def _describe_lost_patients(pattern: str, case_ids: Sequence[str]) -> str:
    """Say in how many names a pattern finds no patient, empty for none."""
    found = sum(re.search(pattern, name) is not None for name in case_ids)
    if found == len(case_ids):
        return ""
    return f"finds a patient in {found} of {len(case_ids)} names" if found else "finds no patient in any name"


def _describe_number(pattern: str, case_ids: Sequence[str], suggested: str | None) -> str:
    """Say how many patients a pattern finds if names suggest clearly more or fewer.

    Args:
        pattern: One that finds a patient in every name.
        case_ids: The names of all cases.
        suggested: The pattern that names suggest in its place.
    """
    # Few patients, or a patient for each case, may be right unless names say otherwise.
    if suggested is None:
        return ""
    patients, cases = _count_patients(pattern, case_ids), len(case_ids)
    if patients == cases:
        return f"finds another patient in each of {patients} cases"
    if not _is_too_few(patients, _count_patients(suggested, case_ids), cases):
        return ""
    return f"finds {count_noun(patients, 'patient')} in {cases} cases"


def _is_too_few(patients: int, likely: int, cases: int) -> bool:
    """Tell whether so few patients are rather visits or sites."""
    return patients < _FEW_PATIENTS and cases >= _CASES_OF_EACH * patients and likely >= _SEVERAL * patients


def _suggest_other_pattern(pattern: str, case_ids: Sequence[str]) -> str | None:
    """Suggest a pattern in place of another one, unless it groups cases otherwise.

    Args:
        pattern: The given one, which need not match every name.
        case_ids: The names of all cases.
    """
    if (suggested := suggest_group_pattern(case_ids)) is None:
        return None
    matched = [name for name in case_ids if re.search(pattern, name)]
    pairs = {(find_group(name, suggested), find_group(name, pattern)) for name in matched}
    likely, given = ({pair[place] for pair in pairs} for place in (0, 1))
    # Names that begin with a date or a site suggest that one, which splits or merges the patients of a right pattern.
    agrees = len(pairs) == len(likely) == len(given)
    # A pattern that finds whole names finds the patient and more; what stands behind a site does not hold the site.
    too_long = len(given) == len(matched) and all(part in whole for part, whole in pairs)
    return suggested if agrees or too_long or _is_too_few(len(given), len(likely), len(matched)) else None


def suggest_correction(pattern: str, case_ids: Iterable[str]) -> str:
    r"""Suggest another pattern in parentheses, empty where names suggest none.

    Args:
        pattern: The given one.
        case_ids: The names of all cases.

    >>> suggest_correction(r"(x\d+)", ["P01_a", "P01_b", "P02_a", "P03_a"])
    " (perhaps '(P\\d+)_')"
    """
    suggested = _suggest_other_pattern(pattern, list(case_ids))
    return f" (perhaps {shlex.quote(suggested)})" if suggested else ""


def suggest_group_pattern(case_ids: Sequence[str]) -> str | None:
    r"""Suggest a pattern for patients if names share numbered beginnings.

    Args:
        case_ids: The names of all cases.

    Returns:
        `None` where names differ otherwise, where no two share a beginning, or where nothing recurs behind the number,
        as in random names.

    >>> suggest_group_pattern(["slide 00 field 1", "slide 00 field 2", "slide 01 field 1", "slide 02 field 1"])
    '(slide \\d+)'
    >>> suggest_group_pattern(["P01_visit1", "P01_visit2", "P02_visit1", "P03_visit1"])
    '(P\\d+)_'
    >>> suggest_group_pattern(["case_1", "case_2", "case_3"])
    """
    # Text and numbers take turns, beginning with a text that may be empty.
    parts = [re.split(r"(\d+)", name) for name in case_ids]
    for place, column in enumerate(zip(*parts, strict=False)):
        if len(set(column)) == 1:
            continue
        beginnings = {tuple(name[: place + 1]) for name in parts}
        before = "".join(parts[0][:place])
        # Two beginnings are rather two sequences or sites. Other signs would have to be quoted for a shell.
        if place % 2 == 0 or not 3 <= len(beginnings) < len(parts) or not re.fullmatch(r"[\w ./-]*", before):
            return None
        # Images of a patient have numbers, or names of a few kinds; random names end in as many ways as there are.
        if len({tuple(name[place + 1 :: 2]) for name in parts}) > len(parts) / 2:
            return None
        after = {name[place + 1][:1] for name in parts}
        separator = after.pop() if len(after) == 1 and after < {"_", "-", "/"} else ""
        return f"({before.replace('.', '[.]')}\\d+){separator}"
    return None


def parse_annotated_labels(text: str, where: str) -> tuple[str, ...] | None:
    """Parse the labels annotated in a case, separated by `;`.

    Args:
        text: The labels.
        where: Where they stand, for errors.

    Returns:
        `None`, which means all labels, for an empty text.

    Raises:
        DataError: There is no name between the separators, or one stands there twice.

    >>> parse_annotated_labels("liver; spleen", "line 2"), parse_annotated_labels("", "line 3")
    (('liver', 'spleen'), None)
    """
    names = tuple(name.strip() for name in text.split(";"))
    if names == ("",):
        return None
    if not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{where}: annotated_labels is {text!r}; expected different labels separated by ';', or nothing where all "
            "were looked for."
        )
    return names


def check_pattern(pattern: str | None) -> None:
    """Raise `SettingError` where a group pattern cannot find a patient."""
    if pattern is not None and (fault := find_pattern_fault(pattern)):
        raise SettingError(f"data.source.group {shlex.quote(pattern)} {fault}.")


def abbreviate(names: list[str], most: int = 3) -> str:
    """Abbreviate a list for an error message.

    >>> abbreviate(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


_SIDE_FILES = ("thumbs.db", "dicomdir")
"""What Windows and DICOM media put beside images."""
_TEXTS = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".log")
"""Names that promise no image, of files that may as well be empty."""
_HEADERS = (".mhd", ".nhdr")


def explain_unread(path: Path) -> LeftOut:
    """Explain by a file's first bytes why it is no image.

    Args:
        path: A file that its source does not read.
    """
    if path.name.lower() in _SIDE_FILES:
        return LeftOut(path, "A file of the system, no image.", "side-file")
    # A .raw file has no header of its own, so only the one beside it tells what it is.
    raw = find_suffix(path, DETACHED)
    if raw and any(path.with_name(path.name[: -len(raw)] + header).is_file() for header in _HEADERS):
        return LeftOut(path, "The voxels of the header beside it.", "side-file")
    content = detect_format(path)
    empty_text = content == "nothing" and path.suffix.lower() in _TEXTS
    if empty_text or (content == "text" and path.suffix.lower() != ".svg"):
        return LeftOut(path, "A text, no image.", "side-file")
    if content == "DICOM":
        return LeftOut(path, "A DICOM file, which data.source DicomSource reads.")
    # What is inside a gzip file is unknown until it is unpacked: it may be an archive of anything.
    if content in {*PICTURES.values(), *VOLUMES.values()} - {"gzip"}:
        return LeftOut(path, f"The content is {content}, but the name says otherwise. Rename it.")
    what = {"nothing": "The file is empty.", "unknown": "It is of no format that is read."}
    return LeftOut(path, what.get(content, f"The content is {content}, which is not read here."))


def name_other_source(left_out: Iterable[LeftOut], source: str) -> str:
    """Name another source that reads a folder, if one does.

    Args:
        left_out: The files that one source did not read.
        source: The other one.
    """
    if not any(source in each.reason for each in left_out):
        return ""
    return f"{source} reads such a folder: add --data.source={source} --data.source.root=. to the command. "


def describe_left_out(left_out: Iterable[LeftOut], most: int = 3) -> str:
    """Name what is left out, with its reasons, in a few sentences.

    >>> describe_left_out([LeftOut(Path("a.heic"), "It is of no format that is read.")])
    'a.heic: It is of no format that is read.'
    """
    lost: Sequence[LeftOut] = [each for each in left_out if each.is_lost]
    sentences = [f"{each.path}: {each.reason}" for each in lost[:most]]
    return " ".join([*sentences, *([f"And {len(lost) - most} more."] if len(lost) > most else [])])
