"""A table: how every command ends on a full disk, on a read-only one, and when it is interrupted.

`docs/troubleshooting.md` promises it: an exit code, one sentence with the file, nothing half written, no process left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from medseg_pl.__main__ import main
from tests.end_to_end.conftest import SMALL
from tests.timeouts import HANG_S

Line = list[str]


class Inputs(NamedTuple):
    """What commands read, on a disk with room."""

    data: Path
    run: Path
    masks: Path

    @property
    def best(self) -> str:
        return str(self.run / "checkpoints" / "best.ckpt")


LABELS = "1=large_bowel,2=small_bowel,3=stomach"
FAST: dict[str, Callable[[Inputs, Path], Line]] = {
    "phantom": lambda given, out: ["phantom", f"{out}/p", "--cases=2", "--slices=3", "--size=32x32"],
    "plan": lambda given, out: ["plan", f"{given.data}", "-o", f"{out}/plan.yaml", "--no_probe"],
    "evaluate": lambda given, out: [
        *("evaluate", "--reference", f"{given.masks}", "--prediction", f"{given.masks}", "-o", f"{out}/e"),
        *("--labels", LABELS, "--no_distances"),
    ],
    "compare": lambda given, out: ["compare", f"{given.run}", f"{given.run}", "--csv", f"{out}/compared.csv"],
    "check": lambda given, out: ["check", f"{given.data}", "--html", f"{out}/check.html"],
    "report": lambda given, out: ["report", f"{given.run}", "-o", f"{out}/page.html", "--pictures=0"],
    "new": lambda given, out: ["new", f"{out}/project"],
}
SLOW: dict[str, Callable[[Inputs, Path], Line]] = {
    "predict": lambda given, out: [
        *("predict", "--ckpt_path", given.best, "--input", f"{given.data / 'train'}", "--output", f"{out}/masks"),
        "--trainer.accelerator=cpu",
    ],
    "export": lambda given, out: ["export", "--ckpt_path", given.best, "-o", f"{out}/exported"],
    "postprocess": lambda given, out: ["postprocess", "--ckpt_path", given.best, "-o", f"{out}/cleaned.ckpt"],
    "review": lambda given, out: ["review", "--ckpt_path", given.best, "-o", f"{out}/review", "--device=cpu"],
    "test": lambda given, out: ["test", "--ckpt_path", f"{out}/best.ckpt", "--trainer.accelerator=cpu"],
    "validate": lambda given, out: ["validate", "--ckpt_path", f"{out}/best.ckpt", "--trainer.accelerator=cpu"],
}
COMMANDS = {**FAST, **SLOW}
EACH = pytest.mark.parametrize("command", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])


@pytest.fixture(scope="module")
def given(phantoms: dict[str, Path], run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    run = shutil.copytree(run_folder, tmp_path_factory.mktemp("given") / "run")
    return Inputs(phantoms["uw_madison"], run, phantoms["decathlon"] / "labelsTr")


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Whoever starts the tests may have made them ignore Ctrl-C, as a shell does with what it puts behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files and empty folders included."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medseg: ")]
    return line


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@EACH
@pytest.mark.parametrize(
    ("spoil", "number"), [(fill, errno.ENOSPC), (make_read_only, errno.EROFS)], ids=["full", "read_only"]
)
def test_a_disk_that_takes_nothing(
    command: str,
    spoil: Callable[[Path], None],
    number: int,
    given: Inputs,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command in ("test", "validate"):
        shutil.copy(given.best, small_disk)
    spoil(small_disk)
    before = files(small_disk)
    assert main(COMMANDS[command](given, small_disk)) == 1
    said = sentence(capsys)
    assert os.strerror(number) in said
    assert f"medseg: {small_disk}/" in said or f"medseg: The checkpoint {small_disk}/" in said
    assert ".writing-" not in said and ".unfinished-" not in said
    assert "repeat the command" in said
    left = {name: content for name, content in files(small_disk).items() if "/.medseg" not in name}
    # The parent of an output may have been made: an empty folder looks like nothing.
    assert {name: content for name, content in left.items() if content or Path(name).is_file()} == {
        name: content for name, content in before.items() if content or Path(name).is_file()
    }


def test_a_full_store(given: Inputs, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(small_disk)
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(given.data), *SMALL]
    assert main([*fit, "--runs", str(tmp_path / "runs"), "--data.cache_dir", str(small_disk / "store")]) == 1
    said = sentence(capsys)
    assert f"The cache {small_disk / 'store'} could not be written: {os.strerror(errno.ENOSPC)}" in said
    assert "set $MEDSEG_CACHE or data.cache_dir to another folder" in said
    assert not (tmp_path / "runs").exists()
    assert not list(small_disk.rglob(".writing-*"))


def interrupt(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # a thread that works on, were it not told to stop


PLACES = {
    "phantom": "medseg_pl.cli.commands.phantom._scans_of",
    "plan": "medseg_pl.planning.budget.detect_hardware",
    "evaluate": "medseg_pl.cli.commands.evaluate.make_metrics",
    "compare": "medseg_pl.cli.commands.compare.csv_rows",
    "check": "medseg_pl.checks.report.write_page",
    "report": "medseg_pl.reporting.html.page.list_case_entries",
    "new": "medseg_pl.cli.commands.new.make_package_name",
    "predict": "medseg_pl.inference.predictor.Predictor.predict_volume",
    "export": "medseg_pl.export.golden_cases.make_golden_cases",
    "postprocess": "medseg_pl.cli.commands.postprocess.write_checkpoint",
    "review": "medseg_pl.inference.evidence.CaseEvidence.as_dict",
    "test": "medseg_pl.training.module.SegmentationModule.test_step",
    "validate": "medseg_pl.training.module.SegmentationModule.validation_step",
}
"""Where each command is interrupted."""


@EACH
def test_control_c(
    command: str, given: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in ("test", "validate"):
        shutil.copy(given.best, tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(PLACES[command], interrupt)
    assert main(COMMANDS[command](given, tmp_path)) == 130
    said = sentence(capsys)
    assert said.startswith("medseg: Interrupted (SIGINT). ")
    goes_on = command in ("predict", "review")
    assert ("the same command goes on" if goes_on else "the same command begins again") in said
    # What a folder that goes on keeps: its record, and the table of what became of each input so far.
    left = [name for name in files(tmp_path) if not (goes_on and ("/.medseg" in name or "/predictions.csv" in name))]
    assert [name for name in left if Path(name).is_file()] == [name for name in before if Path(name).is_file()]


GROUP = """
import os, signal, sys
from medseg_pl.__main__ import main
from medseg_pl.training.module import SegmentationModule
from medseg_pl.inference.predictor import Predictor

