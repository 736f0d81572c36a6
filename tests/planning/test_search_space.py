"""Spaces of settings: the format of W&B, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medseg_pl.core.errors import SettingError
from medseg_pl.planning.search_space import Choice, Range, read_search_space

LR = "model.optimizer.init_args.lr"


def write(folder: Path, **content: object) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_each_distribution_is_read(tmp_path: Path) -> None:
    parameters = {
        "model.loss": {"values": ["a.B", "a.C"]},
        "model.channels_last": {"values": [True, None]},
        "model.input_size": {"value": [64, 96]},
        LR: {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "data.batch_size": {"min": 4, "max": 16},
        "model.tta_weight": {"min": 0, "max": 0.5},
        "data.samples_per_epoch": {"distribution": "q_uniform", "min": 100, "max": 400, "q": 100},
    }
    space = read_search_space(write(tmp_path, parameters=parameters))
    assert space.parameters == {
        "model.loss": Choice(("a.B", "a.C")),
        "model.channels_last": Choice(("true", "null")),
        "model.input_size": Choice(("[64, 96]",)),
        LR: Range(1e-4, 1e-2, log=True),
        "data.batch_size": Range(4, 16, step=1, whole=True),
        "model.tta_weight": Range(0, 0.5),
        "data.samples_per_epoch": Range(100, 400, step=100.0),
    }
    assert (space.metric, space.goal, space.method, space.count_combinations()) == (
        "val/dice",
        "maximize",
        "bayes",
        None,
    )


def test_a_grid_is_as_large_as_the_product_of_its_values(tmp_path: Path) -> None:
    parameters = {"model.loss": {"values": ["a", "b"]}, "data.batch_size": {"values": [2, 4, 8]}}
    assert read_search_space(write(tmp_path, parameters=parameters, method="grid")).count_combinations() == 6


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "has no parameters"),
        ({"parameters": {LR: 3}}, rf"{LR} is 3. Give it values"),
        ({"parameters": {LR: {"values": []}}}, "at least one entry"),
        ({"parameters": {LR: {"min": 2, "max": 1}}}, "min 2 is not below max 1"),
        ({"parameters": {LR: {"min": "low", "max": 1}}}, "numbers as min and max; got 'low'"),
        ({"parameters": {LR: {"min": 0, "max": 1, "distribution": "log_uniform_values"}}}, "above 0"),
        ({"parameters": {LR: {"min": 1, "max": 2, "distribution": "beta"}}}, "'beta' is not known"),
        ({"parameters": {LR: {"min": 1, "max": 2}}, "method": "grid"}, f"but {LR} is a range"),
        ({"parameters": {LR: {"values": [1]}}, "method": "hyperband"}, "Choose one of bayes, random, grid"),
        ({"parameters": {LR: {"values": [1]}}, "metric": {"name": "test/dice"}}, "by a validation score"),
        ({"parameters": {LR: {"values": [1]}}, "metric": {"name": "val/dice", "goal": "up"}}, "metric.goal is 'up'"),
        ({"parameters": {"data.fold": {"values": [0, 1]}}}, "data.fold is shared by all trials"),
        ({"parameters": {"data.source.init_args.root": {"values": ["a"]}}}, "is shared by all trials"),
    ],
)
def test_what_cannot_be_searched_is_named(tmp_path: Path, content: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        read_search_space(write(tmp_path, **content))
