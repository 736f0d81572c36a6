"""Post-processing: in whose favor, in which unit, what stays untouched, and which of it is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.postprocess import (
    DiceGain,
    apply_postprocess,
    choose_gains,
    list_candidates,
    measure_smallest_components,
    score_candidates,
)

EXCLUSIVE = LabelMap(["ring", "core"], "multiclass")
OVERLAPPING = LabelMap(["ring", "core"], "multilabel")
GRID = Geometry((1, 3, 6), (9.0, 2.0, 0.5))

RING = np.array([[[[1, 1, 1, 0, 0, 1], [1, 2, 1, 0, 0, 0], [1, 1, 1, 0, 2, 2]]]], np.uint8)


def test_holes_are_filled_where_no_other_label_is() -> None:
    cleaned = apply_postprocess(RING, GRID, EXCLUSIVE, {"ring": PostProcessing(fill_holes=True)})
    np.testing.assert_array_equal(cleaned, RING)
    hollow = np.where(RING == 2, 0, RING).astype(np.uint8)
    assert apply_postprocess(hollow, GRID, EXCLUSIVE, {"ring": PostProcessing(fill_holes=True)})[0, 0, 1, 1] == 1


def test_what_is_removed_becomes_background() -> None:
    cleaned = apply_postprocess(
        RING, GRID, EXCLUSIVE, {"ring": PostProcessing(largest_only=True), "core": PostProcessing(largest_only=True)}
    )
    expected = RING.copy()
    expected[0, 0, 0, 5] = 0
    expected[0, 0, 1, 1] = 0
    np.testing.assert_array_equal(cleaned, expected)
    assert RING[0, 0, 0, 5] == 1  # the prediction itself is left as it was


def test_labels_that_overlap_do_not_see_each_other() -> None:
    mask = np.stack([(RING[0] == 1), (RING[0] == 2)]).astype(np.uint8)
    cleaned = apply_postprocess(mask, GRID, OVERLAPPING, {"ring": PostProcessing(fill_holes=True, largest_only=True)})
    assert cleaned[0, 0].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(cleaned[1], mask[1])


@pytest.mark.parametrize(
    ("geometry", "limit"),
    [
        (Geometry((1, 1, 4), (9.0, 2.0, 0.5)), 2.0),  # two pixels of 1 mm²: the slice has no depth
        (Geometry((2, 1, 4), (9.0, 2.0, 0.5)), 18.0),  # two voxels of 9 mm³
        (Geometry((2, 1, 4), None), 2.0),  # unknown: voxels
    ],
)
def test_sizes_are_in_mm(geometry: Geometry, limit: float) -> None:
    labels = LabelMap(["lesion"], "binary")
    mask = np.zeros((1, *geometry.shape), np.uint8)
    mask[0, 0, 0, :2] = 1
    assert apply_postprocess(mask, geometry, labels, {"lesion": PostProcessing(minimum_size=limit)}).any()
    assert not apply_postprocess(mask, geometry, labels, {"lesion": PostProcessing(minimum_size=1.01 * limit)}).any()


def test_wrong_use_is_refused() -> None:
    with pytest.raises(SettingError, match="minimum_size must be at least 0; got -1"):
        PostProcessing(minimum_size=-1)


TWO_LABELS = LabelMap(["organ", "lesion"], "multiclass")
SLICE = Geometry((1, 10, 10), (3.0, 2.0, 2.0))
NOTHING, LARGEST, FILL = PostProcessing(), PostProcessing(largest_only=True), PostProcessing(fill_holes=True)


def drawn(*boxes: tuple[int, int, int, int, int]) -> NDArray[np.uint8]:
    """A mask `(1, 1, 10, 10)` with boxes of `(top, left, height, width, value)`."""
    mask = np.zeros((1, 1, 10, 10), np.uint8)
    for top, left, height, width, value in boxes:
        mask[0, 0, top : top + height, left : left + width] = value
    return mask


def choose_one(tried: Sequence[PostProcessing], dices: NDArray[np.float64], groups: Sequence[str]) -> DiceGain:
    return choose_gains([tried], [dices], groups)[0]


def test_sizes_of_the_smallest_components_are_in_mm2_in_a_single_slice() -> None:
    mask = drawn((0, 0, 2, 2, 1), (5, 5, 3, 3, 1))
    assert measure_smallest_components(mask, TWO_LABELS, SLICE) == [16.0, math.inf]


def test_each_cleaning_is_scored_on_its_label() -> None:
    reference = drawn((0, 0, 4, 4, 1))
    prediction = drawn((0, 0, 4, 4, 1), (1, 1, 2, 2, 0), (8, 8, 2, 2, 1))  # a hole of 4 pixels, and 4 pixels of noise
    scored = score_candidates(
        prediction, reference, SLICE, TWO_LABELS, 0, [NOTHING, LARGEST, FILL, PostProcessing(True, 20.0)]
    )
    assert scored == pytest.approx([24 / 32, 24 / 28, 32 / 36, 1.0])
    assert score_candidates(prediction, reference, SLICE, TWO_LABELS, 1, [NOTHING, LARGEST]) == [1.0, 1.0]


def test_what_nobody_annotated_does_not_count() -> None:
    reference = drawn((0, 0, 4, 4, 1), (8, 8, 2, 2, IGNORE))
    labels = LabelMap(["organ", "lesion"], "multiclass", ignore_value=9)
    prediction = drawn((0, 0, 4, 4, 1), (8, 8, 2, 2, 1))
    assert score_candidates(prediction, reference, SLICE, labels, 0, [NOTHING]) == [1.0]


def test_a_false_alarm_that_goes_is_a_gain() -> None:
    prediction = drawn((8, 8, 2, 2, 1))
    assert score_candidates(
        prediction, drawn(), SLICE, TWO_LABELS, 0, [NOTHING, PostProcessing(minimum_size=20.0)]
    ) == [
        0.0,
        1.0,
    ]


def test_a_gain_for_every_patient_is_safe() -> None:
    dices = np.array([[0.5, 0.6], [0.6, 0.75], [0.7, 0.78], [0.5, 0.62], [0.8, 0.9], [0.4, 0.5]])
    gain = choose_one([NOTHING, LARGEST], dices, list("abcdef"))
    assert (gain.postprocess, gain.cases, gain.patients, gain.tried, gain.is_safe) == (LARGEST, 6, 6, 1, True)
    assert (gain.before, gain.after, gain.p) == pytest.approx((3.5 / 6, 4.15 / 6, 1 / 64))
    assert 0.05 < gain.interval[0] < 0.65 / 6 < gain.interval[1]


def test_cases_of_one_patient_are_one_piece_of_evidence() -> None:
    dices = np.array([[0.5, 0.6], [0.6, 0.75], [0.7, 0.78], [0.5, 0.62], [0.8, 0.9], [0.4, 0.5]])
    gain = choose_one([NOTHING, LARGEST], dices, list("aabbcc"))
    assert (gain.patients, gain.p, gain.is_safe) == (3, 1 / 8, False)


def test_the_gain_of_one_patient_may_be_chance() -> None:
    dices = np.array([[0.5, 0.49], [0.6, 0.59], [0.7, 0.69], [0.5, 0.49], [0.2, 0.9]])
    gain = choose_one([NOTHING, LARGEST], dices, list("abcde"))
    assert gain.after > gain.before
    assert not gain.is_safe
    assert not choose_one([NOTHING, LARGEST], dices[-1:], ["e"]).is_safe  # one patient tells nothing


@pytest.mark.parametrize("gained", [1e-4, 1e-9])
@pytest.mark.parametrize("touched", [1, 2, 5])
def test_gains_of_a_few_patients_beside_none_of_the_others_are_chance(gained: float, touched: int) -> None:
    dices = np.full((10, 2), 0.9)
    dices[:touched, 1] += gained
    gain = choose_one([NOTHING, LARGEST], dices, [f"p{i}" for i in range(10)])
    assert gain.p == pytest.approx(2.0**-touched)
    assert not gain.is_safe


def test_the_more_is_tried_the_more_has_to_be_shown() -> None:
    rng = np.random.default_rng(0)
    useless = 0.9 + rng.normal(0, 0.01, (7, 6))
    useful = np.stack([np.full(7, 0.8), np.full(7, 0.85)], axis=1)
    alone = choose_one([NOTHING, LARGEST], useful, list("abcdefg"))
    tried = [NOTHING, *(PostProcessing(minimum_size=size) for size in (1.0, 2.0, 3.0, 4.0, 5.0))]
    _, beside = choose_gains([tried, [NOTHING, LARGEST]], [useless, useful], list("abcdefg"))
    assert alone.is_safe
    assert (beside.tried, beside.is_safe) == (6, False)
    assert beside.p > alone.p


def test_of_the_sure_gains_the_largest_is_chosen() -> None:
    dices = np.full((8, 4), 0.8)
    dices[:, 1] += 0.01
    dices[:, 2] += 0.03
    dices[0, 3] += 0.5  # the highest mean, and the gain of one patient
    gain = choose_one([NOTHING, FILL, LARGEST, PostProcessing(minimum_size=3.0)], dices, list("abcdefgh"))
    assert (gain.postprocess, gain.is_safe) == (LARGEST, True)


def null_dices(rng: np.random.Generator, patients: int, candidates: int, touched: float) -> NDArray[np.float64]:
    """Cleanings that change the Dice of a share of the patients, up as often as down."""
    changes = rng.choice([-1, 1], (patients, candidates)) * rng.exponential(0.01, (patients, candidates))
    changes *= rng.random((patients, candidates)) < touched
    return np.concatenate([np.full((patients, 1), 0.9), 0.9 + changes], axis=1)


def share_chosen(patients: int, candidates: int, touched: float, gain: float = 0.0) -> float:
    """In which share of 300 data sets a cleaning is chosen that gains so much on average."""
    rng = np.random.default_rng(patients)
    tried = [NOTHING, *(PostProcessing(minimum_size=float(size + 1)) for size in range(candidates))]
    groups = [str(patient) for patient in range(patients)]
    chosen = 0
    for _ in range(300):
        dices = null_dices(rng, patients, candidates, touched)
        dices[:, 1] += gain
        chosen += choose_one(tried, dices, groups).is_safe
    return chosen / 300


@pytest.mark.parametrize(
    ("patients", "candidates", "touched"),
    [
        (10, 1, 1.0),
        *(
            pytest.param(patients, candidates, touched, marks=pytest.mark.slow)
            for patients in (5, 10, 20)
            for candidates in (1, 5)
            for touched in (0.15, 0.4, 1.0)
        ),
    ],
)
def test_useless_cleanings_are_chosen_in_5_of_100_data_sets_at_most(
    patients: int, candidates: int, touched: float
) -> None:
    assert share_chosen(patients, candidates, touched) <= 0.05


@pytest.mark.parametrize(
    ("patients", "gain", "least"), [(10, 0.03, 0.9), pytest.param(20, 0.014, 0.8, marks=pytest.mark.slow)]
)
def test_a_useful_cleaning_among_five_is_found(patients: int, gain: float, least: float) -> None:
    # The standard deviation of a patient's change is 0.014.
    assert share_chosen(patients, 5, 1.0, gain) >= least


def test_where_nothing_helps_nothing_is_done() -> None:
    gain = choose_one([NOTHING, LARGEST, FILL], np.array([[0.5, 0.4, 0.5], [0.6, 0.6, 0.6]]), ["a", "b"])
    assert (gain.postprocess, gain.is_safe, gain.p) == (NOTHING, False, 1.0)
    assert gain.interval == (0.0, 0.0)


def test_a_gain_of_few_patients_has_no_interval() -> None:
    gain = choose_one([NOTHING, LARGEST], np.array([[0.5, 0.6], [0.6, 0.8]]), ["a", "b"])
    assert gain.as_dict()["interval"] is None


def test_without_a_reference_no_size_is_tried() -> None:
    assert {cleaning.minimum_size for cleaning in list_candidates(None)} == {0.0}
    assert list_candidates(None)[0] == list_candidates(8.0)[0] == NOTHING
