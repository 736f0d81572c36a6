"""Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from lightning.pytorch.loggers import WandbLogger

from medseg_pl.core.labels import LabelMap
from medseg_pl.training.loggers.images import Picture
from medseg_pl.training.loggers.privacy import remove_links


class WandbBoard:
    """Configuration, a table of scores, interactive masks and a summary.

    Args:
        logger: Made private before its run began, see `make_private`.
    """

    def __init__(self, logger: WandbLogger) -> None:
        self.logger = logger

    def show_settings(self, settings: Mapping[str, Any]) -> None:
        """As the run's configuration."""
        remove_links(self.logger)
        self.logger.log_hyperparams(dict(settings))

    def show_scores(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """As a table that can be sorted and filtered."""
        import wandb  # noqa: PLC0415  an extra, and only those who configured its logger have it

        columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
        data = [[_defined(row.get(str(name))) for name in columns] for row in rows]
        run, name, table = self.logger.experiment, f"scores/{stage}", wandb.Table(columns=columns, data=data)
        if not run.disabled:
            # Else W&B keeps it as an artifact, too, under the home folder: that path would stand in the run's file, and
            # the artifact would be missing where the run's folder is synced from another machine.
            table.bind_to_run(run, name, run.step)  # type: ignore[no-untyped-call]
        run.log({name: table})

    def show_pictures(self, name: str, pictures: Mapping[str, Picture], labels: LabelMap, step: int) -> None:
        """With masks that can be switched on and off."""
        self.logger.log_image(
            name,
            [picture.rgb for picture in pictures.values()],
            step,
            caption=list(pictures),
            masks=[mask_layers(picture, labels) for picture in pictures.values()],
        )

    def show_summary(self, values: Mapping[str, float]) -> None:
        """Beside the last value of each metric."""
        self.logger.experiment.summary.update(dict(values))


def mask_layers(picture: Picture, labels: LabelMap) -> dict[str, dict[str, Any]]:
    """Masks as W&B takes them: a layer for each label where labels may overlap, else one for all of them."""
    layers: dict[str, dict[str, Any]] = {}
    for name, planes in {"prediction": picture.prediction, "reference": picture.reference}.items():
        if labels.overlapping:
            for index, label in enumerate(labels.names):
                layers[f"{name} {label}"] = _layer(planes[index : index + 1], {index: label})
        else:
            layers[name] = _layer(planes, dict(enumerate(labels.names)))
    return layers


def _layer(planes: Bool[np.ndarray, "n h w"], names: Mapping[int, str]) -> dict[str, Any]:
    """Planes as one mask, in which label `i` is `i + 1`: the same label has the same color in each layer."""
    values = np.array([index + 1 for index in names], np.uint8).reshape(-1, 1, 1)
    classes = {0: "background", **{index + 1: name for index, name in names.items()}}
    return {"mask_data": (planes * values).max(axis=0), "class_labels": classes}


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
