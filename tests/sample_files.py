"""Files of a few pixels, written by the formats' own libraries and not by the code under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save_raster(path: Path, pixels: NDArray[Any]) -> Path:
    """Save `(H, W)` or `(H, W, 3)`; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_volume(
    path: Path,
    voxels: NDArray[Any],
    spacing_mm: tuple[float, float, float] = (1, 1, 1),
    moved: NDArray[Any] | None = None,
) -> Path:
    """Save `(x, y, z)` as NIfTI on an oblique grid; the spacing is that of x, y and z.

    `moved` is 4 x 4 and takes the file's voxels to those of the grid: a grid that lies elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine[:3, :3] = turn * spacing_mm
    affine[:3, 3] = (-7.5, 12.25, 3.0)
    affine = affine if moved is None else affine @ moved
    nibabel.save(nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def blocks(shape: tuple[int, ...], *values: int) -> NDArray[np.uint8]:
    """A mask with one bar for each value along the first axis, and background behind them."""
    mask = np.zeros(shape, np.uint8)
    for place, value in enumerate(values):
        mask[2 * place + 1 : 2 * place + 3] = value
    return mask


def noise(shape: tuple[int, ...], seed: int = 0, dtype: type = np.uint8) -> NDArray[Any]:
    """Pixels that differ everywhere."""
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def results(output: Path) -> dict[str, bytes]:
    """Every file of an output folder but what it notes for itself, and what it says of the last run."""
    return {
        name: content
        for name, content in tree(output).items()
        if not name.startswith(".medseg") and name != "predictions.csv"
    }
