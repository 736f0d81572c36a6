"""Labels that are read from the masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.labels import LabelMap
from medseg_pl.data.integrity.labelling import UNNAMED, labels_in
from tests.data.integrity.facts_of import mask_of
from tests.end_to_end.clean_sets import picture
from tests.end_to_end.defects import jpeg_mask_as_png, smoothed


def masks(*contents: tuple[int, ...], times: int = 5) -> list[NDArray[np.int64]]:
    """A mask of half background for each tuple of values, each several times."""
    return [np.array([0, *values] * 8).reshape(1, 8, -1) for values in contents for _ in range(times)]


def labels_of(arrays: list[NDArray[np.int64]]) -> tuple[LabelMap, tuple[str, ...]]:
    return labels_in([mask_of(array) for array in arrays])


def test_values_in_many_masks_are_labels() -> None:
    labels, notes = labels_of(masks((1,), (1, 2)))
    assert labels == LabelMap(["label_1", "label_2"], "multiclass")
    assert notes == ("the masks' values 1, 2 are taken for labels",)


def test_values_that_are_not_counted_through() -> None:
    assert labels_of(masks((3,), (7,)))[0] == LabelMap(["label_3", "label_7"], "multiclass", [3, 7])


def test_one_value_is_the_foreground() -> None:
    for value in (1, 255):
        labels, notes = labels_of(masks((value,)))
        assert labels == UNNAMED
        assert notes == (f"the masks' value {value} is taken for the label foreground",)
    assert labels_of(masks((1,), (255,)))[0] == UNNAMED


def test_rare_values_are_faults() -> None:
    labels, notes = labels_of([*masks((1, 2), times=20), *masks((1, 9), times=1)])
    assert labels.names == ["label_1", "label_2"]
    assert notes[1] == "the rare values 9 are taken for faults"


def test_255_beside_ids_is_no_id() -> None:
    assert labels_of(masks((1, 2, 255)))[0] == LabelMap(["label_1", "label_2"], "multiclass")


def test_smoothed_and_compressed_borders_are_no_labels() -> None:
    arrays = [change(picture(seed)[1])[None] for seed in range(8) for change in (jpeg_mask_as_png, smoothed)]
    labels, _ = labels_of(arrays)
    assert len(labels.names) <= 2
    assert max(labels.file_values) >= 250 or labels == UNNAMED


def test_masks_that_tell_nothing() -> None:
    assert labels_of(masks(()))[0] == UNNAMED
    assert labels_in([]) == (UNNAMED, ())


def test_two_masks_are_enough_where_there_are_no_more() -> None:
    assert labels_of(masks((1,), (2,), times=1))[0].names == ["label_1", "label_2"]
