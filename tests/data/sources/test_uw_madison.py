"""The competition's layout: names that carry the size, run lengths that may overlap."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.errors import DataError, GeometryError, MaskValueError, MissingDataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Volume
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.io.regions import decode_runs
from tests.contracts.source_contract import SourceContract, Subject
from tests.sample_files import noise, save_raster, tree

LABELS = LabelMap(["large_bowel", "small_bowel", "stomach"], "multilabel")
WIDTH, HEIGHT = 6, 4


def make(root: Path, rows: list[str], days: dict[str, int] | None = None, size: tuple[int, int] = (6, 4)) -> Path:
    """Volumes of 16-bit slices, wider than high, and a table."""
    width, height = size
    for name, slices in (days or {"case7_day2": 2}).items():
        for number in range(1, slices + 1):
            folder = root / "train" / name.split("_")[0] / name / "scans"
            pixels = (noise((height, width), number, dtype=np.uint16) * 40).astype(np.uint16)
            save_raster(folder / f"slice_{number:04d}_{width}_{height}_1.50_1.63.png", pixels)
    (root / "train.csv").write_text("\n".join(["id,class,segmentation", *rows]) + "\n", encoding="utf-8")
    return root


def rows(slices: int = 2, name: str = "case7_day2", **runs: str) -> list[str]:
    """A row for each slice and organ; every slice has the same runs."""
    numbers = range(1, slices + 1)
    return [f"{name}_slice_{number:04d},{organ},{runs.get(organ, '')}" for number in numbers for organ in LABELS.names]


def read(root: Path, labels: LabelMap = LABELS) -> Volume:
    source = UWMadisonSource(str(root))
    return source.read(source.cases()[0], labels)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Every fourth patient has another size: among seven volumes there is one.
    directory = tmp_path_factory.mktemp("uw_madison") / "data"
    write_phantom(directory, "uw_madison", cases=7, seed=0, slices=4, size=(40, 32))
    return directory


class TestUWMadison(SourceContract):
    @pytest.fixture
    def subject(self, phantom: Path, tmp_path: Path) -> Subject:
        shutil.copytree(phantom, tmp_path / "data")
        return Subject(
            source=UWMadisonSource(str(tmp_path / "data")),
            labels=LabelMap(list(ORGANS), "multilabel"),
            cases=7,
            images=tmp_path / "data/train",
            again=lambda d: _with_table(tmp_path / "data", d / "submission.csv"),
        )

    def test_volumes_differ_in_size(self, subject: Subject) -> None:
        shapes = {subject.source.read(case, subject.labels).geometry.shape for case in subject.source.cases()}
        assert shapes == {(4, 32, 40), (4, 46, 37)}

    def test_a_submission_describes_the_masks_slice_by_slice(self, subject: Subject, tmp_path: Path) -> None:
        masks = {case.case_id: subject.source.read(case, subject.labels).mask for case in subject.source.cases()}
        for case in subject.source.cases():
            subject.source.write(tmp_path / "out", case, masks[case.case_id], subject.labels)
        subject.source.finish(tmp_path / "out")
        with (tmp_path / "out/submission.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert list(table[0]) == ["id", "class", "predicted"]
        assert len(table) == 7 * 4 * 3
        for row in table:
            name, number = row["id"].rsplit("_slice_", 1)
            expected = masks[name][ORGANS.index(row["class"]), int(number) - 1]
            np.testing.assert_array_equal(decode_runs(row["predicted"], expected.shape), expected)


def _with_table(root: Path, submission: Path) -> UWMadisonSource:
    again = submission.parent.parent / "again"
    shutil.copytree(root / "train", again / "train")
    (again / "train.csv").write_text(submission.read_text().replace("predicted", "segmentation", 1))
    return UWMadisonSource(str(again))


def test_the_name_tells_width_before_height(tmp_path: Path) -> None:
    volume = read(make(tmp_path, rows(stomach="1 1 7 2 24 1")))
    assert volume.mask is not None
    assert volume.image.shape == (1, 2, HEIGHT, WIDTH)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)  # counted row by row, six pixels a row
    expected[0, 0] = expected[1, 0] = expected[1, 1] = expected[3, 5] = 1
    np.testing.assert_array_equal(volume.mask[2, 0], expected)
    assert volume.mask[:2].sum() == 0


def test_spacings_follow_the_order_of_the_sizes(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    assert read(root).geometry.spacing_mm == (3.0, 1.63, 1.5)
    thick = UWMadisonSource(str(root), slice_spacing_mm=4.5)
    assert thick.read(thick.cases()[0], LABELS).geometry.spacing_mm == (4.5, 1.63, 1.5)
    assert thick.reading_settings() != UWMadisonSource(str(root)).reading_settings()


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    image = read(make(tmp_path, rows())).image
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[0, 1], noise((HEIGHT, WIDTH), 2, dtype=np.uint16) * 40)
    assert image.max() > 255


def test_organs_may_overlap(tmp_path: Path) -> None:
    mask = read(make(tmp_path, rows(large_bowel="1 5", stomach="4 5"))).mask
    assert mask is not None
    assert [int(plane[0].sum()) for plane in mask] == [5, 0, 5]
    assert int((mask[0] & mask[2])[0].sum()) == 2


def test_organs_that_overlap_are_no_classes(tmp_path: Path) -> None:
    root = make(tmp_path, rows(large_bowel="1 5", stomach="4 5"))
    with pytest.raises(MaskValueError, match=r"Case case7_day2: 4 voxels carry more than one label"):
        read(root, LabelMap(LABELS.names, "multiclass"))


def test_some_of_the_organs_in_another_order(tmp_path: Path) -> None:
    mask = read(
        make(tmp_path, rows(large_bowel="1 5", stomach="4 2")), LabelMap(["stomach", "large_bowel"], "multilabel")
    ).mask
    assert mask is not None
    assert [int(plane[0].sum()) for plane in mask] == [2, 5]


def test_a_case_is_a_day_and_its_group_the_patient(tmp_path: Path) -> None:
    days = {"case7_day2": 1, "case7_day19": 1, "case10_day0": 1}
    cases = UWMadisonSource(str(make(tmp_path, rows(), days))).cases()
    assert [(case.case_id, case.group) for case in cases] == [
        ("case10_day0", "case10"),
        ("case7_day19", "case7"),
        ("case7_day2", "case7"),
    ]


def test_slices_are_ordered_by_number(tmp_path: Path) -> None:
    make(tmp_path, rows(), {"case7_day2": 3})
    scans = tmp_path / "train/case7/case7_day2/scans"
    for old, new in (("0001", "10"), ("0002", "9"), ("0003", "100")):
        (scans / f"slice_{old}_6_4_1.50_1.63.png").rename(scans / f"slice_{new}_6_4_1.50_1.63.png")
    (case,) = UWMadisonSource(str(tmp_path)).cases()
    assert [path.name.split("_")[1] for path in case.images] == ["9", "10", "100"]


def test_a_row_that_is_missing_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, rows()[:-1])
    with pytest.raises(MissingDataError) as error:
        read(root)
    assert str(error.value) == (
        f"{root / 'train.csv'} has no row for case7_day2_slice_0002, class stomach. Complete the table."
    )


def test_a_class_that_the_table_does_not_know_is_a_setting(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    with pytest.raises(SettingError) as error:
        read(root, LabelMap(["liver"], "multilabel"))
    assert str(error.value) == (
        "train.csv knows no class 'liver'; labels.names may hold large_bowel, small_bowel, stomach."
    )


def test_a_run_that_leaves_the_image_names_row_and_class(tmp_path: Path) -> None:
    with pytest.raises(
        MaskValueError, match=r"train\.csv, case7_day2_slice_0001, stomach: a run leaves the image of 4"
    ):
        read(make(tmp_path, rows(stomach="24 2")))


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, [])
    (root / "train.csv").write_text("id,class,predicted\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.csv .*lacks columns: segmentation; expected rows"):
        read(root)


def test_a_slice_unlike_its_name_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    file = root / "train/case7/case7_day2/scans/slice_0002_6_4_1.50_1.63.png"
    save_raster(file, noise((WIDTH, HEIGHT), dtype=np.uint16))
    with pytest.raises(GeometryError) as error:
        read(root)
    assert str(error.value) == (
        f"{file} is 4 x 6 pixels with 1 channel, but its name says 6 x 4 and one channel. "
        "Replace the file with an intact copy."
    )


def test_slices_of_one_volume_share_a_size(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    scans = root / "train/case7/case7_day2/scans"
    (scans / "slice_0002_6_4_1.50_1.63.png").rename(scans / "slice_0002_4_6_1.50_1.63.png")
    with pytest.raises(
        GeometryError,
        match=r"Case case7_day2 \(.*scans\): the names of the slices differ in size or spacing\. Check which",
    ):
        read(root)


@pytest.mark.parametrize(("new", "wrong"), [("0004", 4), ("0002", 2)], ids=["a gap", "twice"])
def test_slices_are_numbered_without_a_gap(tmp_path: Path, new: str, wrong: int) -> None:
    scans = make(tmp_path, rows(), {"case7_day2": 3}) / "train/case7/case7_day2/scans"
    spacing = "1.50_1.63" if new == "0004" else "1.50_1.630"  # another name for the same slice
    (scans / "slice_0003_6_4_1.50_1.63.png").rename(scans / f"slice_{new}_6_4_{spacing}.png")
    with pytest.raises(
        DataError, match=rf"Case case7_day2 \(.*scans\): slice {wrong} follows no slice {wrong - 1}\. Rest"
    ):
        read(tmp_path)


def test_pixels_are_some_way_apart(tmp_path: Path) -> None:
    scans = make(tmp_path, rows(), {"case7_day2": 1}) / "train/case7/case7_day2/scans"
    (scans / "slice_0001_6_4_1.50_1.63.png").rename(scans / "slice_0001_6_4_1.50_0.00.png")
    with pytest.raises(
        GeometryError, match=r"the names say that pixels are \(1\.5, 0\.0\) mm apart\. Correct the names"
    ):
        read(tmp_path)


def test_a_row_that_comes_twice_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, [*rows(), rows()[0]])
    with pytest.raises(
        DataError, match=r"train\.csv has 2 rows for case7_day2_slice_0001, class .*\. Keep one of them"
    ):
        read(root)


def test_a_name_of_another_kind_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    save_raster(root / "train/case7/case7_day2/scans/slice_3.png", noise((HEIGHT, WIDTH)))
    with pytest.raises(DataError, match=r"slice_3\.png: expected a name like slice_0001_266_266_1\.50_1\.50\.png"):
        UWMadisonSource(str(root)).cases()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"Expected the UW-Madison data in the folder .*none, found nothing there"
    ):
        UWMadisonSource(str(tmp_path / "none")).cases()
    with pytest.raises(MissingDataError, match=r"train\.csv does not exist\. Set data\.source\.root to the folder"):
        UWMadisonSource(str(tmp_path)).cases()
    (tmp_path / "train.csv").touch()
    before = tree(tmp_path)
    with pytest.raises(MissingDataError, match=r"train holds no case\*/case\*_day\*/scans/slice_\*\.png"):
        UWMadisonSource(str(tmp_path)).cases()
    assert tree(tmp_path) == before


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    shutil.copytree(root / "train", root / "train/copy")
    with pytest.raises(DataError, match=r"case7_day2 has the same name\. Move one of them away"):
        UWMadisonSource(str(root)).cases()


def test_a_case_that_is_none_hides_no_other(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    shutil.copytree(root / "train/case7", tmp_path / "disk/case8")
    (tmp_path / "disk/case8/case7_day2").rename(tmp_path / "disk/case8/case8_day1")
    (root / "train/case8").symlink_to(tmp_path / "disk/case8")
    save_raster(root / "train/case9/case9_day1/scans/slice_3.png", noise((HEIGHT, WIDTH)))
    save_raster(root / "train/case9/slice_4.png", noise((HEIGHT, WIDTH)))
    bare = UWMadisonSource(str(root)).open_unlabeled(root / "train")
    assert [case.case_id for case in bare.cases()] == ["case7_day2", "case8_day1"]
    assert [(each.path.name, each.kind) for each in bare.list_left_out()] == [
        ("slice_4.png", "unread"),
        ("case9_day1", "unlisted"),
    ]


def test_a_slice_that_is_missing_at_the_end_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, rows(3))
    with pytest.raises(
        MissingDataError, match=r"train\.csv has rows of slice 0003, whose file is missing\. Restore it"
    ):
        read(root)


def test_an_ending_in_capitals_is_a_slice(tmp_path: Path) -> None:
    root = make(tmp_path, rows())
    last = next((tmp_path / "train").rglob("slice_0002*"))
    last.rename(last.with_suffix(".PNG"))
    assert read(root).image.shape == (1, 2, HEIGHT, WIDTH)
