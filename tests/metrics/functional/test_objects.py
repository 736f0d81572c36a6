"""Connected components: on paper, and against a flood fill."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.metrics.functional.objects import Connectivity, count_overlaps, find_objects
from tests.metrics.functional import object_oracle
from tests.metrics.functional.object_pairs import pair

PAIRS = [pair(number) for number in range(300)]


def image(*rows: str) -> NDArray[np.bool_]:
    """A slice drawn with `#`."""
    return np.array([[[character == "#" for character in row] for row in rows]])


@pytest.mark.parametrize("connectivity", ["full", "face"])
def test_equal_to_a_flood_fill(connectivity: Connectivity) -> None:
    for drawn in PAIRS:
        objects = find_objects(drawn.reference, connectivity)
        steps = object_oracle.FULL if connectivity == "full" else object_oracle.FACE
        expected = object_oracle.components(drawn.reference, steps)
        assert objects.total == len(expected)
        assert objects.sizes.tolist() == list(map(len, expected))
        painted = objects.paint()
        for number, voxels in enumerate(expected, start=1):
            assert {tuple(index) for index in np.argwhere(painted == number).tolist()} == voxels, drawn.kind
            center = np.mean(sorted(voxels), axis=0)
            assert objects.centers[number - 1] == pytest.approx(center, rel=1e-14, abs=1e-14)


def test_overlaps_are_those_of_sets() -> None:
    for drawn in PAIRS:
        overlaps = count_overlaps(find_objects(drawn.reference), find_objects(drawn.prediction))
        ours, theirs = map(object_oracle.components, (drawn.reference, drawn.prediction))
        shares = {(i, j): len(mine & other) for i, mine in enumerate(ours) for j, other in enumerate(theirs)}
        expected = [(*key, shared) for key, shared in shares.items() if shared]
        assert list(zip(*(column.tolist() for column in overlaps[:3]), strict=True)) == expected
        assert overlaps.iou.tolist() == [float(object_oracle.iou(ours[i], theirs[j])) for i, j, _ in expected]


def test_corners_join_and_the_edge_of_the_image_does_not() -> None:
    mask = image(
        "#...#",
        ".#...",
        "....#",
        "#....",
    )
    assert find_objects(mask).sizes.tolist() == [2, 1, 1, 1]
    assert find_objects(mask, "face").sizes.tolist() == [1, 1, 1, 1, 1]
    volume = np.zeros((2, 2, 3), bool)
    volume[0, 1, 2] = volume[1, 0, 0] = True  # neighbors in memory, and on two sides of the image
    assert find_objects(volume).total == 2


def test_objects_that_join_late_have_the_number_of_their_first_voxel() -> None:
    mask = image(
        "..#.#",
        "#.#.#",
        "#.###",
    )
    assert find_objects(mask).paint()[0].tolist() == [[0, 0, 1, 0, 1], [2, 0, 1, 0, 1], [2, 0, 1, 1, 1]]


def test_volumes_and_diameters_on_paper() -> None:
    square = find_objects(image("##.", "##."))
    assert square.measure_volumes((3.0, 2.0, 0.5)).tolist() == [12.0]
    assert square.measure_diameters((3.0, 2.0, 0.5)).tolist() == [pytest.approx(2 * math.sqrt(4 / math.pi))]
    cube = find_objects(np.ones((2, 2, 2), bool))
    assert cube.measure_diameters((1.0, 1.0, 1.0)).tolist() == [pytest.approx((48 / math.pi) ** (1 / 3))]


def test_maxima_and_own_numbers() -> None:
    objects = find_objects(image("#.##"))
    assert objects.find_maxima(np.array([[[0.2, 0.9, 0.5, 0.7]]], np.float32)).tolist() == [
        pytest.approx(0.2),
        pytest.approx(0.7),
    ]
    assert objects.paint(np.array([7, 0])).tolist() == [[[7, 0, 0, 0]]]


def test_an_empty_mask_has_no_object() -> None:
    nothing = find_objects(np.zeros((2, 3, 4), bool))
    assert (nothing.total, nothing.sizes.tolist(), nothing.centers.shape) == (0, [], (0, 3))
    assert not nothing.paint().any()
    overlaps = count_overlaps(nothing, find_objects(np.ones((2, 3, 4), bool)))
    assert (overlaps.shared.tolist(), overlaps.prediction_sizes.tolist()) == ([], [24])
