"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from tests.printed_json import run_json


def test_check_and_plan_take_the_data_set_under_both_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    write_phantom(data, "folder", cases=3, seed=0, slices=3, size=(40, 36))
    assert run_json("check", "--data_root", data) == run_json("check", data)
    for name, where in (("a", [str(data)]), ("b", [f"--data_root={data}"])):
        assert (
            main(["plan", *where, "-o", str(tmp_path / f"{name}.yaml"), "--device=cpu", "--memory_gb=8", "--no_probe"])
            == 0
        )
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
    capsys.readouterr()
    assert main(["check", str(data), "--data_root", str(data)]) == 2
    assert "Give it once." in capsys.readouterr().err
