"""Options that several commands take, and how their texts are parsed.

Imports nothing heavy: `--help` is to be quick.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import restricted_number_type

from medseg_pl.core.errors import SettingError, make_printable
from medseg_pl.core.validation import find_pattern_fault

T = TypeVar("T")

# What LabelMap, Slicing and detect_dataset take; none of them is imported for `--help`.
TASKS = ("binary", "multiclass", "multilabel")
SLICINGS = ("file", "axial", "coronal", "sagittal", "thick")
LAYOUTS = ("decathlon", "uw_madison", "manifest", "dicom", "polygons", "folder")


def make_whole_number_type(low: int, high: int) -> type:
    """Make the type of whole numbers from `low` to `high`, both included."""
    number: type = restricted_number_type(f"a whole number from {low} to {high}", int, [(">=", low), ("<=", high)])
    return number


def parse_once(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """Wrap a parser to leave parsed values as they are.

    jsonargparse applies a type to its own result again.
    """

    @wraps(parse)
    def apply(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return apply


def add_data_set(parser: ArgumentParser) -> None:
    """Add options that name and describe a data set.

    They give its folder, what its files do not say, and a configuration that says it.
    """
    parser.add_argument(
        "directory", type=Path, nargs="?", metavar="DIR", help="the data set; default: that of --config"
    )
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="the data set, under its name in other commands")
    add_data_options(parser)
    config = "of a training; names source and labels; can be given several times"
    parser.add_argument("--config", type=parse_path, action="append", metavar="FILE", help=config)


def choose_data_set(arguments: Namespace) -> Path | None:
    """Choose the data set's folder: `DIR`, or `--data_root`.

    Raises:
        SettingError: Both are given.
    """
    if arguments.directory is not None and arguments.data_root is not None:
        raise SettingError(
            f"The data set is given twice: {arguments.directory} and --data_root {arguments.data_root}. Give it once."
        )
    folder: Path | None = arguments.data_root if arguments.directory is None else arguments.directory
    return folder


def add_data_options(parser: ArgumentParser) -> None:
    """Add what the files of a data set do not say."""
    add = parser.add_argument
    add("--layout", choices=LAYOUTS, metavar="LAYOUT", help=f"{', '.join(LAYOUTS)}; found out by default")
    add("--images", metavar="NAME", help="the images' folder; . where they lie beside their masks")
    add("--image_name", metavar="NAME", help="what images are called, such as {stem}_training; default: {stem}")
    masks = "the masks' folder, or one for each label as in liver=liver,spleen=masks/spleen"
    add("--masks", type=parse_masks, metavar="NAME", help=masks)
    add("--mask_name", metavar="NAME", help="what the mask of an image is called, such as {stem}_seg or {stem}/*")
    add_group(parser)
    add("--slicing", choices=SLICINGS, help="how volumes are cut into slices; default: file")
    add_labels(parser)


def add_group(parser: ArgumentParser) -> None:
    """Add the pattern of patients."""
    pattern = "regular expression whose parentheses find the patient in a case's name"
    parser.add_argument("--group", type=parse_pattern, metavar="REGEX", help=pattern)


def add_labels(parser: ArgumentParser) -> None:
    """Add what the masks hold."""
    names = "liver,tumour for the values 1 and 2, or 1=liver,4=tumour; default: what the data says"
    parser.add_argument("--labels", type=parse_labels, metavar="LIST", help=names)
    tasks = "multilabel: labels may overlap; default: binary for one label, multiclass for several"
    parser.add_argument("--task", choices=TASKS, help=tasks)
    ignored = "value of voxels that nobody annotated; they do not count"
    parser.add_argument("--ignore_value", type=int, metavar="V", help=ignored)
    colors = "of masks in colors: lesion=#ff0000,background=#ffffff"
    parser.add_argument("--colors", type=parse_colors, metavar="LIST", help=colors)
    near = "how far a value, or a channel of a color, may be from its label's"
    parser.add_argument("--tolerance", type=float, metavar="T", help=near)


def add_json(parser: ArgumentParser) -> None:
    """Add the choice of a result for programs."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


@contextmanager
def keep_stdout_for(result: bool) -> Iterator[None]:
    """Send a block's prints to stderr, to keep stdout for JSON."""
    with redirect_stdout(sys.stderr) if result else nullcontext():
        yield


