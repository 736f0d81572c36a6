"""The package as a wheel holds it, built and unpacked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

CLONE = Path.cwd()


def unpack_wheel(folder: Path) -> Path:
    """Build the wheel of this clone into a folder and unpack it there."""
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, str(folder)], capture_output=True, text=True, check=True, cwd=CLONE
    )
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"
