"""Accuracy of an export: Dice on the validation cases, by the checkpoint and by the exported folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg_pl.core.types import Prediction
from medseg_pl.data.cache.case import as_cache_dtype
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.from_settings import select_recorded_cases
from medseg_pl.export import runner
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.progress import show_progress
from medseg_pl.metrics import MetricTable, OverlapMetric, summarize
from medseg_pl.training.checkpoints import CheckpointInfo


def measure_accuracy(trained: CheckpointInfo, predictor: Predictor, folder: Path, source: Source) -> dict[str, Any]:
    """Measure the mean Dice over the validation cases, both ways.

    Args:
        trained: The checkpoint.
        predictor: Its model, in the precision that it was trained in.
        folder: The exported model.
        source: The data set of the training.

    Returns:
        `cases`, and for all labels together and each of them `checkpoint`, `exported` and `cost`.

    Raises:
        DataError: The data cannot be read, or was trained on.
    """
    cases = select_recorded_cases(source.cases(), trained.data)
    tables = {name: MetricTable([OverlapMetric(predictor.labels)]) for name in ("checkpoint", "exported")}
    model = runner.Model(folder)
    with show_progress("Measuring", len(cases)) as advance:
        for case in cases:
            read = source.read(case, predictor.labels)
            volume = replace(read, image=as_cache_dtype(read.image, f"Case {case.case_id}"))  # as training saw it
            masks = {
                "checkpoint": predictor.predict_volume(volume, f"Case {case.case_id}").mask,
                "exported": model.predict(volume.image, volume.geometry.spacing_mm)[0],
            }
            for name, mask in masks.items():
                tables[name].add(Prediction(case.case_id, case.group, volume.geometry, mask, volume.mask))
            advance()
    names = list(predictor.labels.names)
    summaries = {name: summarize(table.table(), names, intervals=False) for name, table in tables.items()}
    overall = {name: summary["foreground_mean"]["dice"] for name, summary in summaries.items()}
    by_label = {
        label: _add_cost({name: summary["labels"][label]["dice"]["mean"] for name, summary in summaries.items()})
        for label in names
    }
    return {"cases": len(cases), "dice": _add_cost(overall), "labels": by_label}


def _add_cost(dice: dict[str, float | None]) -> dict[str, float | None]:
    """Add what is lost; unknown if no case has the label."""
    before, after = dice["checkpoint"], dice["exported"]
    return {**dice, "cost": None if before is None or after is None else before - after}
