"""One image in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.io.dicom.headers import read_dataset
from medseg_pl.io.dicom.planes import Plane, read_planes
from tests.dicom_files import CORONAL, ORIGIN, SPACING, save_enhanced, save_series, uid_of

STORED = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def plane(orientation: tuple[float, ...]) -> Plane:
    return Plane(Path("a.dcm"), 0, "series", ORIGIN, orientation, (0.75, 0.5), (3, 4), None, 1.0, 0.0)


def test_the_header_of_one_image(tmp_path: Path) -> None:
    (path, _) = save_series(tmp_path, STORED, orientation=CORONAL)
    (found,) = read_planes(read_dataset(path), path)
    assert found == Plane(path, 0, uid_of("series"), ORIGIN, CORONAL, SPACING[1:], (3, 4), 9.0, 1.0, -1024.0)


def test_the_header_of_many_images(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", STORED, order=[1, 0], slopes=[2.0, 0.5])
    first, second = read_planes(read_dataset(path), path)
    assert (first.frame, first.slope, first.position_mm[2]) == (0, 0.5, ORIGIN[2] + SPACING[0])
    assert (second.frame, second.slope, second.position_mm[2]) == (1, 2.0, ORIGIN[2])
    assert first.spacing_mm == second.spacing_mm == SPACING[1:]


def test_axes_on_paper() -> None:
    """Rows run to the left, columns to the feet: the normal points to the back."""
    np.testing.assert_array_equal(plane(CORONAL).axes, [[0, 1, 0], [0, 0, -1], [1, 0, 0]])


def test_a_point_on_paper() -> None:
    """Row 2 is 1.5 mm towards the feet, column 3 is 1.5 mm to the left."""
    np.testing.assert_allclose(plane(CORONAL).point(2, 3), np.add(ORIGIN, (1.5, 0, -1.5)))
    np.testing.assert_allclose(plane(CORONAL).locate(np.array([np.add(ORIGIN, (1.5, 4, -1.5))])), [[4, 2, 3]])


@given(seed=st.integers(0, 2**20))
def test_locating_undoes_placing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    image = plane(tuple(turn[:2].ravel().tolist()))
    row, column = rng.uniform(-50, 50, 2)
    np.testing.assert_allclose(image.locate(image.point(row, column)[None]), [[0, row, column]], atol=1e-9)


@pytest.mark.parametrize("orientation", [CORONAL, (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)])
def test_the_normal_has_length_one(orientation: tuple[float, ...]) -> None:
    assert np.linalg.norm(plane(orientation).axes[0]) == pytest.approx(1)
