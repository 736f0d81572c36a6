"""What libraries say for their own sake is left out, and nothing else is."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from medseg_pl.cli.log_filters import quiet_libraries

NAMES = ("lightning.pytorch", "lightning.fabric", "huggingface_hub")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NAMES}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def told(message: str) -> bool:
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn(message, UserWarning, stacklevel=1)
    return bool(seen)


def test_only_what_a_user_can_do_something_about_is_told() -> None:
    noise = "The `srun` command is available on your system but is not used. HINT: prepend your python command"
    assert told(noise)
    quiet_libraries()
    assert not told(noise)
    assert not told("The 'train_dataloader' does not have many workers which may be a bottleneck")
    assert told("The split has no test cases")
    assert [logging.getLogger(name).getEffectiveLevel() for name in NAMES] == [30, 30, 50]


def test_no_name_of_a_file_commands_the_terminal() -> None:
    lines = [
        "import logging",
        "from medseg_pl.cli.log_filters import quiet_libraries",
        "quiet_libraries()",
        "logging.getLogger('medseg_pl').warning('Case %s is empty.\\nSo is another.', 'a\\x1b[2Jb')",
    ]
    said = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert said.stderr == "Case a\N{REPLACEMENT CHARACTER}[2Jb is empty.\nSo is another.\n"