def print_line(line: str) -> None:
    """Print a line at once, into watched files as well."""
    sys.stdout.write(f"{make_printable(line)}\n")
    sys.stdout.flush()


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result as one object that any parser reads: no NaN."""
    sys.stdout.write(f"{json.dumps(result, indent=1, allow_nan=False)}\n")


def add_num_workers(parser: ArgumentParser) -> None:
    """Add how much is done at once."""
    workers = "cases in memory at once; default: one for each core"
    number = make_whole_number_type(1, 1024)
    parser.add_argument("--num_workers", type=number, default=os.cpu_count() or 1, metavar="N", help=workers)


def add_model(parser: ArgumentParser) -> None:
    """Add options that choose checkpoints and how they run."""
    add_data_root(parser)
    add_plugins(parser)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 …; default: a GPU, where there is one")


def add_data_root(parser: ArgumentParser) -> None:
    """Add where the data set is now."""
    parser.add_argument(
        "--data_root", metavar="DIR", help="where the data set is now; default: where it was in training"
    )


def add_plugins(parser: ArgumentParser) -> None:
    """Add the option for packages that settings may name.

    `medseg_pl.cli.parser.split_names` reads them.
    """
    packages = "code of yours that settings may name; several by commas, or by giving it again"
    parser.add_argument("--plugins", action="append", default=[], metavar="PACKAGE", help=packages)


@parse_once
def parse_path(text: str) -> Path:
    """Parse a path.

    `Path` itself would be applied to the list of an option that is repeated.
    """
    return Path(text)


@parse_once
def parse_names(text: str) -> list[str]:
    """Split names at commas.

    Raises:
        ArgumentTypeError: A name is empty.

    >>> parse_names("site, scanner")
    ['site', 'scanner']
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ArgumentTypeError(f"expected names such as site,scanner, got {text!r}")
    return names


@parse_once
def parse_labels(text: str) -> dict[str, int | None]:
    """Parse names, with their values in the files where these are given.

    Raises:
        ArgumentTypeError: A name is empty or repeated, or only some have a whole number.

    >>> parse_labels("1=liver,4=tumour"), parse_labels("lesion")
    ({'liver': 1, 'tumour': 4}, {'lesion': None})
    """
    parts = [re.fullmatch(r"\s*(?:(-?[0-9]+)\s*=)?\s*([^=]*[^=\s])\s*", part) for part in text.split(",")]
    values = {match[2]: None if match[1] is None else int(match[1]) for match in parts if match}
    numbered = {value is not None for value in values.values()}
    if len(values) != len(parts) or len(numbered) != 1:
        raise ArgumentTypeError(
            f"expected different names as in liver,tumour, or each with its value as in 1=liver,4=tumour, got {text!r}"
        )
    return values


@parse_once
def parse_masks(text: str) -> str | dict[str, str]:
    """Parse a folder of masks, or one for each label.

    Raises:
        ArgumentTypeError: A label is repeated, or a part with labels is no `label=folder`.

    >>> parse_masks("masks"), parse_masks("liver=a,spleen=b")
    ('masks', {'liver': 'a', 'spleen': 'b'})
    """
    if "=" not in text:
        return text
    pairs = [part.strip().split("=", 1) for part in text.split(",")]
    folders = {pair[0].strip(): pair[-1].strip() for pair in pairs}
    if len(folders) < len(pairs) or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ArgumentTypeError(f"expected a folder, or liver=liver,spleen=spleen, got {text!r}")
    return folders


@parse_once
def parse_colors(text: str) -> dict[str, tuple[int, int, int]]:
    """Parse the color of each label.

    Raises:
        ArgumentTypeError: A label is repeated, or a part is no `label=#rrggbb`.

    >>> parse_colors("lesion=#ff0000,background=#FFFFFF")
    {'lesion': (255, 0, 0), 'background': (255, 255, 255)}
    """
    parts = [re.fullmatch(r"\s*([^=]*[^=\s])\s*=\s*#?([0-9a-fA-F]{6})\s*", part) for part in text.split(",")]
    found = {match[1]: tuple(bytes.fromhex(match[2])) for match in parts if match}
    if len(found) != len(parts):
        raise ArgumentTypeError(f"expected colors such as lesion=#ff0000,organ=#00ff00, got {text!r}")
    return {name: (red, green, blue) for name, (red, green, blue) in found.items()}


@parse_once
def parse_pattern(text: str) -> str:
    """Check a pattern that finds patients in names.

    Raises:
        ArgumentTypeError: It is no regular expression, or has no parentheses around the patient.
    """
    if fault := find_pattern_fault(text):
        raise ArgumentTypeError(f"{shlex.quote(text)} {fault}")
    return text
