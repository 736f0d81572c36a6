"""What speaks against a label, on boxes of a few voxels."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.inference.review import CaseEvidence, assess_prediction, assess_reference


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
        assert [label.signs["surprise"].strength for label in signs.labels] == [0, 0]
        assert [(label.size, label.size_words) for label in signs.labels] == [(8, "8 ml"), (8, "8 ml")]

    def test_a_reference_unlike_the_prediction_surprises_who_is_sure(self) -> None:
        predicted = self.mask(liver=np.s_[1, :2])
        drawn = self.mask(liver=np.s_[1, 1:3])
        sure = assess_reference(self.LABELS, drawn, predicted, self.sure(predicted), self.GRID)
        assert sure.labels[0].signs["surprise"].strength == 0.5
        assert sure.labels[1].signs["surprise"].strength == 0
        assert sure.slice == 1
        unsure = 0.5 * self.sure(predicted) + 0.5 * self.sure(drawn)
        less = assess_reference(self.LABELS, drawn, predicted, unsure, self.GRID)
        assert less.labels[0].signs["surprise"].strength == 0

    def test_what_nobody_annotated_surprises_nobody(self) -> None:
        predicted = self.mask(liver=np.s_[1, :2])
        drawn = self.mask(liver=np.s_[1, :1])
        drawn[0, 1, 1] = IGNORE
        signs = assess_reference(self.LABELS, drawn, predicted, self.sure(predicted), self.GRID)
        assert signs.labels[0].signs["surprise"].strength == 0

    def test_models_that_differ_and_doubt(self) -> None:
        first, second = self.mask(liver=np.s_[1, :2]), self.mask(liver=np.s_[1, :1])
        mean = (self.sure(first) + self.sure(second)) / 2
        signs = assess_prediction(self.LABELS, first, mean, [first, second], self.GRID)
        liver, spleen = signs.labels
        assert liver.signs["disagreement"].strength == pytest.approx(1 - (1 + 2 / 3) / 2)
        assert liver.signs["doubt"].strength == pytest.approx(1 - 2 * 6 / (8 + 6))
        assert [sign.strength for sign in spleen.signs.values()] == [0, 0]
        assert signs.slice == 1
        alone = assess_prediction(self.LABELS, first, mean, [], self.GRID)
        assert math.isnan(alone.labels[0].signs["disagreement"].strength)

    def test_they_survive_json(self) -> None:
        mask = self.mask(liver=np.s_[0, :2])
        signs = assess_prediction(self.LABELS, mask, self.sure(mask), [], self.GRID)
        text = json.dumps(signs.as_dict(), allow_nan=False)
        assert CaseEvidence.from_dict(json.loads(text)).as_dict() == signs.as_dict()
