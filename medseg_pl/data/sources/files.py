"""Cases that are image files with mask files, raster or NIfTI: what folder, manifest and Decathlon layouts share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from medseg_pl.core.errors import GeometryError, MissingDataError, SettingError, UnreadableFileError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import Source
from medseg_pl.io import nifti, raster

_SAME_GRID_VOXELS = 0.1
"""Programs round affines when they write them; a tenth of a voxel moves no border."""


class FileSource(Source):
    """Reads the channels of `case.images`, and either one mask file with all labels or one for each label."""

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Decode the channels and the masks of one case, and see that they share one grid."""
        channels = [read_image_file(path) for path in case.images]
        first, geometry = channels[0]
        for path, (_, grid) in zip(case.images, channels, strict=True):
            _check_grid(case, geometry, path, grid)
        image = np.concatenate([pixels for pixels, _ in channels]) if len(channels) > 1 else first
        return Volume(image, self._read_masks(case, labels, geometry), geometry)

    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """One file in the image's own format; for labels that may overlap, one folder for each label."""
        if not labels.overlapping:
            write_mask_file(directory / case.case_id, labels.decode(mask), case.images[0])
            return
        for name, plane in zip(labels.names, mask, strict=True):
            visible = 1 if nifti.is_nifti(case.images[0]) else 255
            values = labels.decode_one(plane, labels.names.index(name), visible)
            write_mask_file(directory / name / case.case_id, values, case.images[0])

    def _read_masks(self, case: Case, labels: LabelMap, geometry: Geometry) -> UInt8[np.ndarray, "m d h w"] | None:
        if not case.masks:
            return None
        masks = [read_mask_file(path) for path in case.masks]
        for path, (_, grid) in zip(case.masks, masks, strict=True):
            _check_grid(case, geometry, path, grid)
        pixels = [plane for plane, _ in masks]
        names = [str(path) for path in case.masks]
        if len(pixels) == 1 and not labels.overlapping:
            return labels.encode(pixels[0], names[0])[None]
        if len(pixels) != len(labels.names):
            raise GeometryError(
                f"Case {case.case_id} has {len(pixels)} mask file(s) for the {len(labels.names)} labels "
                f"{', '.join(labels.names)}. Labels that may overlap (task multilabel) need one mask for each; "
                "name them in data.source, or use the task multiclass for one mask with ids."
            )
        planes = [labels.encode_one(plane, i, names[i]) for i, plane in enumerate(pixels)]
        return labels.combine(planes, f"Case {case.case_id}")


def is_image(path: Path) -> bool:
    """Whether the file is one that `read_image_file` reads, by its name."""
    return (raster.is_raster(path) or nifti.is_nifti(path)) and not path.name.startswith(".")


def read_image_file(path: Path) -> tuple[NDArray[Any], Geometry]:
    """`(C, D, H, W)` and the grid, whichever the format."""
    if nifti.is_nifti(path):
        return nifti.read_nifti(path)
    if not raster.is_raster(path):
        raise UnreadableFileError(
            f"{path} is of no format that is read; expected one of {', '.join((*raster.SUFFIXES, *nifti.SUFFIXES))}."
        )
    pixels = raster.read_image(path)[:, None]
    return pixels, Geometry((1, pixels.shape[2], pixels.shape[3]))


def read_mask_file(path: Path) -> tuple[NDArray[Any], Geometry]:
    """`(D, H, W)` values and the grid, whichever the format."""
    if not nifti.is_nifti(path):
        pixels = raster.read_mask(path)[None]
        return pixels, Geometry((1, pixels.shape[1], pixels.shape[2]))
    values, geometry = nifti.read_nifti(path)
    if len(values) != 1:
        raise UnreadableFileError(f"{path} is a mask with {len(values)} channels; expected one value for each voxel.")
    return values[0], geometry


def write_mask_file(stem: Path, values: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` values beside `stem`: NIfTI with the template's header, or PNG for any raster image."""
    if nifti.is_nifti(template):
        suffix = template.name[len(nifti.stem(template)) :]
        nifti.write_mask_like(stem.with_name(stem.name + suffix), values, template)
    else:
        depth = values.astype(np.uint16 if values.max(initial=0) > 255 else np.uint8)
        raster.write_png(stem.with_name(stem.name + ".png"), depth[0])


def check_mask_names(names: Sequence[str], labels: LabelMap, what: str) -> None:
    """Raise `SettingError` unless one mask for each label comes in the order of the labels: none is then mistaken."""
    if list(names) != list(labels.names):
        raise SettingError(
            f"{what} names the masks {', '.join(names)}, but labels.names is {', '.join(labels.names)}. "
            "Name the same labels in the same order on both sides."
        )


def inside(root: Path, relative: str, what: str) -> Path:
    """`root / relative`, or `MissingDataError` where that leaves `root`: a manifest may be a stranger's."""
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise MissingDataError(
            f"{what} names {relative!r}, which lies outside {root}. Move the file inside, or set root."
        )
    return path


def _check_grid(case: Case, expected: Geometry, path: Path, got: Geometry) -> None:
    """Raise `GeometryError` where a file does not lie on the grid of the case's first image."""
    if expected.shape != got.shape:
        raise GeometryError(
            f"Case {case.case_id}: {path} is {_size(got.shape)}, but the image {case.images[0]} is "
            f"{_size(expected.shape)}. They must share one grid: export the mask again from this image, or remove the "
            "case."
        )
    shift = expected.distance_voxels(got)
    if shift > _SAME_GRID_VOXELS:
        raise GeometryError(
            f"Case {case.case_id}: {path} has the image's shape but lies elsewhere in space: its affine puts a corner "
            f"{shift:.1f} voxels from where {case.images[0]} has it (flipped, shifted, or of another spacing). Export "
            "the mask again from this image, or correct the affine."
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape) + " (depth, height, width)"
