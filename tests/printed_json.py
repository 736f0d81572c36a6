"""A command's result as `--json` prints it."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import Any, NoReturn

from medseg_pl.__main__ import main


def run_json(*words: object) -> tuple[int, Any]:
    """Run a command with `--json`; return its exit code and what it prints, which no other line may break."""
    with redirect_stdout(io.StringIO()) as printed:
        code = main([*map(str, words), "--json"])
    return code, json.loads(printed.getvalue(), parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")
