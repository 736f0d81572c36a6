"""nnU-Net's own words: ignored voxels, regions, pictures with all channels in one file, and files by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.checks.discovery import discover
from medseg_pl.checks.layout_detection import recognize
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.data.sources import DecathlonSource
from medseg_pl.data.sources.dataset_json import read_labels
from tests.sample_files import blocks, noise, save_raster

REGIONS = {"background": 0, "whole": [1, 2, 3], "Core": [2, 3], "edge": 3}


def make(root: Path, labels: dict[str, Any], mask: np.ndarray, channels: int = 1, **others: Any) -> DecathlonSource:
    """Five pictures in nnU-Net's folders."""
    for number in range(5):
        pixels = noise((32, 32) if channels == 1 else (32, 32, channels), number)
        save_raster(root / f"imagesTr/c{number}_0000.png", pixels)
        save_raster(root / f"labelsTr/c{number}.png", mask)
    names = {str(number): "RGB"[number] for number in range(channels)}
    description = {"channel_names": names, "labels": labels, "numTraining": 5, "file_ending": ".png", **others}
    (root / "dataset.json").write_text(json.dumps(description))
    return DecathlonSource(str(root))


def test_what_is_ignored_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"background": 0, "tumor": 1, "ignore": 2}
    source = make(tmp_path, labels, blocks((32, 32), 1, 2))
    found = recognize(tmp_path).labels
    assert (list(found.names), found.task, found.ignore_value) == (["tumor"], "binary", 2)
    mask = source.read(source.cases()[0], found).mask
    np.testing.assert_array_equal(mask, blocks((32, 32), 1, IGNORE)[None, None])
    with pytest.raises(SettingError, match=r"labels\.names holds 'ignore', .* set labels\.ignore_value to 2"):
        source.read(source.cases()[0], LabelMap(["tumor", "ignore"], "multiclass"))
    assert main(["plan", str(tmp_path), "-o", str(tmp_path / "plan.yaml")]) == 0
    assert "ignore_value: 2" in (tmp_path / "plan.yaml").read_text()


def test_regions_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path, {**REGIONS, "ignore": 4}, blocks((32, 32), 1, 2, 3, 4), regions_class_order=[1, 2, 3])
    labels = recognize(tmp_path).labels
    assert (list(labels.names), labels.task, labels.ignore_value) == (["whole", "core", "edge"], "multilabel", 4)
    mask = source.read(source.cases()[0], labels).mask
    assert mask is not None
    values = [(1, 1, 1, IGNORE), (0, 1, 1, IGNORE), (0, 0, 1, IGNORE)]
    np.testing.assert_array_equal(mask[:, 0], [blocks((32, 32), *several) for several in values])
    with pytest.raises(SettingError, match=r"has no region 'tumor'; labels\.names may hold whole, core, edge"):
        source.read(source.cases()[0], LabelMap(["tumor", "core"], "multilabel"))
    assert main(["check", str(tmp_path)]) == 0
    assert "whole, core, edge are regions" in " ".join(capsys.readouterr().out.split())


def test_other_regions_are_read_anew(tmp_path: Path) -> None:
    first = make(tmp_path / "a", REGIONS, blocks((32, 32), 1)).reading_settings()
    second = make(tmp_path / "b", {**REGIONS, "edge": [1, 3]}, blocks((32, 32), 1)).reading_settings()
    assert first != second


def test_lists_of_single_values_are_no_regions() -> None:
    assert read_labels({"liver": [1], "spleen": [2]}).as_label_map() == LabelMap(["liver", "spleen"], "multiclass")


def test_a_picture_may_hold_all_channels(tmp_path: Path) -> None:
    source = make(tmp_path, {"background": 0, "road": 1}, blocks((32, 32), 1), channels=3)
    assert [len(case.images) for case in source.cases()] == [1] * 5
    assert discover(source).findings == ()
    assert source.read(source.cases()[0], LabelMap(["road"], "binary")).image.shape == (3, 1, 32, 32)
    (case, *_) = source.unlabeled(tmp_path / "imagesTr").cases()
    assert (case.case_id, len(case.images)) == ("c0", 1)
    save_raster(tmp_path / "imagesTr/c0_0001.png", noise((32, 32)))  # then they are files of their own
    assert [f.code for f in discover(source).findings] == ["listed-file-missing", "unlisted-file"]


@pytest.mark.parametrize("by_name", [True, False])
def test_files_may_be_listed_by_name(tmp_path: Path, by_name: bool) -> None:
    listed: Any = {f"p{n}": {"images": [f"imagesTr/c{n}_0000.png"], "label": f"labelsTr/c{n}.png"} for n in (0, 1)}
    dataset = listed if by_name else list(listed.values())
    source = make(tmp_path, {"background": 0, "road": 1}, blocks((32, 32), 1), dataset=dataset)
    names = ["p0", "p1"] if by_name else ["c0", "c1"]
    assert [(case.case_id, case.images[0].name) for case in source.cases()] == list(
        zip(names, ["c0_0000.png", "c1_0000.png"], strict=True)
    )
    assert [case.case_id for case in discover(source).cases] == names
    assert len([each for each in source.left_out() if each.kind == "unlisted"]) == 6


def test_a_listing_that_is_none_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path, {"road": 1}, blocks((32, 32), 1), dataset={"p0": {"images": "c0.png"}})
    with pytest.raises(DataError, match=r"expected entries .* in dataset"):
        source.cases()
    assert "listing-invalid" in [f.code for f in discover(source).findings]
