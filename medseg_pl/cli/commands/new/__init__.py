"""`medseg new`: a project of your own, from the template that this repository is.

A README with the sections of a paper, configurations, a Makefile, and a part of your own with its test. With
`--data_root` the configuration is planned for your data set; without, the project begins with synthetic abdomens.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_data_options, add_num_workers


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("project", type=Path, metavar="DIR", help="folder to make; must be absent or empty")
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="the data set; default: synthetic abdomens")
    add_data_options(parser)
    add_num_workers(parser)


def run(arguments: Namespace) -> int:
    """Make the project, see `medseg_pl.cli.commands.new.project`."""
    from medseg_pl.cli.commands.new.project import make_project  # torch, for which --help shall not wait

    make_project(arguments)
    return 0
