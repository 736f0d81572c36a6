"""Data sets are found again from settings, moved or not, and no code runs that nobody allowed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import FolderSource, ManifestSource
from medseg_pl.data.sources.from_settings import open_source, relocate_source, select_recorded_cases
from medseg_pl.io.raster import write_png

FOLDER = "medseg_pl.data.sources.FolderSource"
MANIFEST = "medseg_pl.data.sources.ManifestSource"


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
        with pytest.raises(DataError, match=r"1 of the checkpoint's 2 validation cases are not there.* c among them"):
            select_recorded_cases(others, self.recorded)

    def test_trained_patient_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"1 of the 2 cases to be scored .* b among them"):
            select_recorded_cases([case("b", group="a"), case("c")], self.recorded)

    def test_side_without_cases_is_refused(self) -> None:
        with pytest.raises(DataError, match="knows of no test cases"):
            select_recorded_cases([], self.recorded, "test")
