"""`medseg report`: one HTML page that says how good a run is, how sure that is, where it fails, and on whom.

The page is a single file: it opens from disk, asks no server for anything, and holds no path, host or user. Cases and
patients have hashed names (HMAC), the same as on the run's dashboards, unless `--names` is given; the key stays in
`dashboard.json` of the first run's folder.

Pictures are those that `medseg test` or `validate` kept in the run folder beside the masks; neither the data nor the
network is needed. A run is a run folder of `medseg fit`, an experiment for its newest run, or the folder of
`medseg evaluate`. What a folder lacks is left out of the page.

`--readme FILE` puts what the run says between marks such as `<!-- medseg:evaluate -->` and `<!-- /medseg:evaluate -->`,
for each of `dataset`, `model`, `configuration`, `train` and `evaluate`, and changes nothing else in the file.

`--json` prints `page`, `readme` and `methods`, the files that were written or null, `runs`, and `notes` on what is
missing.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, keep_stdout_for, make_whole_number_type, print_json

__all__ = ["add_arguments", "run"]

STAGES = ("test", "val", "crossval", "evaluate")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    several = (
        "run folder, runs/EXPERIMENT (its newest run), or folder of an evaluation; the first is compared with others"
    )
    add("runs", type=Path, nargs="+", metavar="RUN", help=several)
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="a new page (.html); default: report.html in RUN, or report_2.html …",
    )
    add("--readme", type=Path, metavar="FILE", help="a README; what the run says is put between its medseg: marks")
    methods = "a new Markdown file: a methods paragraph, and the items of CLAIM and TRIPOD+AI that the run answers"
    add("--methods", type=Path, metavar="FILE", help=methods)
    add("--stage", choices=STAGES, help="which scores; default: test where they are there, else the only ones")
    pictures = "how many cases get pictures, the worst first; 0 for none; default: %(default)s"
    add("--pictures", type=make_whole_number_type(0, 100_000), default=50, metavar="N", help=pictures)
    names = "call cases and patients by their names; default: hashed names"
    add("--names", type=bool, nargs="?", const=True, default=False, metavar="true|false", help=names)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Write the page, see `medseg_pl.reporting.html.page`."""
    from medseg_pl.reporting.html.page import write_report

    with keep_stdout_for(arguments.json):
        notes = write_report(arguments)
    if arguments.json:
        written = (("page", arguments.output), ("readme", arguments.readme), ("methods", arguments.methods))
        files = {name: path and str(path) for name, path in written}
        print_json({**files, "runs": [str(folder) for folder in arguments.runs], "notes": notes})
    return 0
