"""`medseg phantom`: layouts as their inventors write them, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import Namespace

from medseg_pl.__main__ import main
from medseg_pl.cli.commands import phantom
from medseg_pl.cli.parser import CommandParser
from medseg_pl.core.errors import OutputExistsError, SettingError
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.data.synthetic.layouts import LabeledScan
from medseg_pl.io.nifti import read_nifti
from medseg_pl.io.raster import read_image, read_mask
from medseg_pl.io.regions import decode_runs

SLICES, SIZE = 6, (40, 32)
LAYOUTS = ["uw_madison", "decathlon", "folder"]
NAME = re.compile(r"(case\d+)/(case\d+_day\d+)/scans/slice_(\d{4})_(\d+)_(\d+)_(\d+\.\d\d)_(\d+\.\d\d)\.png$")


def write(directory: Path, layout: str, cases: int = 8) -> Path:
    phantom.write_phantom(directory, layout, cases, seed=0, slices=SLICES, size=SIZE)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("phantoms")
    return {layout: write(root / layout, layout) for layout in LAYOUTS}


def parse(*words: str) -> Namespace:
    parser = CommandParser("medseg phantom", "")
    phantom.add_arguments(parser)
    return parser.parse_args(words)


def test_kaggle_file_names_tell_the_truth(written: dict[str, Path]) -> None:
    files = sorted((written["uw_madison"] / "train").rglob("*.png"))
    assert len(files) == 8 * SLICES
    sizes = set()
    for file in files:
        match = NAME.search(file.as_posix())
        assert match, file
        case, volume, _, width, height, x_mm, y_mm = match.groups()
        pixels = read_image(file)
        assert volume.startswith(f"{case}_day")
        assert pixels.dtype == np.uint16
        assert pixels.shape == (1, int(height), int(width))
        assert x_mm == y_mm == f"{336 / int(width):.2f}"
        sizes.add((int(width), int(height)))
    assert sizes == {SIZE, (37, 46)}


def test_kaggle_slices_count_from_one(written: dict[str, Path]) -> None:
    for scans in (written["uw_madison"] / "train").glob("*/*/scans"):
        numbers = [file.name.split("_")[1] for file in sorted(scans.iterdir())]
        assert numbers == [f"{number:04d}" for number in range(1, SLICES + 1)]


def test_kaggle_table_has_a_row_for_each_slice_and_organ(written: dict[str, Path]) -> None:
    with (written["uw_madison"] / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "class", "segmentation"]
    assert len(rows) == 8 * SLICES * len(ORGANS)
    assert [row["class"] for row in rows[:3]] == list(ORGANS)
    assert re.fullmatch(r"case101_day\d+_slice_0001", rows[0]["id"])
    assert any(not row["segmentation"] for row in rows)


def test_kaggle_run_lengths_are_the_masks(written: dict[str, Path]) -> None:
    with (written["uw_madison"] / "train.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        for scan in phantom.make_scans(8, 0, SLICES, SIZE):
            for masks in scan.masks.swapaxes(0, 1):
                for mask in masks:
                    np.testing.assert_array_equal(decode_runs(next(rows)["segmentation"], mask.shape), mask)
        assert next(rows, None) is None


def test_kaggle_patients_have_one_to_three_days() -> None:
    days = Counter(scan.group for scan in phantom.make_scans(12, 0, 1, SIZE))
    assert set(days.values()) <= {1, 2, 3}
    assert 4 <= len(days) < 12


def test_decathlon_pairs_share_their_grid(written: dict[str, Path]) -> None:
    root = written["decathlon"]
    index = json.loads((root / "dataset.json").read_text())
    assert index["labels"] == {"0": "background", "1": "large_bowel", "2": "small_bowel", "3": "stomach"}
    assert index["numTraining"] == len(index["training"]) == 8
    assert index["numTest"] == len(index["test"]) == 0
    oblique = []
    for pair in index["training"]:
        image, geometry = read_nifti(root / pair["image"])
        labels, label_geometry = read_nifti(root / pair["label"])
        assert (image.dtype.name, labels.dtype.name) == ("int16", "uint8")
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert geometry == label_geometry
        assert geometry.spacing_mm == pytest.approx((3.0, *[round(336 / image.shape[3], 2)] * 2), abs=1e-4)
        oblique.append(np.count_nonzero(np.abs(np.asarray(geometry.affine)[:3, :3]) > 0.01) > 3)
    assert any(oblique)
    assert not all(oblique)


def test_folder_pairs_pictures_with_label_maps(written: dict[str, Path]) -> None:
    images = sorted((written["folder"] / "images").iterdir())
    assert [file.name for file in images] == sorted(file.name for file in (written["folder"] / "masks").iterdir())
    assert len(images) == 8 * 3
    for file in images:
        mask = read_mask(written["folder"] / "masks" / file.name)
        assert re.match(r"^(case\d+)_day\d+_\d{4}\.png$", file.name)
        assert read_image(file).dtype == mask.dtype == np.uint8
        assert 0 < mask.max() <= 3
        assert read_image(file).shape[1:] == mask.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fewer_cases_are_the_first_of_more(layout: str, written: dict[str, Path], tmp_path: Path) -> None:
    few, many = contents(write(tmp_path / "few", layout, cases=3)), contents(written[layout])
    for name in few:
        if name == "train.csv":
            assert many[name].startswith(few[name])
        elif name != "dataset.json":
            assert few[name] == many[name], name


def test_another_seed_is_another_data_set() -> None:
    (first,), (second,) = (phantom.make_scans(1, seed, SLICES, SIZE) for seed in (0, 1))
    assert not np.array_equal(first.image, second.image)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(OutputExistsError, match=r"data exists and is not empty.* Choose another folder\.$"):
        write(tmp_path / "data", "uw_madison")
    assert contents(tmp_path) == {str(Path("data/thesis.txt")): b"irreplaceable"}


def test_an_empty_folder_is_filled_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    before = (tmp_path / "data").stat().st_ino
    write(tmp_path / "data", "folder", cases=1)
    assert (tmp_path / "data").stat().st_ino == before
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir()) == ["images", "masks"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> Iterator[LabeledScan]:
        yield from whole(2, 0, SLICES, SIZE)
        raise KeyboardInterrupt

    whole = phantom.make_scans
    monkeypatch.setattr(phantom, "make_scans", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", "uw_madison")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no layout 'dicom'\. Choose one of decathlon, folder, uw_madison\."):
        write(tmp_path / "data", "dicom")


def test_run_prints_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--layout", "folder", "--cases", "2", "--slices", "4", "--size", "40x32"]
    assert phantom.run(parse(str(tmp_path / "data"), *words)) == 0
    captured = capfd.readouterr()
    assert captured.out == f"Wrote 2 synthetic volumes in the folder layout to {tmp_path / 'data'}\n"
    assert captured.err == ""


def test_defaults() -> None:
    arguments = parse("data")
    assert (arguments.layout, arguments.cases, arguments.seed) == ("uw_madison", 36, 0)
    assert (arguments.slices, arguments.size) == (24, (112, 96))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "112"], "expected WIDTHxHEIGHT of 32 to 2048 pixels such as 112x96, got '112'"),
        (["--size", "8x8"], "expected WIDTHxHEIGHT"),
        (["--cases", "0"], "expected a whole number from 1 to 100000; 0 does not"),
        (["--seed", "-1"], "expected a whole number from 0"),
        (
            ["--slices", "many"],
            "expected a whole number from 1 to 1000; invalid literal",
        ),
    ],
)
def test_settings_out_of_range_are_wrong_use(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["phantom", "data", *words]) == 2
    assert message in capsys.readouterr().err
