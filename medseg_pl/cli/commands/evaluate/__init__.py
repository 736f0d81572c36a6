"""`medseg evaluate`: scores of predictions made anywhere, by anything.

Masks are paired by name and scored on the grid of their reference, by the same code as in `medseg test`: masks with the
same voxels give the same table, byte for byte.
"""

from __future__ import annotations

import argparse

from medseg_pl.cli.commands.evaluate.options import add_arguments

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Score two folders of masks, see `medseg_pl.cli.commands.evaluate.scoring`."""
    from medseg_pl.cli.commands.evaluate.scoring import evaluate  # torch, for which --help shall not wait

    evaluate(arguments)
    return 0
