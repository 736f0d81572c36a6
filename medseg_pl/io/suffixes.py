"""Table of the formats that are read, by the end of a file's name."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

PICTURES = {
    **{".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"},
    **{".gif": "GIF", ".webp": "WebP", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000"},
}
"""Suffixes of pictures, with the format that each promises. A TIFF may also hold a stack."""

NIFTI = {".nii.gz": "gzip", ".nii": "NIfTI"}
ITK = {".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".nhdr": "NRRD"}
VOLUMES = {**NIFTI, **ITK}
"""Suffixes of volumes; a double suffix comes before the single one that it ends in."""

IMAGES = (*PICTURES, *VOLUMES)
"""Suffixes of all formats with one image in a file."""

DICOM = {".dcm": "DICOM", ".dicom": "DICOM", ".ima": "DICOM"}
"""Suffixes of DICOM files, which often have none."""

DETACHED = (".raw.gz", ".raw.bz2", ".raw", ".zraw", ".img")
"""Suffixes of the voxels that a `.mhd` or `.nhdr` header names."""


def find_suffix(path: Path, suffixes: tuple[str, ...] = IMAGES) -> str:
    """Find the suffix of a name among `suffixes`, as the name spells it; empty where there is none.

    >>> find_suffix(Path("case_01.NII.gz")), find_suffix(Path("a.txt"))
    ('.NII.gz', '')
    """
    name = path.name.lower()
    return next((path.name[-len(suffix) :] for suffix in suffixes if name.endswith(suffix)), "")


def is_picture(path: Path) -> bool:
    """Tell by the name whether a file is a picture that is read."""
    return bool(find_suffix(path, tuple(PICTURES)))


def is_nifti(path: Path) -> bool:
    """Tell by the name whether a file is NIfTI."""
    return bool(find_suffix(path, tuple(NIFTI)))


def is_itk(path: Path) -> bool:
    """Tell by the name whether a file is MetaImage or NRRD."""
    return bool(find_suffix(path, tuple(ITK)))


def is_volume_name(path: Path) -> bool:
    """Tell by the name whether a file is a volume in a format that knows its grid."""
    return bool(find_suffix(path, tuple(VOLUMES)))


def stem(path: Path) -> str:
    """Return the name without its suffix, a double one included.

    >>> stem(Path("case_01.nii.gz"))
    'case_01'
    """
    suffix = find_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def name_below(path: Path, directory: Path) -> str:
    """Name a file by its path below a folder, without suffix.

    Letters with accents are one character each (NFC), as Linux and Windows write them; macOS takes them apart (NFD),
    and the two look the same.

    >>> name_below(Path("masks/p1/a.nii.gz"), Path("masks"))
    'p1/a'
    """
    return normalize("NFC", path.relative_to(directory).with_name(stem(path)).as_posix())


def promised_format(path: Path) -> str | None:
    """Return the format that a name promises, `None` where it promises none.

    >>> promised_format(Path("a.nii.gz")), promised_format(Path("a.JPG"))
    ('gzip', 'JPEG')
    """
    formats = {**VOLUMES, **PICTURES, **DICOM, ".gz": "gzip"}
    return formats.get(find_suffix(path, tuple(formats)).lower())
