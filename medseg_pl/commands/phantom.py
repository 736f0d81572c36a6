"""`medseg phantom`: a synthetic abdominal MRI data set, to try every other command on within minutes.

All randomness comes from the seed, the number of the patient and the day: asking for more volumes adds files and
changes none.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry, affine_as_tuple
from medseg_pl.functional.phantom import ORGANS, Phantom, exclusive, patient_days
from medseg_pl.io.files import require_empty, write_text
from medseg_pl.io.nifti import write_nifti
from medseg_pl.io.raster import write_png
from medseg_pl.io.rle import encode

SLICE_SPACING_MM = 3.0
FIELD_OF_VIEW_MM = 336.0
FIRST_PATIENT = 101
UPRIGHT_EVERY = 4

_PIXELS = range(32, 2049)
# What a random stream is for. None is 0: a seed sequence takes trailing zeros for absent.
_ANATOMY, _CALENDAR, _DAY = 1, 2, 3


@dataclass(frozen=True)
class Scan:
    """One volume and whose it is.

    Args:
        patient: Number of the patient, from 101.
        day: Day of treatment.
        phantom: Image and masks.
        spacing_mm: `(z, y, x)`.
    """

    patient: int
    day: int
    phantom: Phantom
    spacing_mm: tuple[float, float, float]

    @property
    def name(self) -> str:
        """As Kaggle names a volume: `case101_day20`."""
        return f"case{self.patient}_day{self.day}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder to make; must be absent or empty")
    parser.add_argument("--layout", choices=sorted(_WRITERS), default="uw_madison", help="default: %(default)s")
    parser.add_argument(
        "--cases",
        type=_whole_number(1, 100_000),
        default=24,
        metavar="N",
        help="number of volumes, default: %(default)s",
    )
    parser.add_argument("--seed", type=_whole_number(0, 2**32 - 1), default=0, metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--slices",
        type=_whole_number(1, 1000),
        default=24,
        metavar="D",
        help="slices of a volume, default: %(default)s",
    )
    parser.add_argument(
        "--size", type=parse_size, default=(112, 96), metavar="WxH", help="pixels of a slice, default: 112x96"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the data set and say so.

    Raises:
        OutputExistsError: The folder is not empty.
    """
    write_phantom(
        arguments.directory, arguments.layout, arguments.cases, arguments.seed, arguments.slices, arguments.size
    )
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
        raise SettingError(f"There is no layout {layout!r}. Choose one of {', '.join(sorted(_WRITERS))}.")
    directory = directory.resolve()
    require_empty(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-phantom-", dir=directory.parent) as temporary:
        staging = Path(temporary) / "data"
        staging.mkdir()
        _WRITERS[layout](staging, _with_progress(make_scans(cases, seed, slices, size), cases))
        _publish(staging, directory)


def make_scans(cases: int, seed: int, slices: int, size: tuple[int, int]) -> Iterator[Scan]:
    """The first `cases` volumes of an endless row of patients, each made when it is asked for."""
    return islice((scan for patient in count() for scan in _scans_of(patient, seed, slices, size)), cases)


def parse_size(text: str) -> tuple[int, int]:
    """`WxH` as two numbers.

    >>> parse_size("112x96")
    (112, 96)
    """
    numbers = text.split("x")
    if text.count("x") != 1 or not all(n.isdecimal() and int(n) in _PIXELS for n in numbers):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT of 32 to 2048 pixels such as 112x96, got {text!r}")
    return int(numbers[0]), int(numbers[1])


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse that refuses what is out of range."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return int(text)

    return parse


def _scans_of(patient: int, seed: int, slices: int, size: tuple[int, int]) -> Iterator[Scan]:
    """All days of one patient."""
    calendar = np.random.default_rng((seed, patient, _CALENDAR))
    days = sorted(int(day) for day in calendar.choice(40, calendar.integers(1, 4), replace=False))
    width, height = _size_for(patient, size)
    pixel_mm = round(FIELD_OF_VIEW_MM / width, 2)
    seeds = [(seed, patient, _DAY, day + 1) for day in days]
    phantoms = patient_days((seed, patient, _ANATOMY), seeds, (slices, height, width))
    for day, phantom in zip(days, phantoms, strict=True):
        yield Scan(FIRST_PATIENT + patient, day, phantom, (SLICE_SPACING_MM, pixel_mm, pixel_mm))


def _size_for(patient: int, size: tuple[int, int]) -> tuple[int, int]:
    """Every fourth patient was scanned on a larger grid that is upright where the others' is wide."""
    width, height = size
    return (round(1.15 * height), round(1.15 * width)) if (patient + 1) % UPRIGHT_EVERY == 0 else size


def _with_progress(scans: Iterable[Scan], total: int) -> Iterator[Scan]:
    """The scans, and a bar on the terminal if there is one."""
    console = Console(stderr=True)
    columns = (TextColumn("phantom"), BarColumn(), MofNCompleteColumn(), TextColumn("volumes"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(scans, total=total)


def _publish(staging: Path, directory: Path) -> None:
    """Move a finished data set into place.

    An existing folder is filled rather than replaced, since it may be a mount or somebody's working directory; the
    index files go last.
    """
    if not directory.exists():
        staging.rename(directory)
        return
    for entry in sorted(staging.iterdir(), key=lambda entry: (entry.is_file(), entry.name)):
        shutil.move(entry, directory / entry.name)


def _write_uw_madison(root: Path, scans: Iterable[Scan]) -> None:
    """Kaggle's tree of 16-bit slices and its table of run lengths."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("id", "class", "segmentation"))
    for scan in scans:
        folder = root / "train" / f"case{scan.patient}" / scan.name / "scans"
        for number, pixels in enumerate(scan.phantom.image, start=1):
            write_png(folder / _kaggle_name(number, pixels.shape, scan.spacing_mm), pixels)
            rows.writerows(_kaggle_rows(f"{scan.name}_slice_{number:04d}", scan.phantom.masks[:, number - 1]))
    write_text(root / "train.csv", table.getvalue())


def _kaggle_name(number: int, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> str:
    """`slice_0001_112_96_3.00_3.00.png`: width, height and the two pixel spacings."""
    height, width = shape
    _, y_mm, x_mm = spacing_mm
    return f"slice_{number:04d}_{width}_{height}_{x_mm:.2f}_{y_mm:.2f}.png"


def _kaggle_rows(slice_id: str, masks: NDArray[np.bool_]) -> list[tuple[str, str, str]]:
    """One row for each organ, the absent ones included."""
    return [(slice_id, organ, encode(mask)) for organ, mask in zip(ORGANS, masks, strict=True)]


def _write_decathlon(root: Path, scans: Iterable[Scan]) -> None:
    """The Medical Segmentation Decathlon's NIfTI pairs and `dataset.json`."""
    training = []
    for number, scan in enumerate(scans, start=1):
        name = f"phantom_{number:03d}.nii.gz"
        geometry = _scanner_geometry(scan, oblique=number % 3 == 0)
        write_nifti(root / "imagesTr" / name, scan.phantom.image.astype(np.int16), geometry)
        write_nifti(root / "labelsTr" / name, exclusive(scan.phantom.masks), geometry)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    write_text(root / "dataset.json", json.dumps(_decathlon_index(training), indent=2) + "\n")


def _decathlon_index(training: list[dict[str, str]]) -> dict[str, object]:
    """The content of `dataset.json`."""
    return {
        "name": "phantom",
        "description": "Synthetic abdominal MRI with three organs; no patient is in it",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {str(value): name for value, name in enumerate(("background", *ORGANS))},
        "numTraining": len(training),
        "numTest": 0,
        "training": training,
        "test": [],
    }


def _scanner_geometry(scan: Scan, *, oblique: bool) -> Geometry:
    """The volume around the scanner's centre: rows run to the back, columns to the patient's left (NIfTI is RAS)."""
    depth, height, width = scan.phantom.image.shape
    z_mm, y_mm, x_mm = scan.spacing_mm
    axes = np.array([[0.0, 0.0, -x_mm], [0.0, -y_mm, 0.0], [z_mm, 0.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = _rotation(0.2, 0.1) @ axes if oblique else axes
    affine[:3, 3] = -affine[:3, :3] @ ((depth - 1) / 2, (height - 1) / 2, (width - 1) / 2)
    return Geometry((depth, height, width), scan.spacing_mm, affine_as_tuple(affine))


def _rotation(pitch: float, yaw: float) -> NDArray[np.float64]:
    """Turn about the left-right axis by `pitch` and then about the long axis by `yaw`, in radians."""
    a, b, c, d = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    about_z = np.array([[c, -d, 0], [d, c, 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_z @ about_x
    return rotation


def _write_folder(root: Path, scans: Iterable[Scan]) -> None:
    """8-bit pictures and label maps of the same name, three slices of each volume."""
    for scan in scans:
        labels = exclusive(scan.phantom.masks)
        pictures = _windowed(scan.phantom.image)
        for index in _chosen_slices(labels):
            name = f"{scan.name}_{index + 1:04d}.png"
            write_png(root / "images" / name, pictures[index])
            write_png(root / "masks" / name, labels[index])


def _windowed(image: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Intensities as 8 bits; the brightest half percent is white."""
    white = max(float(np.percentile(image, 99.5)), 1.0)
    return np.asarray(np.round(np.clip(image / white, 0, 1) * 255), np.uint8)


def _chosen_slices(labels: NDArray[np.uint8]) -> list[int]:
    """Up to three slices with foreground, spread evenly.

    >>> _chosen_slices(np.array([0, 1, 1, 1, 1, 1, 0], np.uint8).reshape(7, 1, 1))
    [2, 3, 4]
    """
    foreground = np.flatnonzero(labels.any(axis=(1, 2)))
    places = np.linspace(0, max(len(foreground) - 1, 0), 5)[1:-1].round().astype(int)
    return sorted({int(foreground[place]) for place in places[: len(foreground)]})


_WRITERS: dict[str, Callable[[Path, Iterable[Scan]], None]] = {
    "uw_madison": _write_uw_madison,
    "decathlon": _write_decathlon,
    "folder": _write_folder,
}
