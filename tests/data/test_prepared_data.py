"""Data sets are found again from settings, moved or not, and no code runs that nobody allowed.

What is found of a data set: the values of its masks, and volumes over time.
"""

from __future__ import annotations

import gzip
import logging
import shutil
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import numpy as np
import pytest

from medseg_pl.__main__ import SayOnce
from medseg_pl.checks.inspection import inspect_case
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.core.types import Case
from medseg_pl.data.prepared_data import (
    find_mask_values,
    find_time_axes,
    open_source,
    relocate_source,
    select_recorded_cases,
    use_mask_values,
)
from medseg_pl.data.sources import FolderSource, ManifestSource, PolygonSource
from medseg_pl.io.raster import write_png
from tests.annotation_files import save_coco
from tests.checks.samples import codes
from tests.sample_files import blocks, save_raster

FOLDER = "medseg_pl.data.sources.FolderSource"

MANIFEST = "medseg_pl.data.sources.ManifestSource"

ONE = LabelMap(["lesion"], "binary")


def settings(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {"model": {}, "data": {"source": {"class_path": class_path, "init_args": arguments}}}


def write_manifest(table: Path, root: Path) -> None:
    for name in ("image", "mask"):
        write_png(root / f"{name}.png", np.ones((8, 8), np.uint8))
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("case_id,group,image,mask\na,a,image.png,mask.png\n", encoding="utf-8")


def case(name: str, group: str | None = None, masks: int = 1) -> Case:
    return Case(name, group or name, (Path("i.png"),), (Path("m.png"),) * masks)


def test_source_has_the_arguments_of_the_settings() -> None:
    source = open_source(settings(FOLDER, root="data", group="p([0-9]+)"))
    assert isinstance(source, FolderSource)
    assert (source.root, source.group) == (Path("data"), "p([0-9]+)")
    assert open_source(settings(FOLDER, root="data"), "elsewhere").root == Path("elsewhere")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("table", "root"),
    [("cases.csv", None), ("cases.csv", "."), ("tables/cases.csv", ".")],
    ids=["beside the files", "root given", "below the root"],
)
def test_manifest_moves_with_its_files(tmp_path: Path, table: str, root: str | None) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_manifest(old / table, old)
    given = {"manifest": str(old / table)} | ({"root": str(old)} if root else {})
    shutil.move(old, new)
    (found,) = open_source(settings(MANIFEST, **given), new).cases()
    assert (found.images, found.masks) == ((new / "image.png",), (new / "mask.png",))


def test_manifest_apart_from_its_files_stays(tmp_path: Path) -> None:
    table, old, new = tmp_path / "project" / "cases.csv", tmp_path / "old", tmp_path / "new"
    write_manifest(table, old)
    shutil.move(old, new)
    source = open_source(settings(MANIFEST, manifest=str(table), root=str(old)), new)
    assert isinstance(source, ManifestSource)
    assert (source.manifest, source.cases()[0].images) == (table, (new / "image.png",))


def test_settings_stay_as_they_were() -> None:
    given = {"class_path": FOLDER, "init_args": {"root": "old"}}
    relocate_source(given, "new")
    assert given == {"class_path": FOLDER, "init_args": {"root": "old"}}


@pytest.mark.parametrize("class_path", ["os.system", "tests.plugins.Unknown", "json.JSONDecoder"])
def test_code_that_nobody_allowed_is_not_imported(class_path: str) -> None:
    with pytest.raises(SettingError, match=rf"data\.source names {class_path.replace('.', '[.]')}"):
        open_source(settings(class_path))


def test_settings_without_a_data_set_are_refused() -> None:
    with pytest.raises(SettingError, match="Use a checkpoint or a run of medseg fit"):
        open_source({"model": {}, "data": {}})


def test_arguments_that_the_source_does_not_take_are_refused() -> None:
    with pytest.raises(SettingError, match=r"cannot be made.*nonsense"):
        open_source(settings(FOLDER, root="data", nonsense=1))


class TestRecordedCases:
    recorded: ClassVar[dict[str, Any]] = {"split": {"train": ["a"], "val": ["c", "b"], "test": []}, "groups": ["a"]}

    def test_selected_in_recorded_order(self) -> None:
        cases = [case(name) for name in "abcd"]
        assert [each.case_id for each in select_recorded_cases(cases, self.recorded)] == ["c", "b"]
        assert [each.case_id for each in select_recorded_cases(cases, self.recorded, "train")] == ["a"]

    @pytest.mark.parametrize("others", [[case("b")], [case("b"), case("c", masks=0)]], ids=["gone", "without mask"])
    def test_missing_case_is_refused(self, others: list[Case]) -> None:
        with pytest.raises(DataError, match="lacks 1 of the checkpoint's 2 validation cases, or the mask, c among"):
            select_recorded_cases(others, self.recorded)

    def test_trained_patient_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"patients of 1 of 2 scored cases, such as b\."):
            select_recorded_cases([case("b", group="a"), case("c")], self.recorded)

    def test_side_without_cases_is_refused(self) -> None:
        with pytest.raises(DataError, match="knows of no test cases"):
            select_recorded_cases([], self.recorded, "test")


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


def save(path: Path, shape: tuple[int, ...], unit: str = "unknown") -> Path:
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, shape, np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("shape", "unit", "times"), [((8, 8, 4, 10), "sec", 10), ((8, 8, 4, 4), "unknown", 0)])
def test_points_in_time_are_named(tmp_path: Path, shape: tuple[int, ...], unit: str, times: int) -> None:
    case = Case("p1", "p1", (save(tmp_path / "cine.nii.gz", shape, unit),))
    notes = find_time_axes([case])
    assert [f"cine.nii.gz has {times} points in time" in note for note in notes] == [True] * bool(times)
    facts = inspect_case(FolderSource(str(tmp_path)), case, labels=LabelMap(["a"], "binary"), root=tmp_path)
    assert codes(facts.findings) == ["time-axis"] * bool(times)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_spacing_of_nothing_is_a_finding(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / "a.nii", (8, 8, 4))
    content = bytearray(path.read_bytes())
    content[80:92] = bytes(12)
    path.write_bytes(content)
    nibabel.imageglobals.logger.disabled = True
    try:
        if suffix == ".nii.gz":
            path.unlink()
            path = tmp_path / "a.nii.gz"
            path.write_bytes(gzip.compress(bytes(content)))
        case = Case("p1", "p1", (path,))
        facts = inspect_case(FolderSource(str(tmp_path)), case, labels=LabelMap(["a"], "binary"), root=tmp_path)
    finally:
        nibabel.imageglobals.logger.disabled = False
    assert codes(facts.findings) == ["spacing-unset"]


def test_a_library_says_a_thing_once() -> None:
    records = [logging.LogRecord("nibabel.global", 30, "", 0, text, None, None) for text in ("a", "b", "a")]
    once = SayOnce()
    assert [once.filter(record) for record in records] == [True, True, False]
