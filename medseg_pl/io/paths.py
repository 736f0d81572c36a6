"""Paths of input files: formats by suffix, names without it, and the files below a folder."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from unicodedata import normalize

from medseg_pl.core.errors import MissingDataError

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
    """Find which of `suffixes` a name has, in the name's own spelling.

    Args:
        path: The file, whether it is there or not.
        suffixes: In lower case; double ones stand before the single ones that they end in.

    Returns:
        Empty where the name has none of them.

    >>> find_suffix(Path("case_01.NII.gz")), find_suffix(Path("a.txt"))
    ('.NII.gz', '')
    """
    name = path.name.lower()
    # The first that fits, so double suffixes such as .nii.gz stand before their second half.
    return next((path.name[-len(suffix) :] for suffix in suffixes if name.endswith(suffix)), "")


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file is a readable picture."""
    return bool(find_suffix(path, tuple(PICTURES)))


def is_nifti(path: Path) -> bool:
    """Tell by the name whether a file is NIfTI."""
    return bool(find_suffix(path, tuple(NIFTI)))


def is_itk(path: Path) -> bool:
    """Tell by the name whether a file is MetaImage or NRRD."""
    return bool(find_suffix(path, tuple(ITK)))


def is_volume_name(path: Path) -> bool:
    """Tell by name whether a file is a volume with a grid."""
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


class LeftOut(NamedTuple):
    """An input that is not used.

    Attributes:
        path: A file, or a folder.
        reason: Why, as a sentence.
        kind: `unread` may hold an image, as may `unlisted`, which no list names; a `dead-link` leads to nothing. A
            `repeated-link` leads to what is used under another name, and a `side-file` holds no image.
    """

    path: Path
    reason: str
    kind: Literal["unread", "unlisted", "dead-link", "repeated-link", "side-file"] = "unread"

    @property
    def is_lost(self) -> bool:
        """Whether there may have been an image in it."""
        return self.kind in ("unread", "unlisted", "dead-link")


def list_files(directory: Path) -> Iterator[Path]:
    """Yield every file below a folder, in the order of paths.

    Hidden files and folders are left alone: notebooks keep copies of images in `.ipynb_checkpoints`, and a prediction
    its notes in `.medseg`. Links to folders are followed, each folder once, under its own name where it has one below
    `directory`. A folder that is not there has no files.

    Raises:
        PermissionError: A folder may not be listed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a/c.png", "a/.hidden.png", ".ipynb_checkpoints/b-checkpoint.png"):
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Path(folder, name).touch()
    ...     [path.relative_to(folder).as_posix() for path in list_files(Path(folder))]
    ['a/c.png', 'b.png']
    """
    return (found for found in _walk_tree(directory) if isinstance(found, Path))


def find_dead_links(directory: Path) -> list[LeftOut]:
    """List the links below a folder that are not followed.

    They lead to nothing, or to a folder that is listed under another name.
    """
    return [found for found in _walk_tree(directory) if isinstance(found, LeftOut)]


def _walk_tree(directory: Path) -> Iterator[Path | LeftOut]:
    if directory.is_dir():
        yield from _walk_folder(directory, directory.resolve(), {_identify(directory)})


def _walk_folder(directory: Path, root: Path, seen: set[tuple[int, int]]) -> Iterator[Path | LeftOut]:
    """Yield the files of a folder, and the links that are not followed.

    Args:
        directory: The folder.
        root: Where the walk began, without links.
        seen: The folders that were entered, which a circle of links would enter again.
    """
    with os.scandir(directory) as entries:
        # Sorted, since the order of a folder is the file system's, and splits follow from the order of cases.
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        path = Path(entry.path)
        if entry.is_file(follow_symlinks=False) or path.is_file():  # the second knows circles of links
            yield path
        elif not path.is_dir():
            if entry.is_symlink():
                yield LeftOut(path, "The link leads to nothing.", "dead-link")
        elif entry.is_symlink() and root.is_relative_to(path.resolve()):
            yield LeftOut(path, f"The link leads to {path.resolve().name}, which it lies in.", "repeated-link")
        elif entry.is_symlink() and _is_listed_elsewhere(path.resolve(), root):
            yield LeftOut(path, f"The link leads to {path.resolve().name}, read under its own name.", "repeated-link")
        elif (identity := _identify(path)) in seen:
            yield LeftOut(path, f"The folder {path.resolve().name} is read under another name.", "repeated-link")
        else:
            seen.add(identity)
            yield from _walk_folder(path, root, seen)


def _is_listed_elsewhere(target: Path, root: Path) -> bool:
    """Tell whether the walk finds a folder below the root without links."""
    if not target.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in target.relative_to(root).parts)


def _identify(directory: Path) -> tuple[int, int]:
    # By device and inode: a bind mount or a link has another path and the same folder.
    state = directory.stat()
    return state.st_dev, state.st_ino


def require_folder(directory: Path, what: str, remedy: str) -> Path:
    """Return a folder that must exist.

    Args:
        directory: The folder.
        what: What it should hold, for the error.
        remedy: The last sentence of the error.

    Raises:
        MissingDataError: There is no such folder.
    """
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        # The shipped demo trains on synthetic data, which a command makes within seconds.
        made = f"Make it: medseg phantom {shlex.quote(str(directory))}. " if directory.name == "phantom" else ""
        hint = suggest_similar(directory, Path.is_dir)
        raise MissingDataError(f"Expected {what} in the folder {directory}, found {found} there. {made}{hint}{remedy}")
    return directory


_SIMILAR = 0.7
"""The share of letters in common from which one name may be the other; two letters exchanged in four leave 0.75."""


def suggest_similar(path: Path, is_wanted: Callable[[Path], bool] = Path.exists) -> str:
    """Ask whether a path of nearly the same name was meant; empty if none is there."""
    near = find_similar_path(path, is_wanted)
    return f"Did you mean {shlex.quote(str(near))}? " if near is not None else ""


def find_similar_path(path: Path, is_wanted: Callable[[Path], bool] = Path.exists) -> Path | None:
    """Find a path whose parts are nearly called as those of a missing one.

    Args:
        path: The missing file or folder.
        is_wanted: Whether what was found is what was looked for.
    """
    found = Path()
    for part in path.parts:
        if not (found / part).exists():
            try:
                # By stems, since a file may be there with another suffix, such as .yaml for .yml.
                others = {other.stem: other for other in sorted(found.glob("[!.]*"))}
            except OSError:
                return None
            near = difflib.get_close_matches(Path(part).stem, others, n=1)
            if not near:
                return None
        found = found / part if (found / part).exists() else others[near[0]]
    if found == path or not is_wanted(found):
        return None
    # Without what both begin with: below a long folder any two paths are alike.
    first = next(place for place, parts in enumerate(zip(path.parts, found.parts, strict=True)) if len(set(parts)) > 1)
    return found if is_similar(Path(*path.parts[first:]), Path(*found.parts[first:])) else None


def is_similar(path: Path, other: Path) -> bool:
    """Tell whether one path may be the other, misspelled.

    The whole paths have to be alike, and so have the names of the files: a folder in common says nothing of a file.

    >>> is_similar(Path("configs/demmo.yml"), Path("configs/demo.yaml"))
    True
    >>> is_similar(Path("confgs/x.yaml"), Path("configs/model/unet.yaml"))
    False
    """
    pairs = ((path.stem, other.stem), (path.as_posix(), other.as_posix()))
    return all(difflib.SequenceMatcher(None, *pair).ratio() >= _SIMILAR for pair in pairs)
