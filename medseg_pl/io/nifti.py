"""NIfTI volumes, any orientation and oblique affine, written back on exactly the grid they came from.

In memory a volume is `(D, H, W)` with `D` the file's last axis: the file's `(i, j, k)` reversed. The affine in
`Geometry` is reversed with it, so both directions are exact.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.core.geometry import Geometry, to_affine
from medseg_pl.io import size_limits
from medseg_pl.io.atomic_files import write_atomically

_REVERSED = [2, 1, 0, 3]
# What the unit codes of the header for meters and micrometers are in millimeters; all others are taken for those
_MM = {1: 1000.0, 3: 0.001}
_READ = "be read as NIfTI"
# What deflate cannot exceed: it says 258 bytes in two bits
_GZIP_RATIO = 1032


def list_damage() -> tuple[type[Exception], ...]:
    """List what nibabel raises on bytes that make no sense."""
    from nibabel.filebasedimages import ImageFileError  # noqa: PLC0415  see `_load`
    from nibabel.spatialimages import HeaderDataError  # noqa: PLC0415

    return (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error)


def read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a volume as `(C, D, H, W)` with its geometry.

    A scaling in the header is applied. A fourth axis holds the channels (multi-modal MRI of the Decathlon). Values keep
    the type on disk unless the header scales them or they are `float64`; then they are `float32`.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is damaged, too large or has no spatial grid.
    """
    image = _load(path)
    try:
        data = _read_voxels(image, path)
    except list_damage() as error:
        raise size_limits.make_decoding_error(path, error, _READ) from error
    if data.dtype.kind not in "iuf":
        raise UnreadableFileError(f"{path} holds values of the type {data.dtype}; expected one real number per voxel.")
    if data.dtype == np.float64:  # the header scales, or the file is in double precision: more than any scanner has
        data = data.astype(np.float32)
    if data.ndim == 2:
        data = data[:, :, None]
    if data.ndim == 5 and data.shape[3] == 1:  # NIfTI keeps vectors on the fifth axis, behind an empty time axis
        data = data[:, :, :, 0]
    if data.ndim == 3:
        data = data[..., None]
    if data.ndim != 4 or 0 in data.shape:
        raise UnreadableFileError(f"{path} has the shape {image.shape}; expected (x, y, z) or (x, y, z, channels).")
    volume = np.ascontiguousarray(data.transpose(3, 2, 1, 0)).astype(data.dtype.newbyteorder("="), copy=False)
    return volume, _make_geometry(image, volume.shape[1:])


def read_geometry(path: Path) -> Geometry:
    """Read the grid of a volume from its header."""
    image = _load(path)
    # A file of two axes is one slice.
    x, y, z = (*image.shape, 1, 1)[:3]
    return _make_geometry(image, (z, y, x))


