"""What flows through medseg."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.types import Case, EvaluationBatch, Prediction, SliceReference


def test_moving_an_evaluation_batch_leaves_the_references_on_the_cpu() -> None:
    reference = SliceReference("case", "patient", 0, Geometry((1, 4, 5)))
    mask = np.ones((1, 4, 5), np.uint8)
    batch = EvaluationBatch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4), [reference], [mask])
    moved = batch.to("meta")
    assert (moved.image.device.type, moved.statistics.device.type) == ("meta", "meta")
    assert moved.slices == [reference]
    assert moved.masks[0] is mask
    assert batch.image.device.type == "cpu"


class TestFromMasks:
    MASK = np.arange(24).reshape(2, 3, 4) % 3

    @pytest.mark.parametrize(
        ("shape", "stored"),
        [
            ((4, 6), (1, 1, 4, 6)),  # a slice
            ((2, 3, 4), (1, 2, 3, 4)),  # a volume
            ((2, 3, 2, 2), (2, 3, 2, 2)),  # a volume of two labels that may overlap
        ],
    )
    def test_the_axes_that_are_left_out_come_first(self, shape: tuple[int, ...], stored: tuple[int, ...]) -> None:
        mask = self.MASK.reshape(shape)
        case = Prediction.from_masks("a", mask, mask[::-1])
        assert case.reference is not None
        assert (case.mask.shape, case.reference.shape) == (stored, stored)
        assert case.geometry == Geometry(stored[1:])
        np.testing.assert_array_equal(case.mask.reshape(shape), mask)
        np.testing.assert_array_equal(case.reference.reshape(shape), mask[::-1])

    @pytest.mark.parametrize(
        "made",
        [
            np.asarray,
            torch.from_numpy,
            lambda mask: torch.from_numpy(mask).float().requires_grad_(),
            lambda mask: torch.from_numpy(mask).to(torch.uint8).permute(2, 1, 0).contiguous().permute(2, 1, 0),
            lambda mask: mask.astype(np.float64),
            lambda mask: np.asfortranarray(mask.astype(np.int16)),
        ],
        ids=["array", "tensor", "tensor with gradient", "strided tensor", "floats", "Fortran order"],
    )
    def test_tensors_and_arrays_of_any_type_make_the_same_case(self, made: Any) -> None:
        case = Prediction.from_masks("a", made(self.MASK), self.MASK)
        assert case.mask.dtype == np.uint8
        np.testing.assert_array_equal(case.mask, case.reference)

    def test_true_is_the_label(self) -> None:
        mask = np.array([[True, False]])
        case = Prediction.from_masks("a", mask, torch.from_numpy(mask))
        assert (case.mask.tolist(), case.reference.tolist()) == ([[[[1, 0]]]], [[[[1, 0]]]])

    def test_open_voxels_stay_open(self) -> None:
        case = Prediction.from_masks("a", np.array([[0, 1]]), torch.tensor([[255, 1]]))
        assert case.reference is not None
        assert case.reference.ravel().tolist() == [255, 1]

    def test_a_case_is_its_own_patient_unless_one_is_named(self) -> None:
        assert Prediction.from_masks("a", self.MASK, self.MASK).group == "a"
        case = Prediction.from_masks("a", self.MASK, self.MASK, group="p", spacing_mm=(3.0, 1.0, 0.5))
        assert (case.case_id, case.group) == ("a", "p")
        assert case.geometry == Geometry((2, 3, 4), (3.0, 1.0, 0.5))
        assert case.probabilities is None

    def test_later_changes_of_the_mask_do_not_reach_the_case(self) -> None:
        mask = self.MASK.astype(np.uint8)
        tensor = torch.from_numpy(mask.copy())
        case = Prediction.from_masks("a", mask, tensor)
        mask[:] = 9
        tensor[:] = 9
        np.testing.assert_array_equal(case.mask[0], self.MASK)
        np.testing.assert_array_equal(case.reference[0], self.MASK)


@pytest.mark.parametrize("value", [0.9, 256, -1, float("nan")])
def test_a_mask_that_is_not_decided_is_refused(value: float) -> None:
    with pytest.raises(DataError, match=f"Case a: a mask holds {value}; expected decided labels, whole numbers from 0"):
        Prediction.from_masks("a", np.array([[0, value]]), np.array([[0, 1]]))


def test_a_mask_of_five_axes_is_refused() -> None:
    with pytest.raises(DataError, match=r"Case a: a mask has the shape \(1, 1, 1, 2, 2\); expected two to four axes"):
        Prediction.from_masks("a", np.zeros((1, 1, 1, 2, 2)), np.zeros((2, 2)))


def test_a_patient_is_one_however_the_umlaut_is_spelled() -> None:
    composed, decomposed = (Case(name, normalize(name, "Müller"), ()) for name in ("NFC", "NFD"))
    assert composed.group == decomposed.group
