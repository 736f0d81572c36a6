"""`medseg check`: finds every common fault of a data set before training, and says what to do.

Exit codes: 0 no error (there may be warnings), 1 errors, 2 wrong use. `--json` prints

- `directory`, `notes`: the data set, and what was concluded of it rather than read;
- `data`: `source`, `cases`, `patients` (null where nothing says who is whom), `labels` (with their
  commonest values in the files), `cases_with_label`, `channels`, `types`, `shapes`, `spacings_mm`;
- `counts`: findings of each level, and `codes`: of each code;
- `findings`: `code`, `level`, `case_id`, `file` (below the data set), `message`, `remedy`; the worst first.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_data_set, add_json, add_num_workers, choose_data_set

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add_data_set(parser)
    add("--patch", type=int, nargs=2, metavar=("H", "W"), help="size of a training patch, to find images below it")
    add("--html", type=Path, metavar="FILE", help="write a new page with pictures of the worst cases")
    add_num_workers(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Check a data set, see `medseg_pl.checks.report`."""
    from medseg_pl.checks.report import check  # torch, for which --help shall not wait

    arguments.directory = choose_data_set(arguments)
    return check(arguments)
