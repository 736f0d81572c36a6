"""What git says about the code that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def read_git_state(directory: Path) -> dict[str, Any] | None:
    """Read the commit of a folder's repository, and whether its files differ from it.

    Args:
        directory: Anywhere within the repository.

    Returns:
        `commit` and `dirty`, no names and no addresses; `None` outside of a repository, before its first commit, or
        without git.
    """
    commit = _run_git(directory, "rev-parse", "--verify", "HEAD")
    changes = _run_git(directory, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _run_git(directory: Path, *arguments: str) -> str | None:
    # A repository's own settings may name a program to run for `status`; reading its state must not.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(directory), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
