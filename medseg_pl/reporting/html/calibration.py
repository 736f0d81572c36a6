"""Whether the probabilities mean what they say, where a run measured it."""

from __future__ import annotations

from typing import Any, NamedTuple

from medseg_pl.reporting.run import Run

METRICS = {"brier": "Brier score", "ece": "calibration error", "entropy": "entropy, nats"}


class Calibration(NamedTuple):
    """A label, with mean and interval of each metric, `None` where it was not measured."""

    label: str
    values: list[tuple[float, Any] | None]


def calibration_of(run: Run) -> list[Calibration]:
    """The means of each label; empty where the run did not measure them."""
    if not any(metric in run.summary.get("foreground_mean", {}) for metric in METRICS):
        return []
    return [Calibration(label, [_value(run, label, metric) for metric in METRICS]) for label in run.labels]


def _value(run: Run, label: str, metric: str) -> tuple[float, Any] | None:
    described = run.summary["labels"][label].get(metric) or {}
    return None if described.get("mean") is None else (float(described["mean"]), described.get("ci95"))
