"""Slices in any order become whole cases on their own grid."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing, Prediction, SliceReference
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.sliding_window import RowBlock

LABELS = LabelMap(["liver", "spleen"], "multiclass")
SIZE = (5, 7)


def masks(depth: int, seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 3, (depth, *size)).astype(np.uint8)


def add(
    assembler: CaseAssembler, given: torch.Tensor, *slices: tuple[str, int, int], reference: bool = True
) -> list[Prediction]:
    """Add slices `(case, index, depth)` of 5 x 7 pixels, the rows of each in two blocks."""
    blocks = [[RowBlock(slice(0, 2), one[None, :, :2]), RowBlock(slice(2, 5), one[None, :, 2:])] for one in given]
    references = [
        SliceReference(case, f"patient-{case}", index, Geometry((depth, *SIZE), (3.0, 1.5, 1.5)))
        for case, index, depth in slices
    ]
    drawn = [masks(depth, seed=ord(case))[None, index] for case, index, depth in slices] if reference else []
    return assembler.add(blocks, references, drawn)


def probabilities(*slices: tuple[str, int, int]) -> torch.Tensor:
    """Such that the decision is the reference turned upside down."""
    planes = [masks(depth, seed=ord(case))[index, ::-1].copy() for case, index, depth in slices]
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(np.stack(planes)).long(), 3).permute(0, 3, 1, 2)
    return 0.2 + 0.4 * one_hot.float()


def check(case: Prediction, depth: int) -> None:
    expected = masks(depth, seed=ord(case.case_id))
    np.testing.assert_array_equal(case.mask, expected[None, :, ::-1])
    np.testing.assert_array_equal(case.reference, expected[None])
    assert case.group == f"patient-{case.case_id}"
    assert case.geometry == Geometry((depth, *SIZE), (3.0, 1.5, 1.5))


DEPTHS = {"a": 4, "b": 1, "c": 3}
SLICES = [(case, index, depth) for case, depth in DEPTHS.items() for index in range(depth)]


@settings(max_examples=40)
@given(order=st.permutations(SLICES), cuts=st.lists(st.integers(1, 7), max_size=4))
def test_any_order_in_any_batches(order: list[tuple[str, int, int]], cuts: list[int]) -> None:
    assembler = CaseAssembler(LABELS)
    ends = [0, *sorted(set(cuts)), len(order)]
    finished: list[str] = []
    for start, end in pairwise(ends):
        part = order[start:end]
        if part:
            cases = add(assembler, probabilities(*part), *part)
            for case in cases:
                check(case, DEPTHS[case.case_id])
            finished += [case.case_id for case in cases]
        came = [case for case, _, _ in order[:end]]
        complete = {case for case, depth in DEPTHS.items() if came.count(case) == depth}
        assert sorted(finished) == sorted(complete)
        assert assembler.list_incomplete() == sorted(set(came) - complete)
    assert sorted(finished) == ["a", "b", "c"]


def test_a_slice_that_comes_twice_is_refused() -> None:
    assembler = CaseAssembler(LABELS)
    slices = [("a", 2, 4)]
    add(assembler, probabilities(*slices), *slices)
    with pytest.raises(DataError) as error:
        add(assembler, probabilities(*slices), *slices)
    assert str(error.value) == "Slice 2 of case a came twice. Case ids must be unique."


def test_reset_forgets_what_is_unfinished() -> None:
    assembler = CaseAssembler(LABELS)
    slices = [("a", 0, 4), ("c", 1, 3)]
    add(assembler, probabilities(*slices), *slices)
    assert assembler.list_incomplete() == ["a", "c"]
    assembler.reset()
    assert assembler.list_incomplete() == []
    assert add(assembler, probabilities(*slices), *slices) == []


def test_without_references_there_is_none() -> None:
    assembler = CaseAssembler(LABELS)
    (case,) = add(assembler, probabilities(("b", 0, 1)), ("b", 0, 1), reference=False)
    assert case.reference is None
    np.testing.assert_array_equal(case.mask[0], masks(1, seed=ord("b"))[:, ::-1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_probabilities_are_kept_where_they_are_wanted(order: tuple[int, ...]) -> None:
    assembler = CaseAssembler(LABELS, keep_probabilities=True)
    slices = [("c", index, 3) for index in order]
    given = probabilities(*slices) + torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0)) / 10
    assert add(assembler, given[:1], *slices[:1]) == []
    (case,) = add(assembler, given[1:], *slices[1:])
    check(case, 3)
    assert case.probabilities is not None
    assert (case.probabilities.shape, case.probabilities.dtype) == ((3, 3, *SIZE), np.float32)
    for place, index in enumerate(order):
        np.testing.assert_array_equal(case.probabilities[:, index], given[place].numpy())


def test_probabilities_are_not_kept_unasked() -> None:
    assembler = CaseAssembler(LABELS)
    (case,) = add(assembler, probabilities(("b", 0, 1)), ("b", 0, 1))
    assert case.probabilities is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_probabilities_are_kept_in_single_precision(dtype: torch.dtype) -> None:
    assembler = CaseAssembler(LABELS, keep_probabilities=True)
    given = probabilities(("b", 0, 1)).to(dtype)
    (case,) = add(assembler, given, ("b", 0, 1))
    assert case.probabilities is not None
    assert case.probabilities.dtype == np.float32
    np.testing.assert_array_equal(case.probabilities[:, 0], given[0].float().numpy())


def test_labels_that_may_overlap_are_decided_one_by_one() -> None:
    labels = LabelMap(["stomach", "bowel"], "multilabel")
    given = torch.tensor([[[[0.9, 0.5, 0.51]], [[0.6, 0.4, 0.1]]]])
    (case,) = CaseAssembler(labels).add(
        [[RowBlock(slice(0, 1), given)]], [SliceReference("a", "p", 0, Geometry((1, 1, 3)))]
    )
    assert case.mask[:, 0, 0].tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_case_is_assembled_from_all_its_probabilities() -> None:
    slices = [("c", index, 3) for index in range(3)]
    given = probabilities(*slices).permute(1, 0, 2, 3).numpy()
    case = CaseAssembler(LABELS, {"liver": PostProcessing(minimum_size=1e6)}).assemble(given, Geometry((3, *SIZE)))
    expected = masks(3, seed=ord("c"))[:, ::-1]
    np.testing.assert_array_equal(case.mask[0], np.where(expected == 1, 0, expected))
    assert not case.plane("liver").any()
    assert case.plane("spleen").any()
