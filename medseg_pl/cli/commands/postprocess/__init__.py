"""`medseg postprocess`: which cleaning of its labels helps a model, chosen on its validation cases.

Each label is tried with holes filled, with its largest component alone, and without components that are smaller than
half of the smallest one ever annotated. What makes the mean Dice better, by a paired test over patients that is
corrected for all that was tried, is written into a copy of the checkpoint, with its gain.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, add_model


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="FILE", help="a checkpoint that medseg fit wrote")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the new checkpoint")
    add_model(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Choose, and write the copy, see `medseg_pl.cli.commands.postprocess.search`."""
    from medseg_pl.cli.commands.postprocess.search import choose  # torch, for which --help shall not wait

    choose(arguments)
    return 0
