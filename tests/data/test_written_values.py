"""Which values the masks of a training set are written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.data.sources import FolderSource, PolygonSource
from medseg_pl.data.written_values import find_mask_values, use_mask_values
from tests.annotation_files import save_coco
from tests.sample_files import blocks, save_raster

ONE = LabelMap(["lesion"], "binary")


def find(root: Path, *values: int, labels: LabelMap = ONE) -> list[int] | None:
    """Of pictures whose masks hold these values, one after the other."""
    for number, value in enumerate(values):
        save_raster(root / f"images/p{number}.png", blocks((9, 8), 1))
        save_raster(root / f"masks/p{number}.png", blocks((9, 8), value))
    source = FolderSource(str(root))
    return find_mask_values(source, source.cases(), labels)


@pytest.mark.parametrize(
    ("values", "written"), [((255, 255), [255]), ((1, 1), [1]), ((1, 255), [1]), ((0, 255), [255]), ((0, 0), None)]
)
def test_one_label(tmp_path: Path, values: tuple[int, ...], written: list[int] | None) -> None:
    assert find(tmp_path, *values) == written


def test_values_near_255_are_written_as_255(tmp_path: Path) -> None:
    assert find(tmp_path, 251, labels=LabelMap(["lesion"], "binary", tolerance=20)) == [255]


@pytest.mark.parametrize(
    "settings",
    [
        {"names": ["a", "b"], "task": "multiclass"},
        {"names": ["a"], "task": "binary", "values": [255]},
        {"names": ["a"], "task": "binary", "colors": {"a": (255, 255, 255)}},
    ],
)
def test_where_settings_say_it_nothing_is_found(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert find(tmp_path, 255, labels=LabelMap(**settings)) is None


@pytest.mark.parametrize(("value", "written"), [(255, [255, 255]), (1, [1, 1])])
def test_labels_in_files_of_their_own(tmp_path: Path, value: int, written: list[int]) -> None:
    task: Task = "multilabel"
    labels = LabelMap(["a", "b"], task)
    save_raster(tmp_path / "images/p.png", blocks((9, 8), 1))
    save_raster(tmp_path / "a/p.png", blocks((9, 8), value))
    save_raster(tmp_path / "b/p.png", np.zeros((9, 8), np.uint8))
    source = FolderSource(str(tmp_path), masks={"a": "a", "b": "b"})
    assert find_mask_values(source, source.cases(), labels) == written
    assert use_mask_values(labels, written).values == written


def test_outlines_have_no_value(tmp_path: Path) -> None:
    save_raster(tmp_path / "images/a.png", blocks((9, 8), 1))
    save_coco(tmp_path / "annotations.json", {"a.png": [("lesion", [(1.0, 1.0), (5.0, 1.0), (5.0, 5.0)])]}, (9, 8))
    source = PolygonSource(str(tmp_path))
    assert find_mask_values(source, source.cases(), ONE) is None
