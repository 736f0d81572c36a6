"""Prints the lowest version of each dependency that pyproject.toml allows, as pip constraints."""

import re
import sys
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

# Python 3.10 has no tomllib; the list stands one requirement to a line, so that each can say why.
listed = re.search(r"^dependencies = \[\n(.*?)^\]", PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
if listed is None:
    sys.exit(f"{PYPROJECT}: expected `dependencies = [` with one requirement to a line, found none")

for line in listed[1].splitlines():
    if not line.strip() or line.lstrip().startswith("#"):
        continue
    requirement = re.match(r'\s*"([\w.-]+)(?:\[[\w,-]+\])?(?:>=|==)([\w.]+)', line)
    if requirement is None:
        sys.exit(f'{PYPROJECT}: expected "name>=version" or "name==version", got {line.strip()}')
    print(f"{requirement[1]}=={requirement[2]}")
