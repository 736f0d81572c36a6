"""What `predict` makes of any input: no file is left out without a word."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from medseg_pl.__main__ import main
from tests.data.sources.test_unlabeled import fill
from tests.dicom_files import save_series
from tests.end_to_end.conftest import SMALL
from tests.sample_files import blocks, noise, save_raster


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray pictures beside masks of 0 and 255."""
    root = tmp_path_factory.mktemp("pictures")
    for seed in range(6):
        save_raster(root / "images" / f"p{seed}.png", noise((32, 32), seed))
        save_raster(root / "masks" / f"p{seed}.png", blocks((32, 32), *[255] * 8))
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    settings = {
        "model": {
            "labels": {"names": ["lesion"], "task": "binary"},
            "channels": 1,
            "context_slices": 0,
            "resize": "fit",
        },
        "data": {"source": {"class_path": "FolderSource", "init_args": {"root": str(root)}}},
    }
    (root / "own.yaml").write_text(yaml.safe_dump(settings))
    configs = ["--config", "configs/experiment/demo.yaml", "--data.source=FolderSource", "--config"]
    assert main(["fit", *configs, str(root / "own.yaml"), "--runs", str(root / "runs"), *SMALL]) == 0
    return root / "runs/demo/version_0"


def predict(run: Path, images: Path, output: Path) -> int:
    """Predict images that are unlike the training images on purpose: here their files count."""
    folders = ["--input", str(images), "--output", str(output)]
    return main(["predict", "--ckpt_path", str(run), *folders, "--on_foreign=ignore"])


def statuses(output: Path) -> dict[str, str]:
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["input"]: row["status"] for row in csv.DictReader(file)}


def masks(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("[!.]*.*") if path.suffix in (".png", ".gz")}


def test_every_input_has_a_row(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "in")
    save_raster(tmp_path / "disk/q.png", noise((9, 8)))
    (tmp_path / "in/p1").symlink_to(tmp_path / "disk")
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    damaged = save_raster(tmp_path / "in/damaged.png", noise((32, 32)))
    damaged.write_bytes(damaged.read_bytes()[:200])
    for seed in (1, 2):
        save_series(tmp_path / f"in/s{seed}", noise((2, 32, 32), seed))
    assert predict(run, tmp_path / "in", tmp_path / "out") == 1
    images = ["a.jpg", "a.png", "b.tif", "c.bmp", "d.nii.gz", "p1/q.png"]
    expected = {
        **dict.fromkeys(images, "written"),
        **dict.fromkeys([f"s{series}/IM00{slice_}.dcm" for series in (1, 2) for slice_ in (1, 2)], "not read"),
        **dict.fromkeys(["e.npy", "f.heic", "g.svs", "gone.png", "h.pdf", "i.txt"], "not read"),
        **dict.fromkeys(["Thumbs.db", "j.csv"], "no image"),
        "damaged.png": "failed",
    }
    assert statuses(tmp_path / "out") == expected
    assert masks(tmp_path / "out") == {"a.jpg.png", "a.png.png", "b.png", "c.png", "d.nii.gz", "p1/q.png"}
    printed = capsys.readouterr()
    said, no_images = "Masks hold 0 and 255, as the training masks do.", "2 files left out, see predictions.csv"
    assert printed.out == f"6 cases written to {tmp_path / 'out'}; 1 failed; 10 not read; {no_images}\n{said}\n"
    assert "11 of 17 inputs could not be predicted; the others were." in printed.err
    named = ("damaged.png", "e.npy", "f.heic", "gone.png", "DicomSource", "predictions.csv")
    assert all(name in printed.err for name in named)

    shutil.copy(tmp_path / "in/a.png", damaged)  # mended, and nothing is done twice
    assert predict(run, tmp_path / "in", tmp_path / "out") == 1
    assert statuses(tmp_path / "out") == {**expected, "damaged.png": "written"}
    assert "1 new case written to" in (again := capsys.readouterr().out) and "; 6 finished before" in again


def test_nothing_that_can_be_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.heic").write_bytes(b"\x01\x02\x03")
    assert predict(run, tmp_path / "in", tmp_path / "out") == 1
    assert "a.heic: It is of no format that is read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_said_of_masks_where_none_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert predict(run, tmp_path / "in", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "a.png" in printed.err
    assert "Masks hold" not in printed.out


def test_one_image_or_the_root_of_a_data_set(run: Path, root: Path, tmp_path: Path) -> None:
    assert predict(run, root / "images/p3.png", tmp_path / "one") == 0
    assert statuses(tmp_path / "one") == {"p3.png": "written"}
    assert predict(run.parent, root, tmp_path / "all") == 0  # an experiment stands for its newest run
    assert masks(tmp_path / "all") == {f"p{seed}.png" for seed in range(6)}
    assert statuses(tmp_path / "all") == {f"images/p{seed}.png": "written" for seed in range(6)}


def test_the_best_weights_of_the_newest_run(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--runs", str(root / "runs"), "--experiment", "demo"]
    assert main(["validate", "--ckpt_path", "best", *named]) == 0
    assert f"Using {run / 'checkpoints' / 'best.ckpt'}\n" in capsys.readouterr().err
    assert main(["validate", "--ckpt_path=best", "--runs", str(root / "nowhere")]) == 1
    assert "There is no best.ckpt of a run below" in capsys.readouterr().err


def test_a_page_beside_its_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "-o", str(run / "page.pdf")]) == 2
    assert "page.pdf is no .html file" in capsys.readouterr().err
    assert main(["report", str(run), "--pictures", "0"]) == 0
    first = (run / "report.html").read_bytes()
    assert main(["report", str(run), "--pictures", "0", "--names"]) == 0
    assert (run / "report.html").read_bytes() == first  # nothing is overwritten
    assert (run / "report_2.html").is_file()


def test_masks_look_like_those_of_training(run: Path, root: Path, tmp_path: Path) -> None:
    assert predict(run, root / "images", tmp_path / "out") == 0
    values = {value for path in (tmp_path / "out").glob("*.png") for value in np.unique(Image.open(path)).tolist()}
    assert 255 in values <= {0, 255}
    assert (
        main(
            ["evaluate", f"--reference={root / 'masks'}", f"--prediction={tmp_path / 'out'}", "-o", str(tmp_path / "s")]
        )
        == 0
    )


@pytest.mark.slow
def test_an_exported_model_writes_them_too(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", "--ckpt_path", str(run), "-o", str(tmp_path / "exported")]) == 0
    spec = json.loads((tmp_path / "exported/spec.json").read_text())
    assert spec["labels"]["values"] == [255]


def test_a_model_may_read_another_kind_of_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_series(tmp_path / "in/p1", noise((2, 32, 32)))
    assert predict(run, tmp_path / "in", tmp_path / "out") == 1
    remedy = "--data.source=DicomSource --data.source.root=."
    assert remedy in capsys.readouterr().err
    command = ["predict", "--ckpt_path", str(run), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*command, "--on_foreign=ignore", *remedy.split()]) == 0
    assert (tmp_path / "out/p1.dcm").is_file()
