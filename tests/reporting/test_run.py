"""Configurations side by side."""

from __future__ import annotations

from pathlib import Path

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
