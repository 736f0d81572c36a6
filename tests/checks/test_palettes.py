"""Palettes that a program made for each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_pl.checks.inspection import inspect_case
from medseg_pl.checks.palettes import palette_findings
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import FolderSource
from tests.sample_files import noise, save_raster

ORGANS = LabelMap(["liver", "spleen"], "multiclass")
BLACK, RED, GREEN, GRAY = [0, 0, 0], [200, 0, 0], [0, 200, 0], [90, 90, 90]


def find(root: Path, suffix: str, *palettes: list[list[int]]) -> list[str]:
    """Check masks that hold the indices 0, 1 and 2 under these palettes."""
    for number, colors in enumerate(palettes):
        save_raster(root / f"images/{number}.png", noise((12, 14), number))
        image = Image.fromarray(np.repeat(np.arange(len(colors), dtype=np.uint8), 4)[:, None].repeat(14, axis=1))
        image.putpalette(np.array(colors).ravel().tolist())
        (root / "masks").mkdir(exist_ok=True)
        image.save(root / f"masks/{number}{suffix}")
    source = FolderSource(str(root))
    facts = [inspect_case(source, case, labels=ORGANS, root=root) for case in source.cases()]
    return [finding.message for finding in palette_findings(facts)]


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
class TestPalettes:
    def test_the_same_in_all_files(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, RED, GREEN], [BLACK, RED], [BLACK, RED, GREEN]) == []

    def test_colors_change_places(self, tmp_path: Path, suffix: str) -> None:
        (said,) = find(tmp_path, suffix, [BLACK, RED, GREEN], [BLACK, GREEN, RED])
        assert said.startswith("Index ")
        assert "(200, 0, 0)" in said and "(0, 200, 0)" in said

    def test_one_index_stands_for_two_colors(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, RED], [BLACK, GREEN]) == [
            f"Index 1 is (0, 200, 0); in 0{suffix} it is (200, 0, 0)."
        ]

    def test_grays_are_for_show(self, tmp_path: Path, suffix: str) -> None:
        assert find(tmp_path, suffix, [BLACK, GRAY], [BLACK, [5, 5, 5]]) == []


def test_one_color_has_two_indices(tmp_path: Path) -> None:
    assert find(tmp_path, ".png", [BLACK, RED], [BLACK, GRAY, RED]) == [
        "The color (200, 0, 0) has the index 2; in 0.png it has 1."
    ]
