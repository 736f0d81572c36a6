"""One anatomy at random, and how it differs from day to day."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medseg_pl.data.synthetic.organs import Organ, draw_organs, moved
from medseg_pl.data.synthetic.shapes import Ellipsoid

PEAKS = (700.0, 12000.0)
"""The range of the brightest voxel over patients, as wide as in real scans of this kind."""

# No label, but could be taken for one. Later ones cover earlier ones.
_SOLIDS = (
    Ellipsoid((0.52, -0.02, -0.40), (0.42, 0.44, 0.46), 0.44, 0.3),  # liver
    Ellipsoid((0.55, 0.22, 0.66), (0.30, 0.24, 0.15), 0.50, 0.4),  # spleen
    Ellipsoid((0.08, 0.28, -0.42), (0.30, 0.16, 0.13), 0.56, -0.4),  # right kidney
    Ellipsoid((0.16, 0.28, 0.42), (0.30, 0.16, 0.13), 0.56, 0.4),  # left kidney
    Ellipsoid((0.06, 0.28, -0.43), (0.14, 0.07, 0.05), 0.80, -0.4),  # their pelves
    Ellipsoid((0.16, 0.28, 0.43), (0.14, 0.07, 0.05), 0.80, 0.4),
    Ellipsoid((-0.6, 0.30, -0.24), (0.75, 0.13, 0.10), 0.24),  # psoas
    Ellipsoid((-0.6, 0.30, 0.24), (0.75, 0.13, 0.10), 0.24),
    Ellipsoid((0.0, 0.54, -0.22), (3.0, 0.12, 0.19), 0.23, -0.1),  # back muscles
    Ellipsoid((0.0, 0.54, 0.22), (3.0, 0.12, 0.19), 0.23, 0.1),
    Ellipsoid((0.0, 0.31, 0.0), (3.0, 0.125, 0.16), 0.40),  # vertebrae
    Ellipsoid((0.0, 0.47, 0.0), (3.0, 0.06, 0.075), 0.12),  # canal, with its bright fluid
    Ellipsoid((0.0, 0.47, 0.0), (3.0, 0.04, 0.055), 0.85),
    Ellipsoid((0.0, 0.14, 0.05), (3.0, 0.05, 0.05), 0.78),  # aorta
    Ellipsoid((0.0, 0.15, -0.09), (3.0, 0.045, 0.065), 0.70),  # vena cava
)


@dataclass(frozen=True)
class Patient:
    """Everything about a scan but its texture and noise, in body units.

    Args:
        trunk: Half height and half width of the body in a slice.
        rim: Thickness of the fat under the skin, and of the muscle below it.
        tilt: Rotation in the slice, radians.
        offset: Shift `(z, y, x)` of the whole body.
        solids: What is no label: liver, spleen, kidneys, spine, muscles, vessels; painted in this order.
        organs: What is one, in the order of `ORGANS`.
        peak: The brightest voxel.
        overlap: How deep two masks may share voxels.
    """

    trunk: tuple[float, float]
    rim: tuple[float, float]
    tilt: float
    offset: tuple[float, float, float]
    solids: tuple[Ellipsoid, ...]
    organs: tuple[Organ, ...]
    peak: float
    overlap: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """An anatomy at random."""
    stature = rng.uniform(0.9, 1.04)
    low, high = np.log(PEAKS)
    return Patient(
        trunk=(stature * rng.uniform(0.71, 0.81), stature),
        rim=(rng.uniform(0.05, 0.13), rng.uniform(0.045, 0.07)),
        tilt=rng.normal(0, 0.05),
        offset=(rng.normal(0, 0.04), rng.normal(0, 0.02), rng.normal(0, 0.02)),
        solids=tuple(_jittered(solid, rng) for solid in _SOLIDS),
        organs=draw_organs(rng),
        peak=float(np.exp(rng.uniform(low, high))),
        overlap=float(rng.choice([0.0, 0.03, 0.05])),
    )


def on_another_day(patient: Patient, rng: np.random.Generator) -> Patient:
    """Moderate changes: filling, position of each organ, gas, position on the table and receiver gain."""
    tubes = [moved(organ.tube, rng) for organ in patient.organs]
    z, y, x = np.array(patient.offset) + rng.normal(0, 0.01, 3)
    looks = [replace(organ.look, gas=organ.look.gas + rng.normal(0, 0.2)) for organ in patient.organs]
    return replace(
        patient,
        tilt=patient.tilt + rng.normal(0, 0.015),
        offset=(z, y, x),
        organs=tuple(map(Organ, tubes, looks)),
        peak=float(np.clip(patient.peak * rng.uniform(0.85, 1.15), *PEAKS)),
    )


def _jittered(solid: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    """The structure a little elsewhere, larger or smaller, darker or brighter."""
    z, y, x = np.array(solid.center) + rng.normal(0, 0.012, 3) * (3.0, 1.0, 1.0)
    tall, high, wide = np.array(solid.radii) * rng.uniform(0.9, 1.1, 3)
    return Ellipsoid((z, y, x), (tall, high, wide), solid.value * rng.uniform(0.92, 1.08), solid.angle)