def write_nifti(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write `(D, H, W)` or `(C, D, H, W)` on a grid.

    Args:
        path: Ends in `.nii` or `.nii.gz`, and must not exist.
        array: Its data type is kept.
        geometry: The grid; 1 mm where the spacing is unknown, along the axes where the affine is.
    """
    z, y, x = geometry.spacing_mm or (1.0, 1.0, 1.0)
    affine = np.diag([x, y, z, 1.0]) if geometry.affine is None else np.asarray(geometry.affine)[:, _REVERSED]
    volume = array.transpose(2, 1, 0) if array.ndim == 3 else array.transpose(3, 2, 1, 0)
    import nibabel  # noqa: PLC0415

    image = nibabel.Nifti1Image(volume, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    with write_atomically(path) as temporary:
        nibabel.save(image, temporary)


def write_mask_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` label values with a template's header.

    Affine, codes, units and shape stay the same. The data type is the mask's. The template's type and scaling are
    dropped, since they were meant for intensities.
    """
    import nibabel  # noqa: PLC0415

    image = _load(template)
    header = image.header.copy()
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"], header["cal_max"] = 0, 0
    spatial = (*image.shape, 1, 1)[:3]
    header.set_data_dtype(mask.dtype)
    values = mask.transpose(2, 1, 0).astype(header.get_data_dtype())
    header.set_data_shape(spatial[: max(2, min(3, len(image.shape)))])
    result = type(image)(values.reshape(header.get_data_shape()), None, header)
    result.header["pixdim"][:4] = image.header["pixdim"][:4]  # nibabel forgets the thickness of a single slice
    with write_atomically(path) as temporary:
        nibabel.save(result, temporary)


def _load(path: Path) -> Any:
    import nibabel  # noqa: PLC0415  with pydicom, which it brings, 0.4 s of a start that may read no volume

    if not path.exists():
        raise MissingDataError(f"{path} does not exist.")
    try:
        _check_offset(path)
        image: Any = nibabel.load(path)
        item_bytes = image.get_data_dtype().itemsize
    except list_damage() as error:
        raise size_limits.make_decoding_error(path, error, _READ) from error
    voxels = math.prod(image.shape)
    size_limits.check_claim(path, voxels, size_limits.MAX_VOXELS, "voxels", item_bytes)
    if _is_compressed(path) and voxels * item_bytes > path.stat().st_size * _GZIP_RATIO:
        raise UnreadableFileError(
            f"{path} claims {voxels * item_bytes:,} bytes of voxels, more than its {path.stat().st_size:,} bytes can "
            "hold. Replace it with an intact copy."
        )
    return image


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _check_offset(path: Path) -> None:
    """Check that voxels begin behind their header, and early enough for it to be read."""
    # What lies before them would fill the memory.
    with gzip.open(path) if _is_compressed(path) else path.open("rb") as file:
        header = file.read(348)
    for size, place, kind, magic in ((348, 108, "f", header[344:347]), (540, 168, "q", header[4:7])):
        for order in "<>":
            if header[:4] == struct.pack(f"{order}i", size) and len(header) == 348:
                (offset,) = struct.unpack_from(f"{order}{kind}", header, place)
                # nibabel would take the header itself for voxels.
                if offset == 0 and magic in (b"n+1", b"n+2"):
                    raise UnreadableFileError(
                        f"{path} says that its voxels begin in its header (vox_offset 0). Export it again."
                    )
                if not offset <= size_limits.MAX_BEHIND_BYTES:
                    raise size_limits.make_size_error(path, size_limits.MAX_BEHIND_BYTES, "bytes of header")


def is_unspaced(path: Path) -> bool:
    """Tell whether a header gives 0 for a spacing.

    nibabel takes it for 1 mm.
    """
    with gzip.open(path) if _is_compressed(path) else path.open("rb") as file:
        header = file.read(176)
    for size, dim, dims, pixdim, kind in ((348, 40, "8h", 76, "8f"), (540, 16, "8q", 104, "8d")):
        for order in "<>":
            if header[:4] == struct.pack(f"{order}i", size) and len(header) == 176:
                axes = min(3, struct.unpack_from(order + dims, header, dim)[0])
                return 0 in struct.unpack_from(order + kind, header, pixdim)[1 : axes + 1]
    return False


def _read_voxels(image: Any, path: Path) -> NDArray[Any]:
    """Read the scaled values, of compressed files up to the checksum.

    Nibabel stops before it.
    """
    if not _is_compressed(path):
        return np.asanyarray(image.dataobj)
    from nibabel.fileholders import FileHolder  # noqa: PLC0415

    with gzip.open(path) as file:
        data: NDArray[Any] = np.asanyarray(type(image).from_file_map({"image": FileHolder(fileobj=file)}).dataobj)
        end = file.tell() + size_limits.MAX_BEHIND_BYTES
        while file.read(1 << 20):
            if file.tell() > end:
                raise UnreadableFileError(
                    f"{path} goes on for more than {size_limits.MAX_BEHIND_BYTES:,} bytes behind its last voxel. "
                    "Replace it with an intact copy."
                )
    return data


def _make_geometry(image: Any, shape: tuple[int, ...]) -> Geometry:
    affine = _find_affine(image)[:, _REVERSED]
    affine[:3] *= _MM.get(int(image.header["xyzt_units"]) % 8, 1.0)
    depth, height, width = shape
    if not _is_invertible(affine):
        raise UnreadableFileError(
            f"{image.get_filename()} has an affine that places no voxel: {np.round(affine, 3).tolist()}. Correct the "
            "header (sform and qform), or convert the image again."
        )
    z, y, x = (float(value) for value in np.linalg.norm(affine[:3, :3], axis=0))
    # Without a code the header knows the spacing but not the place, and nibabel makes one up.
    placed = bool(image.header["sform_code"] or image.header["qform_code"])
    return Geometry((depth, height, width), (z, y, x), to_affine(affine) if placed else None)


def _find_affine(image: Any) -> NDArray[np.float64]:
    """Return the sform, or the qform if the sform is singular."""
    affine = np.asarray(image.affine, dtype=np.float64)
    if _is_invertible(affine) or not image.header["qform_code"]:
        return affine
    return np.asarray(image.header.get_qform(), dtype=np.float64)


def _is_invertible(affine: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine)) >= 1e-12)
