"""Settings, tables of scores, pictures with masks and summaries on W&B and TensorBoard.

Only rank zero calls these functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.visualization import draw_side_by_side
from medseg_pl.training.loggers.privacy import remove_links

Dashboard: TypeAlias = WandbLogger | TensorBoardLogger
"""A logger that shows more than the scalars that Lightning sends it."""

_TABLE_COLUMNS = ("case_id", "group", "label", "dice", "iou", "hd95_mm", "nsd", "status")
"""What TensorBoard shows of the scores; the run folder has all columns."""


@dataclass(frozen=True)
class Picture:
    """A slice of a case with its masks, one for each label.

    Args:
        case_id: The case; not for showing.
        rgb: The image.
        reference: What was annotated.
        prediction: What was predicted.
    """

    case_id: str
    rgb: UInt8[np.ndarray, "h w 3"]
    reference: Bool[np.ndarray, "n h w"]
    prediction: Bool[np.ndarray, "n h w"]


def log_settings(dashboard: Dashboard, settings: Mapping[str, Any]) -> None:
    """Log the settings as W&B's configuration; TensorBoard gets them with the scores that they led to."""
    if isinstance(dashboard, WandbLogger):
        remove_links(dashboard)
        dashboard.log_hyperparams(dict(settings))


def log_scores(dashboard: Dashboard, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log a table with a row for each case and label: sortable on W&B, as text on TensorBoard."""
    if isinstance(dashboard, TensorBoardLogger):
        dashboard.experiment.add_text(f"scores/{stage}", format_markdown(rows, _TABLE_COLUMNS))
        return
    import wandb  # noqa: PLC0415  an extra, and only those who configured its logger have it

    columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
    data = [[_replace_nan(row.get(str(name))) for name in columns] for row in rows]
    run, name, table = dashboard.experiment, f"scores/{stage}", wandb.Table(columns=columns, data=data)
    if not run.disabled:
        # Not `WandbLogger.log_table`: W&B would keep the table as an artifact, too, under the home folder. That path
        # would stand in the run's file, and the artifact be missing if the folder is synced from another machine.
        table.bind_to_run(run, name, run.step)  # type: ignore[no-untyped-call]
    run.log({name: table})


def log_pictures(dashboard: Dashboard, name: str, pictures: Mapping[str, Picture], labels: LabelMap, step: int) -> None:
    """Log pictures by caption: with masks to switch on and off on W&B, side by side on TensorBoard."""
    if isinstance(dashboard, TensorBoardLogger):
        for number, picture in enumerate(pictures.values()):
            drawn = draw_side_by_side(picture.rgb, picture.reference, picture.prediction)
            dashboard.experiment.add_image(f"{name}/{number}", drawn, step, dataformats="HWC")
        return
    images = [picture.rgb for picture in pictures.values()]
    masks = [make_mask_layers(picture, labels) for picture in pictures.values()]
    dashboard.log_image(name, images, step, caption=list(pictures), masks=masks)


def log_summary(dashboard: Dashboard, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Log the few numbers that stand for the run; TensorBoard shows them beside the settings, once."""
    if isinstance(dashboard, WandbLogger):
        dashboard.experiment.summary.update(dict(values))
    else:
        dashboard.log_hyperparams(dict(settings), dict(values))


def make_mask_layers(picture: Picture, labels: LabelMap) -> dict[str, dict[str, Any]]:
    """Make W&B's layers of masks: one for each label if labels may overlap, else one for all of them."""
    layers: dict[str, dict[str, Any]] = {}
    for name, planes in {"prediction": picture.prediction, "reference": picture.reference}.items():
        if labels.overlapping:
            for index, label in enumerate(labels.names):
                layers[f"{name} {label}"] = _make_layer(planes[index : index + 1], {index: label})
        else:
            layers[name] = _make_layer(planes, dict(enumerate(labels.names)))
    return layers


def _make_layer(planes: Bool[np.ndarray, "n h w"], names: Mapping[int, str]) -> dict[str, Any]:
    """Merge planes into one mask; label `i` is `i + 1` in each layer, so that it has the same color in all."""
    values = np.array([index + 1 for index in names], np.uint8).reshape(-1, 1, 1)
    classes = {0: "background", **{index + 1: name for index, name in names.items()}}
    return {"mask_data": (planes * values).max(axis=0), "class_labels": classes}


def _replace_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def format_markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    r"""Format a table in Markdown, numbers with four decimals.

    >>> print(format_markdown([{"label": "a|b", "dice": 0.5}], ["label", "dice"]))
    | label | dice |
    | --- | --- |
    | a\|b | 0.5000 |
    """
    lines = [columns, ["---"] * len(columns), *([_format_cell(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
