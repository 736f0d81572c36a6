"""Distance scores of whole cases: on paper, against a brute force, and what must hold for any masks."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Prediction
from medseg_pl.io.scores import DISTANCES
from medseg_pl.metrics import CaseMetric, CaseScore, SurfaceMetric
from tests.contracts.metric_contract import BINARY, MULTICLASS, MULTILABEL, CaseMetricContract
from tests.metrics.functional import surface_oracle
from tests.metrics.functional.surface_pairs import KINDS, pair

Spacing = tuple[float, float, float]
IN_MM = ("hd", "hd95", "assd")


class TestSurfaceMetric(CaseMetricContract):
    best_is_one = ("nsd",)
    best_is_zero = IN_MM

    def make(self, labels: LabelMap) -> CaseMetric:
        return SurfaceMetric(labels)


def rows(labels: LabelMap, case: Prediction, tolerance: Any = 1.0) -> list[CaseScore]:
    metric = SurfaceMetric(labels, tolerance)
    metric.update(case)
    return metric.table()


def scores(
    prediction: Any, reference: Any, spacing_mm: Spacing | None = None, tolerance: float = 1.0
) -> dict[str, float]:
    """Of one label, in masks of any number of axes."""
    case = Prediction.from_masks("c", np.asarray(prediction), np.asarray(reference), spacing_mm=spacing_mm)
    (score,) = rows(BINARY, case, tolerance)
    return {name: float(value) for name, value in score.values.items()}


SMALL = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
LARGE = np.ones((5, 5))


def test_a_case_on_paper() -> None:
    # Rows are 2 mm apart, columns 0.5 mm. Of the small square's border six voxels are one column from the large one's,
    # and two, above and below the middle, two columns; back it is one column, two rows, or for the corners both.
    corner = math.hypot(2, 0.5)
    assert scores(SMALL, LARGE, (9.0, 2.0, 0.5)) == {
        "hd": corner,
        "hd95": corner,  # the 95th of 16 values lies between the two largest, which are alike
        "assd": pytest.approx((6 * 0.5 + 2 * 1.0 + 6 * 0.5 + 6 * 2.0 + 4 * corner) / 24),
        "nsd": (6 + 2 + 6) / 24,
    }


def test_the_columns_are_named_once() -> None:
    assert {*DISTANCES} - {*scores(SMALL, LARGE)} == {"lesion_hd95"}  # a score of objects


def test_a_training_need_not_wait_for_it() -> None:
    assert not SurfaceMetric.in_training


def test_distances_are_in_pixels_where_the_spacing_is_unknown() -> None:
    unknown, known = (
        rows(BINARY, Prediction.from_masks("c", np.array(SMALL), LARGE, spacing_mm=spacing))[0]
        for spacing in (None, (1.0, 1.0, 1.0))
    )
    assert (unknown.unit, known.unit) == ("px", "mm")
    assert unknown.values == known.values
    assert unknown.values["hd"] == math.sqrt(2)


@pytest.mark.trainings
def test_equal_to_measuring_all_pairs() -> None:
    assert 100 * len(KINDS) >= 1_000
    for number in range(100 * len(KINDS)):
        drawn = pair(number)
        found = scores(drawn.prediction, drawn.reference, drawn.spacing, drawn.tolerance)
        expected = surface_oracle.scores(*drawn[1:])
        for name in IN_MM:
            assert found[name] == pytest.approx(expected[name], rel=0, abs=1e-6, nan_ok=True), (name, drawn)
        assert found["nsd"] == pytest.approx(expected["nsd"], rel=0, abs=1e-12, nan_ok=True), drawn


class TestTolerance:
    CASE = Prediction.from_masks("c", np.array([[1, 0, 0, 2, 0, 0]]), np.array([[0, 0, 1, 0, 0, 2]]))

    def test_one_number_is_that_of_every_label(self) -> None:
        labels = LabelMap(["a", "b"], "multiclass")
        assert [row.values["nsd"] for row in rows(labels, self.CASE, 1.9)] == [0.0, 0.0]
        assert [row.values["nsd"] for row in rows(labels, self.CASE, 2)] == [1.0, 1.0]

    def test_each_label_may_have_its_own(self) -> None:
        labels = LabelMap(["a", "b"], "multiclass")
        assert [row.values["nsd"] for row in rows(labels, self.CASE, {"b": 2.0, "a": 1.0})] == [0.0, 1.0]
        assert [row.values["nsd"] for row in rows(labels, self.CASE, {"a": 2, "b": 1})] == [1.0, 0.0]

    def test_it_may_be_zero(self) -> None:
        assert scores(SMALL, SMALL, tolerance=0.0)["nsd"] == 1.0
        assert scores(SMALL, LARGE, tolerance=0.0)["nsd"] == 0.0

    @pytest.mark.parametrize(
        ("tolerance", "said"),
        [
            ({"liver": 1.0}, "names liver; expected"),
            ({"liver": 1.0, "spleen": 1.0, "kidney": 1.0, "lung": 2.0}, "names liver, spleen, kidney, lung; expected"),
            ({"Liver": 1.0, "spleen": 1.0, "kidney": 1.0}, "names Liver, spleen, kidney; expected"),
            ({}, "names no label; expected"),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(self, tolerance: dict[str, float], said: str) -> None:
        with pytest.raises(SettingError) as caught:
            SurfaceMetric(MULTICLASS, tolerance)
        assert str(caught.value) == (
            f"The tolerance of NSD {said} one number, or one for each of the labels liver, spleen, kidney."
        )
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("wrong", [-0.5, math.nan, math.inf])
    def test_no_distance_is_refused(self, wrong: float) -> None:
        with pytest.raises(SettingError) as caught:
            SurfaceMetric(MULTILABEL, {"stomach": 1.0, "bowel": wrong})
        assert str(caught.value) == f"The tolerance of NSD must be finite and not negative; got {wrong} for bowel."
        with pytest.raises(SettingError, match=f"not negative; got {wrong} for stomach"):
            SurfaceMetric(MULTILABEL, wrong)


class TestOpenVoxels:
    def test_they_are_in_neither_mask(self) -> None:
        assert scores([[1, 1, 1, 1, 0]], [[1, 1, IGNORE, IGNORE, 0]]) == {
            "hd": 0,
            "hd95": 0,
            "assd": 0,
            "nsd": 1,
        }
        # What was predicted beyond them is as far away as it is.
        assert scores([[1, 1, 1, 1, 1]], [[1, 1, IGNORE, IGNORE, 0]])["hd"] == 3.0

    def test_a_prediction_that_lies_in_them_alone_has_missed(self) -> None:
        case = Prediction.from_masks("c", np.array([[0, 0, 1, 1]]), np.array([[1, 0, IGNORE, IGNORE]]))
        (row,) = rows(BINARY, case)
        assert (row.status, row.values["hd"]) == ("missed", math.hypot(1, 4))

    def test_each_overlapping_label_has_its_own(self) -> None:
        prediction = np.array([[[[1, 1, 1]]], [[[1, 1, 1]]]])
        reference = np.array([[[[1, 1, IGNORE]]], [[[1, 0, 0]]]])
        stomach, bowel = rows(MULTILABEL, Prediction.from_masks("c", prediction, reference))
        assert (stomach.values["hd"], bowel.values["hd"]) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "far"),
    [
        ((1, 3, 4), (100.0, 2.0, 2.0), 10.0),  # one slice has no depth
        ((2, 3, 6), (1.0, 1.0, 1.0), 7.0),
        ((2, 3, 6), None, 7.0),
        ((1, 3, 4), None, 5.0),
    ],
)
def test_what_was_missed_is_as_far_as_the_image_is_long(
    shape: tuple[int, int, int], spacing_mm: Spacing | None, far: float
) -> None:
    mask = np.zeros(shape)
    mask[0, 0, 0] = 1
    expected = {"hd": far, "hd95": far, "assd": far, "nsd": 0.0}
    assert scores(np.zeros(shape), mask, spacing_mm) == pytest.approx(expected)
    assert scores(mask, np.zeros(shape), spacing_mm) == pytest.approx(expected)


BITS = st.integers(0, 1)
STEPS = st.sampled_from([0.3, 0.5, 0.7, 1.0, 1.2, 2.5])
SPACINGS = st.tuples(STEPS, STEPS, STEPS)
TOLERANCES = st.sampled_from([0.0, 0.5, 0.7, 1.0, 1.2, 2.0, 3.6])


def mask_pairs(least: int = 1) -> st.SearchStrategy[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Two masks of one shape `(D, H, W)`."""
    shapes = array_shapes(min_dims=3, max_dims=3, min_side=least, max_side=5)
    return shapes.flatmap(lambda shape: st.tuples(*(arrays(np.uint8, shape, elements=BITS) for _ in range(2))))


