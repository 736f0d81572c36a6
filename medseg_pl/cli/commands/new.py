"""`medseg new`: a project of your own, from the template that this repository is.

A README with the sections of a paper, configurations, a Makefile, a part of your own with its test, a license, CI,
pre-commit hooks and a batch script for Slurm. With
`--data_root` the configuration is planned for your data set; without, the project begins with synthetic abdomens.

`--json` prints `project`, `name`, `package`, `summary` of the data set (null without one) and `notes` on its plan.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from medseg_pl import __version__
from medseg_pl.cli.arguments import add_data_options, add_json, add_num_workers, keep_stdout_for, print_json
from medseg_pl.core.errors import SettingError, make_printable, name_options
from medseg_pl.io.paths import require_folder

if TYPE_CHECKING:
    from medseg_pl.planning.config_file import PlannedConfig

_SUFFIX = ".j2"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("project", type=Path, metavar="DIR", help="folder to make; must be absent or empty")
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="the data set; default: synthetic abdomens")
    add_data_options(parser)
    add_num_workers(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Make the project."""
    with keep_stdout_for(arguments.json):
        names, notes = make_project(arguments)
    if arguments.json:
        described = {"name": names.name, "package": names.package, "summary": names.summary or None}
        print_json({"project": str(arguments.project), **described, "notes": list(notes)})
    return 0


class ProjectNames(NamedTuple):
    """Values to fill into the files of a project.

    Attributes:
        name: Of the project.
        package: Of the project's own parts, as Python imports it.
        summary: The data set in one line; empty where the project begins with synthetic data.
    """

    name: str
    package: str
    summary: str


def make_project(arguments: argparse.Namespace) -> tuple[ProjectNames, Sequence[str]]:
    """Write the project beside its place, then move it there.

    A failure leaves nothing that looks whole.

    Returns:
        The project's names, and notes on the plan for its data.

    Raises:
        OutputExistsError: There is something in the folder.
        DataError: The data set cannot be planned for.
    """
    from medseg_pl.io.atomic_files import require_empty, write_folder_atomically

    project: Path = arguments.project.resolve()
    require_empty(project)
    planned = _plan_data(arguments, project.name) if arguments.data_root is not None else None
    names = ProjectNames(project.name, make_package_name(project.name), planned.summary if planned else "")
    with write_folder_atomically(project) as staging:
        fill_template(Path(__file__).with_name("template"), staging, names)
        if planned is not None:
            (staging / "configs" / "train.yaml").write_text(planned.text)
    notes = [name_options(note, vars(arguments)) for note in (planned.notes if planned else ())]
    for note in notes:
        sys.stdout.write(f"Note: {make_printable(note)}.\n")
    sys.stdout.write(f"Made {arguments.project}; go on with\n  cd {shlex.quote(str(arguments.project))} && make demo\n")
    return names, notes


def make_package_name(project: str) -> str:
    """Make a package name that no other package has by chance.

    >>> make_package_name("Liver-MRI 2"), make_package_name("2024")
    ('liver_mri_2_parts', 'project_2024_parts')
    """
    name = re.sub(r"\W+", "_", project.lower(), flags=re.ASCII).strip("_")
    return f"{name if name and not name[0].isdigit() else f'project_{name}'}_parts"


def fill_template(template: Path, target: Path, names: ProjectNames) -> None:
    """Copy a folder of the template, and fill in names and contents.

    The folder `package` becomes the project's own package.
    """
    import jinja2

    target.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    for entry in sorted(template.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                folder = names.package if entry.name == "package" else entry.name.replace("dot.", ".")
                fill_template(entry, target / folder, names)
            continue
        text = environment.from_string(entry.read_text(encoding="utf-8")).render(names._asdict(), version=__version__)
        # Hidden files have another name in the template: packaging leaves .gitignore out, or obeys it.
        (target / entry.name.removesuffix(_SUFFIX).replace("dot.", ".")).write_text(text, encoding="utf-8")


def _plan_data(arguments: argparse.Namespace, name: str) -> PlannedConfig:
    from medseg_pl.checks.layout_detection import DataSettings, detect_dataset
    from medseg_pl.planning.budget import detect_hardware
    from medseg_pl.planning.config_file import plan_config

    data = require_folder(arguments.data_root, "a data set", "Set --data_root to the folder that holds it.").resolve()
    if data.is_relative_to(arguments.project.resolve()):
        raise SettingError(f"The data set {data} lies in the project's folder, which must be new. Move it elsewhere.")
    found = detect_dataset(data, DataSettings.from_arguments(arguments))
    return plan_config(found, detect_hardware(None, None), name, arguments.num_workers)
