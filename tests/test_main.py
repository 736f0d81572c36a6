"""The entry point: answers at once, dispatches, and turns errors into a sentence."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import medseg_pl
from medseg_pl.__main__ import MODULES, REPEATING, TRAINER_COMMANDS, _pause_collector, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in (*TRAINER_COMMANDS, *REPEATING, *MODULES):
        assert f"\n  {command} " in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    versions = re.escape(f"medseg {medseg_pl.__version__} (torch {version('torch')}, ")
    assert re.fullmatch(
        versions + r"(CUDA [\d.]+|CPU only)(, commit \w{9}( with changes)?)?\)\n", capsys.readouterr().out
    )


def test_without_a_command_it_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: medseg")


def test_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predct"]) == 2
    assert capsys.readouterr().err == "medseg: There is no command 'predct'. Did you mean predict?\n"


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(medseg_pl.core.errors.MissingDataError):
        main(["test", "--debug", "--ckpt_path", "nowhere.ckpt"])


def test_torch_and_torchvision_that_do_not_fit_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> int:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(medseg_pl.__main__, "_dispatch", fail)
    assert main(["fit"]) == 1
    said = capsys.readouterr().err
    assert f"torchvision {version('torchvision')} was not built for torch {version('torch')}" in said
    assert "--force-reinstall torch torchvision" in said
    with pytest.raises(RuntimeError):
        main(["fit", "--debug"])


def test_help_imports_nothing_heavy() -> None:
    asked = "main(['--help']); main(['--version'])"
    code = f"import sys; from medseg_pl.__main__ import main; {asked}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "lightning", "numpy", "jsonargparse"}.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("command", [*TRAINER_COMMANDS, *REPEATING, *MODULES])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as left:
        assert left.code == 0
    usage = " ".join(capsys.readouterr().out.split())
    assert re.match(rf"usage: medseg (\[options\] )?{command} ", usage)


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_as_before_once_a_command_is_imported(collecting: bool) -> None:
    gc.enable() if collecting else gc.disable()
    try:
        with pytest.raises(ZeroDivisionError), _pause_collector():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() is collecting
    finally:
        gc.enable()
