"""What speaks against a label, on boxes of a few voxels."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.inference.evidence import (
    CaseEvidence,
    agreement,
    assess_prediction,
    assess_reference,
    describe_discrepancy,
    expected_dice,
    format_size,
)


class TestSigns:
    LABELS = LabelMap(["liver", "spleen"], "multiclass")
    GRID = Geometry((2, 4, 4), (10.0, 10.0, 10.0))

    def sure(self, mask: np.ndarray) -> np.ndarray:
        """Probabilities of a model that is certain of its mask."""
        return np.stack([mask[0] == value for value in range(3)]).astype(np.float32)

    def mask(self, **places: tuple[slice, ...]) -> np.ndarray:
        mask = np.zeros((1, 2, 4, 4), np.uint8)
        for name, place in places.items():
            mask[0][place] = 1 + self.LABELS.names.index(name)  # type: ignore[attr-defined]
        return mask

    def test_a_reference_like_the_prediction_surprises_nobody(self) -> None:
        mask = self.mask(liver=np.s_[0, :2], spleen=np.s_[1, 2:])
        signs = assess_reference(self.LABELS, mask, mask, self.sure(mask), self.GRID)
        assert [label.evidence["surprise"].strength for label in signs.labels] == [0, 0]
        assert [(label.size, label.size_words) for label in signs.labels] == [(8, "8 ml"), (8, "8 ml")]

    def test_a_reference_unlike_the_prediction_surprises_who_is_sure(self) -> None:
        predicted = self.mask(liver=np.s_[1, :2])
        drawn = self.mask(liver=np.s_[1, 1:3])
        sure = assess_reference(self.LABELS, drawn, predicted, self.sure(predicted), self.GRID)
        assert sure.labels[0].evidence["surprise"].strength == 0.5
        assert sure.labels[1].evidence["surprise"].strength == 0
        assert sure.slice == 1
        unsure = 0.5 * self.sure(predicted) + 0.5 * self.sure(drawn)
        less = assess_reference(self.LABELS, drawn, predicted, unsure, self.GRID)
        assert less.labels[0].evidence["surprise"].strength == 0

    def test_what_nobody_annotated_surprises_nobody(self) -> None:
        predicted = self.mask(liver=np.s_[1, :2])
        drawn = self.mask(liver=np.s_[1, :1])
        drawn[0, 1, 1] = IGNORE
        signs = assess_reference(self.LABELS, drawn, predicted, self.sure(predicted), self.GRID)
        assert signs.labels[0].evidence["surprise"].strength == 0

    def test_models_that_differ_and_doubt(self) -> None:
        first, second = self.mask(liver=np.s_[1, :2]), self.mask(liver=np.s_[1, :1])
        mean = (self.sure(first) + self.sure(second)) / 2
        signs = assess_prediction(self.LABELS, first, mean, [first, second], self.GRID)
        liver, spleen = signs.labels
        assert liver.evidence["disagreement"].strength == pytest.approx(1 - (1 + 2 / 3) / 2)
        assert liver.evidence["doubt"].strength == pytest.approx(1 - 2 * 6 / (8 + 6))
        assert [sign.strength for sign in spleen.evidence.values()] == [0, 0]
        assert signs.slice == 1
        alone = assess_prediction(self.LABELS, first, mean, [], self.GRID)
        assert math.isnan(alone.labels[0].evidence["disagreement"].strength)

    def test_they_survive_json(self) -> None:
        mask = self.mask(liver=np.s_[0, :2])
        signs = assess_prediction(self.LABELS, mask, self.sure(mask), [], self.GRID)
        text = json.dumps(signs.as_dict(), allow_nan=False)
        assert CaseEvidence.from_dict(json.loads(text)).as_dict() == signs.as_dict()


def test_the_expected_dice_is_the_mean_over_what_the_probabilities_stand_for() -> None:
    """Each voxel drawn by its probability, many times, and the Dice of the mask with what was drawn."""
    rng = np.random.default_rng(0)
    probability = rng.random(400) ** 3
    mask = probability > 0.5
    drawn = rng.random((4000, 400)) < probability
    both = (drawn & mask).sum(axis=1)
    mean = (2 * both / (drawn.sum(axis=1) + mask.sum())).mean()
    assert expected_dice(probability, mask) == pytest.approx(mean, abs=2e-3)


def test_certainty_expects_what_dice_is() -> None:
    reference = np.array([1.0, 1.0, 0.0, 0.0])
    assert expected_dice(reference, reference == 1) == 1
    assert expected_dice(reference, np.array([False, True, True, False])) == 0.5
    assert expected_dice(reference, np.zeros(4, bool)) == 0
    assert expected_dice(np.zeros(4), np.zeros(4, bool)) == 1
    assert expected_dice(np.zeros(4), reference == 1) == 0


def test_half_precision_does_not_overflow_the_sum() -> None:
    probability = np.full((64, 64, 64), 0.5, np.float32)
    assert expected_dice(probability, np.ones((64, 64, 64), bool)) == 2 / 3


def test_models_that_find_nothing_agree() -> None:
    empty, one = np.zeros(3, bool), np.array([True, False, False])
    assert agreement([empty, empty], empty) == 1
    assert agreement([empty, one], empty) == 0.5
    assert math.isnan(agreement([], empty))


BOX_SHAPE = (4, 20, 20)
BOX_GRID = Geometry(BOX_SHAPE, (10.0, 2.0, 1.0))
BOX_NAMES = ["liver", "spleen"]


def box(top: int, left: int, height: int = 6, width: int = 6) -> np.ndarray:
    mask = np.zeros(BOX_SHAPE, bool)
    mask[1:3, top : top + height, left : left + width] = True
    return mask


EMPTY = np.zeros(BOX_SHAPE, bool)


@pytest.mark.parametrize(
    ("drawn", "predicted", "words"),
    [
        (EMPTY, EMPTY, "is neither drawn nor predicted"),
        (EMPTY, box(2, 2), "is not drawn, where 1.44 ml are predicted"),
        (box(2, 2), EMPTY, "is not predicted, where 1.44 ml are drawn"),
        (box(2, 2), box(5, 6), "is drawn 7.21 mm from where it is predicted"),  # 3 rows of 2 mm, 4 columns of 1 mm
        (box(2, 2), box(2, 2, width=10), "is drawn 0.6 times as large as it is predicted"),
        (box(2, 2, width=12), box(2, 2), "is drawn 2 times as large as it is predicted"),
        (box(2, 2), box(2, 3), "is drawn with a Dice of 0.83 to the prediction"),
        (box(2, 2), box(2, 2), "is drawn with a Dice of 1.00 to the prediction"),
    ],
)
def test_one_label(drawn: np.ndarray, predicted: np.ndarray, words: str) -> None:
    spleen = box(12, 12)
    assert (
        describe_discrepancy(np.stack([drawn, spleen]), np.stack([predicted, spleen]), 0, BOX_NAMES, BOX_GRID) == words
    )


def test_labels_that_are_exchanged() -> None:
    first, second = box(2, 2), box(12, 12)
    drawn, predicted = np.stack([first, second]), np.stack([second, first])
    assert describe_discrepancy(drawn, predicted, 0, BOX_NAMES, BOX_GRID) == "is drawn where spleen is predicted"
    assert describe_discrepancy(drawn, predicted, 1, BOX_NAMES, BOX_GRID) == "is drawn where liver is predicted"


def test_what_leaves_the_image_is_gone() -> None:
    drawn, predicted = np.stack([box(0, 0), EMPTY]), np.stack([box(14, 14), EMPTY])
    assert describe_discrepancy(drawn, predicted, 0, BOX_NAMES, BOX_GRID).startswith("is drawn 31.3 mm from")


def test_without_a_spacing_pixels_are_counted() -> None:
    grid = Geometry(BOX_SHAPE)
    assert format_size(72, grid) == "72 pixels"
    drawn, predicted = np.stack([box(2, 2), EMPTY]), np.stack([box(5, 6), EMPTY])
    assert describe_discrepancy(drawn, predicted, 0, BOX_NAMES, grid) == "is drawn 5 px from where it is predicted"
