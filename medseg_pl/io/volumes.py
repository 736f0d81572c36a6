"""Volumes of every format by one set of functions, and TIFF stacks: pages of one size as the slices of a volume."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError, count_noun
from medseg_pl.core.geometry import Geometry
from medseg_pl.io import itk, nifti, size_limits, tiff
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.io.paths import is_itk, is_nifti, is_volume_name
from medseg_pl.io.tiff import DAMAGE, apply_tags, read_orientation

# No compression of TIFF packs tighter: LZW reaches some 4,000 of an empty page
_MOST_PACKED = 5000

_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "um": 0.001, "µm": 0.001, "μm": 0.001, "micron": 0.001, "nm": 1e-6}


def makes_volume(tiff: tifffile.TiffFile) -> bool:
    """Tell whether the pages of a stack make a volume.

    They are then of one size, and follow each other along one axis.
    """
    series = _list_main_series(tiff)
    return len(series) == 1 and len(_list_stack_axes(series[0])) < 2 and series[0].ndim > 2


def read_stack(path: Path, *, seen: bool) -> tuple[NDArray[Any], Geometry]:
    """Read a TIFF stack as `(C, D, H, W)` with its grid.

    The spacing is the one that ImageJ or OME notes.

    Args:
        path: The file.
        seen: Whether pixels are wanted as they are seen, through the file's palette, or as the labels it stands for.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large, or its pages make no volume.
    """
    with _open_series(path) as (tiff, series):
        page: Any = tiff.pages[0]
        planes = _move_channels_first(series)
        planes = np.ascontiguousarray(apply_tags(planes, page, path, seen=seen))
        return planes, _make_geometry(tiff, page, planes.shape[1:])


def read_stack_geometry(path: Path) -> Geometry:
    """Read the grid of a stack without decoding its pages."""
    with _open_series(path) as (tiff, series):
        sizes = dict(zip(series.axes, series.shape, strict=True))
        depth = math.prod(sizes[axis] for axis in _list_stack_axes(series))
        page: Any = tiff.pages[0]
        height, width = int(page.imagelength), int(page.imagewidth)
        turned = read_orientation(page) >= 5
        return _make_geometry(tiff, page, (depth, width, height) if turned else (depth, height, width))


def write_stack_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write label values as a TIFF stack with a template's spacing.

    Args:
        path: The file to write.
        mask: `(D, H, W)`, a page for each slice; of more than 8 bits, it is written in 16.
        template: The stack whose spacing is noted, as ImageJ does.

    Raises:
        SettingError: A value does not fit into 16 bits.
    """
    if not 0 <= mask.min(initial=0) <= mask.max(initial=0) <= 65535:
        raise SettingError(
            f"{path} cannot hold labels.values from {mask.min()} to {mask.max()}; expected 0 to 65535. Choose other "
            "values for what is written."
        )
    # By the type and not by what this mask holds, so that all masks of a folder are of one type
    values = mask.astype(np.uint8 if mask.itemsize == 1 else np.uint16)
    spacing_mm = read_stack_geometry(template).spacing_mm
    noted: dict[str, Any] = {"axes": "ZYX"}
    resolution = None
    if spacing_mm is not None:
        noted |= {"unit": "mm", "spacing": spacing_mm[0]}
        resolution = (1 / spacing_mm[2], 1 / spacing_mm[1])
    with write_atomically(path) as temporary:
        tifffile.imwrite(
            temporary, values, imagej=True, metadata=noted, resolution=resolution, compression="zlib",
            photometric="minisblack",
        )  # fmt: skip


