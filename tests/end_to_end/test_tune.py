"""A search from the command line: the better of two planted learning rates, and a configuration that trains with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg_pl.__main__ import main
from medseg_pl.cli import tune
from medseg_pl.cli.training_processes import Training
from tests.end_to_end.conftest import SMALL

LR = "model.optimizer.init_args.lr"


def train_here(trainings: Iterable[Training], *_: Any, goes_on: Callable[[Training, int], bool], **__: Any) -> None:
    """Train in this process, which spares the imports."""
    for training in trainings:
        assert goes_on(training, main(training.arguments))


@pytest.fixture(scope="module")
def command(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two learning rates, of which one is so low that nothing is learned."""
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(yaml.safe_dump({"method": "grid", "parameters": {LR: {"values": [1e-9, 3e-3]}}}))
    data = ["--data_root", str(phantoms["uw_madison"])]
    config = ["--config", "configs/experiment/demo.yaml", *SMALL, "--trainer.max_epochs=4"]
    return ["tune", *config, *data, "--space", str(space), "--trials", "5"]


@pytest.fixture(scope="module")
def folder(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended."""
    runs = tmp_path_factory.mktemp("tune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "run_trainings", train_here)
        assert main([*command, "--runs", str(runs)]) == 0
    return runs / "demo"


@pytest.mark.trainings
def test_the_better_of_two_learning_rates_is_found(folder: Path) -> None:
    with (folder / "trials.csv").open(newline="") as file:
        rows = {row[LR]: row for row in csv.DictReader(file)}
    assert {row["state"] for row in rows.values()} == {"complete"}
    assert float(rows["0.003"]["val/dice"]) > float(rows["1e-09"]["val/dice"])
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["model"]["optimizer"]["init_args"]["lr"] == 0.003
    assert best["experiment"] == "demo" and "TrialReport" not in (folder / "best.yaml").read_text()
    # The score of the table is the one by which the best checkpoint was kept.
    run = folder / f"trial_{rows['0.003']['trial']}" / "version_0"
    with (run / "metrics.csv").open(newline="") as file:
        logged = [float(row["val/dice"]) for row in csv.DictReader(file) if row["val/dice"]]
    assert float(rows["0.003"]["val/dice"]) == pytest.approx(max(logged), abs=1e-6)
    assert not list(folder.glob("trial_*/version_*/*test*")), "no trial saw the test side"


@pytest.mark.trainings
def test_the_best_configuration_is_one_that_fit_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", str(folder / "best.yaml"), "--print_config"])
    assert left.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["optimizer"]["init_args"]["lr"] == 0.003


@pytest.mark.trainings
def test_repeating_the_command_trains_nothing(
    folder: Path, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(trainings: Iterable[Training], *_: Any, **__: Any) -> None:
        assert not list(trainings)

    before = {path: path.read_bytes() for path in folder.glob("[bt]*.[cy]*")}
    assert len(before) == 2
    monkeypatch.setattr(tune, "run_trainings", refuse)
    assert main([*command, "--runs", str(folder.parent), "--json"]) == 0
    trials = json.loads(capfd.readouterr().out)["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "complete"]
    assert {path: path.read_bytes() for path in folder.glob("[bt]*.[cy]*")} == before


@pytest.mark.parametrize(
    ("space", "arguments", "says"),
    [
        (None, [], "needs --space FILE"),
        ({"values": [1]}, ["--trials", "0"], "--trials must be at least 1"),
        ({"values": [1]}, ["--jobs", "0"], "--jobs must be from 1 to 256"),
        ({"values": [1]}, ["--ckpt_path", "last"], "resumes by itself"),
        ({"values": ["fast"]}, [], "fast"),
        ({"values": [1]}, ["--trainer.fast_dev_run=true"], "keeps no checkpoints"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(
    tmp_path: Path, space: object, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"parameters": {LR: space}}))
    given = ["--space", str(path)] if space else []
    config = ["--config", "configs/experiment/demo.yaml", "--runs", str(tmp_path / "runs")]
    assert main(["tune", *config, *given, *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_shipped_spaces_name_settings_that_exist() -> None:
    paths = sorted(Path("configs/sweeps").glob("*.yaml"))
    assert len(paths) == 2
    for path in paths:
        content = yaml.safe_load(path.read_text())
        assert content["command"][-1] == "${args}"
        config = content["command"][content["command"].index("--config") + 1]
        options, rest = tune.read_options(["--space", str(path), "--config", config])
        assert tune.make_plan(options, rest).space.metric == "val/dice"
