"""How labels are written in files, in memory and in a network: checked value by value."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.core.errors import MaskValueError, SettingError
from medseg_pl.core.labels import IGNORE, LabelMap, prepare_loss_inputs

ORGANS = ["stomach", "spleen"]


def array(values: Any, dtype: type = np.uint8) -> np.ndarray:
    return np.array(values, dtype=dtype)


class TestSettings:
    @pytest.mark.parametrize(
        ("names", "task", "extra", "said"),
        [
            ([], "multiclass", {}, r"labels.names must be one or more different names; got \[\]"),
            (["a", "a"], "multilabel", {}, "one or more different names; got"),
            (["a", "b"], "binary", {}, "A binary task has one label; got 2: a, b. Use the task multiclass"),
            ([str(i) for i in range(255)], "multiclass", {}, "At most 254 labels are supported; got 255"),
            (["a", "b"], "multiclass", {"values": [1]}, r"one different value for each of the 2 labels; got \[1\]"),
            (
                ["a", "b"],
                "multiclass",
                {"values": [3, 3]},
                r"one different value for each of the 2 labels; got \[3, 3\]",
            ),
            (
                ["a", "b"],
                "multiclass",
                {"values": [0, 1]},
                r"labels.values \[0, 1\] gives a label the value 0, which is the",
            ),
            (
                ["a"],
                "binary",
                {"values": [0]},
                "which is the background. Leave it out of labels.names and labels.values",
            ),
            (["a", "b"], "multilabel", {"values": [1]}, r"labels.values needs one value for each of the 2 labels; got"),
            (
                ["a"],
                "binary",
                {"tolerance": -1},
                "labels.tolerance must be a distance between values, at least 0; got -1",
            ),
            (["a"], "binary", {"tolerance": float("nan")}, "at least 0; got nan"),
            (["a", "b"], "multiclass", {"colors": {"a": (255, 0, 0)}}, "labels.colors needs a color for each of"),
            (
                ["a"],
                "binary",
                {"values": [7], "ignore_value": 7},
                "labels.ignore_value 7 is the value of the background or of a label too",
            ),
            (
                ["a", "b"],
                "multiclass",
                {"ignore_value": 2},
                r"ignore_value 2 is the value of the background or of a label too: \[0, 1, 2\]\. A",
            ),
            (
                ["a"],
                "binary",
                {"ignore_value": 1},
                r"ignore_value 1 is the value of the background or of a label too: \[0, 1, 255\]\. A value",
            ),
            (
                ["a"],
                "multilabel",
                {"ignore_value": 255},
                r"ignore_value 255 is the value of the background or of a label too: \[0, 1, 255\]",
            ),
            (
                ["a"],
                "binary",
                {"ignore_value": 255},
                "mean one thing only: correct labels.ignore_value or labels.values",
            ),
        ],
    )
    def test_what_cannot_work_is_refused(self, names: list[str], task: Any, extra: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingError, match=said) as caught:
            LabelMap(names, task, **extra)
        assert caught.value.exit_code == 2

    def test_an_unknown_task_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse it first
        with pytest.raises(SettingError, match="task must be one of binary, multiclass, multilabel; got 'panoptic'"):
            LabelMap(["a"], "panoptic")  # type: ignore[arg-type]

    def test_254_labels_are_the_most(self) -> None:
        labels = LabelMap([str(i) for i in range(254)], "multiclass")
        assert labels.classes == 255
        assert labels.encode(array([254]))[0] == 254

    @pytest.mark.parametrize(
        ("names", "task", "classes", "mask_channels", "overlapping"),
        [
            (["a"], "binary", 1, 1, False),
            (["a"], "multiclass", 2, 1, False),
            (["a", "b", "c"], "multiclass", 4, 1, False),
            (["a"], "multilabel", 1, 1, True),
            (["a", "b", "c"], "multilabel", 3, 3, True),
        ],
    )
    def test_sizes_follow_from_the_task(
        self, names: list[str], task: Any, classes: int, mask_channels: int, overlapping: bool
    ) -> None:
        labels = LabelMap(names, task)
        assert (labels.classes, labels.mask_channels, labels.overlapping) == (classes, mask_channels, overlapping)


class TestEncode:
    def test_labels_are_counted_from_one_without_values(self) -> None:
        labels = LabelMap(ORGANS, "multiclass")
        assert labels.file_values == (1, 2)
        assert labels.encode(array([0, 1, 2])).tolist() == [0, 1, 2]

    def test_values_are_translated_in_the_order_of_the_names(self) -> None:
        encoded = LabelMap(ORGANS, "multiclass", values=[600, 20]).encode(array([[20, 0], [600, 20]], np.uint16))
        assert encoded.tolist() == [[2, 0], [1, 2]]
        assert encoded.dtype == np.uint8

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
    def test_the_type_on_disk_does_not_matter(self, dtype: type) -> None:
        assert LabelMap(ORGANS, "multiclass").encode(array([2, 0, 1], dtype)).tolist() == [2, 0, 1]

    def test_true_is_the_label_of_a_boolean_mask(self) -> None:
        assert LabelMap(["nucleus"], "binary").encode(np.array([True, False])).tolist() == [1, 0]

    def test_one_label_may_be_written_1_or_255(self) -> None:
        for names, task in ((["nucleus"], "binary"), (["nucleus"], "multiclass")):
            assert LabelMap(names, task).encode(array([0, 255, 1])).tolist() == [0, 1, 1]

    def test_255_is_a_stray_value_beside_two_labels(self) -> None:
        with pytest.raises(MaskValueError, match="the value 255, which no label claims, in 1 voxel; expected 0, 1, 2"):
            LabelMap(ORGANS, "multiclass").encode(array([0, 255]))

    def test_255_is_a_stray_value_where_the_label_has_its_own(self) -> None:
        with pytest.raises(MaskValueError, match="the value 255, which no label claims, in 1 voxel; expected 0, 7"):
            LabelMap(["nucleus"], "binary", values=[7]).encode(array([7, 255]))

    @pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (9, np.int16), (-1, np.int16), (-1, np.float32)])
    def test_the_ignore_value_becomes_255(self, value: int, dtype: type) -> None:
        labels = LabelMap(ORGANS, "multiclass", ignore_value=value)
        assert labels.encode(array([0, value, 2], dtype)).tolist() == [0, IGNORE, 2]

    def test_255_may_be_ignored_where_a_single_label_has_its_own_value(self) -> None:
        labels = LabelMap(["nucleus"], "binary", values=[1], ignore_value=255)
        assert labels.encode(array([0, 1, 255])).tolist() == [0, 1, IGNORE]

    def test_an_unclaimed_value_names_file_value_and_remedy(self) -> None:
        with pytest.raises(MaskValueError) as caught:
            LabelMap(ORGANS, "multiclass", values=[10, 20]).encode(array([0, 10, 30, 2]), "case_7.png")
        assert str(caught.value) == (
            "case_7.png holds the values 2, 30, which no label claims, in 2 voxels; expected 0, 10, 20. Name the "
            "labels and their file values with labels.names and labels.values, or set labels.ignore_value."
        )

    def test_an_error_knows_the_values_that_want_a_label(self) -> None:
        with pytest.raises(MaskValueError) as caught:
            LabelMap(["nucleus"], "binary", ignore_value=9).encode(array([0, 1, 9, 2]))
        assert (caught.value.unclaimed, caught.value.claimed) == ((2,), (1,))

    def test_a_file_of_one_label_does_not_tell_the_values_of_others(self) -> None:
        with pytest.raises(MaskValueError) as caught:
            LabelMap(ORGANS, "multilabel").encode_one(array([0, 7]), 1, "spleen.png")
        assert caught.value.unclaimed == ()

    def test_many_unclaimed_values_are_cut_short(self) -> None:
        with pytest.raises(MaskValueError, match="the values 2, 3, 4, 5, 6, 7, 8, 9 …, which"):
            LabelMap(["a"], "multiclass").encode(np.arange(20))

    @pytest.mark.parametrize(("stray", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (-np.inf, "-inf")])
    def test_a_fraction_or_a_hole_is_no_label(self, stray: float, shown: str) -> None:
        with pytest.raises(MaskValueError, match=f"holds the value {shown}, which"):
            LabelMap(ORGANS, "multiclass").encode(array([0.0, 1.0, stray], np.float32))


class TestEncodeOne:
    def test_without_values_a_label_is_1_or_255(self) -> None:
        encoded = LabelMap(ORGANS, "multilabel").encode_one(array([0, 1, 255]), 1, "spleen.png")
        assert encoded.tolist() == [0, 1, 1]

    def test_with_values_a_label_is_its_own_value_alone(self) -> None:
        labels = LabelMap(ORGANS, "multilabel", values=[4, 9])
        assert labels.encode_one(array([0, 9]), 1, "spleen.png").tolist() == [0, 1]
        with pytest.raises(
            MaskValueError, match=r"spleen\.png holds the value 4, which no label claims, in 1 voxel; expected 0, 9"
        ):
            labels.encode_one(array([0, 4]), 1, "spleen.png")

    def test_the_ignore_value_becomes_255(self) -> None:
        labels = LabelMap(ORGANS, "multilabel", ignore_value=9)
        assert labels.encode_one(array([0, 1, 9]), 0, "stomach.png").tolist() == [0, 1, IGNORE]

    def test_labels_in_files_of_their_own_may_all_be_written_alike(self) -> None:
        labels = LabelMap(ORGANS, "multilabel", values=[7, 7])
        assert [labels.encode_one(array([0, 7]), index, "a.png").tolist() for index in (0, 1)] == [[0, 1], [0, 1]]
        assert [labels.decode_one(array([0, 1]), index).tolist() for index in (0, 1)] == [[0, 7], [0, 7]]


class TestTolerance:
    def test_a_file_of_one_label_is_then_0_and_255(self) -> None:
        for labels in (LabelMap(["axon"], "binary", tolerance=40), LabelMap(["axon"], "multilabel", tolerance=40)):
            assert labels.encode(array([0, 218, 255, 40]), "axon.png").tolist() == [0, 1, 1, 0]
        labels = LabelMap(ORGANS, "multiclass", tolerance=40)
        assert labels.encode_one(array([3, 250]), 1, "spleen.png").tolist() == [0, 1]

    def test_a_file_of_0_and_1_could_be_either(self) -> None:
        with pytest.raises(MaskValueError) as caught:
            LabelMap(["axon"], "binary", tolerance=40).encode(array([0, 1, 1]), "axon.png")
        assert str(caught.value) == (
            "axon.png holds nothing above 1, which may be the label or, by labels.tolerance, the background. Say with "
            "labels.values which value each label has, or set labels.tolerance to 0."
        )

    def test_with_values_it_is_known(self) -> None:
        labels = LabelMap(["axon"], "binary", values=[1], tolerance=0.3)
        assert labels.encode(array([0.0, 0.75, 1.25, 0.25], np.float32)).tolist() == [0, 1, 1, 0]

    def test_an_empty_file_is_empty(self) -> None:
        assert LabelMap(["axon"], "binary", tolerance=40).encode(array([0, 0])).tolist() == [0, 0]

    def test_ids_one_apart_leave_no_room(self) -> None:
        with pytest.raises(SettingError, match=r"labels\.tolerance 40 cannot tell 0 and 1 apart"):
            LabelMap(ORGANS, "multiclass", tolerance=40).encode(array([0, 1]))

    def test_ids_far_apart_do(self) -> None:
        labels = LabelMap(ORGANS, "multiclass", values=[100, 200], ignore_value=255, tolerance=20)
        assert labels.encode(array([0, 20, 80, 120, 180, 220, 240, 255])).tolist() == [0, 0, 1, 1, 2, 2, IGNORE, IGNORE]


RED, YELLOW, WHITE, GRAY = (255, 0, 0), (255, 255, 0), (255, 255, 255), (128, 128, 128)
COLORED = LabelMap(ORGANS, "multiclass", colors={"spleen": YELLOW, "stomach": RED})


def colors(*pixels: tuple[int, int, int]) -> np.ndarray:
    """`(3, n)`."""
    return array(pixels).T


class TestColors:
    def test_the_order_is_that_of_the_names(self) -> None:
        assert COLORED.encode(colors(YELLOW, (0, 0, 0), RED), "a.png", colored=True).tolist() == [2, 0, 1]

    def test_a_file_of_one_label_holds_its_color_alone(self) -> None:
        labels = LabelMap(ORGANS, "multilabel", colors={"stomach": RED, "spleen": YELLOW})
        assert labels.encode_one(colors(YELLOW, (0, 0, 0)), 1, "spleen.png", colored=True).tolist() == [1, 0]
        with pytest.raises(MaskValueError, match=r"spleen\.png holds the color \(255, 0, 0\), which no label claims"):
            labels.encode_one(colors(RED, YELLOW), 1, "spleen.png", colored=True)

    def test_background_and_ignored_have_colors_too(self) -> None:
        labels = LabelMap(["a"], "binary", colors={"a": (0, 0, 0), "background": WHITE, "ignore": GRAY})
        pixels = colors((0, 0, 0), WHITE, GRAY)
        assert labels.encode(pixels, "a.png", colored=True).tolist() == [1, 0, IGNORE]
        np.testing.assert_array_equal(labels.decode(array([[1, 0, IGNORE]]), colored=True), pixels)

    def test_a_label_may_be_called_ignore(self) -> None:
        labels = LabelMap(["ignore"], "binary", colors={"ignore": RED})
        assert labels.encode(colors(RED, (0, 0, 0)), "a.png", colored=True).tolist() == [1, 0]
        assert labels.decode(array([[IGNORE]]), colored=True).tolist() == [[0], [0], [0]]

    def test_values_are_left_as_they_were(self) -> None:
        assert COLORED.encode(array([0, 1, 2])).tolist() == [0, 1, 2]
        assert COLORED.decode(array([[0, 1, 2]])).tolist() == [0, 1, 2]

    def test_decoding_gives_the_colors_back(self) -> None:
        decoded = COLORED.decode(array([[[0, 2], [1, IGNORE]]]), colored=True)
        assert decoded.dtype == np.uint8
        assert np.moveaxis(decoded, 0, -1).tolist() == [[[0, 0, 0], list(YELLOW)], [list(RED), [0, 0, 0]]]
        one = COLORED.decode_one(array([1, 0]), 1, visible=255, colored=True)
        assert one.T.tolist() == [list(YELLOW), [0, 0, 0]]


class TestUnite:
    def test_a_label_is_where_any_file_has_it(self) -> None:
        masks = [array([1, 0, 0, IGNORE]), array([0, 0, 1, 1]), array([IGNORE, IGNORE, 0, 0])]
        united = LabelMap.unite(masks)
        assert united.tolist() == [1, IGNORE, 1, 1]
        assert united.dtype == np.uint8


class TestCombine:
    def test_overlapping_labels_keep_a_channel_each(self) -> None:
        masks = [array([[1, 1, 0]]), array([[0, 1, IGNORE]])]
        assert LabelMap(ORGANS, "multilabel").combine(masks).tolist() == [[[1, 1, 0]], [[0, 1, IGNORE]]]

    def test_exclusive_labels_become_indices(self) -> None:
        combined = LabelMap(ORGANS, "multiclass").combine([array([[1, 0, 0]]), array([[0, 0, 1]])])
        assert combined.tolist() == [[[1, 0, 2]]]
        assert combined.dtype == np.uint8

    def test_a_voxel_ignored_in_one_mask_is_ignored(self) -> None:
        masks = [array([1, IGNORE, 0]), array([IGNORE, 1, 1])]
        assert LabelMap(ORGANS, "multiclass").combine(masks).tolist() == [[IGNORE, IGNORE, 2]]

    def test_exclusive_labels_that_overlap_are_refused(self) -> None:
        with pytest.raises(MaskValueError) as caught:
            LabelMap(ORGANS, "multiclass").combine([array([1, 1, 1, 0]), array([1, 0, 1, 1])], "Case case_7")
        assert str(caught.value) == (
            "Case case_7: 2 voxels carry more than one label, but the task multiclass lets a voxel carry one. "
            "Set labels.task to multilabel, or correct the masks."
        )

    def test_one_voxel_of_two_labels_is_one(self) -> None:
        with pytest.raises(MaskValueError, match="m: 1 voxel carries more than one label"):
            LabelMap(ORGANS, "multiclass").combine([array([1, 0]), array([1, 1])], "m")


class TestDecode:
    @given(
        values=st.lists(st.integers(-300, 70_000).filter(bool), min_size=1, max_size=6, unique=True),
        seed=st.integers(0, 2**16),
    )
    def test_decoding_undoes_encoding(self, values: list[int], seed: int) -> None:
        names = [f"label {i}" for i in range(len(values))]
        labels = LabelMap(names, "multiclass", values=values, ignore_value=70_001)
        file = np.random.default_rng(seed).choice([0, *values, 70_001], size=(3, 4, 5))
        decoded = labels.decode(labels.encode(file)[None])
        np.testing.assert_array_equal(decoded, file)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [([1, 255], np.uint8), ([1, 256], np.uint16), ([1, 70_000], np.uint32), ([-1, 255], np.int16)],
    )
    def test_the_smallest_type_that_holds_every_value(self, values: list[int], dtype: type) -> None:
        assert LabelMap(ORGANS, "multiclass", values=values).decode(array([[0, 1, 2]])).dtype == dtype

    def test_ignored_voxels_are_background_where_the_file_has_no_value_for_them(self) -> None:
        assert LabelMap(ORGANS, "multiclass").decode(array([[1, IGNORE]])).tolist() == [1, 0]


class TestDecodeOne:
    def test_without_values_the_caller_chooses_what_is_seen(self) -> None:
        labels = LabelMap(ORGANS, "multilabel")
        assert labels.decode_one(array([0, 1, 1]), 1).tolist() == [0, 1, 1]
        assert labels.decode_one(array([0, 1, 1]), 1, visible=255).tolist() == [0, 255, 255]

    def test_with_values_a_label_is_its_own_value_whatever_is_seen(self) -> None:
        labels = LabelMap(ORGANS, "multilabel", values=[4, 700])
        assert labels.decode_one(array([[0, 1]]), 0, visible=255).tolist() == [[0, 4]]
        assert labels.decode_one(array([[0, 1]]), 1, visible=255).tolist() == [[0, 700]]

    @pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (256, np.uint16), (-1, np.int8)])
    def test_the_smallest_type_that_holds_the_value(self, value: int, dtype: type) -> None:
        decoded = LabelMap(["a"], "multilabel", values=[value]).decode_one(array([0, 1]), 0)
        assert decoded.dtype == dtype
        assert decoded.tolist() == [0, value]

    def test_an_ignored_voxel_is_background(self) -> None:
        assert LabelMap(ORGANS, "multilabel").decode_one(array([1, IGNORE, 0]), 0).tolist() == [1, 0, 0]

    @given(
        values=st.none() | st.lists(st.integers(-300, 70_000).filter(bool), min_size=2, max_size=2, unique=True),
        visible=st.sampled_from([1, 255]),
        index=st.integers(0, 1),
        seed=st.integers(0, 99),
    )
    def test_encoding_undoes_decoding(self, values: list[int] | None, visible: int, index: int, seed: int) -> None:
        labels = LabelMap(ORGANS, "multilabel", values=values)
        plane = np.random.default_rng(seed).integers(0, 2, (3, 4), dtype=np.uint8)
        file = labels.decode_one(plane, index, visible)
        np.testing.assert_array_equal(labels.encode_one(file, index, "organ.png"), plane)


class TestPlanes:
    def test_exclusive_labels_each_have_a_plane(self) -> None:
        planes = LabelMap(ORGANS, "multiclass").planes(array([[[0, 1], [2, IGNORE]]]))
        assert planes.dtype == np.bool_
        assert planes.tolist() == [[[False, True], [False, False]], [[False, False], [True, False]]]

    def test_overlapping_labels_keep_their_channels(self) -> None:
        planes = LabelMap(ORGANS, "multilabel").planes(array([[0, 1, IGNORE], [1, 1, 0]]))
        assert planes.dtype == np.bool_
        assert planes.tolist() == [[False, True, False], [True, True, False]]

    def test_a_label_that_is_absent_has_an_empty_plane(self) -> None:
        assert LabelMap(["a", "b", "c"], "multiclass").planes(array([[3, 1]])).sum(axis=1).tolist() == [1, 0, 1]

    @given(seed=st.integers(0, 99))
    def test_combining_the_planes_gives_the_mask_again(self, seed: int) -> None:
        labels = LabelMap(["a", "b", "c"], "multiclass")
        mask = np.random.default_rng(seed).integers(0, 4, (1, 2, 3, 4), dtype=np.uint8)
        np.testing.assert_array_equal(labels.combine(list(labels.planes(mask).astype(np.uint8))), mask)


class TestPlane:
    @pytest.mark.parametrize(
        ("names", "task"), [(["a"], "binary"), (["a", "b", "c"], "multiclass"), (ORGANS, "multilabel")]
    )
    @given(seed=st.integers(0, 99))
    def test_each_is_one_of_the_planes(self, names: list[str], task: Any, seed: int) -> None:
        labels = LabelMap(names, task)
        highest = 1 if labels.overlapping else len(names)
        values = np.array([*range(highest + 1), IGNORE], np.uint8)
        mask = np.random.default_rng(seed).choice(values, (labels.mask_channels, 2, 3, 4))
        planes = labels.planes(mask)
        for index in range(len(names)):
            plane, unannotated = labels.plane(mask, index), labels.find_unannotated(mask, index)
            assert plane.dtype == unannotated.dtype == np.bool_
            np.testing.assert_array_equal(plane, planes[index])
            np.testing.assert_array_equal(unannotated, mask[index if labels.overlapping else 0] == IGNORE)

    def test_a_voxel_that_is_open_for_exclusive_labels_is_open_for_all(self) -> None:
        labels = LabelMap(ORGANS, "multiclass")
        mask = array([[1, IGNORE, 2, 0]])
        assert [labels.plane(mask, i).tolist() for i in (0, 1)] == [
            [True, False, False, False],
            [False, False, True, False],
        ]
        assert [labels.find_unannotated(mask, i).tolist() for i in (0, 1)] == [[False, True, False, False]] * 2

    def test_a_voxel_may_be_open_for_one_of_overlapping_labels(self) -> None:
        labels = LabelMap(ORGANS, "multilabel")
        mask = array([[1, IGNORE], [1, 1]])
        assert [labels.plane(mask, i).tolist() for i in (0, 1)] == [[True, False], [True, True]]
        assert [labels.find_unannotated(mask, i).tolist() for i in (0, 1)] == [[False, True], [False, False]]


class TestTensors:
    def test_softmax_where_labels_exclude_each_other(self) -> None:
        logits = torch.tensor([[1.0, 3.0, 2.0]]).log()[..., None]
        probabilities = LabelMap(ORGANS, "multiclass").activate(logits)
        torch.testing.assert_close(probabilities.flatten(), torch.tensor([1 / 6, 1 / 2, 1 / 3]))

    @pytest.mark.parametrize(("names", "task"), [(["a"], "binary"), (["a"], "multilabel")])
    def test_sigmoid_elsewhere(self, names: list[str], task: Any) -> None:
        logits = torch.tensor([[[0.0, 3.0]]]).where(torch.tensor([True, False]), torch.tensor(3.0).log())
        torch.testing.assert_close(LabelMap(names, task).activate(logits).flatten(), torch.tensor([0.5, 0.75]))

    def test_the_likeliest_class_is_decided_for(self) -> None:
        probabilities = torch.tensor([[[0.2, 0.5], [0.5, 0.2], [0.3, 0.3]]])
        mask = LabelMap(ORGANS, "multiclass").decide(probabilities)
        assert mask.dtype == torch.uint8
        assert mask.tolist() == [[[1, 0]]]

    def test_a_label_of_its_own_needs_more_than_one_half(self) -> None:
        mask = LabelMap(ORGANS, "multilabel").decide(torch.tensor([[[0.51, 0.5], [0.9, 0.1]]]))
        assert mask.dtype == torch.uint8
        assert mask.tolist() == [[[1, 0], [1, 0]]]

    def test_the_target_of_exclusive_labels_is_class_indices(self) -> None:
        target = LabelMap(ORGANS, "multiclass").target(torch.tensor([[[[0, 2, IGNORE]]]], dtype=torch.uint8))
        assert target.dtype == torch.int64
        assert target.tolist() == [[[0, 2, IGNORE]]]

    @pytest.mark.parametrize(("names", "task"), [(["a"], "binary"), (ORGANS, "multilabel")])
    def test_the_target_of_other_tasks_is_a_channel_for_each_label(self, names: list[str], task: Any) -> None:
        labels = LabelMap(names, task)
        mask = torch.tensor([0, 1, IGNORE], dtype=torch.uint8).expand(1, len(names), 1, 3)
        target = labels.target(mask)
        assert target.shape == (1, labels.classes, 1, 3)
        assert target.dtype == torch.float32
        assert target[0, 0, 0].tolist() == [0, 1, IGNORE]


class TestProbabilities:
    GIVEN = np.array([[0.5, 0.0], [0.25, 1.0], [0.25, 0.0]], np.float32)

    def test_the_background_comes_before_exclusive_labels(self) -> None:
        assert LabelMap(ORGANS, "multiclass").probability(self.GIVEN, 1).tolist() == [0.25, 0.0]
        assert LabelMap(["a", "b", "c"], "multilabel").probability(self.GIVEN, 1).tolist() == [0.25, 1.0]
        assert LabelMap(["a"], "binary").probability(self.GIVEN[:1], 0).tolist() == [0.5, 0.0]

    def test_exclusive_labels_compete_with_each_other_and_the_background(self) -> None:
        labels = LabelMap(ORGANS, "multiclass")
        for index in (0, 1):
            np.testing.assert_array_equal(labels.distribution(self.GIVEN, index), self.GIVEN)

    @pytest.mark.parametrize(
        ("names", "task", "index", "expected"),
        [
            (["a"], "binary", 0, [[0.5, 1.0], [0.5, 0.0]]),
            (["a", "b", "c"], "multilabel", 1, [[0.75, 0.0], [0.25, 1.0]]),
        ],
    )
    def test_another_label_competes_with_its_absence(
        self, names: list[str], task: Any, index: int, expected: list[list[float]]
    ) -> None:
        labels = LabelMap(names, task)
        found = labels.distribution(self.GIVEN[: labels.classes], index)
        assert found.tolist() == expected
        assert found.dtype == np.float32


class TestProbabilitiesAndOneHot:
    def test_class_indices(self) -> None:
        target = torch.tensor([[0, 2, IGNORE]])
        probabilities, one_hot, valid = prepare_loss_inputs(torch.zeros(1, 3, 3), target)
        torch.testing.assert_close(probabilities, torch.full((1, 3, 3), 1 / 3))
        assert one_hot.tolist() == [[[1, 0, 0], [0, 0, 0], [0, 1, 0]]]
        assert valid.tolist() == [[[True, True, False]]]

    def test_a_channel_for_each_label(self) -> None:
        target = torch.tensor([[[0.0, 1.0], [IGNORE, 1.0]]])
        probabilities, one_hot, valid = prepare_loss_inputs(torch.zeros(1, 2, 2), target)
        torch.testing.assert_close(probabilities, torch.full((1, 2, 2), 0.5))
        assert one_hot.tolist() == [[[0, 1], [0, 1]]]
        assert valid.tolist() == [[[True, True], [False, True]]]


def test_one_file_for_each_label_leaves_no_doubt_about_255() -> None:
    labels = LabelMap(["a", "b"], "multiclass", ignore_value=255)
    assert labels.encode(np.array([2, 255]), "ids.png").tolist() == [2, 255]
    with pytest.raises(SettingError, match=r"a\.png holds one label, in which 255 may mean the label or"):
        labels.encode_one(np.array([0, 255]), 0, "a.png")
