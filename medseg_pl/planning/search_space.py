"""Spaces of settings: which values a search may try, in the format of a W&B sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medseg_pl.core.errors import SettingError
from medseg_pl.io.config_files import find_config, read_yaml

Goal = Literal["maximize", "minimize"]

METHODS = ("bayes", "random", "grid")
# Others would score each trial on cases of its own, or write where another trial writes.
_BINDING = (
    "data.source",
    "data.split_file",
    "data.split_fractions",
    "data.fold",
    "data.folds",
    "model.labels",
    "model.metrics",
    "runs",
    "experiment",
    "ckpt_path",
)
_RANGES = {"uniform": float, "int_uniform": int, "log_uniform_values": float, "q_uniform": float}


class Choice(NamedTuple):
    """Values to choose from, as a command line has them."""

    values: tuple[str, ...]


class Range(NamedTuple):
    """Numbers between two ends, both included.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether each order of magnitude is as likely as another.
        step: From one value to the next; `None` for any value between.
        whole: Whether the numbers are whole.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


class SearchSpace(NamedTuple):
    """The values that a search may try, and its score.

    Attributes:
        parameters: By the name of the setting, such as `data.batch_size`.
        metric: The score, by the name under which a training logs it.
        goal: Whether more is better.
        method: `bayes`, `random` or `grid`.
    """

    parameters: dict[str, Choice | Range]
    metric: str
    goal: Goal
    method: str

    def count_combinations(self) -> int | None:
        """Count the combinations of a grid.

        Returns:
            `None` where a range has no end of values.
        """
        choices = [each for each in self.parameters.values() if isinstance(each, Choice)]
        return prod(len(each.values) for each in choices) if len(choices) == len(self.parameters) else None

    def get_combination(self, number: int) -> dict[str, str]:
        """Return one combination of a grid, whose last parameter changes first.

        >>> space = SearchSpace({"a": Choice(("1", "2")), "b": Choice(("x", "y"))}, "val/dice", "maximize", "grid")
        >>> [space.get_combination(number) for number in (0, 1, 2)]
        [{'a': '1', 'b': 'x'}, {'a': '1', 'b': 'y'}, {'a': '2', 'b': 'x'}]
        """
        choices = {name: each.values for name, each in self.parameters.items() if isinstance(each, Choice)}
        return dict(zip(choices, next(islice(product(*choices.values()), number, None)), strict=True))

    def list_arguments(self, end: Literal[0, -1]) -> list[str]:
        """List the settings with all parameters at one end.

        >>> parameters = {"data.batch_size": Range(4, 16), "model.loss": Choice(("a", "b"))}
        >>> space = SearchSpace(parameters, "val/dice", "maximize", "bayes")
        >>> space.list_arguments(-1)
        ['--data.batch_size=16', '--model.loss=b']
        """
        ends = {
            name: each.values[end] if isinstance(each, Choice) else (each.low, each.high)[end]
            for name, each in self.parameters.items()
        }
        return [f"--{name}={value}" for name, value in ends.items()]


def read_search_space(path: Path) -> SearchSpace:
    """Read a space from the file of a W&B sweep.

    Args:
        path: The file; its `command` is left to W&B.

    Raises:
        SettingError: The file is no such space, names a setting that trials must share, or a distribution that is not
            known here.
    """
    try:
        content = read_yaml(find_config(path))
    except ValueError as error:
        raise SettingError(f"{path} is not valid YAML: {error}. Correct --space.") from None
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict) or not content["parameters"]:
        raise SettingError(f"{path} has no parameters. Give each setting its values, or min and max.")
    metric = {"name": "val/dice", "goal": "maximize", **(content.get("metric") or {})}
    method = content.get("method", "bayes")
    _check_choice(path, "metric.goal", metric["goal"], ("maximize", "minimize"))
    _check_choice(path, "method", method, METHODS)
    if not str(metric["name"]).startswith("val/"):
        raise SettingError(
            f"{path}: metric.name is {metric['name']}. Trials are compared by a validation score: val/…."
        )
    parameters = {str(name): _parse_parameter(path, str(name), value) for name, value in content["parameters"].items()}
    ranges = [name for name, parameter in parameters.items() if isinstance(parameter, Range)]
    if method == "grid" and ranges:
        raise SettingError(f"{path}: method grid tries every value, but {ranges[0]} is a range. Give it values.")
    return SearchSpace(parameters, str(metric["name"]), metric["goal"], str(method))


def _check_choice(path: Path, name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SettingError(f"{path}: {name} is {value!r}. Choose one of {', '.join(allowed)}.")


def _parse_parameter(path: Path, name: str, value: Any) -> Choice | Range:
    where = f"{path}: {name}"
    bound = [each for each in _BINDING if name == each or name.startswith(f"{each}.")]
    if bound:
        raise SettingError(f"{where} is shared by all trials, which would not compare otherwise. Leave it out.")
    if not isinstance(value, Mapping):
        raise SettingError(f"{where} is {value!r}. Give it values: [...], or min and max.")
    if "value" in value or "values" in value:
        values = value["values"] if "values" in value else [value["value"]]
        if not isinstance(values, list) or not values:
            raise SettingError(f"{where}: values must be a list with at least one entry; got {values!r}.")
        return Choice(tuple(each if isinstance(each, str) else json.dumps(each) for each in values))
    return _parse_range(where, value)


def _parse_range(where: str, value: Mapping[str, Any]) -> Range:
    """Parse a distribution between two ends.

    >>> _parse_range("lr", {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"})
    Range(low=0.0001, high=0.01, log=True, step=None, whole=False)
    >>> _parse_range("batch_size", {"min": 4, "max": 16})
    Range(low=4, high=16, log=False, step=1, whole=True)
    """
    low, high = value.get("min"), value.get("max")
    # YAML reads 1e-4, without a point, as text.
    low, high = (_parse_number(where, each) for each in (low, high))
    if not low < high:
        raise SettingError(f"{where}: min {low} is not below max {high}. Exchange or correct them.")
    is_whole = isinstance(low, int) and isinstance(high, int)
    distribution = value.get("distribution", "int_uniform" if is_whole else "uniform")
    if distribution not in _RANGES:
        raise SettingError(f"{where}: the distribution {distribution!r} is not known. Known: {', '.join(_RANGES)}.")
    if distribution == "log_uniform_values" and low <= 0:
        raise SettingError(f"{where}: log_uniform_values needs a min above 0; got {low}.")
    step = float(value.get("q", 1)) if distribution == "q_uniform" else None
    whole = _RANGES[distribution] is int
    return Range(low, high, distribution == "log_uniform_values", 1 if whole else step, whole)


def _parse_number(where: str, value: Any) -> float:
    try:
        return value if isinstance(value, int | float) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise SettingError(f"{where} needs values, or numbers as min and max; got {value!r}.") from None
