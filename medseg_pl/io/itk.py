"""MetaImage and NRRD volumes, on the same grid in memory as NIfTI: `(C, D, H, W)`, affines in RAS.

ITK counts millimeters to the left and back (LPS), NIfTI to the right and front (RAS): the first two rows change sign.
Headers are read as text first: what a file claims, before its library sees it.
"""

from __future__ import annotations

import math
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, MissingDataError, UnreadableFileError
from medseg_pl.core.geometry import Geometry, to_affine
from medseg_pl.io import size_limits
from medseg_pl.io.atomic_files import require_absent, write_atomically
from medseg_pl.io.paths import find_suffix

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])
_DETACHED = (".mhd", ".nhdr")
_READ = "be read as MetaImage or NRRD"
_BLOCK = 1 << 16  # unpacks to 64 MiB at most


@cache
def _import_sitk() -> Any:
    """Import SimpleITK late: it takes 0.2 s, and few files need it."""
    import SimpleITK as sitk  # noqa: N813, PLC0415  its own documentation calls it so

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters of them is raised here, with the file's name
    return sitk


def read_itk(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a volume as `(C, D, H, W)` with its geometry.

    A scaling in the header is applied. Components of a voxel, and a fourth axis, are channels. Values keep the type on
    disk unless they are scaled or `float64`; then they are `float32`.

    Raises:
        MissingDataError: A file does not exist.
        UnreadableFileError: The file is damaged, too large, or has more than four axes.
    """
    header = _check_header(path)
    _check_packed(path, header)
    try:
        image = _import_sitk().ReadImage(str(path))
    except RuntimeError as error:
        raise size_limits.make_decoding_error(path, _extract_reason(error), _READ) from error
    data: NDArray[Any] = _import_sitk().GetArrayFromImage(image)
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
    return np.ascontiguousarray(data), _make_geometry(image, header, data.shape[1:], path)


def read_itk_geometry(path: Path) -> Geometry:
    """Read the grid of a volume from its header."""
    header, reader = _check_header(path), _open(path)
    x, y, z = (*reader.GetSize(), 1, 1)[:3]
    return _make_geometry(reader, header, (z, y, x), path)


def write_itk_mask_like(path: Path, mask: NDArray[Any], template: Path) -> None:
    """Write `(D, H, W)` label values on the grid of `template`, compressed.

    `.mhd` and `.nhdr` get a second file for the voxels.
    """
    unit_mm = _check_header(template).unit_mm
    reader = _open(template)
    axes = min(reader.GetDimension(), 3)  # a fourth axis holds channels, of which a mask has none
    image = _import_sitk().GetImageFromArray(np.ascontiguousarray(mask[0] if axes == 2 else mask))
    image.SetSpacing([unit_mm * length for length in reader.GetSpacing()[:axes]])
    image.SetOrigin([unit_mm * length for length in reader.GetOrigin()[:axes]])
    image.SetDirection(_get_direction(reader)[:axes, :axes].ravel().tolist())
    if find_suffix(path).lower() in _DETACHED:
        _write_pair(path, image)
        return
    with write_atomically(path) as temporary:
        _import_sitk().WriteImage(image, str(temporary), useCompression=True)


def find_data_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that hold the voxels of `.mhd` and `.nhdr` headers.

    Other files have none, and neither has a header that cannot be read: its reader reports that.
    """
    for path in paths:
        if find_suffix(path).lower() in _DETACHED:
            with suppress(DataError):
                header = read_itk_header(path)
                if header.data != path:
                    yield header.data


def _check_header(path: Path) -> ItkHeader:
    header = read_itk_header(path)
    size_limits.check_claim(path, header.voxels, size_limits.MAX_VOXELS, "voxels", header.item_bytes)
    if header.overblown or header.cut_off:
        raise UnreadableFileError(
            f"{path} claims {header.voxels * header.item_bytes:,} bytes of voxels, more than the "
            f"{header.data.stat().st_size:,} bytes of {header.data.name} hold. Replace it with an intact copy."
        )
    return header


def _check_packed(path: Path, header: ItkHeader) -> None:
    """Check that the voxels of a compressed MetaImage unpack whole, which ITK does not ask."""
    if not header.compressed or header.offset is None or "ElementDataFile" not in header.fields:
        return
    packed, held = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), 0
    with header.data.open("rb") as file:
        file.seek(header.offset)
        try:
            while (block := file.read(_BLOCK)) and not packed.eof:
                held += len(packed.decompress(block))
        except zlib.error as error:
            raise size_limits.make_decoding_error(path, error, _READ) from error
    if not packed.eof or held != header.voxels * header.item_bytes:
        raise UnreadableFileError(
            f"{path} should unpack to {header.voxels * header.item_bytes:,} bytes of voxels, and {held:,} came. "
            "Replace it with an intact copy."
        )


