"""Labels that are read from the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from medseg_pl.checks.label_inference import UNNAMED, Labeling, LabelSettings, infer_labels
from medseg_pl.core.labels import LabelMap
from medseg_pl.io.file_header import FileHeader
from tests.checks.samples import measure_values
from tests.end_to_end.clean_sets import picture
from tests.end_to_end.defects import jpeg_mask_as_png, smoothed


def masks(*contents: tuple[int, ...], times: int = 5) -> list[NDArray[np.int64]]:
    """A mask of half background for each tuple of values, each several times."""
    return [np.array([0, *values] * 8).reshape(1, 8, -1) for values in contents for _ in range(times)]


def conclude(arrays: Sequence[NDArray[Any]], said: LabelSettings | None = None, **header: Any) -> Labeling:
    known = FileHeader("PNG", **header)
    return infer_labels([measure_values(array, known) for array in arrays], said or LabelSettings())


def labels_of(arrays: list[NDArray[np.int64]]) -> tuple[LabelMap, tuple[str, ...]]:
    labels, notes, problem = conclude(arrays)
    assert problem == ""
    return labels, notes


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


def test_masks_of_fractions_alone_hold_no_label() -> None:
    steps = np.linspace(0, 0.45, 64).reshape(1, 8, 8)
    assert "labels are whole numbers" in conclude([steps] * 4).problem


def test_rare_values_are_faults() -> None:
    labels, notes = labels_of([*masks((1, 2), times=20), *masks((1, 9), times=1)])
    assert labels.names == ["label_1", "label_2"]
    assert notes[1] == "the rare value 9 is taken for a fault; name it with --labels if not"


def test_255_beside_ids_is_no_id() -> None:
    labels, _, problem = conclude(masks((1, 2, 255)))
    assert labels == LabelMap(["label_1", "label_2"], "multiclass")
    assert problem.startswith("The masks hold 255 beside 1, 2, and nothing says what it means. Set --ignore_value 255")
    told = conclude(masks((1, 2, 255)), LabelSettings(ignore_value=255))
    assert (told.labels, told.problem) == (LabelMap(["label_1", "label_2"], "multiclass", None, 255), "")


@pytest.mark.parametrize("change", [jpeg_mask_as_png, smoothed])
def test_smoothed_and_compressed_borders_are_read_with_a_tolerance(change: Callable[..., Any]) -> None:
    labels, notes = labels_of([change(picture(seed)[1])[None] for seed in range(8)])
    assert (list(labels.names), labels.values) == (["foreground"], None)
    assert labels.tolerance in (64, 127)
    assert notes[1].endswith(f"up to {labels.tolerance:g} from a label's they are read as it (labels.tolerance)")


def test_smoothed_borders_of_several_labels_are_refused() -> None:
    labels, _, problem = conclude([uniform_filter(100 * picture(seed)[1], 3)[None] for seed in range(8)])
    assert labels.tolerance == 0
    assert problem.startswith("The masks have smoothed edges (anti-aliasing) round ")
    assert "Export them without smoothing" in problem


def test_values_near_0_and_255() -> None:
    rng = np.random.default_rng(0)
    arrays = []
    for seed in range(6):
        slips = rng.integers(1, 20, (1, *picture(seed)[1].shape)) * (rng.random(picture(seed)[1].shape) < 0.1)
        arrays.append(np.where(picture(seed)[1] > 0, 255 - slips, slips))
    assert labels_of(arrays)[0] == LabelMap(["foreground"], "binary", tolerance=64)


def test_small_labels_among_many_are_labels() -> None:
    arrays = []
    for shift in range(6):
        mask = np.zeros((24, 48, 48), np.uint8)
        for k in range(12):
            x, y = 4 + 14 * (k % 3), 2 + 11 * (k // 3)
            mask[6 + shift : 11 + shift, y : y + 5, x : x + 5 + 4 * (k < 6)] = k + 1
        arrays.append(mask)
    assert labels_of(arrays)[0] == LabelMap([f"label_{k}" for k in range(1, 13)], "multiclass")


def test_rare_labels_between_frequent_ones_are_labels() -> None:
    arrays = [*masks((1, 2, 4), times=20), *masks((3,), times=1), *masks((9,), times=1)]
    labels, notes = labels_of(arrays)
    assert labels == LabelMap(["label_1", "label_2", "label_3", "label_4"], "multiclass")
    assert "the rare value 9 is taken" in notes[1]


def test_colors_are_labels() -> None:
    paint = np.array([(255, 255, 255), (255, 0, 0), (0, 0, 200)], np.uint8)
    drawn = [np.moveaxis(paint[np.minimum(picture(seed)[1], 2)], -1, 0)[:, None] for seed in range(4)]
    labels, notes = labels_of(drawn)
    expected = {"background": (255, 255, 255), "color_0000c8": (0, 0, 200), "color_ff0000": (255, 0, 0)}
    assert (labels.task, labels.colors) == ("multiclass", expected)
    assert notes[0].endswith("are taken for labels, (255, 255, 255) for the background")
    named = conclude(drawn, LabelSettings({"vein": None, "artery": None}))
    assert named.problem.endswith("Say with --colors which color each label has.")


def test_each_label_in_files_of_its_own() -> None:
    held = [
        measure_values(np.array([[[0, value]]]), label=label) for label, value in ((0, 255), (1, 255)) for _ in range(3)
    ]
    labels = infer_labels(held, LabelSettings(), ("liver", "spleen")).labels
    assert labels == LabelMap(["liver", "spleen"], "multilabel")
    odd = [
        measure_values(np.array([[[0, value]]]), label=label) for label, value in ((0, 63), (1, 126)) for _ in range(3)
    ]
    assert infer_labels(odd, LabelSettings(), ("liver", "spleen")).labels.values == [63, 126]


def test_interpolated_masks_are_told_by_name() -> None:
    problem = conclude([np.array([[[0, 0.5]]])] * 3).problem
    assert problem.startswith("a_mask.png holds 0.5, but labels are whole numbers.")


def test_masks_that_tell_nothing() -> None:
    nothing = "The masks hold only the value 0. Name the labels with --labels."
    assert conclude(masks(())) == Labeling(UNNAMED, problem=nothing)
    assert conclude([]) == Labeling(UNNAMED, problem=nothing)


def test_two_masks_are_enough_where_there_are_no_more() -> None:
    assert labels_of(masks((1,), (2,), times=1))[0].names == ["label_1", "label_2"]
