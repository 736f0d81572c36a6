"""The pages are followed, command by command, by somebody who types what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from tests.docs.commands import PAGES, commands
from tests.end_to_end.conftest import SMALL

ONE_PROCESS = (
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.sync_batchnorm=false",
    "--data.samples_per_epoch=8",
)
ADDED = {
    **dict.fromkeys(("crossval", "fit"), (*SMALL, *ONE_PROCESS)),
    "tune": (*SMALL, *ONE_PROCESS, "--trials=1"),
    "phantom": ("--cases=8", "--slices=6", "--size=40x36"),
}
"""What makes a command a matter of seconds, on a machine without a GPU."""


def typed(words: Sequence[str]) -> list[str]:
    """The arguments of `medseg`, with what makes them small, and with patterns as a shell expands them."""
    command, *arguments = words
    # The help of a class is asked for by itself: jsonargparse refuses settings behind it.
    added = () if any(word.endswith(".help") for word in arguments) else ADDED.get(command, ())
    if "--model.network" in arguments:
        added = tuple(option for option in added if "network" not in option)
    expanded = [path for word in arguments for path in (_matches(word) if "/fold*/" in word else [word])]
    return [command, *expanded, *added]


def _matches(pattern: str) -> list[str]:
    found = sorted(str(path) for path in Path().glob(pattern))
    assert found, f"nothing is called {pattern}"
    return found


def run(words: Sequence[str]) -> int:
    """The exit code; asking for help or for the configuration leaves the program."""
    try:
        return main(typed(words))
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "desk"),
    [
        (page, "empty_desk" if page.stem == "start" else "used_desk")
        for page in PAGES
        if page.stem not in ("README", "troubleshooting")  # for the README, see test_wheel
    ],
    ids=str,
    indirect=["desk"],
)
def test_each_command_of_a_page_ends_well(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(Path(__file__).parents[2] / page):
        program, *words = command.words
        if program == "medseg":  # the others are known by name, see test_commands
            assert run(words) == 0, f"{command}\n{capsys.readouterr().err}"
