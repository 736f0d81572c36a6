"""Versions of what is installed, and the commit of the code that runs; imports none of the packages."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def find_version(package: str) -> str | None:
    """Find the version of an installed package in its metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def find_cuda() -> str | None:
    """Find the CUDA version of torch without importing torch."""
    # The wheel's version says it only where the index had several; this file always does.
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        return None
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", file.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else None


def read_own_git_state() -> dict[str, Any] | None:
    """Read the git state of the clone that medseg runs from.

    Returns:
        As `read_git_state`; `None` for an installed package.
    """
    package = Path(__file__).resolve().parents[1]
    # Of an installed package it would be the commit of whatever repository lies around it.
    return read_git_state(package) if (package.parent / "pyproject.toml").is_file() else None


def describe_versions(own: str) -> str:
    """Describe medseg, torch, CUDA and the commit in one line.

    Args:
        own: The version of medseg.
    """
    git = read_own_git_state()
    commit = f", commit {git['commit'][:9]}{' with changes' if git['dirty'] else ''}" if git else ""
    cuda = find_cuda()
    return f"medseg {own} (torch {find_version('torch')}, {f'CUDA {cuda}' if cuda else 'CPU only'}{commit})"


def describe_torchvision_mismatch() -> str:
    """Explain how to repair torch and torchvision versions that do not match."""
    return (
        f"torchvision {find_version('torchvision')} was not built for torch {find_version('torch')}. Install both from "
        "one index: pip install --force-reinstall torch torchvision; without a GPU add --index-url "
        "https://download.pytorch.org/whl/cpu"
    )


def read_git_state(directory: Path) -> dict[str, Any] | None:
    """Read a repository's commit, and whether files differ from it.

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