def _open(path: Path) -> Any:
    reader = _import_sitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise size_limits.make_decoding_error(path, _extract_reason(error), _READ) from error
    return reader


def _extract_reason(error: RuntimeError) -> RuntimeError:
    """Shorten an ITK error, which names source lines, to its last sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RuntimeError(lines[-1] if lines else "ITK gives no reason")


def _get_direction(image: Any) -> NDArray[np.float64]:
    axes = image.GetDimension()
    return np.asarray(image.GetDirection(), dtype=np.float64).reshape(axes, axes)


def _make_geometry(image: Any, header: ItkHeader, shape: tuple[int, ...], path: Path) -> Geometry:
    depth, height, width = shape
    axes = min(image.GetDimension(), 3)
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    spacing[:axes] = image.GetSpacing()[:axes]
    origin[:axes] = image.GetOrigin()[:axes]
    direction[:axes, :axes] = _get_direction(image)[:axes, :axes]
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
        to_affine(affine) if header.placed else None,
    )


def _write_pair(path: Path, image: Any) -> None:
    """Write header and voxels under their final names elsewhere, then move both."""
    require_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        header = Path(folder) / path.name
        _import_sitk().WriteImage(image, str(header), useCompression=True)
        for data in find_data_files([header]):
            require_absent(path.with_name(data.name))
            data.replace(path.with_name(data.name))
        header.replace(path)


_MOST_HEADER_BYTES = 1 << 22
_MOST_AXES = 5
# Deflate packs no tighter: a file that claims more than this cannot hold it
_DEFLATE_RATIO = 1032
_META_BYTES = {
    **dict.fromkeys(("CHAR", "UCHAR"), 1),
    **dict.fromkeys(("SHORT", "USHORT"), 2),
    **dict.fromkeys(("INT", "UINT", "FLOAT"), 4),
    **dict.fromkeys(("LONG", "ULONG", "LONG_LONG", "ULONG_LONG", "DOUBLE"), 8),
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
}
_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "μm": 0.001, "microns": 0.001, "nm": 1e-6}


@dataclass(frozen=True)
class ItkHeader:
    """The header of a MetaImage or NRRD file.

    Args:
        axes: How many axes the file has, that of channels included.
        voxels: How many values, channels included.
        item_bytes: Bytes of each.
        compressed: Whether the voxels are.
        data: The file with the voxels: the file itself, or one beside it.
        offset: Where they begin in it, `None` where that is unknown.
        placed: Whether it knows its place in space.
        spaced: Whether it knows the spacing.
        unit_mm: A unit of length in millimeters.
        packed_bytes: How many bytes the compressed voxels take; 0 where the file does not say.
        scaling: Slope and intercept that the file asks for, and its library does not apply.
        fields: All fields by name, NRRD's in lower case; its keys, such as `Segment0_Name`, as they stand.
    """

    axes: int
    voxels: int
    item_bytes: int
    compressed: bool
    data: Path
    offset: int | None
    placed: bool
    spaced: bool
    unit_mm: float
    packed_bytes: int
    scaling: tuple[float, float]
    fields: dict[str, str]

    @property
    def cut_off(self) -> bool:
        """Whether the file is too short for what it claims to hold."""
        held = self.data.stat().st_size - (self.offset or 0)
        if self.compressed:
            return held < self.packed_bytes
        return self.offset is not None and held < self.voxels * self.item_bytes

    @property
    def overblown(self) -> bool:
        """Whether no compression packs so much into so few bytes."""
        return self.voxels * self.item_bytes > self.data.stat().st_size * _DEFLATE_RATIO


def read_itk_header(path: Path) -> ItkHeader:
    """Read and check a header without reading voxels.

    Raises:
        MissingDataError: The file, or the one with its voxels, does not exist.
        UnreadableFileError: The header is damaged, or its voxels lie in several files or in another folder.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist.")
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES)
    try:
        return _parse_nrrd(path, head) if head.startswith(b"NRRD") else _parse_meta_image(path, head)
    except KeyError as error:
        raise size_limits.make_decoding_error(path, ValueError(f"the field {error} is missing"), _READ) from error
    except (ValueError, OverflowError) as error:
        raise size_limits.make_decoding_error(path, error, _READ) from error


