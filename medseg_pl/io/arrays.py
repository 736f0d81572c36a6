"""Arrays as `.npy` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.io.atomic_files import name_errors


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file, or say that the disk is full.

    `numpy.save` leaves out the error's number, and may lose the end of an array without a word: it does not look at
    what the last flush says.
    """
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    with name_errors(path, path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(contiguous))
        file.write(contiguous.tobytes() if not contiguous.size else contiguous.reshape(-1).view(np.uint8).data)
