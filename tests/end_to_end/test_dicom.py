"""DICOM through the command line: trained on, tested on and predicted on, and nobody is named on the way."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from medseg_pl.__main__ import main
from medseg_pl.data.sources import DicomSource
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.dicom.references import read_masks, read_structures
from medseg_pl.io.dicom.series import open_series
from medseg_pl.io.nifti import read_nifti
from tests.dicom_files import (
    ORIGIN,
    SECRET,
    SPACING,
    edit,
    save_enhanced,
    save_segmentation,
    save_series,
    save_structures,
    uid_of,
)
from tests.end_to_end.conftest import SMALL

pytestmark = pytest.mark.trainings

DATA = (
    "--config",
    "configs/data/dicom.yaml",
    "--config",
    "configs/model/tiny.yaml",
    "--config",
    "configs/trainer/cpu.yaml",
)
SHAPE = (4, 40, 36)


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright liver with a brighter tumour in it, in stored values, and masks `(D, H, W, 2)`."""
    rng = np.random.default_rng(seed)
    top, left = rng.integers(4, 14, 2)
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[:, top : top + 18, left : left + 14, 0] = 1
    masks[1:3, top + 5 : top + 11, left + 4 : left + 10, 1] = 1
    return (924 + 100 * masks.sum(axis=-1) + rng.normal(0, 10, SHAPE)).astype(np.int16), masks


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """The outline of a box on each slice that has it, between the centers of pixels."""
    found = []
    for d in np.flatnonzero(mask.any(axis=(1, 2))):
        rows, columns = np.nonzero(mask[d])
        top, bottom, left, right = rows.min() - 0.5, rows.max() + 0.5, columns.min() - 0.5, columns.max() + 0.5
        corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
        found.append(np.add(ORIGIN, [(c * SPACING[2], r * SPACING[1], d * SPACING[0]) for r, c in corners]))
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients; half of them were segmented, half were contoured."""
    root = tmp_path_factory.mktemp("dicom") / "data"
    for number in range(6):
        name = f"p{number}"
        stored, masks = scan(number)
        paths = save_series(root / name / "ct", stored, series=name)
        if number % 2:
            save_segmentation(root / name / "seg.dcm", paths, masks, ["Liver", "Tumour"])
        else:
            save_structures(
                root / name / "rt.dcm", name, {"LIVER": contours(masks[..., 0]), "tumour": contours(masks[..., 1])}
            )
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    fit = [
        "fit",
        *DATA,
        "--data.source.root",
        str(root),
        "--data.source.uneven_slices=resample",
        "--data.folds=3",
        "--runs",
        str(runs),
        "--experiment",
        "dicom",
    ]
    assert main([*fit, *SMALL, "--data.cache_dir", str(runs / "store")]) == 0
    return runs


def test_it_trains_and_scores(run: Path) -> None:
    (table,) = run.rglob("scores_val.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case_id"] for row in rows} == {row["group"] + "/ct" for row in rows}
    voxel_ml = np.prod(SPACING) / 1000
    for row in rows:
        voxels = {"liver": 4 * 18 * 14, "tumour": 2 * 6 * 6}[row["label"]]  # whether by SEG or by RTSTRUCT
        assert float(row["volume_reference_ml"]) == pytest.approx(voxels * voxel_ml, rel=1e-4)
        assert row["unit"] == "mm"


def predict(run: Path, images: Path, output: Path, *options: str) -> int:
    (checkpoint,) = run.rglob("best.ckpt")
    return main(["predict", "--ckpt_path", str(checkpoint), "--input", str(images), "--output", str(output), *options])


def files_of(output: Path, suffix: str) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob(f"*{suffix}"))


def test_predictions_refer_to_the_series(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert predict(run, root, tmp_path / "seg") == 0
    assert files_of(tmp_path / "seg", ".dcm") == [f"p{number}/ct.dcm" for number in range(6)]
    assert SECRET not in "".join(capsys.readouterr()) + caplog.text

    assert predict(run, root, tmp_path / "nifti", "--data.source.write_as=nifti") == 0
    source = DicomSource(str(root), references=None)
    for case in source.cases():
        series = open_series(case.images)
        path = tmp_path / "seg" / f"{case.case_id}.dcm"
        assert read_structures(path) == [(1, "liver"), (2, "tumour")]
        masks = read_masks(path, [[1], [2]], series)
        for label, mask in zip(("liver", "tumour"), masks, strict=True):
            values, _ = read_nifti(tmp_path / "nifti" / label / f"{case.case_id}.nii.gz")
            np.testing.assert_array_equal(values[0] == 1, mask)
        dataset = dcmread(path)
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == uid_of(case.group)

    assert predict(run, root, tmp_path / "again") == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "again").rglob("*.dcm"))] == [
        path.read_bytes() for path in sorted((tmp_path / "seg").rglob("*.dcm"))
    ]
    # One folder holds results of one kind.
    assert predict(run, root, tmp_path / "seg", "--data.source.write_as=nifti") == 1
    assert "holds results of other inputs, checkpoints or settings" in capsys.readouterr().err
    assert predict(run, root, tmp_path / "seg", "--data.source.write_as=rtstruct") == 2


def test_a_series_that_no_segmentation_can_refer_to_stops_no_other(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p0", "p1"):
        shutil.copytree(root / name / "ct", tmp_path / "in" / name / "ct")
    for path in (tmp_path / "in" / "p0").rglob("*.dcm"):
        edit(path, FrameOfReferenceUID=None)
    meaning = "--data.source.property_types={tumour: [108369006, SCT, Neoplasm]}"
    assert predict(run, tmp_path / "in", tmp_path / "out", meaning) == 1
    said = capsys.readouterr().err
    assert "inputs could not be predicted; the others were." in said
    assert "p0/ct" in said and "set data.source.write_as to nifti" in said
    assert files_of(tmp_path / "out", ".dcm") == ["p1/ct.dcm"]
    segments = dcmread(tmp_path / "out" / "p1" / "ct.dcm").SegmentSequence
    assert [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in segments] == ["91772007", "108369006"]
    assert predict(run, tmp_path / "in", tmp_path / "nifti", "--data.source.write_as=nifti") == 0


def test_nifti_lies_on_the_series(run: Path, root: Path, tmp_path: Path) -> None:
    output = tmp_path / "masks"
    assert predict(run, root, output, "--data.source.write_as=nifti") == 0
    written = files_of(output, ".nii.gz")
    assert written == [f"{label}/p{number}/ct.nii.gz" for label in ("liver", "tumour") for number in range(6)]
    image = nibabel.load(output / written[0])
    assert image.shape == SHAPE[::-1]  # type: ignore[attr-defined]
    z, y, x = SPACING
    np.testing.assert_allclose(
        image.affine,  # type: ignore[attr-defined]
        [[-x, 0, 0, -ORIGIN[0]], [0, -y, 0, -ORIGIN[1]], [0, 0, z, ORIGIN[2]], [0, 0, 0, 1]],
    )
    assert_nobody_is_named(output)


def test_enhanced_files_are_read_by_every_command_and_masks_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each patient is one file with a frame for each slice, in no order."""
    root = tmp_path / "data"
    for number in range(4):
        name = f"p{number}"
        stored, masks = scan(number)
        save_enhanced(root / name / "ct" / "all.dcm", stored, order=[2, 0, 3, 1], series=name)
        regions = {"LIVER": contours(masks[..., 0]), "tumour": contours(masks[..., 1])}
        save_structures(root / name / "rt.dcm", name, regions)
    labels = ["--labels", "liver,tumour", "--task", "multilabel"]
    assert main(["check", str(root), *labels]) == 0
    assert main(["plan", str(root), "-o", str(tmp_path / "plan.yaml"), "--no_probe", *labels]) == 0
    fit = [
        "fit",
        *DATA,
        f"--data.source.root={root}",
        "--data.split_fractions=[0.5,0.25,0.25]",
        f"--runs={tmp_path / 'runs'}",
    ]
    assert main([*fit, *SMALL]) == 0
    (checkpoint,) = (tmp_path / "runs").rglob("best.ckpt")
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 0
    assert predict(tmp_path / "runs", root, tmp_path / "seg") == 0
    assert predict(tmp_path / "runs", root, tmp_path / "nifti", "--data.source.write_as=nifti") == 0
    for number in range(4):
        series = open_series([root / f"p{number}" / "ct" / "all.dcm"])
        masks = read_masks(tmp_path / "seg" / f"p{number}" / "ct.dcm", [[1], [2]], series)
        for label, mask in zip(("liver", "tumour"), masks, strict=True):
            values, geometry = read_nifti(tmp_path / "nifti" / label / f"p{number}" / "ct.nii.gz")
            np.testing.assert_array_equal(values[0] == 1, mask)
            assert geometry.spacing_mm == pytest.approx(SPACING)
            np.testing.assert_allclose(geometry.affine, series.geometry.affine, atol=1e-5)
    assert SECRET not in "".join(capsys.readouterr())


