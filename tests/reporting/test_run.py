"""Configurations side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medseg_pl.core.errors import MissingDataError, UnreadableFileError
from medseg_pl.reporting.run import compare_environments, compare_settings, read_run


def test_what_differs_comes_first(two_runs: list[Path]) -> None:
    lines = compare_settings([read_run(folder, None) for folder in two_runs])
    assert (lines[0].name, lines[0].values, lines[0].differs) == ("model.context_slices", ["1", "2"], True)
    assert not any(line.differs for line in lines[1:])
    assert {line.name: line.values[0] for line in lines}["model.labels.names"] == "large_bowel, small_bowel, stomach"


def test_the_environment_is_flat_and_without_the_data(two_runs: list[Path]) -> None:
    lines = {line.name: line.values for line in compare_environments([read_run(two_runs[0], None)])}
    assert lines["packages.torch"] == ["2.14.1"]
    assert not any(name.startswith("data") for name in lines)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"There is nothing at .*nowhere\. Name a run folder"):
        read_run(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.yaml", "a: [", r"config\.yaml is not valid YAML"),
        ("config.yaml", "- a", r"config\.yaml holds a list; expected named values"),
        ("splits.json", "{", r"splits\.json is not valid JSON: .* Restore it, or move it away"),
        ("environment.json", "[]", r"environment\.json holds a list"),
    ],
)
def test_a_damaged_file_is_named(two_runs: list[Path], tmp_path: Path, name: str, text: str, said: str) -> None:
    run = shutil.copytree(two_runs[0], tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(UnreadableFileError, match=said):
        read_run(run, None)


def test_settings_in_lists_are_numbered(two_runs: list[Path], tmp_path: Path) -> None:
    run = shutil.copytree(two_runs[0], tmp_path / "run")
    (run / "environment.json").write_text('{"packages": {"torch": "2"}, "devices": [{"name": "a"}, {"name": "b"}]}')
    lines = {line.name: line.values for line in compare_environments([read_run(run, None)])}
    assert (lines["devices.0.name"], lines["devices.1.name"]) == (["a"], ["b"])
