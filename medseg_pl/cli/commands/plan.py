"""`medseg plan`: looks at a data set and writes a configuration for it, each choice with its reason.

A few training steps on noise tell how fast the machine is. With `--no_probe` a table does, and planning the same data
again for the same hardware gives the same file.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat

from medseg_pl.cli.arguments import add_data_set, add_json, add_num_workers, choose_data_set, print_json
from medseg_pl.core.errors import SettingError, make_printable, name_options
from medseg_pl.io.atomic_files import require_absent, write_text


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_data_set(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG", help="the YAML file to write")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="what it is planned for; default: what there is")
    parser.add_argument("--memory_gb", type=float, metavar="GB", help="of the GPU, or of the machine")
    parser.add_argument(
        "--minutes", type=PositiveFloat, metavar="N", help="time of the training; default: 10 on a CPU, 120 on a GPU"
    )
    parser.add_argument("--no_probe", action="store_true", help="take the speed from a table in place of measuring it")
    parser.add_argument("--no_pretrained", action="store_true", help="begin from random weights, whatever is installed")
    add_num_workers(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Read the data set, write the configuration and say what was found.

    Raises:
        OutputExistsError: The file is there already.
        SettingError: Something has to be said that the data does not say.
    """
    require_absent(arguments.output)
    from medseg_pl.checks.layout_detection import DataSettings, detect_labels, open_data_set
    from medseg_pl.checks.settings import open_configured
    from medseg_pl.io.progress import announce
    from medseg_pl.planning.budget import detect_hardware
    from medseg_pl.planning.config_file import plan_config

    said = DataSettings.from_arguments(arguments)
    root = choose_data_set(arguments)
    if root is None and not arguments.config:
        raise SettingError("There is nothing to plan for. Give a folder, or a configuration with --config.")
    announce(f"Looking at {root or 'the data set of the configuration'}")
    if arguments.config:
        opened, config = open_configured(arguments.config, root, said)
        root = root or config.source.root
    else:
        assert root is not None, "asked for above"
        opened = open_data_set(root, said)
    found = detect_labels(opened, said.labels)
    hardware = detect_hardware(arguments.device, arguments.memory_gb)
    planned = plan_config(
        found,
        hardware,
        name_experiment(root.resolve().name),
        arguments.num_workers,
        arguments.minutes,
        probes=not arguments.no_probe,
        pretrained=not arguments.no_pretrained,
    )
    write_text(arguments.output, planned.text)
    notes = [name_options(note, vars(arguments)) for note in planned.notes]
    if arguments.json:
        print_json({"config": str(arguments.output), "summary": planned.summary, "notes": notes})
        return 0
    for note in notes:
        sys.stdout.write(f"Note: {make_printable(note)}.\n")
    sys.stdout.write(f"{make_printable(planned.summary)}\nWrote {arguments.output}; train with\n")
    sys.stdout.write(f"  medseg fit --config {shlex.quote(str(arguments.output))}\n")
    return 0


def name_experiment(folder: str) -> str:
    """Name an experiment after a data set, in letters that a shell takes unquoted.

    >>> name_experiment("My Images (2026)"), name_experiment("(1)"), name_experiment("-")
    ('My_Images_2026', '1', 'plan')
    """
    return "_".join(re.findall(r"[\w.-]+", folder)).lstrip("-.") or "plan"
