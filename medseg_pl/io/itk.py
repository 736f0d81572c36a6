"""MetaImage and NRRD volumes, on the same grid in memory as NIfTI: `(C, D, H, W)`, affines in RAS.

ITK counts millimeters to the left and back (LPS), NIfTI to the right and front (RAS): the first two rows change sign.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813  its own documentation calls it so
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, UnreadableFileError
from medseg_pl.core.geometry import Geometry, affine_as_tuple
from medseg_pl.io import size_limits
from medseg_pl.io.atomic_files import require_absent, whole_file
from medseg_pl.io.itk_header import ItkHeader, read_itk_header
from medseg_pl.io.suffixes import find_suffix

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])
_DETACHED = (".mhd", ".nhdr")
_READ = "be read as MetaImage or NRRD"

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters of them is raised here, with the file's name


def read_itk(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a volume as `(C, D, H, W)` with its geometry; a scaling in the header is applied.

    Components of a voxel, and a fourth axis, are channels. Values keep the type on disk unless they are scaled or
    `float64`; then they are `float32`.

    Raises:
        MissingDataError: A file does not exist.
        UnreadableFileError: The file is damaged, too large, or has more than four axes.
    """
    header = _checked_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise size_limits.unreadable(path, _reason(error), _READ) from error
    data: NDArray[Any] = sitk.GetArrayFromImage(image)
    channels_last = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() + channels_last > 4:
        raise UnreadableFileError(f"{path} has {header.axes} axes; expected (x, y, z), with or without channels.")
    if image.GetDimension() == 2:
        data = data[None]
    data = np.moveaxis(data, -1, 0) if channels_last else data
    data = data[None] if data.ndim == 3 else data
    slope, intercept = header.scaling
    if (slope, intercept) != (1.0, 0.0):
        data = data * np.float64(slope) + intercept
    if data.dtype == np.float64:
        data = data.astype(np.float32)
    return np.ascontiguousarray(data), _geometry(image, header, data.shape[1:], path)


def read_itk_geometry(path: Path) -> Geometry:
    """Read the grid of a volume from its header."""
    header, reader = _checked_header(path), _open(path)
    x, y, z = (*reader.GetSize(), 1, 1)[:3]
    return _geometry(reader, header, (z, y, x), path)


def write_itk_mask_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` label values on the grid of `template`, compressed; `.mhd` and `.nhdr` get a second file."""
    _checked_header(template)
    reader = _open(template)
    axes = min(reader.GetDimension(), 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask[0] if axes == 2 else mask))
    image.SetSpacing(reader.GetSpacing()[:axes])
    image.SetOrigin(reader.GetOrigin()[:axes])
    image.SetDirection(_matrix(reader)[:axes, :axes].ravel().tolist())
    if find_suffix(path).lower() in _DETACHED:
        _write_pair(path, image)
        return
    with whole_file(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def find_data_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in which the voxels of `.mhd` and `.nhdr` headers stand, and nothing for other files.

    A header that cannot be read has none: that is for its reader to say.
    """
    for path in paths:
        if find_suffix(path).lower() in _DETACHED:
            with suppress(DataError):
                header = read_itk_header(path)
                if header.data != path:
                    yield header.data


def _checked_header(path: Path) -> ItkHeader:
    header = read_itk_header(path)
    size_limits.check_claim(path, header.voxels, size_limits.MAX_VOXELS, "voxels", header.item_bytes)
    if header.overblown or header.cut_off:
        raise UnreadableFileError(
            f"{path} claims {header.voxels * header.item_bytes:,} bytes of voxels, more than the "
            f"{header.data.stat().st_size:,} bytes of {header.data.name} hold. Replace it with an intact copy."
        )
    return header


def _open(path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise size_limits.unreadable(path, _reason(error), _READ) from error
    return reader


def _reason(error: RuntimeError) -> RuntimeError:
    """Shorten an ITK error, which names lines of its own source, to its last sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RuntimeError(lines[-1] if lines else "ITK gives no reason")


def _matrix(image: Any) -> NDArray[np.float64]:
    axes = image.GetDimension()
    return np.asarray(image.GetDirection(), dtype=np.float64).reshape(axes, axes)


def _geometry(image: Any, header: ItkHeader, shape: tuple[int, ...], path: Path) -> Geometry:
    depth, height, width = shape
    axes = min(image.GetDimension(), 3)
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    spacing[:axes] = image.GetSpacing()[:axes]
    origin[:axes] = image.GetOrigin()[:axes]
    direction[:axes, :axes] = _matrix(image)[:axes, :axes]
    affine = np.eye(4)
    affine[:3, :3] = (_RAS_FROM_LPS @ direction * spacing)[:, ::-1] * header.unit_mm
    affine[:3, 3] = _RAS_FROM_LPS @ origin * header.unit_mm
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise UnreadableFileError(
            f"{path} has an affine that places no voxel: {np.round(affine, 3).tolist()}. Correct the header, or "
            "convert the image again."
        )
    z, y, x = (float(value) for value in spacing[::-1] * header.unit_mm)
    return Geometry(
        (depth, height, width),
        (z, y, x) if header.spaced else None,
        affine_as_tuple(affine) if header.placed else None,
    )


def _write_pair(path: Path, image: Any) -> None:
    """Write header and voxels under their own names elsewhere, for the one names the other, then move both."""
    require_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        header = Path(folder) / path.name
        sitk.WriteImage(image, str(header), useCompression=True)
        for data in find_data_files([header]):
            require_absent(path.with_name(data.name))
            data.replace(path.with_name(data.name))
        header.replace(path)
