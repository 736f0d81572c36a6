"""Run lengths against a slow loop, and the texts that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_pl.core.errors import MaskValueError
from medseg_pl.io import rle

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def encoded_slowly(mask: np.ndarray) -> str:
    words: list[str] = []
    length = 0
    for place, inside in enumerate([*mask.ravel().tolist(), False]):
        if inside:
            length += 1
        elif length:
            words += [str(place - length + 1), str(length)]
            length = 0
    return " ".join(words)


def decoded_slowly(text: str, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape[0] * shape[1], bool)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for place in range(start, start + length):
            mask[place - 1] = True
    return mask.reshape(shape)


@given(mask=MASKS)
def test_both_directions_equal_a_loop(mask: np.ndarray) -> None:
    text = rle.encode(mask)
    assert text == encoded_slowly(mask)
    np.testing.assert_array_equal(rle.decode(text, mask.shape), mask)
    np.testing.assert_array_equal(decoded_slowly(text, mask.shape), mask)


@given(runs=st.lists(st.tuples(st.integers(1, 36), st.integers(0, 36)).filter(lambda run: sum(run) <= 37), max_size=8))
def test_runs_may_touch_overlap_be_empty_and_come_in_any_order(runs: list[tuple[int, int]]) -> None:
    text = " ".join(f"{start} {length}" for start, length in runs)
    np.testing.assert_array_equal(rle.decode(text, (4, 9)), decoded_slowly(text, (4, 9)))


def test_rows_are_read_one_after_the_other() -> None:
    assert rle.decode("3 2", (2, 3)).tolist() == [[False, False, True], [True, False, False]]
    assert rle.encode(np.array([[0, 0, 1], [1, 0, 0]], bool)) == "3 2"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_no_text_is_an_empty_mask(text: str) -> None:
    assert rle.decode(text, (2, 3)).tolist() == [[False] * 3] * 2


@pytest.mark.parametrize("text", ["1 2 x 4", "1.5 2", "nan", "1 99999999999999999999"])
def test_words_that_are_no_whole_numbers_are_refused(text: str) -> None:
    with pytest.raises(MaskValueError, match="row 7: expected 'start length' pairs of whole numbers, got '"):
        rle.decode(text, (4, 4), "row 7")


def test_a_long_text_is_quoted_in_part() -> None:
    with pytest.raises(MaskValueError) as caught:
        rle.decode("a" * 5000, (4, 4), "row 7")
    assert str(caught.value) == f"row 7: expected 'start length' pairs of whole numbers, got '{'a' * 60}'."


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(MaskValueError, match=r"row 7: expected 'start length' pairs, got an odd count of 3 numbers\."):
        rle.decode("1 2 5", (4, 4), "row 7")


@pytest.mark.parametrize(
    "text", ["0 1", "-3 2", "6 2", "7 1", "1 -1", "1 7", f"{2**63 - 1} {2**63 - 1}", f"2 {2**63 - 1}"]
)
def test_a_run_beyond_the_image_is_refused(text: str) -> None:
    with pytest.raises(MaskValueError) as caught:
        rle.decode(text, (2, 3), "row 7")
    assert str(caught.value) == (
        "row 7: a run leaves the image of 2 rows and 3 columns. Check that width and height are not exchanged."
    )


def test_a_run_may_end_with_the_image() -> None:
    assert rle.decode("6 1", (2, 3)).ravel().tolist() == [False] * 5 + [True]
