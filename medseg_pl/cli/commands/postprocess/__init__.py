"""`medseg postprocess`: which cleaning of its labels helps a model, chosen on its validation cases.

Each label is tried with holes filled, with its largest component alone, and without components that are smaller than
half of the smallest one ever annotated. What makes the mean Dice better, by a paired test over patients that is
corrected for all that was tried, is written into a copy of the checkpoint, with its gain.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="FILE", help="a checkpoint that medseg fit wrote")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the new checkpoint")
    add("--root", metavar="DIR", help="the data set, where it has moved (data.source.root)")
    add("--plugins", default="", metavar="PACKAGES", help="code of yours that the checkpoint's settings may name")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 …; default: a GPU, where there is one")


def run(arguments: argparse.Namespace) -> int:
    """Choose, and write the copy, see `medseg_pl.cli.commands.postprocess.search`."""
    from medseg_pl.cli.commands.postprocess.search import choose  # torch, for which --help shall not wait

    choose(arguments)
    return 0