def test_uneven_slices_are_predicted_as_the_checkpoint_says(run: Path, tmp_path: Path) -> None:
    """The setting travels; the segmentation refers to the real images, NIfTI holds the even grid."""
    heights = (0, 2.5, 5, 10)
    paths = save_series(
        tmp_path / "in" / "p1", scan(0)[0], series="p1", position=lambda d: np.add(ORIGIN, (0, 0, heights[d]))
    )
    assert predict(run, tmp_path / "in", tmp_path / "seg") == 0
    assert predict(run, tmp_path / "in", tmp_path / "nifti", "--data.source.write_as=nifti") == 0
    series = open_series(paths, resample=True)
    (checkpoint,) = run.rglob("best.ckpt")
    prediction = Predictor.from_checkpoint(checkpoint).predict(tmp_path / "in" / "p1")
    assert prediction.geometry == series.geometry
    masks = read_masks(tmp_path / "seg" / "p1.dcm", [[1], [2]], series)
    for label, mask in zip(("liver", "tumour"), masks, strict=True):
        values, geometry = read_nifti(tmp_path / "nifti" / label / "p1.nii.gz")
        assert geometry.distance_voxels(series.geometry) < 1e-4
        np.testing.assert_array_equal(values[0][[0, 1, 2, 4]] == 1, mask)
        np.testing.assert_array_equal(values[0] == 1, prediction.plane(label))


def test_nobody_is_named_in_a_run_but_by_its_masks(run: Path) -> None:
    assert list(run.rglob("*.ckpt"))
    assert list(run.rglob("case.json"))
    kept = list(run.rglob("predictions/val/*/ct.dcm"))
    assert kept
    assert all(SECRET.encode() in path.read_bytes() for path in kept)  # as a segmentation must that refers to a series
    assert_nobody_is_named(run, but=kept)


def test_an_error_names_the_file_and_nobody(
    root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_series(tmp_path / "in" / "p1", scan(0)[0])
    paths[2].unlink()
    assert predict(run, tmp_path / "in", tmp_path / "out", "--data.source.uneven_slices=refuse") == 1
    said = capsys.readouterr().err
    assert "1 slice between them seems to be missing" in said
    assert str(paths[1]) in said
    assert SECRET not in said


def assert_nobody_is_named(folder: Path, but: Sequence[Path] = ()) -> None:
    secrets = [SECRET.encode(), *(uid_of(f"p{number}").encode() for number in range(6)), uid_of("study").encode()]
    for path in folder.rglob("*"):
        if path.is_file() and path not in but:
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert not any(secret in content for secret in secrets), path
