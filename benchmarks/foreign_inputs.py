"""Images that a model was not trained on: how many are found by their pixels and headers, and how many false alarms.

Phantoms as MRI and as CT are made here; hippocampus, CHASE_DB1 and nuclei are read from the folder in MEDSEG_TEST_DATA.
Images are compared alone, without a network: what the codes F2xx find in masks comes on top.

    python benchmarks/foreign_inputs.py [results.json]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _perturbations import (
    COLOR_FOR_GRAY,
    COLORS,
    INTENSITIES,
    SPACINGS,
    TURNS,
    VOLUME_TURNS,
    apply_change,
    borrow_content,
    scale_spacing,
)
from _report import Claim, finish
from numpy.typing import NDArray

from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.image_facts import ImageFacts, measure_image
from medseg_pl.core.image_findings import compare_image, has_warning
from medseg_pl.core.training_profile import TrainingProfile, describe_training
from medseg_pl.core.types import Volume
from medseg_pl.data.sources.files import read_image_file

PHANTOMS, SLICES, FILES, PERTURBED = 40, 24, 110, 8
FOUND, FALSE = 0.95, 0.02

SEEN: Mapping[str, Mapping[str, str]] = {
    "phantom MRI": {"times 10": "ranges differ tenfold", "divided by 10": "ranges differ tenfold"},
    "hippocampus": {
        "times 10": "ranges differ a thousandfold",
        "divided by 10": "ranges differ a thousandfold",
        "16-bit export": "ranges differ a thousandfold",
        "mirrored": "training mirrors",
    },
    "CHASE_DB1": dict.fromkeys(TURNS, "training mirrors and turns"),
    "nuclei": dict.fromkeys(TURNS, "no side is up"),
}
"""Perturbations that are none for a model, because its training images are like that, and why."""


class DataSet(NamedTuple):
    """Images in the parts of a split."""

    training: Sequence[Volume]
    validation: Sequence[Volume]
    held_out: Sequence[Volume]


def make_phantoms(*, ct: bool) -> list[Volume]:
    """Make phantoms, as MRI or with the values of a CT."""
    rng = np.random.default_rng(0)
    volumes = []
    for scan in make_scans(PHANTOMS, 0, SLICES, (112, 96)):
        depth, height, width = scan.image.shape
        volumes.append(Volume(_to_hounsfield(scan.image, rng)[None] if ct else scan.image[None], None,
                              Geometry((depth, height, width), scan.spacing_mm)))  # fmt: skip
    return volumes


def _to_hounsfield(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int16]:
    values = image / np.percentile(image, 99)
    return np.rint(np.where(values > 0.12, -100 + 260 * values, -1000) + rng.normal(0, 12, image.shape)).astype(
        np.int16
    )


def read_images(pattern: str) -> list[Volume]:
    """Read public images, in an order that has nothing to do with their names."""
    root = os.environ.get("MEDSEG_TEST_DATA")
    files = sorted(Path(root).glob(pattern)) if root else []
    drawn = np.random.default_rng(1).permutation(len(files))[:FILES]
    return [Volume(pixels, None, grid) for pixels, grid in (read_image_file(files[index]) for index in drawn)]


def split(volumes: Sequence[Volume]) -> DataSet:
    first, second = round(0.6 * len(volumes)), round(0.75 * len(volumes))
    return DataSet(volumes[:first], volumes[first:second], volumes[second:])


def measure(volume: Volume) -> ImageFacts:
    return measure_image(volume.image, volume.geometry.spacing_mm)


def is_found(volume: Volume, profile: TrainingProfile) -> bool:
    """Tell whether an image is marked, or cannot be predicted for its channels."""
    return len(volume.image) != len(profile.template) or has_warning(compare_image(measure(volume), profile))


def list_changes(volume: Volume) -> dict[str, Callable[[Volume, Volume, np.random.Generator], Volume]]:
    """List the perturbations that an image can have, each of an image, one of another kind, and random numbers."""
    pixels = {**INTENSITIES, **(COLORS if len(volume.image) > 1 else COLOR_FOR_GRAY), **TURNS}
    if volume.image.shape[1] > 1:
        pixels |= VOLUME_TURNS
    if volume.image.dtype == np.uint8:
        del pixels["8-bit export"]
    changes = {name: lambda own, _, rng, c=change: apply_change(own, c, rng) for name, change in pixels.items()}
    if volume.geometry.spacing_mm is not None:
        changes |= {name: lambda own, _, rng, f=factors: scale_spacing(own, f) for name, factors in SPACINGS.items()}
    return {**changes, "another part of the body": lambda own, other, rng: borrow_content(own, other)}


def perturb(name: str, data: DataSet, other: DataSet, profile: TrainingProfile) -> dict[str, list[bool]]:
    """Perturb held-out images, and list for each perturbation which of them were found."""
    rng = np.random.default_rng(0)
    found: dict[str, list[bool]] = {}
    for change, apply in list_changes(data.held_out[0]).items():
        if change in SEEN.get(name, ()):
            continue
        for index, volume in enumerate(data.held_out[:PERTURBED]):
            changed = apply(volume, other.held_out[index % len(other.held_out)], rng)
            # Gray images in three channels stay what they are when these are exchanged.
            if changed.geometry != volume.geometry or not np.array_equal(changed.image, volume.image):
                found.setdefault(change, []).append(is_found(changed, profile))
    return found


def main() -> None:
    sets = {
        "phantom MRI": make_phantoms(ct=False),
        "phantom CT": make_phantoms(ct=True),
        "hippocampus": read_images("msd_hippocampus/imagesTr/*.nii.gz"),
        "CHASE_DB1": read_images("chase_db1/images/*"),
        "nuclei": read_images("nuclei/images/*"),
    }
    data = {name: split(volumes) for name, volumes in sets.items() if volumes}
    names, details = list(data), {}
    totals = np.zeros(4, int)
    for number, name in enumerate(names):
        own = data[name]
        profile = describe_training([measure(v) for v in own.training], [], [measure(v) for v in own.validation])
        assert profile is not None, "there are enough cases"
        started = time.perf_counter()
        alarms = sum(is_found(volume, profile) for volume in own.held_out)
        milliseconds = 1000 * (time.perf_counter() - started) / len(own.held_out)
        found = perturb(name, own, data[names[number - 1]], profile)
        hits, tried = (sum(count(each) for each in found.values()) for count in (sum, len))
        totals += (hits, tried, alarms, len(own.held_out))
        print(f"{name}: {len(found)} perturbations, {hits} of {tried} images found; {alarms} false alarms in "
              f"{len(own.held_out)}; {milliseconds:.1f} ms an image")  # fmt: skip
        for change, each in found.items():
            if not all(each):
                print(f"  missed: {change}, {each.count(False)} of {len(each)}")
        for change, why in SEEN.get(name, {}).items():
            print(f"  not tried: {change}, {why}")
        details[name] = {"found": found, "false_alarms": alarms, "milliseconds": milliseconds}
    hits, tried, alarms, held_out = totals.tolist()
    share, wrong, against = hits / tried, alarms / held_out, f"{len(data)} data sets"
    claims = [
        Claim("foreign images found by pixels and header", against, f"≥ {FOUND:.0%}", f"{share:.1%}", share >= FOUND),
        Claim("false alarms on held-out images", against, f"≤ {FALSE:.0%}", f"{wrong:.1%}", wrong <= FALSE),
    ]
    finish(claims, details)


if __name__ == "__main__":
    main()
