"""A folder is one process's while that process lives; results stay, and whoever stops leaves nothing half written."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medseg_pl.core.errors import FolderLockedError, OutputExistsError
from medseg_pl.io.folders import LOCK, FolderLocks, OutputFolder
from tests.sample_files import results, tree
from tests.subprocess_holder import working_in

HOLD = """
import os, sys, time
from pathlib import Path
from medseg_pl.io.folders import FolderLocks

locks = FolderLocks()
locks.acquire(Path(sys.argv[1]))
if not os.fork():  # as those that load data are
    print(os.getpid(), flush=True)  # by itself: only then has it let go of the lock
time.sleep(600)
"""


def taken_by_another(folder: Path) -> str:
    """What another process says that tries to have the lock."""
    take = f"import fcntl; fcntl.flock(open({str(folder / LOCK)!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", take], capture_output=True, text=True, check=False).stderr


def test_a_second_process_is_refused_until_the_first_one_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    with FolderLocks() as locks:
        with pytest.raises(FolderLockedError, match=rf"^{tmp_path} is in use: process {holder.pid} on .+ works in it"):
            locks.acquire(tmp_path)
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # still alive
        locks.acquire(tmp_path)
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        locks.acquire(tmp_path)  # ours already
    os.kill(child, signal.SIGKILL)
    holder.stdout.close()
    assert (tmp_path / LOCK).read_text() == "", "whoever has left is not named"


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    FolderLocks().acquire(tmp_path)
    assert f"{tmp_path} is on a file system without locks" in caplog.text


def test_a_full_disk_does_not_keep_a_lock_from_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", refuse)
    with FolderLocks() as locks:
        locks.acquire(tmp_path)
        assert "BlockingIOError" in taken_by_another(tmp_path)
    assert taken_by_another(tmp_path) == ""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image.png").write_bytes(b"pixels")
    return tmp_path / "image.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@contextmanager
def begun(folder: Path) -> Iterator[OutputFolder]:
    """A run from its begin to its end."""
    with FolderLocks() as locks:
        output = OutputFolder(folder, {"model": "a"}, locks)
        output.begin()
        yield output


def test_a_case_is_there_when_it_is_whole(folder: Path, image: Path) -> None:
    with begun(folder) as output:
        with pytest.raises(RuntimeError, match="in the middle"), output.case("one", [image]) as stage:
            (stage / "mask.png").write_bytes(b"half")
            raise RuntimeError("in the middle")
        assert results(folder) == {}
        assert not output.is_finished("one", [image])
        with output.case("one", [image]) as stage:
            (stage / "masks").mkdir()
            (stage / "masks" / "one.png").write_bytes(b"whole")
        assert results(folder) == {"masks/one.png": b"whole"}
        assert output.is_finished("one", [image])
        image.write_bytes(b"other pixels")
        assert not output.is_finished("one", [image])


def test_an_input_edited_under_its_old_time_is_done_again(folder: Path, image: Path) -> None:
    with begun(folder) as output:
        with output.case("one", [image]) as stage:
            (stage / "one.png").write_bytes(b"whole")
        before = image.stat()
        image.write_bytes(b"slexip")
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not output.is_finished("one", [image])


def test_a_copy_of_the_input_is_the_same_input(folder: Path, image: Path, tmp_path: Path) -> None:
    with begun(folder) as output:
        with output.case("one", [image]) as stage:
            (stage / "one.png").write_bytes(b"whole")
        (tmp_path / "scratch").mkdir()
        copied = Path(shutil.copy(image, tmp_path / "scratch"))
        assert output.is_finished("one", [copied])


def test_a_run_that_was_killed_is_taken_up_wherever_it_was(folder: Path) -> None:
    """Before its record was there, while a file was written, and while a case was."""
    own = folder / ".medseg"
    own.mkdir(parents=True)
    (own / ".writing-record.json").touch()
    with begun(folder):
        pass
    assert sorted(tree(own)) == [LOCK, "record.json"]
    (own / "stage-1").mkdir()
    (own / "stage-1" / "mask.png").write_bytes(b"half")
    (folder / ".writing-table.csv").write_bytes(b"half")
    with begun(folder):
        pass
    assert sorted(tree(folder)) == [f".medseg/{LOCK}", ".medseg/record.json"]
    assert sorted(path.name for path in own.iterdir()) == [LOCK, "record.json"]


@pytest.mark.parametrize("record", [None, "b"])
def test_what_is_there_of_others_stays(folder: Path, record: str | None) -> None:
    folder.mkdir()
    (folder / "mine.txt").touch()
    if record:
        (folder / ".medseg").mkdir()
        (folder / ".medseg" / "record.json").write_text(record)
    before = tree(folder)
    with pytest.raises(OutputExistsError, match=str(folder)), begun(folder):
        pass
    assert tree(folder) == before


def test_a_second_run_leaves_the_first_one_alone(folder: Path) -> None:
    with begun(folder):
        pass
    half = folder / ".medseg" / "stage-1" / "mask.png"
    half.parent.mkdir()
    half.write_bytes(b"half")
    with working_in(folder / ".medseg") as other:
        with pytest.raises(FolderLockedError, match=rf"is in use: process {other} on"), begun(folder):
            pass
        assert half.read_bytes() == b"half"
    with begun(folder):
        assert not half.exists(), "nobody else is there, so it is left over"


@pytest.mark.parametrize("lost", ["gone", "empty"])
def test_a_case_whose_result_is_lost_is_done_again(folder: Path, image: Path, lost: str) -> None:
    with begun(folder) as output:
        with output.case("one", [image]) as stage:
            (stage / "one.png").write_bytes(b"whole")
        (folder / "one.png").write_bytes(b"edited by hand")
        assert output.is_finished("one", [image])
        if lost == "gone":
            (folder / "one.png").unlink()
        else:
            (folder / "one.png").write_bytes(b"")
        assert not output.is_finished("one", [image])
