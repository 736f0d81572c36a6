"""What holds for every test: no network, one thread, files in a folder that vanishes, shapes checked."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import type_checks

# Before torch, albumentations or wandb is imported, here or in a process that a test starts.
os.environ.update(
    HF_HUB_OFFLINE="1",
    NO_ALBUMENTATIONS_UPDATE="1",
    OMP_NUM_THREADS="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)
# Without a key a run that asks to be online fails instead of being uploaded.
os.environ.pop("WANDB_API_KEY", None)

type_checks.install()  # before the first import of medseg_pl

# The first call of a checked function is slow; a deadline would blame the example.
# On a CI machine the examples are the same in every run: a change is judged by what it changed. Elsewhere they are new.
hypothesis.settings.register_profile("medseg", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("medseg")


def pytest_configure(config: pytest.Config) -> None:
    # A hook and not a fixture, so that the doctests of medseg_pl are covered as well.
    scratch = tempfile.TemporaryDirectory(prefix="medseg-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(scratch.cleanup)
    os.environ["MEDSEG_CACHE"] = str(Path(scratch.name, "cache"))
    os.environ["WANDB_DIR"] = scratch.name
    # Tests send signals to themselves and to what they start; background jobs of a shell and nohup ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_sessionstart() -> None:
    gc.disable()  # imports make millions of objects and hardly any garbage


def pytest_collection_finish() -> None:
    # Modules and tests stay to the end; each full collection would look at them all again.
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; mark the test `realdata`."""
    if not (folder := os.environ.get("MEDSEG_TEST_DATA")):
        pytest.skip("MEDSEG_TEST_DATA is not set: it names the folder of the real data that this test reads.")
    return Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("This user may not mount a file system, which the test needs to fill one.")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
