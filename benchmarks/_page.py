"""The page of the documentation that shows what the benchmarks measured last.

python benchmarks/_page.py build/bench docs/benchmarks.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Speed

Each line is what a script of `benchmarks/` printed last: medians of interleaved rounds, beside the peer and in the same
run, on a machine that others use as well. `make bench` runs them all and makes this page anew. What a line was measured
with stands below.

| what | against | promised | measured | | script |
| --- | --- | --- | --- | --- | --- |
"""
VERDICTS = {True: "met", False: "**missed**", None: ""}


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page, from the content of the files by the names of their scripts."""
    lines, conditions, missing = [], [], []
    for name, result in results.items():
        for claim in result["claims"]:
            cells = [claim["what"], claim["against"], claim["target"], claim["measured"], VERDICTS[claim["met"]]]
            lines.append("| " + " | ".join(cells) + f" | `{name}` |")
        if result["claims"]:
            conditions.append(f"- `{name}`: {_conditions(result['conditions'])}")
        else:
            missing.append(f"- `{name}`: {result['left_out']}.")
    text = HEAD + "\n".join(lines) + "\n\n## Measured with\n\n" + "\n".join(conditions) + "\n"
    return text + ("\n## Left out there\n\n" + "\n".join(missing) + "\n" if missing else "")


def _conditions(found: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    cores = f"{found['cores']} core{'' if found['cores'] == 1 else 's'}"
    machine = f"{cores} of {found['processor']}, load {found['load']} at the end"
    return f"{packages}, Python {found['python']}, {machine}."


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not any(result["claims"] for result in results.values()):
        sys.exit(f"{folder} holds no result; make bench writes them.")
    target.write_text(page(results))
    print(f"Wrote {target} from {len(results)} results.")


if __name__ == "__main__":
    main()
