"""Matching of objects: on paper, against all ways of pairing, and against panoptica."""

from __future__ import annotations

import json
import math
import zlib
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.metrics.functional.matching import (
    MatchingMode,
    count_disagreement,
    match_objects,
    panoptic_quality,
    segmentation_quality,
)
from medseg_pl.metrics.functional.objects import Connectivity, count_overlaps, find_objects
from medseg_pl.metrics.functional.overlap import dice
from tests.metrics.functional import object_oracle
from tests.metrics.functional.object_pairs import KINDS, Mask, pair

PAIRS = [pair(number) for number in range(1_000)]
OVERLAPS = [count_overlaps(find_objects(drawn.reference), find_objects(drawn.prediction)) for drawn in PAIRS]
THRESHOLDS = pytest.mark.parametrize("threshold", [0.0, 0.5])
PANOPTICA = json.loads(Path(__file__).with_name("panoptica_scores.json").read_text())["rows"]


@cache
def flooded(number: int) -> tuple[list[set[object_oracle.Voxel]], list[set[object_oracle.Voxel]]]:
    drawn = PAIRS[number]
    return object_oracle.components(drawn.reference), object_oracle.components(drawn.prediction)


def match(prediction: Mask, reference: Mask, threshold: float, mode: MatchingMode = "one_to_one") -> Any:
    return match_objects(count_overlaps(find_objects(reference), find_objects(prediction)), threshold, mode)


@THRESHOLDS
def test_one_to_one_is_the_best_of_all_pairings(threshold: float) -> None:
    for number, drawn in enumerate(PAIRS):
        found, (ours, theirs) = match_objects(OVERLAPS[number], threshold), flooded(number)
        total, pairs = object_oracle.one_to_one(theirs, ours, Fraction(threshold))
        assert found.counts == (pairs, len(theirs) - pairs, len(ours) - pairs), drawn
        assert float(found.iou.sum()) == pytest.approx(float(total), rel=1e-12, abs=0)
        for index, owner in enumerate(found.assigned.tolist()):
            if owner >= 0:  # what is summed is the IoU of the pairs that are named
                assert found.iou[owner] == float(object_oracle.iou(ours[owner], theirs[index])) >= threshold
        assert sorted(found.assigned[found.assigned >= 0].tolist()) == np.flatnonzero(found.iou).tolist()


@THRESHOLDS
def test_many_to_one_is_its_definition(threshold: float) -> None:
    for number, drawn in enumerate(PAIRS):
        found, (ours, theirs) = match_objects(OVERLAPS[number], threshold, "many_to_one"), flooded(number)
        total, pairs, invented = object_oracle.many_to_one(theirs, ours, Fraction(threshold))
        assert found.counts == (pairs, invented, len(ours) - pairs), drawn
        assert float(found.iou.sum()) == pytest.approx(float(total), rel=1e-12, abs=0)


@pytest.mark.parametrize("connectivity", ["full", "face"])
def test_equal_to_panoptica(connectivity: Connectivity) -> None:
    """Its matching of most IoU; of three axes it joins voxels at corners, of two at sides."""
    compared = 0
    for number, row in enumerate(PANOPTICA):
        drawn = pair(number)
        assert row["digest"] == zlib.crc32(np.packbits(np.stack([drawn.prediction, drawn.reference])).tobytes())
        masks = drawn.reference, drawn.prediction
        overlaps = (
            OVERLAPS[number] if connectivity == "full" else count_overlaps(*(find_objects(m, "face") for m in masks))
        )
        for threshold, expected in zip((0.0, 0.5), row.get(connectivity, ()), strict=False):
            found = match_objects(overlaps, threshold)
            ours = [*found.counts, dice(found.counts), segmentation_quality(found), panoptic_quality(found)]
            theirs = [math.nan if value is None else value for value in expected]
            assert ours == pytest.approx(theirs, rel=1e-8, abs=0, nan_ok=True), (number, threshold, drawn.kind)
            compared += 1
    assert compared == (1_200 if connectivity == "full" else 600)
    assert len(PANOPTICA) >= 500
    assert len(KINDS) == 10


def test_a_case_on_paper() -> None:
    # One reference of 8 pixels in two parts of 2 and 4, one found with IoU 2/3, one missed, one invented.
    reference = np.array([[[1] * 8 + [0, 1, 1, 1, 0, 1, 0, 0, 0]]], bool)
    prediction = np.array([[[1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1]]], bool)
    loose, strict = (match(prediction, reference, threshold) for threshold in (0.0, 0.6))
    assert loose.counts == (2, 2, 1)
    assert loose.assigned.tolist() == [-1, 0, 1, -1]
    assert loose.iou.tolist() == [0.5, 2 / 3, 0.0]
    assert loose.dice.tolist() == [8 / 12, 0.8, 0.0]
    assert segmentation_quality(loose) == (0.5 + 2 / 3) / 2
    assert panoptic_quality(loose) == pytest.approx((0.5 + 2 / 3) / (2 + 1.5))
    assert strict.counts == (1, 3, 2)
    together = match(prediction, reference, 0.6, "many_to_one")
    assert together.counts == (2, 1, 1)
    assert together.assigned.tolist() == [0, 0, 1, -1]
    assert together.iou.tolist() == [0.75, 2 / 3, 0.0]


def test_the_largest_sum_is_not_the_greedy_one() -> None:
    reference, prediction = np.zeros((2, 1, 1, 16), bool)
    reference[0, 0, :10] = reference[0, 0, 11:15] = True
    prediction[0, 0, :3] = prediction[0, 0, 4:13] = True
    found = match(prediction, reference, 0.0)
    assert found.assigned.tolist() == [0, 1]
    assert found.iou.tolist() == [3 / 10, 2 / 11]  # more than the 6 / 13 of the best pair, which excludes both


def test_an_emptied_prediction_is_never_better() -> None:
    for drawn in PAIRS[:100]:
        if not drawn.reference.any():
            continue
        for mode in ("one_to_one", "many_to_one"):
            full = match(drawn.prediction, drawn.reference, 0.0, mode)
            empty = match(np.zeros_like(drawn.prediction), drawn.reference, 0.0, mode)
            for score in (segmentation_quality, panoptic_quality, lambda found: dice(found.counts)):
                assert score(empty) == 0.0 <= score(full)
            totals = len(full.iou), len(full.assigned)
            assert count_disagreement(totals[0], 0) == 1.0 >= count_disagreement(*totals)


def test_nothing_to_match_is_undefined() -> None:
    nothing = np.zeros((1, 3, 3), bool)
    found = match(nothing, nothing, 0.5)
    assert found.counts == (0, 0, 0)
    assert all(math.isnan(value) for value in (segmentation_quality(found), panoptic_quality(found)))
    assert math.isnan(count_disagreement(0, 0))


def test_thousands_of_objects_in_one_group() -> None:
    rng = np.random.default_rng(0)
    reference, prediction = (rng.random((40, 64, 64)) < 0.02 for _ in range(2))
    found = match(prediction, reference, 0.0)
    assert found.counts.tp + found.counts.fn > 1_000
    assert found.counts.tp > 30