signal.signal(signal.SIGINT, signal.default_int_handler)
owner, name = {{
    "fit": (SegmentationModule, "training_step"),
    "test": (SegmentationModule, "test_step"),
    "predict": (Predictor, "predict_volume"),
}}[sys.argv[1]]
original, calls = getattr(owner, name), []
def method(self, *arguments, **options):
    calls.append(1)
    if len(calls) == 2:
        for _ in range({times}):
            os.killpg(0, signal.{name})  # as a terminal does: to this process and to those that load data for it
    return original(self, *arguments, **options)
setattr(owner, name, method)
sys.exit(main(sys.argv[1:]))
"""


def processes_of(group: int) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [row[2] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "times", "code", "said"),
    [
        (
            "fit",
            "SIGINT",
            1,
            130,
            "Interrupted (SIGINT). Step 2 is saved; the same command with --ckpt_path last goes on",
        ),
        ("fit", "SIGINT", 2, 130, "Interrupted twice: left at once."),
        ("fit", "SIGHUP", 1, 129, "Interrupted (SIGHUP). Step 2 is saved"),
        ("fit", "SIGTERM", 1, 75, "Asked to stop (SIGTERM). Step 2 is saved"),
        ("test", "SIGINT", 1, 130, "Interrupted (SIGINT). What was begun is left out"),
        ("predict", "SIGINT", 1, 130, "Interrupted (SIGINT). Cases that are finished stay; the same command goes on."),
        ("test", "SIGHUP", 1, 129, "Interrupted (SIGHUP). What was begun is left out"),
    ],
)
def test_no_process_is_left(
    command: str, name: str, times: int, code: int, said: str, given: Inputs, tmp_path: Path
) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(GROUP.format(name=name, times=times))
    shutil.copy(given.best, tmp_path)
    line = {
        "fit": ["--config=configs/experiment/demo.yaml", f"--data.source.root={given.data}", *SMALL],
        "test": [f"--ckpt_path={tmp_path / 'best.ckpt'}", "--trainer.accelerator=cpu", "--data.eval_batch_size=2"],
        "predict": [f"--ckpt_path={given.best}", f"--input={given.data / 'train'}", f"--output={tmp_path / 'masks'}"],
    }[command]
    runs = [f"--runs={tmp_path / 'runs'}"] if command == "fit" else []
    process = subprocess.Popen(
        [sys.executable, str(script), command, *line, *runs, "--data.num_workers=2"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    _, error = process.communicate(timeout=HANG_S)
    assert process.returncode == code, error
    assert said in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("medseg: ")]) == 1
    begun = time.monotonic()
    while processes_of(process.pid) and time.monotonic() < begun + 60:
        time.sleep(0.5)
    assert processes_of(process.pid) == []
    assert not list(tmp_path.rglob("scores_*"))