Masks = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def the_same(found: dict[str, float], expected: dict[str, float]) -> bool:
    """To rounding: sums run in another order."""
    return found == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)


class TestAnyMasks:
    @given(masks=mask_pairs(), spacing=SPACINGS, tolerance=TOLERANCES)
    def test_exchanging_them_changes_nothing(self, masks: Masks, spacing: Spacing, tolerance: float) -> None:
        assert the_same(scores(*masks[::-1], spacing, tolerance), scores(*masks, spacing, tolerance))

    @given(masks=mask_pairs(), spacing=SPACINGS, tolerance=TOLERANCES)
    def test_emptying_a_prediction_never_improves_it(self, masks: Masks, spacing: Spacing, tolerance: float) -> None:
        prediction, reference = masks
        reference.flat[-1] = 1
        before = scores(prediction, reference, spacing, tolerance)
        after = scores(np.zeros_like(prediction), reference, spacing, tolerance)
        assert all(after[name] >= before[name] for name in IN_MM)
        assert after["nsd"] == 0 <= before["nsd"]

    @given(masks=mask_pairs(), spacing=SPACINGS, tolerance=TOLERANCES)
    def test_they_are_ordered(self, masks: Masks, spacing: Spacing, tolerance: float) -> None:
        found = scores(*masks, spacing, tolerance)
        if not math.isnan(found["nsd"]):
            assert 0 <= found["hd95"] <= found["hd"]
            assert 0 <= found["assd"] <= found["hd"]
            assert 0 <= found["nsd"] <= 1
            assert scores(*masks, spacing, tolerance + 1)["nsd"] >= found["nsd"]

    @given(masks=mask_pairs(), spacing=SPACINGS, tolerance=TOLERANCES, scale=st.sampled_from([0.1, 0.9, 3.0, 25.4]))
    def test_another_unit_of_length_scales_them(
        self, masks: Masks, spacing: Spacing, tolerance: float, scale: float
    ) -> None:
        expected = scores(*masks, spacing, tolerance)
        scaled = scores(*masks, tuple(scale * step for step in spacing), scale * tolerance)
        assert the_same(scaled, {n: value if n == "nsd" else scale * value for n, value in expected.items()})

    @given(masks=mask_pairs(least=2), spacing=SPACINGS, tolerance=TOLERANCES)
    def test_the_order_of_a_volumes_axes_does_not_matter(
        self, masks: Masks, spacing: Spacing, tolerance: float
    ) -> None:
        expected = scores(*masks, spacing, tolerance)
        for order in permutations(range(3)):
            turned = [mask.transpose(order)[::-1, :, ::-1] for mask in masks]
            assert the_same(scores(*turned, tuple(spacing[axis] for axis in order), tolerance), expected)

    @given(masks=mask_pairs(), spacing=SPACINGS, tolerance=TOLERANCES, around=st.tuples(*[st.integers(0, 3)] * 6))
    def test_background_around_them_changes_only_what_is_missed(
        self, masks: Masks, spacing: Spacing, tolerance: float, around: tuple[int, ...]
    ) -> None:
        # What lies outside the image is background too. One slice stays one: it would get neighbors.
        depth = (0, 0) if len(masks[0]) == 1 else around[:2]
        padded = [np.pad(mask, (depth, around[2:4], around[4:])) for mask in masks]
        before, after = scores(*masks, spacing, tolerance), scores(*padded, spacing, tolerance)
        if masks[0].any() == masks[1].any():
            assert the_same(after, before)
        else:
            lengths = [n * step for n, step in zip(padded[0].shape, spacing, strict=True)]
            far = math.hypot(*(lengths[1:] if len(masks[0]) == 1 else lengths))
            assert the_same(after, {**dict.fromkeys(IN_MM, far), "nsd": 0.0})

    def test_slices_around_an_image_make_it_a_volume_of_nothing_but_border(self) -> None:
        image = scores(SMALL, LARGE)
        volume = scores(*(np.pad(np.array(mask)[None], ((1, 1), (0, 0), (0, 0))) for mask in (SMALL, LARGE)))
        assert image["assd"] == pytest.approx((20 + 4 * math.sqrt(2)) / 24)
        assert volume["assd"] == pytest.approx((12 + 4 * math.sqrt(2)) / 34)


def test_pixels_and_millimeters_are_not_averaged() -> None:
    metric = SurfaceMetric(LabelMap(["a"], "binary"))
    for name, spacing in (("x", None), ("y", (1.0, 100.0, 100.0))):
        metric.update(Prediction.from_masks(name, np.array([[1, 0]]), np.array([[0, 1]]), spacing_mm=spacing))
    assert [score.values["hd"] for score in metric.table()] == [1.0, 100.0]
    assert all(math.isnan(mean) for mean in metric.compute().values())
