"""What an export costs: Dice on the validation cases, by the checkpoint and by the exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_pl.core.types import CasePrediction, Volume
from medseg_pl.data.datasets import SliceDataset, opened
from medseg_pl.export import runner
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.progress import progress_bar
from medseg_pl.metrics import MetricTable, OverlapMetric, summarize
from medseg_pl.training.checkpoints import Trained
from medseg_pl.training.datamodule import SegmentationDataModule


def measure(trained: Trained, predictor: Predictor, folder: Path, root: str | None) -> dict[str, Any]:
    """Mean Dice over the validation cases, both ways.

    Args:
        trained: The checkpoint.
        predictor: Its model, in the precision that it was trained in.
        folder: The exported model.
        root: Where the data is, if not where it was in training.

    Returns:
        `cases`, and for all labels together and each of them `checkpoint`, `exported` and `cost`.

    Raises:
        DataError: The data cannot be read, or was trained on.
    """
    dataset = _validation_cases(trained, root)
    ledgers = {name: MetricTable([OverlapMetric(predictor.labels)]) for name in ("checkpoint", "exported")}
    model = runner.Model(folder)
    with progress_bar("Measuring", len(dataset.cases)) as advance:
        for place, case in enumerate(dataset.cases):
            stored = opened(dataset.entries, place, case.case_id)
            volume = Volume(stored.image, stored.mask, stored.geometry)
            masks = {
                "checkpoint": predictor.predict_volume(volume, f"Case {case.case_id}").mask,
                "exported": model.predict(stored.image, stored.geometry.spacing_mm)[0],
            }
            for name, mask in masks.items():
                ledgers[name].add(CasePrediction(case.case_id, case.group, stored.geometry, mask, stored.mask))
            advance()
    names = list(predictor.labels.names)
    summaries = {name: summarize(ledger.table(), names, intervals=False) for name, ledger in ledgers.items()}
    overall = {name: summary["foreground_mean"]["dice"] for name, summary in summaries.items()}
    by_label = {
        label: _with_cost({name: summary["labels"][label]["dice"]["mean"] for name, summary in summaries.items()})
        for label in names
    }
    return {"cases": len(dataset.cases), "dice": _with_cost(overall), "labels": by_label}


def _with_cost(dice: dict[str, float | None]) -> dict[str, float | None]:
    """With what is lost; unknown where no case has the label."""
    before, after = dice["checkpoint"], dice["exported"]
    return {**dice, "cost": None if before is None or after is None else before - after}


def _validation_cases(trained: Trained, root: str | None) -> SliceDataset:
    """The cases of the checkpoint's split, of which none was trained on."""
    settings = trained.settings["data"]
    if root is not None:
        settings["source"]["init_args"]["root"] = root
    data = SegmentationDataModule.load_from_checkpoint(trained.path, weights_only=True, **settings)
    data.score_as_trained(trained.data)
    data.prepare_data()
    data.setup("validate")
    dataset = data.val_dataloader().dataset
    assert isinstance(dataset, SliceDataset), "evaluation is by slices"
    return dataset