@contextmanager
def _open_series(path: Path) -> Iterator[tuple[tifffile.TiffFile, Any]]:
    """Open the pages of a stack as one array, not yet decoded."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            item_bytes = -(-page.bitspersample // 8)
            tile = page.tilewidth * page.tilelength * page.tiledepth * page.samplesperpixel
            size_limits.check_claim(path, tile, size_limits.MAX_PIXELS, "pixels", item_bytes)
            if not makes_volume(tiff):
                raise UnreadableFileError(
                    f"{path} holds {_describe_contents(tiff)}; expected pages of one size along one axis. Save each "
                    "image as a file of its own."
                )
            (series,) = _list_main_series(tiff)
            claimed = math.prod(series.shape)
            size_limits.check_claim(path, claimed, size_limits.MAX_VOXELS, "voxels", item_bytes)
            _check_room(path, page, claimed * page.bitspersample // 8)
            # ImageJ writes one page for more than 4 GB, all voxels behind it; its note alone says how many images.
            described = int((tiff.imagej_metadata or {}).get("images", 1))
            held = claimed // (page.imagewidth * page.imagelength * page.samplesperpixel)
            if described > held:
                raise UnreadableFileError(
                    f"{path} describes {count_noun(described, 'image')} and holds {held}. Replace it with an intact "
                    "copy."
                )
            yield tiff, series
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist.") from None
    except DAMAGE as error:
        raise size_limits.make_decoding_error(path, error, "be decoded as a stack") from error


def _check_room(path: Path, page: Any, claimed_bytes: int) -> None:
    """Check that a file can hold the voxels that its tags claim."""
    held = path.stat().st_size * (1 if page.compression == tifffile.COMPRESSION.NONE else _MOST_PACKED)
    if claimed_bytes > held:
        raise UnreadableFileError(
            f"{path} claims {claimed_bytes:,} bytes of voxels, more than its {path.stat().st_size:,} bytes can hold. "
            "Replace it with an intact copy."
        )


def _list_main_series(tiff: tifffile.TiffFile) -> list[Any]:
    """List all series but those of small copies and of transparency."""
    return [each for each in tiff.series if not (each.keyframe.is_reduced or each.keyframe.is_mask)]


def _list_stack_axes(series: Any) -> list[str]:
    """List the axes along which pages follow each other, longer than 1."""
    return [axis for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "CSYX" and size > 1]


def _describe_contents(tiff: tifffile.TiffFile) -> str:
    """Describe the series of a TIFF that is no volume."""
    series = _list_main_series(tiff)
    shapes = " and ".join(f"{each.axes} {'x'.join(map(str, each.shape))}" for each in series[:3])
    return f"several images ({shapes})"


def _move_channels_first(series: Any) -> NDArray[Any]:
    """Arrange a series as `(C, D, H, W)`."""
    # Samples of a page stand inside channels with pages of their own, however they are stored.
    data: NDArray[Any] = series.asarray()
    axes, stack = series.axes, _list_stack_axes(series)
    lengthy = [place for place, axis in enumerate(axes) if axis in "CSYX" or axis in stack]
    data = data.reshape([data.shape[place] for place in lengthy])
    kept = [axes[place] for place in lengthy]
    order = [*(axis for axis in "CS" if axis in kept), *stack, "Y", "X"]
    data = data.transpose([kept.index(axis) for axis in order])
    height, width = data.shape[-2:]
    depth = data.shape[-3] if stack else 1
    return data.reshape(-1, depth, height, width)


def _make_geometry(tiff: tifffile.TiffFile, page: Any, shape: tuple[int, ...]) -> Geometry:
    depth, height, width = shape
    spacing = _read_imagej_spacing(tiff.imagej_metadata or {}, page) or _read_ome_spacing(tiff.ome_metadata or "")
    if spacing is not None and read_orientation(page) >= 5:
        spacing = (spacing[0], spacing[2], spacing[1])
    return Geometry((depth, height, width), spacing)


def _read_imagej_spacing(noted: dict[str, Any], page: Any) -> tuple[float, float, float] | None:
    """Read millimeters along `(z, y, x)`; `None` unless ImageJ notes all three."""
    unit = _MM.get(str(noted.get("unit", "")).replace("\\u00B5", "µ"))
    if unit is None or not {"XResolution", "YResolution"} <= {tag.name for tag in page.tags}:
        return None
    (x, x_unit), (y, y_unit) = page.tags["XResolution"].value, page.tags["YResolution"].value
    z = float(noted.get("spacing", 0))
    return (abs(z) * unit, y_unit / y * unit, x_unit / x * unit) if z and x and y else None


def _read_ome_spacing(xml: str) -> tuple[float, float, float] | None:
    """Read the spacing `(z, y, x)` in mm of OME's first image.

    `None` unless all three are noted; they are in µm by default.
    """
    match = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    pixels = dict(re.findall(r'(\w+)="([^"]*)"', match[0])) if match else {}
    sizes = [
        float(pixels.get(f"PhysicalSize{axis}", 0)) * _MM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), 0)
        for axis in "ZYX"
    ]
    return (sizes[0], sizes[1], sizes[2]) if all(sizes) else None


def is_volume(path: Path) -> bool:
    """Tell whether a file is a volume, by name or TIFF pages."""
    return is_volume_name(path) or (tiff.is_tiff(path) and tiff.is_stack_file(path))


def read_volume(path: Path, *, seen: bool = True) -> tuple[NDArray[Any], Geometry]:
    """Read a volume as `(C, D, H, W)` with its grid.

    Args:
        path: The file.
        seen: Whether a stack is seen through its palette; otherwise it is a mask, and the palette's labels are read.
    """
    if is_itk(path):
        return itk.read_itk(path)
    return nifti.read_nifti(path) if is_nifti(path) else read_stack(path, seen=seen)


def read_volume_geometry(path: Path) -> Geometry:
    """Read the grid of a volume from its header."""
    if is_itk(path):
        return itk.read_itk_geometry(path)
    return nifti.read_geometry(path) if is_nifti(path) else read_stack_geometry(path)


def write_mask_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` label values in the template's format and grid."""
    if is_itk(template):
        itk.write_itk_mask_like(path, mask, template)
    elif is_nifti(template):
        nifti.write_mask_like(path, mask, template)
    else:
        write_stack_like(path, mask, template)
