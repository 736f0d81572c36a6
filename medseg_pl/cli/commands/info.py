"""`medseg info`: what a checkpoint, a run or a data set is; without a path, what is installed.

`--json` prints the same as values, of which `kind` is one of

- `installation`: versions of medseg, Python and packages, CUDA, GPUs, and the commit of a clone;
- `checkpoint`: its model, epochs, steps, parameters, and how many cases it was trained on;
- `ensemble`: the members, and the `first` of them as a checkpoint;
- `run`, `experiment`, `crossval`: what is complete, the scores with intervals, what it was trained with;
- `data set`: layout, cases, patients, labels, and the grid of the first image.

No name of a case is printed, and nothing that a file names is run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, print_json
from medseg_pl.core.errors import MissingDataError, make_printable
from medseg_pl.reporting.info import describe_installation, describe_path, list_lines


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    what = "a checkpoint, an ensemble.json, a run folder or a data set; default: this installation"
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help=what)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Describe and print.

    Raises:
        MissingDataError: There is nothing at the path.
        UnreadableFileError: A file is damaged, or would run code when loaded.
    """
    described = describe_installation() if arguments.path is None else _describe(arguments.path)
    if arguments.json:
        print_json(described)
    else:
        for line in list_lines(described):
            sys.stdout.write(f"{make_printable(line)}\n")
    return 0


def _describe(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MissingDataError(f"There is nothing at {path}. Name a checkpoint, a run folder or a data set.")
    return describe_path(path) or _describe_data_set(path)


def _describe_data_set(path: Path) -> dict[str, Any]:
    """Describe a data set as `check` and `plan` see it."""
    # torch, for which checkpoints and runs need not wait
    from medseg_pl.checks.layout_detection import DataSettings, detect_labels, open_data_set

    settings = DataSettings()
    opened = open_data_set(path, settings)
    found = detect_labels(opened, settings.labels)
    cases = found.source.cases()
    volume = found.source.read(cases[0], found.labels)
    return {
        "kind": "data set",
        "path": str(path),
        "source": type(found.source).__name__,
        "cases": len(cases),
        "patients": len({case.group for case in cases}),
        "annotated": sum(bool(case.masks) for case in cases),
        "labels": list(found.labels.names),
        "task": found.labels.task,
        "first_image": {
            "channels": len(volume.image),
            "shape": list(volume.geometry.shape),
            "spacing_mm": volume.geometry.spacing_mm and list(volume.geometry.spacing_mm),
            "type": str(volume.image.dtype),
        },
        "notes": list(found.notes),
    }
