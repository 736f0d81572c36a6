"""Options that several commands take, and the texts they are typed as.

Imports nothing heavy: `--help` is to be quick.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

TASKS = ("binary", "multiclass", "multilabel")
"""Those of `LabelMap`, which is not imported for `--help`."""
SLICINGS = ("file", "axial", "coronal", "sagittal", "thick")
"""Those of `Slicing`."""
LAYOUTS = ("decathlon", "uw_madison", "manifest", "dicom", "polygons", "folder")
"""Those of `recognize`."""


def add_data_set(parser: argparse.ArgumentParser) -> None:
    """A folder, and what its files do not say of it."""
    parser.add_argument(
        "directory", type=Path, nargs="?", metavar="DIR", help="the data set; default: that of --config"
    )
    add_data_options(parser)
    config = "of a training; names source and labels"
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=config)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """What the files of a data set do not say of it."""
    add = parser.add_argument
    add("--layout", choices=LAYOUTS, metavar="LAYOUT", help=f"{', '.join(LAYOUTS)}; found out by default")
    add("--images", metavar="NAME", help="the images' folder; . where they lie beside their masks")
    add("--image_name", metavar="NAME", help="what images are called, such as {stem}_training; default: {stem}")
    masks = "the masks' folder, or one for each label as in liver=liver,spleen=masks/spleen"
    add("--masks", type=parse_masks, metavar="NAME", help=masks)
    add("--mask_name", metavar="NAME", help="what the mask of an image is called, such as {stem}_seg or {stem}/*")
    pattern = "regular expression whose parentheses find the patient in a case's name"
    add("--group", type=parse_pattern, metavar="REGEX", help=pattern)
    add("--slicing", choices=SLICINGS, help="how volumes are cut into slices; default: file")
    add_labels(parser)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """What the masks hold."""
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


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How much is done at once."""
    workers = "cases in memory at once; default: one for each core"
    parser.add_argument("--workers", type=parse_workers, default=os.cpu_count() or 1, metavar="N", help=workers)


def parse_names(text: str) -> list[str]:
    """Names with commas between them.

    >>> parse_names("site, scanner")
    ['site', 'scanner']
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names such as site,scanner, got {text!r}")
    return names


def parse_labels(text: str) -> dict[str, int | None]:
    """Names, and their values in the files where these are given.

    >>> parse_labels("1=liver,4=tumour"), parse_labels("lesion")
    ({'liver': 1, 'tumour': 4}, {'lesion': None})
    """
    parts = [re.fullmatch(r"\s*(?:(-?[0-9]+)\s*=)?\s*([^=]*[^=\s])\s*", part) for part in text.split(",")]
    found = {match[2]: None if match[1] is None else int(match[1]) for match in parts if match}
    numbered = {value is not None for value in found.values()}
    if len(found) != len(parts) or len(numbered) != 1:
        raise argparse.ArgumentTypeError(
            f"expected different names as in liver,tumour, or each with its value as in 1=liver,4=tumour, got {text!r}"
        )
    return found


def parse_masks(text: str) -> str | dict[str, str]:
    """A folder of masks, or one for each label.

    >>> parse_masks("masks"), parse_masks("liver=a,spleen=b")
    ('masks', {'liver': 'a', 'spleen': 'b'})
    """
    if "=" not in text:
        return text
    pairs = [part.strip().split("=", 1) for part in text.split(",")]
    folders = {pair[0].strip(): pair[-1].strip() for pair in pairs}
    if len(folders) < len(pairs) or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise argparse.ArgumentTypeError(f"expected a folder, or liver=liver,spleen=spleen, got {text!r}")
    return folders


def parse_colors(text: str) -> dict[str, tuple[int, int, int]]:
    """The color of each label.

    >>> parse_colors("lesion=#ff0000,background=#FFFFFF")
    {'lesion': (255, 0, 0), 'background': (255, 255, 255)}
    """
    parts = [re.fullmatch(r"\s*([^=]*[^=\s])\s*=\s*#?([0-9a-fA-F]{6})\s*", part) for part in text.split(",")]
    found = {match[1]: tuple(bytes.fromhex(match[2])) for match in parts if match}
    if len(found) != len(parts):
        raise argparse.ArgumentTypeError(f"expected colors such as lesion=#ff0000,organ=#00ff00, got {text!r}")
    return {name: (red, green, blue) for name, (red, green, blue) in found.items()}


def parse_pattern(text: str) -> str:
    """A regular expression, as text."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text


def parse_workers(text: str) -> int:
    """A number of threads."""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1024, got {text!r}")
    return int(text)
