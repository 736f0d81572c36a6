"""What a torch checkpoint holds besides its numbers, read without torch: no code runs, weights are shapes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.errors import MissingDataError, UnreadableFileError

_MOST_BYTES = 1 << 26
_CONTENT = "data.pkl"


class TensorShape(NamedTuple):
    """A tensor whose numbers are not read.

    Attributes:
        shape: Its sides.
        dtype: The type of its storage, such as `FloatStorage`.
    """

    shape: tuple[int, ...]
    dtype: str


def read_archive(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `torch.save`, after its checksums, without running code.

    Only containers, texts and numbers are made: every other class that the file names is refused, as
    `torch.load(weights_only=True)` does.

    Args:
        path: The file.

    Returns:
        Its content, with a `TensorShape` for each tensor.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: It is damaged, no checkpoint, or would run code when loaded.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no file {path}. Name a checkpoint, a run folder or a data set.")
    try:
        content = _PlainUnpickler(io.BytesIO(_read_member(path))).load()
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
    except Exception as error:  # a damaged pickle makes its reader stumble in any way
        raise make_checkpoint_error(path, error) from error
    return content


def make_checkpoint_error(path: Path, error: Exception) -> UnreadableFileError:
    """Make the error for a file that cannot be read as a checkpoint."""
    return UnreadableFileError(
        f"{path} is not a checkpoint that medseg fit wrote, or it is damaged "
        f"({type(error).__name__}). Use best.ckpt or last.ckpt of a run folder."
    )


def _read_member(path: Path) -> bytes:
    # torch names the folder inside after the file, or "archive" where it wrote to a stream.
    with zipfile.ZipFile(path) as archive:
        # As in `medseg_pl.models.checkpoint.verify_checksums`: torch skips members that call themselves folders.
        if any(member.external_attr for member in archive.infolist()) or archive.testzip() is not None:
            raise zipfile.BadZipFile("a member is damaged")
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{_CONTENT}")]
        if len(names) != 1 or archive.getinfo(names[0]).file_size > _MOST_BYTES:
            raise zipfile.BadZipFile(f"no single {_CONTENT} of usual size")
        return archive.read(names[0])


def _make_shape(storage: str, offset: int, shape: Sequence[int], *others: Any) -> TensorShape:
    return TensorShape(tuple(int(side) for side in shape), str(storage))


def _take_first(value: Any, *others: Any) -> Any:
    return value


def _make_tuple(values: Sequence[int] = ()) -> tuple[int, ...]:
    return tuple(values)


def _make_text(*parts: Any) -> str:
    return " ".join(str(part) for part in parts)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _make_shape,
    ("torch._utils", "_rebuild_parameter"): _take_first,
    ("torch", "Size"): _make_tuple,
    ("torch", "device"): _make_text,
}


class _PlainUnpickler(pickle.Unpickler):
    """Make containers and texts, a shape for each tensor, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; refuse anything that could run code."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name.isidentifier() and (name.endswith("Storage") or name[-1].isdigit()):
            return name  # a type of numbers, as text
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")

    def persistent_load(self, pid: Any) -> str:
        """Return the type of a storage, whose numbers stay in the file."""
        kind, storage, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError("only storages are kept apart")
        return str(storage)
