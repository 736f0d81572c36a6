"""How long a training was, as report, methods, README and model card say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main
from medseg_pl.reporting.markdown import write_blocks
from medseg_pl.reporting.methods import describe_training, write_methods
from medseg_pl.reporting.run import Run, read_run
from medseg_pl.reporting.training_length import describe_length
from tests.reporting.run_folders import CONFIG, some_scores, write_run

EPOCHS = {"max_epochs": 10, "max_time": "00:00:04:20"}
CUT = " for 756 of 1500 steps, ended by the time limit (trainer.max_time: 00:00:04:20),"


def make_run(folder: Path, trainer: dict[str, Any], *ends: dict[str, Any]) -> Run:
    """A run, or several folds, that ended so."""
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], **trainer}}
    run = read_run(write_run(folder / "demo" / "version_0", some_scores(8, seed=1), config=config), "test")
    done = [replace(run, progress=end) for end in ends]
    return done[0] if len(done) == 1 else replace(run, progress=None, folds=done)


def end(epochs: int, steps: int, planned: int | None = None, *, out_of_time: bool = False) -> dict[str, Any]:
    return {"epochs": epochs, "steps": steps, "planned_steps": planned, "out_of_time": out_of_time}


@pytest.mark.parametrize(
    ("trainer", "ends", "length"),
    [
        ({"max_epochs": 12}, [end(12, 144, 144)], " for 12 epochs (144 steps)"),
        ({"max_epochs": 100, "max_steps": 144}, [end(12, 144, 144)], " for 144 steps"),
        ({"max_epochs": -1, "max_steps": 144}, [end(11, 144, 144)], " for 144 steps"),
        ({"max_epochs": -1, "max_steps": -1}, [end(1, 1)], " for 1 step"),
        ({"max_epochs": 1}, [], " for at most 1 epoch"),  # killed
        ({"max_epochs": 12}, [end(8, 100, 144)], " for 100 of 144 steps"),  # early stopping
        (EPOCHS, [end(6, 756, 1500, out_of_time=True)], CUT),
        # Cut in its last epoch, which counts as begun and done.
        (EPOCHS, [end(10, 756, 1500, out_of_time=True)], CUT),
        ({"max_epochs": -1, "max_steps": 1500, "max_time": "00:00:04:20"}, [end(6, 756, 1500, out_of_time=True)], CUT),
        (
            {"max_epochs": -1, "max_time": {"minutes": 5}},
            [end(6, 756, out_of_time=True)],
            " for 756 steps, ended by the time limit (trainer.max_time: 5 minutes),",
        ),
        ({"max_epochs": -1}, [end(6, 756, out_of_time=True)], " for 756 steps, ended by the time limit,"),  # a `Timer`
        (
            EPOCHS,
            [end(10, 1500, 1500), end(8, 1200, 1500, out_of_time=True)],
            " for 1200 to 1500 of 1500 steps, ended by the time limit (trainer.max_time: 00:00:04:20) in 1 of 2 folds,",
        ),
        # Of earlier releases, which recorded no more.
        ({"max_epochs": 12}, [{"epochs": 8, "steps": 100}], " for 100 steps, of at most 12 epochs,"),
        (
            {"max_epochs": 12},
            [{"epochs": 8, "steps": 100}, {"epochs": 12, "steps": 144}],
            " for 100 to 144 steps, of at most 12 epochs,",
        ),
    ],
)
def test_a_length_says_what_ended_it(
    trainer: dict[str, Any], ends: list[dict[str, Any]], length: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, trainer, *ends)
    assert describe_length(run) == length
    assert f"It was trained{length} on crops of " in write_methods(run)
    # The card of a model and a README have this block.
    assert f"Trained{length.rstrip(',')}.\n" in write_blocks(run)["train"]


def test_the_page_says_that_time_was_up_and_shows_the_limit(tmp_path: Path) -> None:
    run = make_run(tmp_path, EPOCHS, end(6, 756, 1500, out_of_time=True))
    (run.folder / "complete.json").write_text(
        '{"epochs": 6, "steps": 756, "planned_steps": 1500, "out_of_time": true, "best": {"step": 604, "epoch": 5}}'
    )
    assert main(["report", str(run.folder), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    best = "The best weights are of step 604 (epoch 5)."
    assert f"<p>Trained{CUT.rstrip(',')}. {best}</p>" in text
    assert best in write_blocks(read_run(run.folder, "test"))["train"]
    assert "<code>trainer.max_time</code></th><td>00:00:04:20</td>" in text
    assert "max_time: 00:00:04:20" in write_blocks(run)["configuration"]


@pytest.mark.parametrize(
    ("model", "median", "seen"),
    [
        ({"input_size": [56, 40]}, [51, 36], "slices padded or cropped to 56 × 40 pixels"),
        ({"input_size": [56, 40]}, [51, 41], "crops of 56 × 40 pixels"),
        ({"input_size": [56, 40], "spacing_mm": [1.0, 1.0]}, [51, 36], "crops of 56 × 40 pixels"),
        ({"input_size": [56, 40], "resize": "fit"}, [510, 360], "whole images scaled into 56 × 40 pixels"),
        ({"input_size": [56, 40]}, None, "crops of 56 × 40 pixels"),
    ],
)
def test_methods_tell_whole_slices_from_crops(
    model: dict[str, Any], median: list[int] | None, seen: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, {"max_epochs": 1}, end(1, 1))
    survey = {} if median is None else {"sizes": [[9, 9], median, [999, 999]]}
    config = {**CONFIG, "model": {**CONFIG["model"], "resize": "none", "spacing_mm": None, **model}}
    run = replace(run, config=config, environment={"data": {"survey": survey}})
    assert f" on {seen} with" in describe_training(run)
