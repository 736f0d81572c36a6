"""Volumes of every format by one set of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.io import itk, nifti, tiff, tiff_stack
from medseg_pl.io.paths import is_itk, is_nifti, is_volume_name


def is_volume(path: Path) -> bool:
    """Tell whether a file is a volume that is read: by its name, or a TIFF by its pages."""
    return is_volume_name(path) or (tiff.is_tiff(path) and tiff.is_stack_file(path))


def read_volume(path: Path, *, seen: bool = True) -> tuple[NDArray[Any], Geometry]:
    """Read a volume as `(C, D, H, W)` with its grid.

    Args:
        path: The file.
        seen: Whether a stack is seen through its palette; else it is a mask, and the palette's labels are read.
    """
    if is_itk(path):
        return itk.read_itk(path)
    return nifti.read_nifti(path) if is_nifti(path) else tiff_stack.read_stack(path, seen=seen)


def read_volume_geometry(path: Path) -> Geometry:
    """Read the grid of a volume from its header."""
    if is_itk(path):
        return itk.read_itk_geometry(path)
    return nifti.read_geometry(path) if is_nifti(path) else tiff_stack.read_stack_geometry(path)


def write_mask_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` label values in the format, and on the grid, of `template`."""
    if is_itk(template):
        itk.write_itk_mask_like(path, mask, template)
    elif is_nifti(template):
        nifti.write_mask_like(path, mask, template)
    else:
        tiff_stack.write_stack_like(path, mask, template)
