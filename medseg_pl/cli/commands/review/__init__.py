"""`medseg review`: which training labels are probably wrong, by models that were not trained on them.

Each case is predicted by those of the checkpoints, such as the best ones of all folds, that no case of its patient was
trained on; several of them are averaged. What they expect of their own mask is compared with what they expect of the
label: where they are sure of something else, a person should look. When the command is repeated, cases whose labels
were corrected are looked at again, and no others.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, add_model, make_whole_number_type


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    checkpoints = "checkpoints that medseg fit wrote: those of all folds review every case"
    add("--ckpt_path", nargs="+", action="extend", required=True, metavar="FILE", help=checkpoints)
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="new, or where this command was interrupted")
    add(
        "--top",
        type=make_whole_number_type(0, 100_000),
        default=20,
        metavar="N",
        help="how many cases to draw, default: %(default)s",
    )
    add_model(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Put the cases in order, see `medseg_pl.cli.commands.review.label_review`."""
    from medseg_pl.cli.commands.review.label_review import review  # torch, for which --help shall not wait

    review(arguments)
    return 0
