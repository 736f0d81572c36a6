"""What a dashboard shows, piece by piece."""

from __future__ import annotations

import math

import numpy as np

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.metrics import CaseScore
from medseg_pl.training.callbacks.log_media import ImageBuffer, find_worst_cases
from medseg_pl.training.loggers.media import Picture, make_mask_layers

NUCLEUS = LabelMap(["nucleus"], "binary")


def case_with(name: str, hits: int) -> Prediction:
    """Eight voxels of reference in the second of three slices, of which the prediction finds so many."""
    reference = np.zeros((3, 4, 4), np.uint8)
    reference[1, :2] = 1
    prediction = np.zeros_like(reference)
    prediction[1].flat[:hits] = 1
    return Prediction.from_masks(name, prediction, reference)


def test_the_buffer_keeps_the_fixed_and_the_worst_and_no_others() -> None:
    images = ImageBuffer(NUCLEUS, size=1, fixed=["good"])
    for name, hits in {"good": 8, "fair": 4, "bad": 1, "better": 6}.items():
        case = case_with(name, hits)
        if images.is_wanted(case):
            images.add(case, np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 4), np.float32))
    assert sorted(images.pictures) == ["bad", "good"]
    assert images.pictures["bad"].reference.sum() == 8  # of the second slice
    assert list(images.gather(["bad", "elsewhere", "good"])) == ["bad", "good"]


def test_a_case_without_any_label_is_never_among_the_worst() -> None:
    rows = [
        CaseScore(name, "g", "nucleus", {"dice": dice}, "ok", "px") for name, dice in {"a": math.nan, "b": 0.9}.items()
    ]
    assert find_worst_cases(rows, 1) == ["b"]


def test_overlapping_labels_have_a_layer_each_and_others_share_one() -> None:
    planes = np.array([[[True, False]], [[True, True]]])
    exclusive = np.array([[[True, False]], [[False, True]]])
    rgb = np.zeros((1, 2, 3), np.uint8)
    names = ["a", "b"]
    layers = make_mask_layers(Picture("x", rgb, planes, planes), LabelMap(names, "multilabel"))
    assert sorted(layers) == ["prediction a", "prediction b", "reference a", "reference b"]
    assert layers["reference b"]["mask_data"].tolist() == [[2, 2]]
    assert layers["reference b"]["class_labels"] == {0: "background", 2: "b"}
    shared = make_mask_layers(Picture("x", rgb, exclusive, exclusive), LabelMap(names, "multiclass"))
    assert sorted(shared) == ["prediction", "reference"]
    assert shared["prediction"]["mask_data"].tolist() == [[1, 2]]
