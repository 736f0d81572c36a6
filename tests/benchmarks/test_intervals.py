"""What the documentation says of intervals is what the simulation prints."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medseg_pl.metrics.statistics.intervals import FEW_GROUPS, bootstrap_interval, note_few_groups

PAGE = Path("docs/metrics.md")
CELLS = re.compile(r"\| ([^|]+?) \| " + r" \| ".join([r"(\d+)"] * 5) + r" \|")


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path("benchmarks").resolve())
    return importlib.import_module("intervals")


def documented() -> dict[str, list[int]]:
    """In how many of 100 data sets an interval holds the mean, by the page's rows."""
    return {name: [int(cell) for cell in cells] for name, *cells in CELLS.findall(PAGE.read_text(encoding="utf-8"))}


def test_the_page_has_every_simulated_design(simulation: ModuleType) -> None:
    assert list(documented()) == list(simulation.DESIGNS)


def test_the_message_says_what_the_page_says() -> None:
    assert max(cells[0] for cells in documented().values()) < 95
    assert "less often than 95 times in 100" in note_few_groups(5)
    assert all(note_few_groups(groups)[5:] in PAGE.read_text(encoding="utf-8") for groups in (3, 9))
    assert FEW_GROUPS == 10


def test_the_methods_agree_on_a_data_set_worked_out_by_scipy(simulation: ModuleType) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).exponential(size=30)
    found = simulation.intervals(values, np.arange(30), np.random.default_rng(0), True)
    for ours, theirs in (("BCa", "BCa"), ("percentile", "percentile")):
        expected = scipy_stats.bootstrap((values,), np.mean, method=theirs, n_resamples=5000, rng=0)
        assert found[ours] == pytest.approx(tuple(expected.confidence_interval), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(3))
def test_the_page_is_what_the_simulation_prints(simulation: ModuleType, place: int) -> None:
    runs, patients = 300, simulation.PATIENTS[place]
    simulation.DATA_SETS = runs
    for name, design in simulation.DESIGNS.items():
        held = 0
        for values, patient in simulation.data_sets(design, patients):
            low, high = bootstrap_interval(values.tolist(), [str(one) for one in patient], resamples=1000)
            held += low <= design.mean <= high
        share = documented()[name][place] / 100
        assert held / runs == pytest.approx(share, abs=0.01 + 3 * math.sqrt(share * (1 - share) / runs)), name
