"""The benchmarks run to their end, small; what they measure is of no interest here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.documents

FOLDER = Path("benchmarks").resolve()
SMALL: dict[str, dict[str, Any]] = {
    "augmentation": {"PATCHES": 2, "ROUNDS": 1},
    "duplicates": {"PEOPLE": 3, "CONTRASTS": (0.05,)},
    "gpu": {},
    "rle": {"MASKS": 2, "ROUNDS": 1},
    "sliding_window": {"SHAPES": [(129, 140)], "ROUNDS": 1},
}
SLOW: dict[str, dict[str, Any]] = {
    "export_runner": {"ROUNDS": 1, "VOLUMES": 1},
    "foreign_inputs": {"PHANTOMS": 8, "STEPS": 20, "PERTURBED": 1, "ROUNDS": 1},
    "intervals": {"DATA_SETS": 3, "PATIENTS": (5, 10)},
    "loader": {"IMAGES": 2, "FEW": 2, "MANY": 4, "DRAWN": 4, "ROUNDS": 1},
    "metrics": {"ROUNDS": 1},
    "partial_labels": {"CASES": 12, "SLICES": 4, "SIZE": (40, 36), "EPOCHS": 1},
    "scale": {"SLICES": {"images": [400, 800], "volumes": [400, 800]}, "WORKERS": 2},
    "start_up": {"ROUNDS": 1},
    "training_step": {"ROUNDS": 1, "ROUND": 2},
}
UNTRIED = {
    "accuracy": "MEDSEG_TEST_DATA",
    "crossval": "MEDSEG_TEST_DATA",
    "fine_tuning": "MEDSEG_TEST_DATA",
    "ensemble": "Task04_Hippocampus",
    "nnunet": "Task04_Hippocampus",
    "objects": "PANOPTICA",
}
"""They ask for data, or for another environment, that is not made here, and end at once without it."""


@pytest.fixture
def benchmark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module, with what it imports from its own folder."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module(request.param)
    for name, value in {**SMALL, **SLOW}.get(request.param, {}).items():
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, value)
    return module


def run(benchmark: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """The content of the file that it writes."""
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, *options, str(file)])
    benchmark.main()
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def check(result: dict[str, Any]) -> None:
    assert result["claims"] and result["details"]
    assert all(claim["measured"] and claim["what"] for claim in result["claims"])
    conditions = result["conditions"]
    assert conditions["packages"]["torch"] and conditions["cores"] >= 1 and conditions["processor"]


@pytest.mark.parametrize("benchmark", sorted(SMALL.keys() - {"gpu"}), indirect=True)
def test_runs_to_its_end(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run(benchmark, tmp_path / "found.json", monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", sorted(SLOW), indirect=True)
def test_a_longer_one_runs_to_its_end(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run(benchmark, tmp_path / "found.json", monkeypatch))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("benchmark", ["scale"], indirect=True)
@pytest.mark.filterwarnings("ignore")  # Lightning's, of a network that is not validated and of few workers
def test_what_grows_is_measured(
    benchmark: ModuleType, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "BATCHES", 12)
    benchmark.fill(tmp_path / "data", 25, depth)
    found = benchmark.measure(tmp_path / "data")
    found["batch_cpu_ms"] = benchmark.draw([tmp_path / "data"])["data"]
    assert found.keys() == benchmark.COLUMNS.keys()
    assert all(value > 0 for value in found.values())
    assert len(list((tmp_path / "data/store").rglob("case.json"))) == 25, "what was filled in is what is read"


@pytest.mark.parametrize("benchmark", ["gpu"], indirect=True)
def test_the_settings_of_a_gpu_run_on_a_cpu(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(benchmark, tmp_path / "found.json", monkeypatch, "--device", "cpu")
    assert result["claims"] == [], "a CPU says nothing of a GPU"
    assert len(result["details"]["images_per_s"]) == 5 and min(result["details"]["images_per_s"].values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["gpu"], indirect=True)
def test_the_steps_of_two_ranks_are_counted(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SCALING_STEPS", 12)
    found = benchmark.scaling(2, "cpu", "32-true")
    assert list(found) == ["1", "2"] and min(found.values()) > 0


@pytest.mark.parametrize("benchmark", sorted(UNTRIED), indirect=True)
def test_what_needs_data_says_so(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert UNTRIED[benchmark.__name__] in run(benchmark, tmp_path / "found.json", monkeypatch)["left_out"]


def test_every_benchmark_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("[!_]*.py")} == SMALL.keys() | SLOW.keys() | UNTRIED.keys()


def test_the_page_shows_what_was_kept_missed_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    conditions = {"packages": {"torch": "2.14.1", "absent": None}, "python": "3.11.7", "cores": 1, "load": 0.3}
    conditions["processor"] = "A processor"
    claim = {
        "what": "loading",
        "against": "decoding",
        "target": "8 times as fast",
        "measured": "9.4 times",
        "met": True,
    }
    kept = {"claims": [claim, {**claim, "what": "memory", "met": False}], "conditions": conditions, "details": {}}
    page = importlib.import_module("_page").page({"gpu": {"claims": [], "left_out": "there is no GPU"}, "loader": kept})
    assert "| loading | decoding | 8 times as fast | 9.4 times | met | `loader` |" in page
    assert "| memory | decoding | 8 times as fast | 9.4 times | **missed** | `loader` |" in page
    assert "- `loader`: torch 2.14.1, Python 3.11.7, 1 core of A processor, load 0.3 at the end." in page
    assert "- `gpu`: there is no GPU." in page


def test_the_folds_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by scikit-learn 1.9.1: `KFold(5, shuffle=True, random_state=12345)` over twelve names."""
    monkeypatch.syspath_prepend(FOLDER)
    split = importlib.import_module("nnunet").fold_0([f"h{number:02d}" for number in range(12)])
    assert split["val"] == ["h00", "h03", "h08"]
    assert split["train"] == [f"h{number:02d}" for number in range(12) if number not in (0, 3, 8)]
