"""What is the matter with a label, in words, on boxes."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_pl.core.geometry import Geometry
from medseg_pl.inference.review.discrepancy import describe_discrepancy, format_size

SHAPE = (4, 20, 20)
GRID = Geometry(SHAPE, (10.0, 2.0, 1.0))
NAMES = ["liver", "spleen"]


def box(top: int, left: int, height: int = 6, width: int = 6) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[1:3, top : top + height, left : left + width] = True
    return mask


EMPTY = np.zeros(SHAPE, bool)


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
    assert describe_discrepancy(np.stack([drawn, spleen]), np.stack([predicted, spleen]), 0, NAMES, GRID) == words


def test_labels_that_are_exchanged() -> None:
    first, second = box(2, 2), box(12, 12)
    drawn, predicted = np.stack([first, second]), np.stack([second, first])
    assert describe_discrepancy(drawn, predicted, 0, NAMES, GRID) == "is drawn where spleen is predicted"
    assert describe_discrepancy(drawn, predicted, 1, NAMES, GRID) == "is drawn where liver is predicted"


def test_what_leaves_the_image_is_gone() -> None:
    drawn, predicted = np.stack([box(0, 0), EMPTY]), np.stack([box(14, 14), EMPTY])
    assert describe_discrepancy(drawn, predicted, 0, NAMES, GRID).startswith("is drawn 31.3 mm from")


def test_without_a_spacing_pixels_are_counted() -> None:
    grid = Geometry(SHAPE)
    assert format_size(72, grid) == "72 pixels"
    drawn, predicted = np.stack([box(2, 2), EMPTY]), np.stack([box(5, 6), EMPTY])
    assert describe_discrepancy(drawn, predicted, 0, NAMES, grid) == "is drawn 5 px from where it is predicted"
