"""`medseg phantom`: a synthetic abdominal MRI data set, to try every other command on within minutes.

All randomness comes from the seed, the number of the patient and the day: asking for more volumes adds files and
changes none. `--json` prints `directory`, `layout`, `cases`, `seed`, `slices` and `size`, width before height.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, make_whole_number_type, parse_once, print_json
from medseg_pl.core.errors import SettingError
from medseg_pl.data.synthetic import ORGANS, merge_exclusive, simulate_days
from medseg_pl.data.synthetic.layouts import DataCard, LabeledScan, write_decathlon, write_folder, write_uw_madison
from medseg_pl.io.atomic_files import write_folder_atomically
from medseg_pl.io.progress import show_progress

SLICE_SPACING_MM = 3.0
FIELD_OF_VIEW_MM = 336.0
FIRST_PATIENT = 101
UPRIGHT_EVERY = 4
OBLIQUE_EVERY = 3
OBLIQUE_RAD = (0.2, 0.1)

_PIXELS = range(32, 2049)
# What a random stream is for. None is 0: a seed sequence takes trailing zeros for absent.
_ANATOMY, _CALENDAR, _DAY = 1, 2, 3

_CARD = DataCard(
    name="phantom",
    description="Synthetic abdominal MRI with three organs; no patient is in it",
    license="CC0-1.0",
    modality="MRI",
    labels=ORGANS,
)
_WRITERS: dict[str, Callable[[Path, Iterable[LabeledScan]], None]] = {
    "decathlon": partial(write_decathlon, card=_CARD),
    "folder": write_folder,
    "uw_madison": partial(write_uw_madison, labels=ORGANS),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    cases, seed, slices = (
        make_whole_number_type(1, 100_000),
        make_whole_number_type(0, 2**32 - 1),
        make_whole_number_type(1, 1000),
    )
    add, default = parser.add_argument, "default: %(default)s"
    add("directory", type=Path, metavar="DIR", help="folder to make; must be absent or empty")
    add("--layout", choices=list(_WRITERS), default="uw_madison", help=default)
    add("--cases", type=cases, default=36, metavar="N", help=f"number of volumes, {default}")
    add("--seed", type=seed, default=0, metavar="S", help=default)
    add("--slices", type=slices, default=24, metavar="D", help=f"slices of a volume, {default}")
    add("--size", type=parse_size, default="112x96", metavar="WxH", help=f"pixels of a slice, {default}")
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Write the data set, and print what to do with it.

    Raises:
        OutputExistsError: The folder is not empty.
    """
    write_phantom(
        arguments.directory, arguments.layout, arguments.cases, arguments.seed, arguments.slices, arguments.size
    )
    if arguments.json:
        options = {name: arguments[name] for name in ("layout", "cases", "seed", "slices", "size")}
        print_json({"directory": str(arguments.directory), **options})
        return 0
    volumes = "1 synthetic volume" if arguments.cases == 1 else f"{arguments.cases} synthetic volumes"
    sys.stdout.write(f"Wrote {volumes} in the {arguments.layout} layout to {arguments.directory}\n")
    return 0


def write_phantom(directory: Path, layout: str, cases: int, seed: int, slices: int, size: tuple[int, int]) -> None:
    """Write a data set of `cases` volumes.

    Everything is written beside `directory` first and moved at the end: a killed run leaves nothing that looks whole.

    Args:
        directory: Absent or empty.
        layout: `uw_madison`, `decathlon` or `folder`.
        cases: Volumes in all; a patient has one to three of them.
        seed: Decides every voxel.
        slices: Slices of each volume.
        size: Width and height in pixels; every fourth patient has another one.

    Raises:
        OutputExistsError: There is something in `directory`.
        SettingError: No such layout.
    """
    if layout not in _WRITERS:
        raise SettingError(f"There is no layout {layout!r}. Choose one of {', '.join(_WRITERS)}.")
    with write_folder_atomically(directory.resolve()) as staging:
        _WRITERS[layout](staging, _with_progress(make_scans(cases, seed, slices, size), cases))


def make_scans(cases: int, seed: int, slices: int, size: tuple[int, int]) -> Iterator[LabeledScan]:
    """Make the first volumes of an endless row of patients.

    Each is made when asked for; every third is oblique.

    Args:
        cases: The number of volumes.
        seed: Decides every voxel.
        slices: Slices of each volume.
        size: Width and height in pixels; every fourth patient has another one.
    """
    patients = (_scans_of(patient, seed, slices, size) for patient in count())
    for number, scan in enumerate(islice(chain.from_iterable(patients), cases), start=1):
        yield scan if number % OBLIQUE_EVERY else scan._replace(tilt_rad=OBLIQUE_RAD)


@parse_once
def parse_size(text: str) -> tuple[int, int]:
    """Parse `WxH` as two numbers.

    Raises:
        ArgumentTypeError: A side is no number from 32 to 2048.

    >>> parse_size("112x96")
    (112, 96)
    """
    numbers = text.split("x")
    if len(numbers) != 2 or not all(n.isdecimal() and int(n) in _PIXELS for n in numbers):
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT of 32 to 2048 pixels such as 112x96, got {text!r}")
    return int(numbers[0]), int(numbers[1])


def _scans_of(patient: int, seed: int, slices: int, size: tuple[int, int]) -> Iterator[LabeledScan]:
    """Simulate all days of one patient, named as Kaggle does."""
    days = _days_of(patient, seed)
    width, height = _size_for(patient, size)
    pixel_mm = round(FIELD_OF_VIEW_MM / width, 2)
    spacing_mm = (SLICE_SPACING_MM, pixel_mm, pixel_mm)
    group = f"case{FIRST_PATIENT + patient}"
    seeds = [(seed, patient, _DAY, day + 1) for day in days]
    phantoms = simulate_days((seed, patient, _ANATOMY), seeds, (slices, height, width))
    for day, (image, masks) in zip(days, phantoms, strict=True):
        yield LabeledScan(f"{group}_day{day}", group, image, masks, merge_exclusive(masks), spacing_mm)


def _days_of(patient: int, seed: int) -> list[int]:
    """Draw one to three days of treatment, in order."""
    calendar = np.random.default_rng((seed, patient, _CALENDAR))
    return sorted(calendar.choice(40, calendar.integers(1, 4), replace=False).tolist())


def _size_for(patient: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return a patient's size: every fourth has a larger, upright grid."""
    width, height = size
    return (round(1.15 * height), round(1.15 * width)) if (patient + 1) % UPRIGHT_EVERY == 0 else size


def _with_progress(scans: Iterable[LabeledScan], total: int) -> Iterator[LabeledScan]:
    """Pass scans on with a progress bar on the terminal."""
    with show_progress("phantom", total, things="volumes") as advance:
        for scan in scans:
            yield scan
            advance()
