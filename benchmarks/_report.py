"""What all benchmarks share: turns in rounds, medians, the claims that are measured, and a file of them.

Each script prints as it goes and ends with `finish`; `make bench` collects the files, of which `_page.py` makes a page.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

ALWAYS = ("medseg", "torch", "lightning", "numpy")


class Claim(NamedTuple):
    """A figure with what was promised.

    Attributes:
        what: That was measured.
        against: The peer.
        target: What was promised, for people.
        measured: What came out, for people.
        met: Whether it was kept; `None` where nothing was promised.
    """

    what: str
    against: str
    target: str
    measured: str
    met: bool | None = None


def taken(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def medians(contenders: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each, in turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            spent = taken(run)
            if number:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def finish(claims: Iterable[Claim], details: Any, packages: Iterable[str] = (), *, cores: int | None = None) -> None:
    """Print the claims and what they were measured with; write both where a file is named.

    Args:
        claims: What the script shows; none where it could not run here.
        details: All numbers.
        packages: The peers.
        cores: How many were used, if not all.
    """
    listed = list(claims)
    for claim in listed:
        verdict = {True: "met", False: "MISSED", None: ""}[claim.met]
        print(f"-> {claim.what}, against {claim.against}: {claim.measured} (target: {claim.target}) {verdict}".rstrip())
    conditions = {
        "packages": {name: _version(name) for name in (*ALWAYS, *packages)},
        "python": platform.python_version(),
        "processor": find_processor(),
        "cores": cores or len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    print(", ".join(f"{name} {number}" for name, number in conditions["packages"].items()), end="")  # type: ignore[attr-defined]
    print(f"; {conditions['cores']} cores, load {conditions['load']} at the end")
    if len(sys.argv) > 1 and sys.argv[-1].endswith(".json"):
        result = {"claims": [claim._asdict() for claim in listed], "conditions": conditions, "details": details}
        Path(sys.argv[-1]).write_text(json.dumps(result, indent=1) + "\n")


def list_left_out(why: str) -> None:
    """End without a figure, and say why."""
    print(f"left out: {why}")
    if len(sys.argv) > 1 and sys.argv[-1].endswith(".json"):
        Path(sys.argv[-1]).write_text(json.dumps({"claims": [], "left_out": why}, indent=1) + "\n")


def find_processor() -> str:
    """Its name and whether it computes in bf16, on Linux; elsewhere what Python knows of it.

    With `ONEDNN_MAX_CPU_ISA=AVX2` it computes as processors without bf16 do.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = known.get("flags", known.get("Features", "")).split()
    bf16 = next((flag for flag in ("amx_bf16", "avx512_bf16", "bf16") if flag in flags), "no bf16")
    held = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{known.get('model name', platform.machine())} ({f'held at {held}' if held else bf16})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
