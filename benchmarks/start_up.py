"""Start-up: `medseg --help` and `--version` against an interpreter that does nothing.

python benchmarks/start_up.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "medseg --help": [sys.executable, "-m", "medseg_pl", "--help"],
    "medseg --version": [sys.executable, "-m", "medseg_pl", "--version"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:18} {median:6.3f} s  {median / bare:4.1f} times the interpreter (median of {ROUNDS} rounds)")


if __name__ == "__main__":
    main()
