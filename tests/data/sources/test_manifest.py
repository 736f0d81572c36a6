"""A table that names every file, and may come from a stranger."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.core.errors import DataError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap, Task
from medseg_pl.core.types import Prediction
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.sources import ManifestSource
from medseg_pl.data.sources.manifest import choose_strata_columns, read_table
from medseg_pl.metrics import MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric
from medseg_pl.metrics.summary import make_row
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import blocks, noise, save_raster, save_volume, tree

OVERLAPPING = LabelMap(["liver", "spleen"], "multilabel")


def manifest(root: Path, *lines: str, name: str = "cases.csv") -> ManifestSource:
    """A table, and an empty file for every path in it that stays inside."""
    for field in {field for line in lines[1:] for part in line.split(",") for field in part.split(";")}:
        if field.strip().endswith(".png") and ".." not in field and not field.startswith("/"):
            (root / field.strip()).parent.mkdir(parents=True, exist_ok=True)
            (root / field.strip()).touch()
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ManifestSource(str(root / name))


class TestOneMask(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        rows = ["case_id,group,image,mask,site"]
        for seed, name in enumerate(["p2", "p1"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed, dtype=np.uint16))
            save_raster(tmp_path / "masks" / f"{name}_reference.png", blocks((9, 12), 1, 2))
            rows.append(f"{name},{name},images/{name}.png,masks/{name}_reference.png,Madison")
        (tmp_path / "cases.csv").write_text("\n".join(rows), encoding="utf-8")
        return Subject(
            source=ManifestSource(str(tmp_path / "cases.csv")),
            labels=LabelMap(["liver", "spleen"], "multiclass"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: _again(tmp_path, {"mask": d}),
        )


class TestOneMaskForEachLabel(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        rows = ["case_id,group,image,mask_liver,mask_spleen"]
        for seed, name in enumerate(["p1", "p2"]):
            save_raster(tmp_path / "images" / f"{name}.png", noise((9, 12), seed))
            for number, organ in enumerate(OVERLAPPING.names):
                save_raster(tmp_path / organ / f"{name}.png", blocks((9, 12), *[0] * number, 255, 255))
            rows.append(f"{name},{name},images/{name}.png,liver/{name}.png,spleen/{name}.png")
        (tmp_path / "cases.csv").write_text("\n".join(rows), encoding="utf-8")
        return Subject(
            source=ManifestSource(str(tmp_path / "cases.csv")),
            labels=OVERLAPPING,
            cases=2,
            images=tmp_path / "images",
            again=lambda d: _again(tmp_path, {f"mask_{organ}": d / organ for organ in OVERLAPPING.names}),
        )


class TestSlicing(SourceContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        for seed, name in enumerate(["p1", "p2"]):
            save_volume(tmp_path / "images" / f"{name}.nii.gz", noise((6, 7, 5), seed), spacing_mm=(0.5, 7.5, 0.5))
            save_volume(tmp_path / "masks" / f"{name}.nii.gz", blocks((6, 7, 5), 1), spacing_mm=(0.5, 7.5, 0.5))
        return Subject(
            source=_volumes(tmp_path, tmp_path / "masks"),
            labels=LabelMap(["cord"], "binary"),
            cases=2,
            images=tmp_path / "images",
            again=lambda d: _volumes(tmp_path, d),
        )

    def test_the_thick_axis_comes_first(self, subject: Subject) -> None:
        volume = subject.source.read(subject.source.cases()[0], subject.labels)
        np.testing.assert_array_equal(volume.image[0], noise((6, 7, 5), 0).transpose(1, 2, 0))
        assert volume.geometry.spacing_mm == pytest.approx((7.5, 0.5, 0.5))


def _volumes(root: Path, masks: Path) -> ManifestSource:
    rows = [f"{n},{n},images/{n}.nii.gz,{(masks / n).relative_to(root)}.nii.gz" for n in ("p1", "p2")]
    (root / "volumes.csv").write_text("\n".join(["case_id,group,image,mask", *rows]), encoding="utf-8")
    return ManifestSource(str(root / "volumes.csv"), slicing="thick")


def _again(root: Path, folders: dict[str, Path]) -> ManifestSource:
    rows = [",".join(["case_id", "group", "image", *folders])]
    for name in ("p1", "p2"):
        masks = [str((folder / f"{name}.png").relative_to(root)) for folder in folders.values()]
        rows.append(",".join([name, name, f"images/{name}.png", *masks]))
    (root / "again.csv").write_text("\n".join(rows), encoding="utf-8")
    return ManifestSource(str(root / "again.csv"))


def test_a_row_becomes_a_case(tmp_path: Path) -> None:
    source = manifest(
        tmp_path,
        "case_id,group,image,mask,split,fold,comment",
        "b,p1,b_t1.png; b_t2.png,b_mask.png,test,,blurred",
        "a,p2,a.png,a_mask.png,train,3,",
        "c,p3,c.png,,,,",
    )
    a, b, c = source.cases()
    assert (a.case_id, a.group, a.split, a.fold) == ("a", "p2", "train", 3)
    assert b.images == (tmp_path / "b_t1.png", tmp_path / "b_t2.png")
    assert (b.masks, b.split, b.fold) == ((tmp_path / "b_mask.png",), "test", None)
    assert (c.masks, c.split, c.fold) == ((), None, None)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    manifest(tmp_path, "case_id,group,image,mask", "a,p1,a.png,a_mask.png")
    text = (tmp_path / "cases.csv").read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.case_id for case in ManifestSource(str(tmp_path / "cases.csv")).cases()] == ["a"]


def test_paths_start_from_the_root(tmp_path: Path) -> None:
    save_raster(tmp_path / "data/a.png", noise((4, 4)))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/cases.csv").write_text("case_id,group,image\na,p1,a.png\n", encoding="utf-8")
    source = ManifestSource(str(tmp_path / "lists/cases.csv"), root=str(tmp_path / "data"))
    assert source.cases()[0].images == (tmp_path / "data/a.png",)


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "sub/../../secret.png"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, column: str, path: str) -> None:
    save_raster(tmp_path / "secret.png", noise((4, 4)))
    (tmp_path / "data").mkdir()
    image, mask = (path, "m.png") if column == "image" else ("a.png", path)
    source = manifest(tmp_path / "data", "case_id,group,image,mask", f"a,p1,{image},{mask}")
    with pytest.raises(MissingDataError, match=rf"cases\.csv, line 2 names '{path}', which lies outside .*data\."):
        source.cases()


@pytest.mark.parametrize("name", ["../../stolen", "/tmp/stolen", "a/../../b", ".medseg/record", r"..\stolen"])
def test_a_case_id_that_leads_out_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    source = manifest(tmp_path, "case_id,group,image,mask", f"{name},p1,a.png,m.png")
    with pytest.raises(DataError, match=rf"line 2: the case_id '{re.escape(name)}' holds .*\. Use a plain name"):
        source.cases()


def test_a_repeated_case_is_named(tmp_path: Path) -> None:
    source = manifest(tmp_path, "case_id,group,image", "a,p1,a.png", "b,p1,b.png", "a,p2,c.png")
    with pytest.raises(DataError, match=r"cases\.csv: case_id stands in several rows: a\. Give each its own\."):
        source.cases()


def test_a_file_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    source = manifest(tmp_path, "case_id,group,image", "a,p1,a.png", "b,p1,b.png")
    (tmp_path / "b.png").unlink()
    before = tree(tmp_path)
    with pytest.raises(
        MissingDataError, match=r"line 3 names .*b\.png, which does not exist\. Correct the row, or set"
    ):
        source.cases()
    assert tree(tmp_path) == before


def test_the_line_is_that_of_the_file_even_after_an_empty_one(tmp_path: Path) -> None:
    source = manifest(tmp_path, "case_id,group,image", "a,p1,a.png", "", "b,,b.png")
    with pytest.raises(DataError, match=r"cases\.csv, line 4: the column group is empty"):
        source.cases()


@pytest.mark.parametrize("column", ["case_id", "group", "image"])
def test_an_empty_field_is_named(tmp_path: Path, column: str) -> None:
    fields = {"case_id": "a", "group": "p1", "image": "a.png", column: " "}
    source = manifest(tmp_path, "case_id,group,image", ",".join(fields.values()))
    with pytest.raises(DataError, match=rf"line 2: the column {column} is empty\. Fill it in or remove the row\."):
        source.cases()


@pytest.mark.parametrize(
    ("row", "column"), [("a,p1,a.png,,s.png", "mask_liver"), ("a,p1,a.png,l.png, ", "mask_spleen")]
)
def test_a_mask_that_only_some_labels_have_is_missed(tmp_path: Path, row: str, column: str) -> None:
    # Left alone, the mask of the spleen would be read as that of the first label.
    source = manifest(tmp_path, "case_id,group,image,mask_liver,mask_spleen", row)
    with pytest.raises(DataError) as error:
        source.cases()
    assert str(error.value) == (
        f"{tmp_path / 'cases.csv'}, line 2: the column {column} is empty, but others name masks. Fill in all of them "
        "or none."
    )


def test_a_row_without_any_mask_is_an_image_alone(tmp_path: Path) -> None:
    source = manifest(tmp_path, "case_id,group,image,mask_liver,mask_spleen", "a,p1,a.png,,")
    assert [case.masks for case in source.cases()] == [()]


def test_a_row_that_ends_too_early_is_an_empty_field(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: the column image is empty"):
        manifest(tmp_path, "case_id,group,image", "a,p1").cases()


def test_missing_columns_are_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks columns: case_id, group; expected .*; got id, image\."):
        manifest(tmp_path, "id,image", "a,a.png").cases()


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("split", "valid", r"split is 'valid'; expected train, val, test, or nothing"),
        ("fold", "first", r"fold is 'first'; expected 0, 1, 2 …, or nothing"),
        ("fold", "-1", r"fold is '-1'; expected 0, 1, 2 …, or nothing"),
        ("fold", "²", r"fold is '²'; expected 0, 1, 2 …, or nothing"),
    ],
)
def test_a_split_or_fold_that_means_nothing_is_refused(tmp_path: Path, columns: str, row: str, message: str) -> None:
    with pytest.raises(DataError, match=f"line 2: {message}"):
        manifest(tmp_path, f"case_id,group,image,{columns}", f"a,p1,a.png,{row}").cases()


def test_no_table_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"none\.csv does not exist\. Set data\.source\.manifest to your CSV file"
    ):
        ManifestSource(str(tmp_path / "none.csv")).cases()
    with pytest.raises(MissingDataError, match=r"cases\.csv has no rows"):
        manifest(tmp_path, "case_id,group,image").cases()


def test_a_table_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes("case_id,group,image\nMüller,p1,a.png\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"cases\.csv is not UTF-8: .* Save it as UTF-8"):
        ManifestSource(str(tmp_path / "cases.csv")).cases()


def test_columns_in_another_order_than_the_labels_are_refused(tmp_path: Path) -> None:
    source = manifest(tmp_path, "case_id,group,image,mask_spleen,mask_liver", "a,p1,a.png,s.png,l.png")
    with pytest.raises(
        SettingError, match=r"cases\.csv names the masks spleen, liver, but labels\.names is liver, spl"
    ):
        source.read(source.cases()[0], OVERLAPPING)


def test_site_and_scanner_become_strata_where_they_are_there(tmp_path: Path) -> None:
    rows = ["case_id,group,image,scanner,site,age", "a,p1,a.png, X ,north,40", "b,p2,b.png,,south,", "c,p3,c.png"]
    a, b, c = manifest(tmp_path, *rows).cases()
    assert a.strata == (("site", "north"), ("scanner", "X"))
    assert b.strata == (("site", "south"),)
    assert c.strata == ()
    assert manifest(tmp_path, "case_id,group,image", "a,p1,a.png").cases()[0].strata == ()


def test_other_columns_are_strata_where_they_are_named(tmp_path: Path) -> None:
    manifest(tmp_path, "case_id,group,image,site,age", "a,p1,a.png,north,40")
    source = ManifestSource(str(tmp_path / "cases.csv"), strata=["age"])
    assert source.cases()[0].strata == (("age", "40"),)
    assert ManifestSource(str(tmp_path / "cases.csv"), strata=[]).cases()[0].strata == ()


def test_a_named_column_has_to_be_there_and_may_be_no_column_of_scores(tmp_path: Path) -> None:
    manifest(tmp_path, "case_id,group,image,site", "a,p1,a.png,north")
    with pytest.raises(
        DataError,
        match=r"cases\.csv lacks columns that data\.source\.strata names: scanner; got case_id, group, image, s",
    ):
        ManifestSource(str(tmp_path / "cases.csv"), strata=["site", "scanner"]).cases()
    with pytest.raises(
        SettingError, match=r"data\.source\.strata names group, which is a column of every table of sco"
    ):
        ManifestSource(str(tmp_path / "cases.csv"), strata=["group"]).cases()


def test_strata_do_not_make_the_cache_decode_again(tmp_path: Path) -> None:
    save_raster(tmp_path / "a.png", noise((4, 4)))
    save_raster(tmp_path / "a_mask.png", blocks((4, 4), 1))
    cache = CaseCache(tmp_path / "store", ManifestSource("unused"), LabelMap(["liver"], "binary"))
    keys = set()
    for header, fields, strata in [("", "", None), (",site", ",north", None), (",site,age", ",south,40", ["age"])]:
        text = f"case_id,group,image,mask{header}\na,p1,a.png,a_mask.png{fields}\n"
        (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
        cache.source = ManifestSource(str(tmp_path / "cases.csv"), strata=strata)
        keys.update(cache.build(cache.source.cases(), threads=1).keys.tolist())
    assert len(keys) == 1


TABLE = Path("cases.csv")


def test_fields_beyond_the_header_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,group\na,p1,stray,field\nb\n", encoding="utf-8")
    rows = read_table(tmp_path / "cases.csv", ["case_id"], "case_id", "")
    assert rows == [(2, {"case_id": "a", "group": "p1"}), (3, {"case_id": "b", "group": None})]


def test_site_and_scanner_need_not_be_there_unless_they_are_named() -> None:
    assert choose_strata_columns(["case_id", "scanner", "age"], None, TABLE, "strata") == ["scanner"]
    assert choose_strata_columns(["case_id"], None, TABLE, "strata") == []
    assert choose_strata_columns(["case_id", "site"], [], TABLE, "strata") == []
    assert choose_strata_columns(["age", "site"], ["site", "age", "site"], TABLE, "strata") == ["site", "age"]
    with pytest.raises(DataError, match=r"^cases\.csv lacks columns that strata names: site; got case_id, group\.$"):
        choose_strata_columns(["case_id", "group"], ["site"], TABLE, "strata")


def scored_columns() -> list[str]:
    labels = LabelMap(["lesion"], "binary")
    ledger = MetricTable([OverlapMetric(labels), SurfaceMetric(labels), VolumeMetric(labels)])
    ledger.add(Prediction.from_masks("a", np.ones((2, 2)), np.ones((2, 2))))
    return list(make_row(ledger.table()[0], {}))


@pytest.mark.parametrize("name", scored_columns())
def test_a_stratum_may_not_take_the_place_of_a_score(name: str) -> None:
    with pytest.raises(SettingError, match=f"strata names {name}, which is a column of every table of scores already"):
        choose_strata_columns([name], [name], TABLE, "strata")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_labels_that_nobody_looked_for_need_no_mask(tmp_path: Path, task: Task) -> None:
    for name in ("image", "liver", "spleen"):
        save_raster(tmp_path / f"{name}.png", blocks((9, 12), 0, 255))
    source = manifest(
        tmp_path / "..",
        "case_id,group,image,mask_liver,mask_spleen,annotated_labels",
        f"a,p1,{tmp_path.name}/image.png,{tmp_path.name}/liver.png,,liver",
        f"b,p2,{tmp_path.name}/image.png,,{tmp_path.name}/spleen.png, spleen ",
        name=f"{tmp_path.name}.csv",
    )
    assert [case.annotated_labels for case in source.cases()] == [("liver",), ("spleen",)]
    labels = LabelMap(["liver", "spleen"], task, partial=True)
    for index, case in enumerate(source.cases()):
        mask = source.read(case, labels).mask
        assert mask is not None
        # The one file is that of its own label, in either task.
        assert [bool(plane.any()) for plane in labels.planes(mask)] == [index == 0, index == 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,p1,a.png,l.png,,liver;spleen", "the column mask_spleen is empty, but annotated_labels is liver;spleen"),
        ("a,p1,a.png,l.png,s.png,liver", "the column mask_spleen is filled in, but annotated_labels is liver"),
        ("a,p1,a.png,l.png,,liver;kidney", "the column mask_kidney is empty, but annotated_labels is liver;kidney"),
        ("a,p1,a.png,l.png,,liver;", "annotated_labels is 'liver;'; expected different labels separated by ';'"),
    ],
)
def test_masks_are_those_of_the_annotated_labels(tmp_path: Path, row: str, message: str) -> None:
    source = manifest(tmp_path, "case_id,group,image,mask_liver,mask_spleen,annotated_labels", row)
    with pytest.raises(DataError, match=rf"line 2: {message}"):
        source.cases()


def test_a_case_is_decoded_anew_when_its_labels_change(tmp_path: Path) -> None:
    save_raster(tmp_path / "a.png", noise((9, 12)))
    save_raster(tmp_path / "m.png", blocks((9, 12), 1))
    labels = LabelMap(["liver", "spleen"], "multiclass", partial=True)
    present = []
    for row in ("m.png,,liver", ",m.png,spleen"):
        head = "case_id,group,image,mask_liver,mask_spleen,annotated_labels"
        (tmp_path / "cases.csv").write_text(f"{head}\na,p1,a.png,{row}\n", encoding="utf-8")
        source = ManifestSource(str(tmp_path / "cases.csv"))
        index = CaseCache(tmp_path / "cache", source, labels).build(source.cases(), 1)
        present.append([bool(voxels) for voxels in index.get_label_voxels(0) or ()])
    assert present == [[True, False], [False, True]]
