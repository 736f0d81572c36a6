"""How much a file may claim to hold: looked up in its header, before anything is decoded.

A claim is not weighed against the size of the file, save where a format sets a bound (gzip): an empty mask shrinks a
thousandfold, as a bomb does. What matters is that no decoder of medseg writes more than was claimed.
"""

from __future__ import annotations

from pathlib import Path

from medseg_pl.core.errors import UnreadableFileError

MAX_PIXELS = 400_000_000
"""Of a picture: a file of 100 KB can ask for gigabytes."""

MAX_VOXELS = 4_000_000_000
"""Of a volume, channels included."""

MAX_ITEM_BYTES = 8
"""Of a pixel or voxel, where there are as many as there may be: enough for four channels of 16 bits."""

MAX_BEHIND_BYTES = 1 << 26
"""Of what is no image: a header with its extensions, or anything behind the last voxel."""


def check_claim(path: Path, count: int, most: int, unit: str, item_bytes: int = 1) -> None:
    """Check that a file claims no more than a file can mean.

    Args:
        path: The file.
        count: The pixels or voxels that it claims.
        most: The largest number.
        unit: What they are called.
        item_bytes: Bytes that each takes in memory, channels included.

    Raises:
        UnreadableFileError: The file claims more.
    """
    if count > most:
        raise make_size_error(path, most, unit)
    if count * item_bytes > most * MAX_ITEM_BYTES:
        raise make_size_error(path, most * MAX_ITEM_BYTES, "bytes")


def make_size_error(path: Path, limit: int, unit: str) -> UnreadableFileError:
    """Make the error for a file that claims more than a limit."""
    return UnreadableFileError(
        f"{path} claims more than {limit:,} {unit} and is not decoded. Divide it, or remove it from the data set."
    )


def make_decoding_error(path: Path, error: BaseException, what: str) -> UnreadableFileError:
    """Make the error for a file that its library cannot decode.

    Args:
        path: The file.
        error: What the library raised.
        what: What could not be done, such as `be decoded as an image`.
    """
    size = path.stat().st_size if path.exists() else 0
    return UnreadableFileError(f"{path} ({size} bytes) cannot {what}: {error}. Replace it with an intact copy.")
