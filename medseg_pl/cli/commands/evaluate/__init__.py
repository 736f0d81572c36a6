"""`medseg evaluate`: scores of predictions made anywhere, by anything.

Masks are paired by name and scored on the grid of their reference, by the same code as in `medseg test`: masks with the
same voxels give the same table, byte for byte. `--json` prints the summary.
"""

from __future__ import annotations

import math
import sys
from argparse import ArgumentTypeError
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

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

Tolerance = float | dict[str, float]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--reference", type=Path, required=True, metavar="DIR", help="folder of annotated masks, pictures or volumes")
    add("--prediction", type=Path, required=True, metavar="DIR", help="folder of predicted masks with the same names")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make; must be absent or empty")
    names = "liver,tumour for the values 1 and 2, or 1=liver,4=tumour; default: each value in the files is a label"
    add("--labels", type=parse_labels, metavar="LIST", help=names)
    tasks = "multilabel: each label in a sub-folder of its name; default: binary for one label, multiclass for several"
    add("--task", choices=TASKS, help=tasks)
    add("--ignore_value", type=int, metavar="V", help="value of voxels that nobody annotated; they do not count")
    patients = parser.add_mutually_exclusive_group()
    pattern = "regular expression whose parentheses find the patient in a case's name"
    patients.add_argument("--group", type=parse_pattern, metavar="REGEX", help=pattern)
    table = "table with the columns case_id and group, the patient; for example a manifest"
    patients.add_argument("--cases", type=Path, metavar="CSV", help=table)
    strata = "columns of --cases by which scores are reported too; default: site and scanner where they are there"
    add("--strata", type=parse_names, metavar="LIST", help=strata)
    tolerance = "of NSD, in mm or, without spacing, in pixels: 1.5, or liver=2,tumour=1; default: 1"
    add("--tolerance", type=parse_tolerance, metavar="T", help=tolerance)
    spacing = "y,x or z,y,x in mm, for raster files; without z, volumes are unknown"
    add("--spacing", type=parse_spacing, metavar="LIST", help=spacing)
    add("--no_distances", action="store_true", help="measure no HD, HD95, ASSD and NSD")
    add("--missing_as_empty", action="store_true", help="score a reference without prediction as missed")
    add_num_workers(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Score two folders of masks, see `medseg_pl.cli.commands.evaluate.scoring`."""
    from medseg_pl.cli.commands.evaluate.scoring import evaluate  # torch, for which --help shall not wait

    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        evaluate(arguments)
    if arguments.json:
        sys.stdout.write((arguments.output / "summary_evaluate.json").read_text(encoding="utf-8"))
    return 0


@parse_once
def parse_tolerance(text: str) -> Tolerance:
    """Parse one number, or one for each label.

    >>> parse_tolerance("1.5"), parse_tolerance("liver=2,tumour=1")
    (1.5, {'liver': 2.0, 'tumour': 1.0})
    """
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        if "=" not in text:
            return float(text)
        if all(name.strip() for name, _, _ in parts):
            return {name.strip(): float(number) for name, _, number in parts}
    except ValueError:
        pass
    raise ArgumentTypeError(f"expected one number, or liver=2,tumour=1, got {text!r}")


@parse_once
def parse_spacing(text: str) -> tuple[float, ...]:
    """Parse two or three lengths in mm.

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