def _parse_meta_image(path: Path, head: bytes) -> ItkHeader:
    fields: dict[str, str] = {}
    offset = 0
    for line in head.splitlines(keepends=True):
        offset += len(line)
        match = re.fullmatch(rb"\s*([^=:]*?)\s*[=:]\s*(.*?)\s*", line, re.DOTALL)
        if match is None or (b"ElementDataFile" in match[1] and match[1] != b"ElementDataFile"):
            raise ValueError(f"expected 'Key = value', got {line[:40]!r}")
        fields[match[1].decode("utf-8", "replace")] = match[2].decode("utf-8", "replace")
        if match[1] == b"ElementDataFile":
            break
    sizes = _parse_sizes(fields["DimSize"], int(fields["NDims"]))
    channels = int(fields.get("ElementNumberOfChannels", 1))
    kind = fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")
    name = fields["ElementDataFile"]
    text = fields.get("BinaryData", "True").lower() in ("false", "0")
    local = name.upper() == "LOCAL"
    return ItkHeader(
        axes=len(sizes) + (channels > 1),
        voxels=math.prod(sizes) * _check_size(channels),
        item_bytes=_META_BYTES[kind],
        compressed=fields.get("CompressedData", "False").lower() in ("true", "1"),
        data=path if local else _find_data(path, name),
        offset=None if text else offset if local else max(0, int(fields.get("HeaderSize", 0))),
        placed=bool({"TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin"} & set(fields)),
        spaced=bool({"ElementSpacing", "ElementSize"} & set(fields)),
        unit_mm=_parse_unit(fields.get("DistanceUnits", "mm")),
        packed_bytes=int(fields.get("CompressedDataSize", 0) or 0),
        scaling=(
            float(fields.get("ElementToIntensityFunctionSlope", 1)),
            float(fields.get("ElementToIntensityFunctionOffset", 0)),
        ),
        fields=fields,
    )


def _parse_nrrd(path: Path, head: bytes) -> ItkHeader:
    text, blank, _ = head.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\n")[1:]:
        if line.startswith("#") or not line.strip():
            continue
        key, mark, value = _partition(line)
        name = key if mark == ":=" else key.strip().lower().replace("datafile", "data file")
        if name in fields:
            raise ValueError(f"the field {key!r} stands twice")
        fields[name] = value.strip()
    sizes = _parse_sizes(fields["sizes"], int(fields["dimension"]))
    encoding, detached = fields["encoding"].lower(), fields.get("data file")
    skips = int(fields.get("byte skip", 0)) or int(fields.get("line skip", 0))
    start = len(text) + head.count(b"\r\n", 0, len(text)) + len(blank)
    return ItkHeader(
        axes=len(sizes),
        voxels=math.prod(sizes),
        item_bytes=_NRRD_BYTES[fields["type"].lower()],
        compressed=encoding in ("gz", "gzip", "bz2", "bzip2"),
        data=path if detached is None else _find_data(path, detached),
        offset=None if encoding not in ("raw", "gz", "gzip") or skips else 0 if detached else start,
        placed="space directions" in fields and bool({"space", "space dimension"} & set(fields)),
        spaced=bool({"space directions", "spacings"} & set(fields)),
        unit_mm=_parse_unit(fields.get("space units", fields.get("units", "mm"))),
        packed_bytes=0,
        scaling=(1.0, 0.0),
        fields=fields,
    )


def _partition(line: str) -> tuple[str, str, str]:
    """Split `key:=value` or `field: value`, whichever comes first."""
    mark = min((mark for mark in (":=", ": ") if mark in line), key=line.index, default=":")
    key, found, value = line.partition(mark)
    if not found:
        raise ValueError(f"expected 'field: value', got {line[:40]!r}")
    return key, mark, value


def _find_data(path: Path, name: str) -> Path:
    """Find the file of voxels, which must lie in its header's folder."""
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"its voxels lie in several files ({name}); save it as one file, .mha or .nrrd")
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"it names its voxels {name[:60]!r}, outside its own folder; put both files into one folder")
    data = path.with_name(name)
    if not data.is_file():
        raise MissingDataError(f"{path} names its voxels {name}, which does not exist. Put it beside the header.")
    if not data.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(f"its voxels {name!r} are a link that leaves the folder; put the file itself there")
    return data


def _parse_sizes(text: str, count: int) -> list[int]:
    sizes = [_check_size(int(part)) for part in text.split()]
    if len(sizes) != count or not 2 <= count <= _MOST_AXES:
        raise ValueError(f"it has the size {text[:60]!r} and {count} axes; expected 2 to 4")
    return sizes


def _check_size(size: int) -> int:
    if size < 1:
        raise ValueError(f"a length of {size}; expected at least 1")
    return size


def _parse_unit(text: str) -> float:
    """Convert a unit to millimeters.

    Axes without a known unit are in millimeters.

    >>> _parse_unit('"m" "m" "m"'), _parse_unit("mm")
    (1000.0, 1.0)
    """
    known = {_MM[word] for word in re.split(r'[\s"]+', text) if word in _MM}
    if len(known) > 1:
        raise ValueError(f"its axes have several units of length, {text}; convert them to mm")
    return known.pop() if known else 1.0
