"""Predictions in Python and on the command line: ensembles, bad files, interruptions, several processes."""

from __future__ import annotations

import csv
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io import raster
from medseg_pl.io.regions import decode_runs
from tests.end_to_end.conftest import SMALL
from tests.sample_files import results, tree
from tests.subprocess_holder import working_in
from tests.timeouts import HANG_S

ORGANS = ["large_bowel", "small_bowel", "stomach"]


@pytest.fixture(scope="module")
def scans(phantoms: dict[str, Path]) -> Path:
    return phantoms["uw_madison"] / "train"


@pytest.fixture(scope="module")
def other(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of another architecture that sees the images otherwise."""
    runs = tmp_path_factory.mktemp("other")
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    network = ["--model.network=segmentation_models_pytorch.UnetPlusPlus", "--model.network.encoder_name=tu-resnet10t"]
    options = ["--model.network.encoder_weights=null", *SMALL, "--model.context_slices=0", "--model.resize=fit"]
    assert main([*fit, *network, *options, "--runs", str(runs)]) == 0
    return str(runs / "demo" / "version_0" / "checkpoints" / "best.ckpt")


def predict(checkpoint: str, images: Path, output: Path, *options: str) -> int:
    return main(["predict", "--ckpt_path", checkpoint, "--input", str(images), "--output", str(output), *options])


def submitted(output: Path, case: Case) -> np.ndarray:
    """The masks `(N, D, H, W)` of a case in a submission."""
    with (output / "submission.csv").open(newline="") as file:
        runs = {(row["id"], row["class"]): row["predicted"] for row in csv.DictReader(file)}
    size = raster.read_image_size(case.images[0])
    names = [f"{case.case_id}_slice_{path.name.split('_')[1]}" for path in case.images]
    return np.array([[decode_runs(runs[name, organ], size) for name in names] for organ in ORGANS])


def test_python_gives_what_the_command_writes(checkpoint: str, scans: Path, tmp_path: Path) -> None:
    assert predict(checkpoint, scans, tmp_path / "out") == 0
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu")
    source = UWMadisonSource(str(scans.parent)).open_unlabeled(scans)
    for case in source.cases():
        found = predictor.predict_volume(source.read(case, predictor.labels), case.case_id)
        np.testing.assert_array_equal(found.mask, submitted(tmp_path / "out", case))


def test_arrays_and_files(checkpoint: str, scans: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu")
    file = sorted(scans.rglob("slice_*.png"))[3]
    pixels = raster.read_image(file)[0]
    from_file, from_array = predictor.predict(file), predictor.predict(pixels, spacing_mm=(3.0, 1.5, 1.5))
    assert from_file.probabilities is not None and from_array.probabilities is not None
    np.testing.assert_array_equal(from_file.probabilities, from_array.probabilities)
    assert from_file.probabilities.shape == (3, 1, *pixels.shape)
    assert from_array.geometry.spacing_mm == (3.0, 1.5, 1.5)
    np.testing.assert_array_equal(from_file.plane("stomach"), from_file.probabilities[2] > 0.5)
    assert predictor.predict(pixels, probabilities=False).probabilities is None
    with pytest.raises(SettingError, match="no label 'liver'; the model knows large_bowel, small_bowel, stomach"):
        from_file.plane("liver")
    with pytest.raises(DataError, match=r"image has 3 channels, but the model takes 1. Save it in gray"):
        predictor.predict(np.zeros((3, 1, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"shape \(8,\); expected \(H, W\), \(D, H, W\) or \(C, D, H, W\)"):
        predictor.predict(np.zeros(8))


@pytest.mark.trainings
def test_an_ensemble_is_the_mean_of_its_members(checkpoint: str, other: str, scans: Path, tmp_path: Path) -> None:
    volume = np.stack([raster.read_image(path)[0] for path in sorted(scans.rglob("slice_*.png"))[:6]])
    alone = [Predictor.from_checkpoint(path, device="cpu").predict(volume) for path in (checkpoint, other)]
    both = Predictor.from_checkpoint([checkpoint, other], device="cpu").predict(volume)
    first, second, mean = (np.asarray(prediction.probabilities) for prediction in (*alone, both))
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-6)
    np.testing.assert_array_equal(both.mask, mean > 0.5)
    assert np.abs(first - second).max() > 0.01

    assert predict(checkpoint, scans, tmp_path / "out", "--ckpt_path", other) == 0
    source = UWMadisonSource(str(scans.parent)).open_unlabeled(scans)
    predictor = Predictor.from_checkpoint([checkpoint, other], device="cpu")
    for case in source.cases()[:2]:
        expected = predictor.predict_volume(source.read(case, predictor.labels), case.case_id)
        np.testing.assert_array_equal(expected.mask, submitted(tmp_path / "out", case))


def test_flips_in_python(checkpoint: str, scans: Path) -> None:
    file = sorted(scans.rglob("slice_*.png"))[0]
    plain = Predictor.from_checkpoint(checkpoint, device="cpu").predict(file)
    flipped = Predictor.from_checkpoint(checkpoint, tta="flips", device="cpu").predict(file)
    assert plain.probabilities is not None and flipped.probabilities is not None
    assert np.abs(plain.probabilities - flipped.probabilities).max() > 1e-4


def test_models_of_other_labels_are_no_ensemble(checkpoint: str, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["labels"]["names"] = ["large_bowel", "small_bowel", "liver"]
    torch.save(content, tmp_path / "liver.ckpt")
    with pytest.raises(SettingError, match=r"model 2 large_bowel, small_bowel, liver \(multilabel\)"):
        Predictor.from_checkpoint([checkpoint, tmp_path / "liver.ckpt"], device="cpu")


def test_a_bad_file_stops_no_other(
    checkpoint: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scans, tmp_path / "in")
    bad = sorted((tmp_path / "in").rglob("slice_*.png"))[8]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "inputs could not be predicted; the others were." in error
    assert str(bad) in error
    cases = UWMadisonSource(str(scans.parent)).open_unlabeled(scans).cases()
    written = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cases").iterdir()}
    assert len(written) == len(cases) - 1

    bad.write_bytes(whole)  # mended: the next run does what is missing, and nothing twice
    assert predict(checkpoint, tmp_path / "in", tmp_path / "out") == 0
    assert "1 new case written" in capsys.readouterr().out
    after = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cases").iterdir()}
    assert len(after) == len(cases)
    assert {name: after[name] for name in written} == written
    assert predict(checkpoint, scans, tmp_path / "whole") == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.trainings
def test_another_checkpoint_or_input_is_not_mixed_in(
    checkpoint: str, other: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, scans, tmp_path / "out") == 0
    before = tree(tmp_path / "out")
    assert predict(other, scans, tmp_path / "out") == 1
    assert predict(checkpoint, scans, tmp_path / "out", "--model.tta=flips") == 1
    assert predict(checkpoint, scans.parent, tmp_path / "out") == 1
    assert capsys.readouterr().err.count("holds results of other inputs, checkpoints or settings") == 3
    assert tree(tmp_path / "out") == before


def test_two_predictions_into_one_folder(
    checkpoint: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one would take the first one's half-written cases for those of a run that was killed."""
    own = tmp_path / "out" / ".medseg"
    own.mkdir(parents=True)
    with working_in(own) as first:
        assert predict(checkpoint, scans, tmp_path / "out") == 1
        assert f"{own} is in use: process {first} on" in capsys.readouterr().err
        assert list(tree(tmp_path / "out")) == [".medseg/.lock"]
    assert predict(checkpoint, scans, tmp_path / "out") == 0


def test_probabilities_and_pictures_on_request(checkpoint: str, scans: Path, tmp_path: Path) -> None:
    assert predict(checkpoint, scans, tmp_path / "out", "--probabilities=true", "--overlays=true") == 0
    case, *rest = UWMadisonSource(str(scans.parent)).open_unlabeled(scans).cases()
    with np.load(tmp_path / "out" / "probabilities" / f"{case.case_id}.npz") as kept:
        assert kept["labels"].tolist() == ORGANS
        np.testing.assert_array_equal(kept["probabilities"] > 0.5, submitted(tmp_path / "out", case))
    height, width = raster.read_image_size(case.images[0])
    assert raster.read_image(tmp_path / "out" / "overlays" / f"{case.case_id}.png").shape == (3, height, 2 * width)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1 + len(rest)


def command(checkpoint: str, images: Path, output: Path, *options: str) -> list[str]:
    run = [sys.executable, "-m", "medseg_pl", "predict", "--ckpt_path", checkpoint]
    return [*run, "--input", str(images), "--output", str(output), *options]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_write_what_one_writes(processes: int, checkpoint: str, scans: Path, tmp_path: Path) -> None:
    assert predict(checkpoint, scans, tmp_path / "one") == 0
    several = ["--trainer.accelerator=cpu", f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
    done = subprocess.run(
        command(checkpoint, scans, tmp_path / "many", *several),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "many") == results(tmp_path / "one")


def test_nothing_is_left_to_do(
    checkpoint: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(checkpoint, scans, tmp_path / "out") == 0
    before = results(tmp_path / "out")
    capsys.readouterr()
    assert predict(checkpoint, scans, tmp_path / "out") == 0
    number = len(list((tmp_path / "out/cases").iterdir()))
    said = f"0 new cases written to {tmp_path / 'out'}; {number} finished before\n"
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{said}3 of {number} cases have the names of training cases: their scores")
    assert printed.err == ""
    assert results(tmp_path / "out") == before


@pytest.mark.slow
def test_killed_at_ten_random_times(checkpoint: str, scans: Path, tmp_path: Path) -> None:
    assert predict(checkpoint, scans, tmp_path / "one") == 0
    rng, killed = random.Random(0), 0
    for _ in range(10):
        process = subprocess.Popen(command(checkpoint, scans, tmp_path / "out"), stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "out" / ".medseg").is_dir():
            time.sleep(0.005)  # the kill should hit the work, and not the imports before it
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert predict(checkpoint, scans, tmp_path / "out") == 0
    assert killed
    assert results(tmp_path / "out") == results(tmp_path / "one")
