"""Slices in any order become whole cases on their own grid."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import CasePrediction, EvaluationBatch, SliceReference
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.inference.assembler import CaseAssembler

LABELS = LabelMap(["liver", "spleen"], "multiclass")
NATIVE = Resize("none", (8, 8))
SIZE = (5, 7)


def masks(depth: int, seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 3, (depth, *size)).astype(np.uint8)


def batch(*slices: tuple[str, int, int], reference: bool = True) -> EvaluationBatch:
    """Slices `(case, index, depth)` of 5 x 7 pixels."""
    references = [
        SliceReference(case, f"patient-{case}", index, Geometry((depth, *SIZE), (3.0, 1.5, 1.5)))
        for case, index, depth in slices
    ]
    return EvaluationBatch(
        image=torch.zeros(len(slices), 1, *SIZE),
        statistics=torch.zeros(len(slices), 1, 4),
        slices=references,
        masks=[masks(depth, seed=ord(case))[None, index] for case, index, depth in slices] if reference else [],
    )


def probabilities(*slices: tuple[str, int, int]) -> torch.Tensor:
    """Such that the decision is the reference turned upside down."""
    planes = [masks(depth, seed=ord(case))[index, ::-1].copy() for case, index, depth in slices]
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(np.stack(planes)).long(), 3).permute(0, 3, 1, 2)
    return 0.2 + 0.4 * one_hot.float()


def check(case: CasePrediction, depth: int) -> None:
    expected = masks(depth, seed=ord(case.case_id))
    np.testing.assert_array_equal(case.prediction, expected[None, :, ::-1])
    np.testing.assert_array_equal(case.reference, expected[None])
    assert case.group == f"patient-{case.case_id}"
    assert case.geometry == Geometry((depth, *SIZE), (3.0, 1.5, 1.5))


DEPTHS = {"a": 4, "b": 1, "c": 3}
SLICES = [(case, index, depth) for case, depth in DEPTHS.items() for index in range(depth)]


@settings(max_examples=40)
@given(order=st.permutations(SLICES), cuts=st.lists(st.integers(1, 7), max_size=4))
def test_any_order_in_any_batches(order: list[tuple[str, int, int]], cuts: list[int]) -> None:
    assembler = CaseAssembler(LABELS, NATIVE)
    ends = [0, *sorted(set(cuts)), len(order)]
    finished: list[str] = []
    for start, end in pairwise(ends):
        part = order[start:end]
        if part:
            cases = assembler.add(probabilities(*part), batch(*part))
            for case in cases:
                check(case, DEPTHS[case.case_id])
            finished += [case.case_id for case in cases]
        came = [case for case, _, _ in order[:end]]
        complete = {case for case, depth in DEPTHS.items() if came.count(case) == depth}
        assert sorted(finished) == sorted(complete)
        assert assembler.incomplete() == sorted(set(came) - complete)
    assert sorted(finished) == ["a", "b", "c"]


def test_a_slice_that_comes_twice_is_refused() -> None:
    assembler = CaseAssembler(LABELS, NATIVE)
    slices = [("a", 2, 4)]
    assembler.add(probabilities(*slices), batch(*slices))
    with pytest.raises(DataError) as error:
        assembler.add(probabilities(*slices), batch(*slices))
    assert str(error.value) == "Slice 2 of case a came twice. Case ids must be unique."


def test_reset_forgets_what_is_unfinished() -> None:
    assembler = CaseAssembler(LABELS, NATIVE)
    slices = [("a", 0, 4), ("c", 1, 3)]
    assembler.add(probabilities(*slices), batch(*slices))
    assert assembler.incomplete() == ["a", "c"]
    assembler.reset()
    assert assembler.incomplete() == []
    assert assembler.add(probabilities(*slices), batch(*slices)) == []


def test_without_references_there_is_none() -> None:
    assembler = CaseAssembler(LABELS, NATIVE)
    (case,) = assembler.add(probabilities(("b", 0, 1)), batch(("b", 0, 1), reference=False))
    assert case.reference is None
    np.testing.assert_array_equal(case.prediction[0], masks(1, seed=ord("b"))[:, ::-1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_probabilities_are_kept_where_they_are_wanted(order: tuple[int, ...]) -> None:
    assembler = CaseAssembler(LABELS, NATIVE, keep_probabilities=True)
    slices = [("c", index, 3) for index in order]
    given = probabilities(*slices) + torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0)) / 10
    assert assembler.add(given[:1], batch(*slices[:1])) == []
    (case,) = assembler.add(given[1:], batch(*slices[1:]))
    check(case, 3)
    assert case.probabilities is not None
    assert (case.probabilities.shape, case.probabilities.dtype) == ((3, 3, *SIZE), np.float32)
    for place, index in enumerate(order):
        np.testing.assert_array_equal(case.probabilities[:, index], given[place].numpy())


def test_probabilities_are_not_kept_unasked() -> None:
    assembler = CaseAssembler(LABELS, NATIVE)
    (case,) = assembler.add(probabilities(("b", 0, 1)), batch(("b", 0, 1)))
    assert case.probabilities is None
    assembler.keep_probabilities = True  # as between a training's validation and a test
    (case,) = assembler.add(probabilities(("b", 0, 1)), batch(("b", 0, 1), reference=False))
    assert case.reference is None
    assert case.probabilities is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_probabilities_are_kept_in_single_precision(dtype: torch.dtype) -> None:
    assembler = CaseAssembler(LABELS, NATIVE, keep_probabilities=True)
    given = probabilities(("b", 0, 1)).to(dtype)
    (case,) = assembler.add(given, batch(("b", 0, 1)))
    assert case.probabilities is not None
    assert case.probabilities.dtype == np.float32
    np.testing.assert_array_equal(case.probabilities[:, 0], given[0].float().numpy())


def test_kept_probabilities_are_on_the_native_grid_and_are_what_was_decided_on() -> None:
    fitted = torch.tensor([[[[0.2, 1.0]]]])
    labels = LabelMap(["lesion"], "binary")
    (case,) = CaseAssembler(labels, Resize("fit", (1, 2)), keep_probabilities=True).add(fitted, one_slice((40, 80)))
    assert case.probabilities is not None
    assert case.probabilities.shape == (1, 1, 40, 80)
    np.testing.assert_array_equal(case.probabilities[0] > 0.5, case.prediction[0] == 1)
    assert case.probabilities[0, 0, 20, [0, 79]].tolist() == pytest.approx([0.2, 1.0])


def one_slice(size: tuple[int, int], channels: int = 1) -> Any:
    return EvaluationBatch(
        image=torch.zeros(1, 1, 8, 8),
        statistics=torch.zeros(1, 1, 4),
        slices=[SliceReference("a", "p", 0, Geometry((1, *size)))],
        masks=[np.zeros((channels, *size), np.uint8)],
    )


def test_labels_that_may_overlap_are_decided_one_by_one() -> None:
    labels = LabelMap(["stomach", "bowel"], "multilabel")
    given = torch.tensor([[[[0.9, 0.5, 0.51]], [[0.6, 0.4, 0.1]]]])
    (case,) = CaseAssembler(labels, NATIVE).add(given, one_slice((1, 3), channels=2))
    assert case.prediction[:, 0, 0].tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_scaled_slice_returns_to_its_own_grid() -> None:
    # 20 x 40 pixels were scaled to 4 x 8 and padded to 8 x 8 with two rows above and below.
    fitted = torch.zeros(1, 1, 8, 8)
    fitted[..., 2:6, 4:] = 1.0
    fitted[..., :2, :4] = fitted[..., 6:, :4] = 1.0  # in the padding: thrown away
    labels = LabelMap(["lesion"], "binary")
    (case,) = CaseAssembler(labels, Resize("fit", (8, 8))).add(fitted, one_slice((20, 40)))
    expected = np.zeros((20, 40), np.uint8)
    expected[:, 20:] = 1
    np.testing.assert_array_equal(case.prediction[0, 0], expected)


def test_probabilities_and_not_decisions_are_scaled() -> None:
    # Between 0.2 and 1.0 the limit of 0.5 lies at 3/8 of the way: decisions first would put it at 1/2.
    fitted = torch.tensor([[[[0.2, 1.0]]]])
    labels = LabelMap(["lesion"], "binary")
    (case,) = CaseAssembler(labels, Resize("fit", (1, 2))).add(fitted, one_slice((40, 80)))
    row = case.prediction[0, 0, 20]
    assert int(np.argmax(row)) == 20 + 15  # the way goes from the middle of one pixel, 20, to that of the other, 60
    assert row[35:].all()
