"""What the body looks like before a scanner sees it: fat, muscle, solid structures, and the inside of the organs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg_pl.data.synthetic.grid import Field, Grid, Mask, Sweep, inside
from medseg_pl.data.synthetic.organs import Organ
from medseg_pl.data.synthetic.patient import Patient
from medseg_pl.data.synthetic.shapes import STEP, Ellipsoid, wave


@dataclass(frozen=True)
class Texture:
    """Noise of unit spread: `grain` is fine, `mottle` coarse."""

    grain: Field
    mottle: Field


@dataclass(frozen=True)
class Trunk:
    """The whole `body`, what lies within the fat of its `wall`, and the `cavity` within its muscle."""

    body: Mask
    wall: Mask
    cavity: Mask


def draw_texture(rng: np.random.Generator, grid: Grid) -> Texture:
    """The texture of one scan."""
    return Texture(grain=_noise(rng, grid, 0.012), mottle=_noise(rng, grid, 0.045))


def trunk_of(patient: Patient, grid: Grid) -> Trunk:
    """The layers of the trunk, skin to cavity."""
    high, wide = patient.trunk
    fat, muscle = patient.rim
    insets = (0.0, fat, fat + muscle)
    layers = (Ellipsoid((0.0, 0.0, 0.0), (4.0, high - inset, wide - inset), 0.0) for inset in insets)
    return Trunk(*(inside(grid, layer) for layer in layers))


def surroundings(solids: tuple[Ellipsoid, ...], grid: Grid, trunk: Trunk, texture: Texture) -> Field:
    """Everything but the organs: fat, muscle wall, mesentery and the solid structures."""
    strands = np.exp(-((texture.mottle / 0.22) ** 2))  # where noise crosses zero it draws thin lines, like vessels
    tissue = np.where(trunk.body, np.float32(0.82), np.float32(0.0))
    tissue[trunk.wall] = 0.25
    np.copyto(tissue, 0.68 + 0.05 * texture.mottle - 0.22 * strands, where=trunk.cavity)
    for solid in solids:
        covered = inside(grid, solid) & trunk.wall
        tissue[covered] = solid.value * (1 + 0.05 * texture.mottle[covered] + 0.15 * strands[covered])
    return tissue


def interior(rng: np.random.Generator, grid: Grid, organ: Organ, sweep: Sweep, texture: Texture) -> Field:
    """Wall, content and the gas that rises to the front of the lumen (the patient lies on the back)."""
    tube, look = organ.tube, organ.look
    count = len(tube.radii)
    stripes = look.folds * np.sin(2 * np.pi * STEP * np.arange(count) / look.fold_length)
    content = look.content * (1 + 0.08 * wave(rng, count)) + stripes
    level = tube.points[:, 1] + tube.radii * (look.gas + 0.5 * wave(rng, count))
    value = content.astype(np.float32)[sweep.nearest] + look.mottle * texture.mottle + look.grain * texture.grain
    value[grid.y < level.astype(np.float32)[sweep.nearest]] = 0.08
    value[sweep.depth > -look.wall] = 0.22
    return np.asarray(value)


def _noise(rng: np.random.Generator, grid: Grid, scale: float) -> Field:
    """Smooth noise of unit spread, with blobs of about `scale` body units."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, scale / grid.steps, mode="reflect", truncate=3.0)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)
