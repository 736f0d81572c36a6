"""What commands print fits 80 columns, is plain text in a pipe, and obeys NO_COLOR and TERM=dumb."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medseg_pl.__main__ import MODULES, TRAINER_COMMANDS, main
from medseg_pl.io.progress import can_redraw, show_progress
from medseg_pl.io.raster import write_png
from tests.end_to_end.conftest import SMALL
from tests.terminal import Screen, terminal, too_wide

pytestmark = pytest.mark.processes

LONG = "whose_name_is_far_longer_than_a_terminal_is_wide_as_in_a_nomenclature_of_all_anatomy"
LABELS = (f"a_structure_{LONG}", "a label with spaces")
NAMED = ("--labels", ",".join(LABELS), "--group", r"^(patient\d+)_")
BEST = "runs/default/version_0/checkpoints/best.ckpt"
FIT = (
    *("fit", "--config", "configs/data/folder.yaml", "--config", "configs/model/tiny.yaml"),
    *("--config", "configs/trainer/cpu.yaml", *SMALL, "--data.source.root", "data"),
    *("--data.source.group", r"^(patient\d+)_", "--model.labels.names", json.dumps(LABELS)),
    *("--model.labels.task=multiclass", "--model.channels=1", "--model.normalization=ZScore"),
    *("--data.split_fractions=[0.5,0.25,0.25]", "--trainer.max_epochs=2"),
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "fit": (*FIT, "--experiment", "{new}"),
    "validate": ("--ckpt_path", BEST),
    "test": ("--ckpt_path", BEST),
    "predict": ("--ckpt_path", BEST, "--input", "data/images", "--output", "{new}", "--review", "true"),
    "check": ("spoilt", *NAMED),
    "compare": ("a", "b", "--metric", "dice", "--metric", "hd95"),
    "evaluate": ("--reference", "data/masks", "--prediction", "shifted", "-o", "{new}", *NAMED),
    "export": ("--ckpt_path", BEST, "-o", "{new}"),
    "info": ("runs/default/version_0",),
    "new": ("{new}", "--data_root", "data", *NAMED),
    "phantom": ("{new}", "--cases=4", "--slices=2", "--size=40x36"),
    "plan": ("data", "-o", "{new}.yaml", *NAMED),
    "postprocess": ("--ckpt_path", BEST, "-o", "{new}.ckpt"),
    "report": ("runs/default/version_0", "-o", "{new}.html"),
    "review": ("--ckpt_path", BEST, "-o", "{new}"),
}
COLORED = ("fit", "predict", "check", "compare", "evaluate")
"""Those with a table or a bar; the other ones have these, too."""
SLOW = ("export", "report", "validate")


def arguments(command: str, new: str) -> list[str]:
    """Of a command, which writes what nobody has written before."""
    given = [argument.format(new=new) if "{new}" in argument else argument for argument in COMMANDS[command]]
    return given if command == "fit" else [command, *given]


def shown(command: str, new: str) -> Screen:
    """What a terminal shows of a command."""
    with terminal() as screen:
        main(arguments(command, new))
    return screen


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, masks and labels with long names, two evaluations, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(Path("configs").resolve())
    for number in range(12):
        name = f"patient{number // 2}_{LONG}_{number % 2}.png"
        mask = np.zeros((48, 40), np.uint8)
        mask[10 + number : 30 + number, 8:20], mask[:10, :10] = 1, 2
        noise = np.random.default_rng(number).integers(0, 60, mask.shape)
        image = (noise + 60 * mask + 30).astype(np.uint8)
        for data in ("data", "spoilt"):
            write_png(folder / data / "images" / name, image)
            write_png(folder / data / "masks" / name, mask)
        write_png(folder / "shifted" / name, np.roll(mask, 1, axis=1))
    next((folder / "spoilt/images").iterdir()).write_text("no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, prediction in (("a", "shifted"), ("b", "data/masks")):
            score = ["evaluate", "--reference", "data/masks", "--prediction", prediction, "-o", name, *NAMED]
            assert main(score) == 0
        assert main([*FIT]) == 0
    return folder


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_every_command_that_prints_is_here() -> None:
    assert {*TRAINER_COMMANDS, *MODULES} - set(COMMANDS) == {"completion"}  # which prints no text, but a program


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COMMANDS]
)
def test_in_a_pipe_it_is_plain_text(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(command, f"piped_{command}")) == (command == "check")
    printed = capfd.readouterr()
    assert printed.out.strip()
    for text in (printed.out, printed.err):
        assert not re.search(r"[\x1b\r\x07\x08]", text)
        assert not too_wide(text.splitlines())


@pytest.mark.parametrize("command", COLORED)
def test_on_a_terminal_it_fits_with_its_bar(command: str) -> None:
    screen = shown(command, f"shown_{command}")
    assert screen.escapes
    assert not too_wide(screen.lines)


@pytest.mark.parametrize("command", ["fit", "check", "compare"])
def test_no_color_is_obeyed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shown(command, f"gray_{command}").colors


@pytest.mark.parametrize("command", ["fit", "check", "compare"])
def test_a_dumb_terminal_gets_plain_lines(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = shown(command, f"dumb_{command}")
    assert screen.text.strip()
    assert not re.search(r"[\x1b\r]", screen.text)
    assert not too_wide(screen.lines)


def test_results_are_printed_under_the_bar() -> None:
    lines = [line.rstrip() for line in shown("test", "").lines]
    (title,) = (number for number, line in enumerate(lines) if "4 cases of 2 patients" in line)
    assert lines[title].strip() == "test: 4 cases of 2 patients"
    assert not any("Testing" in line for line in lines[title:])


def test_a_bar_of_many_cases_fits() -> None:
    with terminal() as screen, show_progress("Predicting validation cases", 1_000_000) as advance:
        advance()
    assert any("1000000" in line for line in screen.lines)
    assert not too_wide(screen.lines)


def test_forced_colors_make_no_bar_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console(file=io.StringIO()).is_terminal
    assert not can_redraw(Console(file=io.StringIO()))
    with terminal():
        on_terminal = can_redraw(Console())
    assert on_terminal


def test_a_name_that_a_terminal_would_obey_is_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "\x1b[31mred", "b"]) == 1
    assert "\N{REPLACEMENT CHARACTER}[31mred" in capsys.readouterr().err


def test_so_is_a_label_and_a_case(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for number in range(2):
            write_png(tmp_path / folder / f"\x1b[2J{number}.png", np.eye(8, dtype=np.uint8))
    write_png(tmp_path / "b" / "\x1b[2Jalone.png", np.eye(8, dtype=np.uint8))
    folders = ["--reference", str(tmp_path / "a"), "--prediction", str(tmp_path / "b")]
    assert main(["evaluate", *folders, "-o", str(tmp_path / "out"), "--labels", "\x1b[31mred"]) == 2
    error = capsys.readouterr().err
    assert "The label '\N{REPLACEMENT CHARACTER}[31mred' holds a character that cannot be printed" in error
    assert "\x1b" not in error
    assert main(["evaluate", *folders, "-o", str(tmp_path / "out"), "--labels", "red"]) == 0
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in (tmp_path / "out" / "scores_evaluate.csv").read_text()
    assert "\N{REPLACEMENT CHARACTER}[2Jalone" in printed
    assert "\x1b" not in printed
