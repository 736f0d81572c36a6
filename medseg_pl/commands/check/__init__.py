"""`medseg check`: finds every common fault of a data set before training, and says what to do.

Exit codes: 0 no error (there may be warnings), 1 errors, 2 wrong use. The file of `--json` holds

- `directory`, `notes`: the data set, and what was concluded of it rather than read;
- `data`: `source`, `cases`, `patients`, `labels`, `cases_with_label`, `channels`, `types`, `shapes`, `spacings_mm`;
- `counts`: findings of each level, and `codes`: of each code;
- `findings`: `code`, `level`, `case_id`, `file` (below the data set), `message`, `remedy`; the worst first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medseg_pl.arguments import LAYOUTS, add_labels, add_workers, parse_pattern

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("directory", type=Path, nargs="?", metavar="DIR", help="the data set; default: that of --config")
    add("--layout", choices=LAYOUTS, help="found out by default")
    add("--masks", metavar="NAME", help="the masks' folder beside images/, where there are several")
    pattern = "regular expression whose parentheses find the patient in a case's name"
    add("--group", type=parse_pattern, metavar="REGEX", help=pattern)
    add_labels(parser)
    add("--config", type=Path, action="append", metavar="FILE", help="of a training; names source, labels and split")
    add("--patch", type=int, nargs=2, metavar=("H", "W"), help="size of a training patch, to find images below it")
    add("--json", type=Path, metavar="FILE", help="write everything to a new JSON file")
    add("--html", type=Path, metavar="FILE", help="write a new page with pictures of the worst cases")
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check a data set, see `medseg_pl.commands.check.checking`."""
    from medseg_pl.commands.check.checking import check  # torch, for which --help shall not wait

    return check(arguments)
