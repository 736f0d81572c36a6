"""Scores, objects and kept masks are the same files, byte for byte, on any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.data.sources import DecathlonSource
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.ranks import on_ranks
from tests.sample_files import tree

CASES = (1, 2, 3, 5, 7, 8, 13)
_COMPARED = ("scores_", "objects_", "predictions/")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Sixteen volumes of two sizes, and their ids."""
    root = tmp_path_factory.mktemp("volumes") / "data"
    write_phantom(root, "decathlon", cases=16, seed=2, slices=5, size=(40, 36))
    return root, [case.case_id for case in DecathlonSource(str(root)).cases()]


@pytest.fixture(scope="module")
def checkpoint(volumes: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the first two cases."""
    root, names = volumes
    folder = tmp_path_factory.mktemp("trained")
    split = write_split(folder / "split.json", names, tested=0)
    fit = ["fit", "--config", "configs/experiment/hippocampus.yaml", "--data.source.root", str(root), *SMALL]
    labels = ["--model.labels.names=[large_bowel,small_bowel,stomach]"]
    assert main([*fit, *labels, "--data.split_file", str(split), "--runs", str(folder / "runs")]) == 0
    return next(folder.rglob("best.ckpt"))


def write_split(path: Path, names: list[str], tested: int) -> Path:
    """Two cases to train on, one to validate, the last ones to test."""
    sides = {"train": names[:2], "val": names[2:3], "test": names[len(names) - tested :]}
    path.write_text(json.dumps(sides))
    return path


def scored(
    folder: Path, checkpoint: Path, names: list[str], processes: int, batch_size: int, numbers: tuple[int, ...] = CASES
) -> dict[int, dict[str, bytes]]:
    """`scores_test.csv`, `objects_test.csv` and the masks of each number of cases, from so many processes."""
    folder.mkdir()
    splits = [write_split(folder / f"{number}.json", names, number) for number in numbers]
    script = Path(__file__).with_name("score_on_ranks.py")
    assert on_ranks([script, checkpoint, str(batch_size), *splits], processes) == [0] * processes
    assert not list(folder.rglob("scores_test_2.csv")), "one process writes"
    files = {number: tree(folder / str(number)) for number in numbers}
    return {
        number: {name: content for name, content in left.items() if name.startswith(_COMPARED)}
        for number, left in files.items()
    }


@pytest.mark.slow
def test_cases_and_processes(volumes: tuple[Path, list[str]], checkpoint: Path, tmp_path: Path) -> None:
    _, names = volumes
    alone = scored(tmp_path / "alone", checkpoint, names, processes=1, batch_size=4)
    for number, files in alone.items():
        assert len(files["scores_test.csv"].splitlines()) == 1 + 3 * number
        assert sum(name.endswith(".nii.gz") for name in files) == number
        assert len(files["objects_test.csv"].splitlines()) > number
    for processes in (2, 3, 4):
        together = scored(tmp_path / f"{processes}", checkpoint, names, processes, batch_size=4)
        assert together == alone, f"{processes} processes"


@pytest.mark.slow
def test_the_batch_size_and_the_order_of_the_cases(
    volumes: tuple[Path, list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    _, names = volumes
    tables = [
        scored(tmp_path / f"{size}", checkpoint, names, processes=1, batch_size=size, numbers=(13,))
        for size in (1, 3, 16)
    ]
    assert tables[0] == tables[1] == tables[2]
    turned = [*names[:3], *reversed(names[3:])]
    assert scored(tmp_path / "turned", checkpoint, turned, processes=2, batch_size=4, numbers=(13,)) == tables[0]
