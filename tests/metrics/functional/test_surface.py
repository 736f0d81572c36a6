"""Distances between borders: on paper, against a brute force, and against what others define alike and otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import surface_distance as deepmind
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

from medseg_pl.metrics.functional import surface
from medseg_pl.metrics.functional.surface import (
    SurfaceDistances,
    assd,
    find_border,
    find_bounding_box,
    hausdorff,
    hd95,
    measure_diagonal,
    nsd,
    surface_distances,
)
from tests.metrics.functional import surface_oracle
from tests.metrics.functional.surface_pairs import KINDS, Pair, pair

UNIT = (1.0, 1.0, 1.0)
PAIRS = [pair(number) for number in range(100 * len(KINDS))]
FULL = [given for given in PAIRS if given.both_there]
monai_warns = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.5, of its own call


def image(*rows: str) -> NDArray[np.bool_]:
    """A slice drawn with `#`."""
    return np.array([[[character == "#" for character in row] for row in rows]])


def volume(shape: tuple[int, int, int], *places: tuple[int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[tuple(zip(*places, strict=True))] = True
    return mask


def both_ways(given: Pair) -> SurfaceDistances:
    return surface_distances(given.prediction, given.reference, given.spacing)


def expected_both_ways(given: Pair) -> SurfaceDistances:
    ours, theirs = surface_oracle.border(given.prediction), surface_oracle.border(given.reference)
    there, back = (surface_oracle.distances(*way, given.spacing) for way in ((ours, theirs), (theirs, ours)))
    return SurfaceDistances(np.array(there), np.array(back))


def assert_close(found: SurfaceDistances, expected: SurfaceDistances) -> None:
    """Voxel by voxel, in the order of the array."""
    np.testing.assert_allclose(found.prediction_to_reference, expected.prediction_to_reference, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.reference_to_prediction, expected.reference_to_prediction, rtol=0, atol=1e-9)


class TestBorder:
    def test_a_slice_has_borders_within_itself(self) -> None:
        mask = image(
            ".......",
            ".####..",
            ".#####.",
            ".####..",
        )
        expected = image(
            ".......",
            ".####..",
            ".#...#.",
            ".####..",  # the image's edge
        )
        np.testing.assert_array_equal(find_border(mask), expected)

    def test_a_hole_has_a_border_and_its_corners_do_not_make_one(self) -> None:
        mask = image(
            "#####",
            "#####",
            "##.##",
            "#####",
            "#####",
        )
        expected = mask & ~image(
            ".....",
            ".#.#.",
            ".....",
            ".#.#.",
            ".....",
        )
        np.testing.assert_array_equal(find_border(mask), expected)

    def test_the_first_and_the_last_slice_of_a_volume_are_border(self) -> None:
        mask = np.ones((3, 3, 3), bool)
        inside = np.argwhere(mask & ~find_border(mask))
        assert inside.tolist() == [[1, 1, 1]]

    def test_a_mask_of_one_slice_in_a_volume_is_all_border(self) -> None:
        block = np.zeros((4, 7, 7), bool)
        block[2, 1:6, 1:6] = True
        np.testing.assert_array_equal(find_border(block), block)
        inner = np.zeros_like(block)
        inner[2, 2:5, 2:5] = True
        # The box around both is one slice thick, and still no image of one slice: that would leave the rim of 16.
        distances = surface_distances(block, inner, UNIT)
        assert len(distances.prediction_to_reference) == 25
        assert distances.reference_to_prediction.tolist() == [0.0] * 9

    def test_equal_to_its_definition(self) -> None:
        for given in PAIRS:
            expected = np.zeros_like(given.reference)
            for place in surface_oracle.border(given.reference):
                expected[place] = True
            np.testing.assert_array_equal(find_border(given.reference), expected, err_msg=given.kind)

    def test_the_mask_is_left_as_it_was(self) -> None:
        mask = np.ones((3, 4, 5), bool)
        find_border(mask)
        assert mask.all()


def test_the_box_is_the_smallest_that_holds_the_mask() -> None:
    mask = volume((6, 7, 8), (1, 5, 2), (4, 3, 2))
    assert find_bounding_box(mask) == (slice(1, 5), slice(3, 6), slice(2, 3))
    assert mask[find_bounding_box(np.zeros((6, 7, 8), bool))].size == 0


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((1, 30, 40), (9.0, 1.0, 1.0), 50.0),  # one slice has no depth
        ((1, 30, 40), (9.0, 2.0, 0.5), math.hypot(60, 20)),
        ((12, 30, 40), UNIT, math.sqrt(144 + 900 + 1600)),
        ((2, 3, 6), (1.0, 1.0, 1.0), 7.0),
    ],
)
def test_the_diagonal(shape: tuple[int, int, int], spacing: surface.Spacing, expected: float) -> None:
    assert measure_diagonal(shape, spacing) == pytest.approx(expected, rel=1e-15)


def test_two_voxels_are_as_far_apart_as_their_centers() -> None:
    # 1 slice of 12 mm, 2 rows of 1.5 mm, 8 columns of 0.5 mm: 12, 3 and 4 make 13.
    first, second = volume((3, 5, 9), (0, 1, 0)), volume((3, 5, 9), (1, 3, 8))
    distances = surface_distances(first, second, (12.0, 1.5, 0.5))
    assert (distances.prediction_to_reference.tolist(), distances.reference_to_prediction.tolist()) == ([13.0], [13.0])


def test_a_square_inside_a_square_on_paper() -> None:
    prediction = image(".....", ".###.", ".###.", ".###.", ".....")
    reference = np.ones((1, 5, 5), bool)
    distances = surface_distances(prediction, reference, UNIT)
    assert distances.prediction_to_reference.tolist() == [1.0] * 8  # the middle is no border
    far = math.sqrt(2)
    rows = [[far, 1, 1, 1, far], [1, 1], [1, 1], [1, 1], [far, 1, 1, 1, far]]
    assert distances.reference_to_prediction.tolist() == [value for row in rows for value in row]
    assert hausdorff(distances) == far
    assert hd95(distances) == far  # the 95th of 16 values lies at place 14.25: between the two largest
    assert assd(distances) == pytest.approx((8 + 12 + 4 * far) / 24, rel=1e-15)
    assert nsd(distances, 1.0) == 20 / 24
    assert nsd(distances, 0.99) == 0.0
    assert nsd(distances, 1.42) == 1.0


def test_the_95th_percentile_lies_between_two_values() -> None:
    # Of 21 values the twentieth; of 11 values halfway between the tenth and the last.
    zero = np.zeros(1)
    assert hd95(SurfaceDistances(np.arange(21.0), zero)) == 19.0
    assert hd95(SurfaceDistances(zero, np.array([0.0] * 10 + [10.0]))) == 5.0


def test_hd95_is_neither_pooled_nor_weighted() -> None:
    # A stray border of one voxel in eleven counts half; among the 111 of both, as medpy pools them, it vanishes.
    distances = SurfaceDistances(np.array([0.0] * 10 + [10.0]), np.zeros(100))
    assert hd95(distances) == 5.0
    assert np.percentile(distances.both, 95) == 0.0


class TestEmptyMasks:
    MASK = image("...", ".#.", ".##")
    NOTHING = np.zeros((1, 3, 3), bool)

    def test_from_one_empty_mask_all_is_infinitely_far(self) -> None:
        missed = surface_distances(self.NOTHING, self.MASK, UNIT)
        assert missed.prediction_to_reference.tolist() == []
        assert missed.reference_to_prediction.tolist() == [math.inf] * 3
        alarm = surface_distances(self.MASK, self.NOTHING, UNIT)
        assert (alarm.prediction_to_reference.tolist(), alarm.reference_to_prediction.tolist()) == ([math.inf] * 3, [])
        for distances in (missed, alarm):
            assert [score(distances) for score in (hausdorff, hd95, assd)] == [math.inf] * 3
            assert nsd(distances, 1e9) == 0.0

    @pytest.mark.parametrize("shape", [(1, 3, 3), (4, 3, 3), (1, 1, 1)])
    def test_between_two_empty_masks_there_is_no_distance(self, shape: tuple[int, int, int]) -> None:
        nothing = np.zeros(shape, bool)
        distances = surface_distances(nothing, nothing, UNIT)
        assert len(distances.both) == 0
        assert all(math.isnan(score(distances)) for score in (hausdorff, hd95, assd))
        assert math.isnan(nsd(distances, 1.0))


class TestSearch:
    def test_equal_to_measuring_all_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        searched = {"_query_tree": 0, "_apply_transform": 0}
        for name in searched:
            monkeypatch.setattr(surface, name, _counted(getattr(surface, name), name, searched))
        for given in FULL:
            assert_close(both_ways(given), expected_both_ways(given))
        assert len(FULL) >= 1_000
        assert min(searched.values()) > 100, searched

    @pytest.mark.parametrize("tree", [True, False], ids=["tree", "transform"])
    def test_either_search_finds_the_same(self, tree: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(surface, "_is_tree_faster", lambda origins, targets: tree)
        for given in FULL:
            assert_close(both_ways(given), expected_both_ways(given))

    @pytest.mark.parametrize("shape", [(1, 301, 203), (23, 47, 61)])
    def test_masks_too_large_for_all_pairs(self, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(sum(shape))
        grid = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
        prediction = grid[1] ** 2 + 2 * grid[2] ** 2 + grid[0] ** 2 / 2 < 0.8
        reference = (np.roll(prediction, 5, axis=2) & (rng.random(shape) > 0.01)) | (rng.random(shape) > 0.999)
        found = []
        for tree in (True, False):
            monkeypatch.setattr(surface, "_is_tree_faster", lambda origins, targets, tree=tree: tree)
            found.append(surface_distances(prediction, reference, (2.5, 0.7, 1.1)))
        assert_close(*found)
        assert len(found[0].both) > 1_000

    def test_what_lies_outside_the_box_does_not_matter(self) -> None:
        for given in FULL[::7]:
            if len(given.prediction) > 1:
                padded = [np.pad(mask, ((2, 1), (0, 4), (3, 0))) for mask in (given.prediction, given.reference)]
                assert_close(surface_distances(*padded, given.spacing), both_ways(given))

    def test_the_masks_are_left_as_they_were(self) -> None:
        given = FULL[0]
        before = given.prediction.copy(), given.reference.copy()
        both_ways(given)
        np.testing.assert_array_equal((given.prediction, given.reference), before)


def _counted(search: object, name: str, searched: dict[str, int]) -> object:
    def counting(*arguments: object) -> object:
        searched[name] += 1
        return search(*arguments)  # type: ignore[operator]

    return counting


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 0.9765625, 1.2, 1.4, 3.3])
@pytest.mark.parametrize("tree", [True, False], ids=["tree", "transform"])
def test_a_tolerance_of_whole_voxels_is_met_wherever_the_mask_lies(
    step: float, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 6 * 1.2 and 7 * 1.2 differ by more than 1.2: plain coordinates would make the score depend on the place.
    monkeypatch.setattr(surface, "_is_tree_faster", lambda origins, targets: tree)
    for apart in (1, 3):
        for place in range(1, 40):
            prediction, reference = volume((1, 1, 60), (0, 0, 0), (0, 0, place)), volume((1, 1, 60), (0, 0, 0))
            reference[0, 0, place + apart] = True
            distances = surface_distances(prediction, reference, (1.0, 1.0, step))
            nearest = min(place, apart)  # the voxel at 0, which both share, may be nearer
            assert nsd(distances, nearest * step) >= 3 / 4
            assert nsd(distances, apart * step) == 1.0
            assert nsd(distances, 0.999 * nearest * step) == 2 / 4


@pytest.mark.trainings
class TestMonai:
    """Where definitions coincide values do; MONAI measures in single precision."""

    @monai_warns
    def test_equal_where_neither_mask_is_empty(self) -> None:
        for given in FULL[::4]:
            distances = both_ways(given)
            ours = [
                hausdorff(distances),
                hd95(distances),
                assd(distances),
                nsd(distances, given.tolerance),
            ]
            np.testing.assert_allclose(ours, self.scores(given), rtol=0, atol=1e-4, err_msg=str(given.kind))
        assert len(FULL[::4]) > 300

    @monai_warns
    def test_a_volume_of_one_slice_is_an_image_here_and_all_border_there(self) -> None:
        square = image("#####", "#####", "#####", "#####", "#####")
        given = Pair("", image(".....", ".###.", ".###.", ".###.", "....."), square, UNIT, 1.0)
        assert assd(both_ways(given)) == pytest.approx((20 + 4 * math.sqrt(2)) / 24)
        as_image, as_volume = self.scores(given), self.scores(given, volume=True)
        assert as_image[2] == pytest.approx((20 + 4 * math.sqrt(2)) / 24)
        # The 9 voxels of the prediction all lie on the reference, which has 9 more that are at distance 0.
        assert as_volume[2] == pytest.approx((12 + 4 * math.sqrt(2)) / 34)
        assert as_volume[3] == pytest.approx(30 / 34)

    @monai_warns
    def test_subvoxel_surface_dice_weighs_by_length(self) -> None:
        # The four corner voxels of 12 are short pieces of the outline, and the ones that are far away.
        given = Pair("", image(".....", ".###.", ".###.", ".###.", "....."), np.ones((1, 5, 5), bool), UNIT, 1.0)
        masks = [torch.from_numpy(mask)[None].float() for mask in (given.prediction, given.reference)]
        weighted = compute_surface_dice(*masks, [1.0], include_background=True, spacing=[1.0, 1.0], use_subvoxels=True)
        # Outlines between the voxels: 4 corners of sqrt(1/2) and 8 or 16 pieces of 1; the large one's corners are far.
        corner = 4 * math.sqrt(1 / 2)
        assert float(weighted) == pytest.approx((8 + corner + 16) / (8 + corner + 16 + corner))
        assert nsd(both_ways(given), 1.0) == 20 / 24

    @pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class 0 is all 0:UserWarning")
    @monai_warns
    def test_empty_masks_are_infinitely_far_but_for_its_percentile(self) -> None:
        nothing = Pair("", np.zeros((1, 3, 3), bool), image("...", ".#.", ".##"), UNIT, 1.0)
        theirs = self.scores(nothing)
        assert (theirs[0], theirs[2], theirs[3]) == (math.inf, math.inf, 0.0)
        assert math.isnan(theirs[1])
        assert hd95(both_ways(nothing)) == math.inf

    def scores(self, given: Pair, volume: bool = False) -> list[float]:
        """HD, HD95, ASSD and NSD; one slice goes in as the image it is unless asked otherwise."""
        flat = len(given.prediction) == 1 and not volume
        masks = [torch.from_numpy(mask if flat else mask[None])[None].float() for mask in given[1:3]]
        options = {"include_background": True, "spacing": list(given.spacing[1:] if flat else given.spacing)}
        found = [
            compute_hausdorff_distance(*masks, **options),
            compute_hausdorff_distance(*masks, percentile=95, **options),
            compute_average_surface_distance(*masks, symmetric=True, **options),
            compute_surface_dice(*masks, class_thresholds=[given.tolerance], **options),
        ]
        return [float(value) for value in found]


@pytest.mark.filterwarnings("ignore:.*scipy.ndimage.* namespace is deprecated:DeprecationWarning")
class TestDeepMind:
    """surface-distance measures between the corners of voxels, each weighted by its length of outline (its README)."""

    def test_a_voxel_has_four_corners_there_and_one_center_here(self) -> None:
        # Centers are 3 apart; the near corners 2, the far ones 3.
        first, second = image(".......", ".#.....", "......."), image(".......", "....#..", ".......")
        theirs = deepmind.compute_surface_distances(first[0], second[0], (1.0, 1.0))
        assert theirs["distances_gt_to_pred"].tolist() == [2, 2, 3, 3]
        assert deepmind.compute_surface_dice_at_tolerance(theirs, 2.0) == 1 / 2
        assert deepmind.compute_average_surface_distance(theirs) == pytest.approx((2.5, 2.5))
        ours = surface_distances(first, second, UNIT)
        assert nsd(ours, 2.0) == 0.0
        assert assd(ours) == 3.0
        assert hausdorff(ours) == deepmind.compute_robust_hausdorff(theirs, 100) == 3.0

    def test_a_hole_of_one_voxel_is_a_surface_there_and_none_here(self) -> None:
        # The voxels around the hole are border already: they touch the outside.
        solid, holed = (
            image(".....", ".###.", ".###.", ".###.", "....."),
            image(".....", ".###.", ".#.#.", ".###.", "....."),
        )
        ours = surface_distances(holed, solid, UNIT)
        theirs = deepmind.compute_surface_distances(solid[0], holed[0], (1.0, 1.0))
        assert hausdorff(ours) == 0.0
        assert deepmind.compute_robust_hausdorff(theirs, 100) == 1.0
        # 8 + 4 sqrt(1/2) around the solid and around the holed square, and 4 sqrt(1/2) around the hole.
        outline, hole = 8 + 4 * math.sqrt(1 / 2), 4 * math.sqrt(1 / 2)
        assert deepmind.compute_surface_dice_at_tolerance(theirs, 0.5) == pytest.approx(
            2 * outline / (2 * outline + hole)
        )
        assert nsd(ours, 0.5) == 1.0

    def test_the_hausdorff_distance_is_its_percentile_100_where_shapes_keep_their_corners(self) -> None:
        prediction, reference = np.zeros((2, 1, 20, 30), bool)
        prediction[0, 3:12, 4:20] = True
        reference[0, 3:12, 9:25] = True
        theirs = deepmind.compute_surface_distances(reference[0], prediction[0], (0.8, 1.7))
        assert hausdorff(surface_distances(prediction, reference, (1.0, 0.8, 1.7))) == pytest.approx(5 * 1.7)
        assert deepmind.compute_robust_hausdorff(theirs, 100) == pytest.approx(5 * 1.7)
