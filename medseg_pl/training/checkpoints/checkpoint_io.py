"""Checkpoint files that are written durably, and loaded without running code."""

from __future__ import annotations

import errno
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from medseg_pl.core.errors import UnreadableFileError, UnwritableFileError
from medseg_pl.io.atomic_files import remove_unfinished, reserve_temporary, sync
from medseg_pl.models.checkpoint import MapLocation, load_verified, require_local_file, verify_checksums

log = logging.getLogger(__name__)

LAST = "last.ckpt"
"""The file that a run goes on from."""

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EROFS: "Make the folder writable",
    errno.EACCES: "Make the folder writable",
    errno.EPERM: "Make the folder writable",
}


class DurableCheckpointIO(CheckpointIO):
    """Save through a temporary file, and load only whole, harmless files.

    A file is written under another name in the same folder, synced to the disk, read back, and then renamed: there is
    no moment at which a crash, a full disk or a lost machine leaves less than what was there before. The `last.ckpt`
    before the present one is kept as `last.previous.ckpt`, and loaded where `last.ckpt` is damaged. Nothing that would
    run code is loaded.
    """

    def __init__(self) -> None:
        self._cleaned: set[Path] = set()
        self._whole: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save, or leave everything as it was.

        Raises:
            UnwritableFileError: The file cannot be written; what was there before is still there.
        """
        if storage_options is not None:
            raise TypeError("DurableCheckpointIO takes no storage_options")
        target = Path(path)
        try:
            self._save(checkpoint, target)
        except (OSError, RuntimeError) as error:
            # torch's writer answers a failed write with a RuntimeError of its own.
            if (cause := _find_os_error(error)) is None:
                raise
            raise _make_write_error(target, cause) from error

    def load_checkpoint(
        self, path: str | Path, map_location: MapLocation = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load a verified file, or the kept one before it.

        Args:
            path: A file; never a URL.
            map_location: As `torch.load` takes it.
            weights_only: Has no effect: files that hold more than plain data and tensors are always refused.

        Raises:
            SettingError: The path is a URL.
            MissingDataError: There is no such file.
            UnreadableFileError: The file is damaged or would run code, and none is kept from before.
        """
        return load_or_previous(require_local_file(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file; keep folders, since this class writes none."""
        Path(path).unlink(missing_ok=True)

    def _save(self, checkpoint: dict[str, Any], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent not in self._cleaned:
            remove_unfinished(target.parent)  # of runs that were killed while they saved
            self._cleaned.add(target.parent)
        previous = previous_path(target)
        with reserve_temporary(target) as new, reserve_temporary(previous) as old:
            with new.open("wb") as file:
                torch.save(checkpoint, file)
            sync(new)
            _read_back(new)  # a full or failing disk may accept what it does not keep
            keep = target.name == LAST and self._is_whole(target)
            if keep:
                link_or_copy(target, old)
            new.replace(target)
            if keep:
                old.replace(previous)
        sync(target.parent)  # a rename is on the disk only when its folder is
        self._whole.add(target)

    def _is_whole(self, path: Path) -> bool:
        """Tell whether a file is worth keeping."""
        # A damaged one must not take the place of a good one.
        if path not in self._whole and path.is_file():
            try:
                verify_checksums(path)
            except (OSError, zipfile.BadZipFile):
                return False
            self._whole.add(path)
        return path in self._whole


def previous_path(path: Path) -> Path:
    """Name the file that the one saved before is kept in.

    >>> previous_path(Path("checkpoints/last.ckpt")).as_posix()
    'checkpoints/last.previous.ckpt'
    """
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_or_previous(path: Path, map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Load a checkpoint, or with a warning the one saved before it.

    Raises:
        UnreadableFileError: The file cannot be loaded, and there is none from before that can.
    """
    try:
        return load_verified(path, map_location)
    except UnreadableFileError as error:
        previous = previous_path(path)
        if not previous.is_file():
            raise
        checkpoint = load_verified(previous, map_location)
        log.warning("%s Going on with %s, which was saved before it.", error, previous)
        return checkpoint


def _read_back(path: Path) -> None:
    try:
        verify_checksums(path)
    except zipfile.BadZipFile as error:
        raise OSError(errno.EIO, "what was written cannot be read back") from error


def link_or_copy(path: Path, name: Path) -> None:
    """Give a file a second name: a hard link, else a copy.

    Raises:
        OSError: Neither can be made.
    """
    try:
        name.hardlink_to(path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copyfile(path, name)
        sync(name)


def _find_os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _make_write_error(target: Path, error: OSError) -> UnwritableFileError:
    kept = "The one saved before it is whole and stays" if target.is_file() else "There is none from before"
    remedy = _REMEDIES.get(error.errno or 0, "Check the disk")
    return UnwritableFileError(
        f"The checkpoint {target} could not be saved: {error.strerror or error}. {kept}. {remedy}, then "
        "repeat the command; a training goes on with --ckpt_path last."
    )
