"""`medseg plan`: looks at a data set and writes a configuration for it, each choice with its reason.

Planning the same data again for the same hardware gives the same file.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from medseg_pl.arguments import add_data_set, add_workers
from medseg_pl.core.text import printable
from medseg_pl.io.files import require_absent, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add_data_set(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG", help="the YAML file to write")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="what it is planned for; default: what there is")
    parser.add_argument("--memory_gb", type=float, metavar="GB", help="of the GPU, or of the machine")
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the data set, write the configuration and say what was found.

    Raises:
        OutputExistsError: The file is there already.
    """
    from medseg_pl.data.recognition import labels_named, recognise
    from medseg_pl.plan_file import hardware_of, plan_file

    require_absent(arguments.output)
    labels = labels_named(arguments.labels, arguments.task, arguments.ignore_value)
    found = recognise(
        arguments.directory, layout=arguments.layout, masks=arguments.masks, group=arguments.group, labels=labels
    )
    hardware = hardware_of(arguments.device, arguments.memory_gb)
    planned = plan_file(found, hardware, arguments.directory.resolve().name, arguments.workers)
    write_text(arguments.output, planned.text)
    for note in planned.notes:
        sys.stdout.write(f"Note: {printable(note)}.\n")
    sys.stdout.write(f"{printable(planned.summary)}\nWrote {arguments.output}; train with\n")
    sys.stdout.write(f"  medseg fit --config {shlex.quote(str(arguments.output))}\n")
    return 0
