"""Configuration and environment of the runs, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from medseg_pl.core.privacy import shown_config
from medseg_pl.reporting.run import Run


class Setting(NamedTuple):
    """One line: what a setting is in each run, and whether the runs differ."""

    name: str
    values: list[str]
    differs: bool


def compare_settings(runs: Sequence[Run]) -> list[Setting]:
    """The configurations, without what is personal and what is not set; what differs comes first."""
    return _side_by_side([shown_config(run.config or {}) for run in runs])


def compare_environments(runs: Sequence[Run]) -> list[Setting]:
    """What the runs were trained on and with."""
    return _side_by_side([_environment(run.environment or {}) for run in runs])


def _environment(record: Mapping[str, Any]) -> dict[str, Any]:
    """All but the data, which has a place of its own; of the times that the run went on, how many they were."""
    kept = {name: value for name, value in record.items() if name not in ("data", "resumed")}
    return {**kept, "resumed": f"{len(record['resumed'])} times"} if record.get("resumed") else kept


def _side_by_side(settings: Sequence[Mapping[str, Any]]) -> list[Setting]:
    flat = [dict(_flat(one)) for one in settings]
    lines = []
    for name in dict.fromkeys(name for one in flat for name in one):
        values = [one.get(name, "–") for one in flat]
        lines.append(Setting(name, values, len(set(values)) > 1))
    return sorted(lines, key=lambda line: not line.differs)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `a.b.c` and text.

    >>> list(_flat({"model": {"input_size": [96, 112], "loss": {"class_path": "a.Dice", "init_args": {"n": True}}}}))
    [('model.input_size', '96, 112'), ('model.loss', 'a.Dice'), ('model.loss.n', 'true')]
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            here = name if key in ("class_path", "init_args") else f"{name}.{key}" if name else str(key)
            yield from _flat(inner, here)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{place}")
    elif value is not None:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
