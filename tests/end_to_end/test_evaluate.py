"""`test` keeps the masks that `predict` writes; scored by `evaluate` they have the scores of `test`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.__main__ import main
from medseg_pl.io import raster
from medseg_pl.io.paths import stem
from tests.end_to_end.conftest import SMALL
from tests.sample_files import tree

pytestmark = pytest.mark.trainings

ORGANS = ["large_bowel", "small_bowel", "stomach"]
FOLDER = [f"--config=configs/{name}.yaml" for name in ("data/folder", "model/tiny", "trainer/cpu")]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fitted_and_tested(runs: Path, *options: str, inference: Sequence[str] = ()) -> Path:
    """The run folder of a small fit and its test."""
    assert main(["fit", *options, "--runs", str(runs), *SMALL, "--data.allow_duplicates=true"]) == 0
    run = next(runs.glob("*/version_0"))
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *inference]) == 0
    return run


def require_kept_masks(run: Path, images: Path, output: Path, inference: Sequence[str] = ()) -> Path:
    """Assert that the masks of the test are those of `predict`, and give their folder."""
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--input", str(images), "--output", str(output), *inference]) == 0
    kept = run / "predictions" / "test"
    names = sorted(name for name in tree(output) if not name.startswith((".medseg", "predictions.csv")))
    assert names and names == sorted(name for name in tree(kept) if not name.startswith(".medseg"))
    for name in names:
        assert (kept / name).read_bytes() == (output / name).read_bytes(), name
    return kept


def only(cases: Sequence[str], folder: Path, copy: Path) -> Path:
    """A folder with the files of some cases."""
    for path in folder.rglob("*"):
        if path.relative_to(folder).with_name(stem(path)).as_posix() in cases:
            (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(folder))
    return copy


def evaluate(reference: Path, prediction: Path, output: Path, *options: str) -> Path:
    folders = ["--reference", str(reference), "--prediction", str(prediction), "-o", str(output)]
    assert main(["evaluate", *folders, *options]) == 0
    return output / "scores_evaluate.csv"


def test_volumes_have_the_scores_of_test(phantoms: dict[str, Path], tmp_path: Path) -> None:
    labels = f"--model.labels.names=[{','.join(ORGANS)}]"
    root, group = phantoms["decathlon"], "phantom_00([0-9])"
    data = [
        f"--data.source.root={root}",
        f"--data.source.group={group}",
        "--data.folds=2",
        "--trainer.limit_train_batches=4",
    ]
    spacing = "--model.spacing_mm=[7.5,8.5]"
    windows = ["--model.whole_image_max_pixels=900", "--model.tta=none"]
    config = "configs/experiment/hippocampus.yaml"
    run = fitted_and_tested(tmp_path / "runs", "--config", config, *data, labels, spacing, inference=windows)
    cases = sorted({row["case_id"] for row in rows_of(run / "scores_test.csv")})
    images = only(cases, root / "imagesTr", tmp_path / "images")
    masks = require_kept_masks(run, images, tmp_path / "masks", windows)
    reference = only(cases, root / "labelsTr", tmp_path / "reference")
    scores = evaluate(reference, masks, tmp_path / "scores", "--labels", ",".join(ORGANS), "--group", group)
    assert scores.read_bytes() == (run / "scores_test.csv").read_bytes()
    assert {row["status"] for row in rows_of(scores)} >= {"ok"}
    assert {row["group"] for row in rows_of(scores)} == {case[-1] for case in cases}
    ours = json.loads(scores.with_name("summary_evaluate.json").read_text())
    theirs = json.loads((run / "summary_test.json").read_text())
    assert ours.pop("n_unmatched_predictions") == ours.pop("n_missing_as_empty") == 0
    assert ours == {name: theirs[name] for name in ours}


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes, with two labels that overlap, each in a folder of its own."""
    root = tmp_path_factory.mktemp("overlapping")
    rng = np.random.default_rng(0)
    for number in range(12):
        shape = (40 + number % 2 * 9, 48)
        disc, bar = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        disc[8:24, 8 + number : 28 + number], bar[18:30] = 255, 255
        noise = rng.integers(20, size=shape, dtype=np.uint8)
        raster.write_png(root / "images" / f"p{number // 2}_{number}.png", disc // 4 + bar // 3 + noise)
        raster.write_png(root / "disc" / f"p{number // 2}_{number}.png", disc)
        raster.write_png(root / "bar" / f"p{number // 2}_{number}.png", bar)
    return root


OVERLAPPING = [
    "--model.labels.names=[bar,disc]",
    "--model.labels.task=multilabel",
    "--model.channels=1",
    "--model.normalization=ZScore",
    "--data.folds=3",
]


def test_labels_that_overlap_have_the_scores_of_test(overlapping: Path, tmp_path: Path) -> None:
    group = "^(p[0-9]+)_"
    source = [
        f"--data.source.root={overlapping}",
        "--data.source.init_args.masks={bar: bar, disc: disc}",
        f"--data.source.init_args.group={group}",
    ]
    flips = ["--model.tta=flips"]
    run = fitted_and_tested(tmp_path / "runs", *FOLDER, *source, *OVERLAPPING, inference=flips)
    cases = sorted({row["case_id"] for row in rows_of(run / "scores_test.csv")})
    images = only(cases, overlapping / "images", tmp_path / "images")
    masks = require_kept_masks(run, images, tmp_path / "masks", flips)
    for label in ("disc", "bar"):
        only(cases, overlapping / label, tmp_path / "reference" / label)
    options = ["--labels=bar,disc", "--task=multilabel", "--group", group]
    scores = evaluate(tmp_path / "reference", masks, tmp_path / "scores", *options)
    assert scores.read_bytes() == (run / "scores_test.csv").read_bytes()
    assert {row["status"] for row in rows_of(scores)} == {"ok"}


def test_one_label_on_scaled_images_has_the_scores_of_test(overlapping: Path, tmp_path: Path) -> None:
    options = [f"--data.source.root={overlapping}", "--data.source.init_args.masks=disc", "--data.folds=3"]
    options += ["--model.labels.names=[disc]", "--model.labels.task=binary", "--model.channels=1", "--model.resize=fit"]
    run = fitted_and_tested(tmp_path / "runs", *FOLDER, *options, "--model.normalization=ZScore")
    cases = sorted({row["case_id"] for row in rows_of(run / "scores_test.csv")})
    images = only(cases, overlapping / "images", tmp_path / "images")
    masks = require_kept_masks(run, images, tmp_path / "masks")
    assert {int(value) for path in masks.glob("*.png") for value in np.unique(raster.read_mask(path))} <= {0, 255}
    reference = only(cases, overlapping / "disc", tmp_path / "reference")
    scores = evaluate(reference, masks, tmp_path / "scores", "--labels=disc", "--task=binary")
    assert scores.read_bytes() == (run / "scores_test.csv").read_bytes()


def test_sites_of_a_manifest_reach_the_scores(overlapping: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (overlapping / "images").iterdir())
    sites = {name: ("north", "south", "")[number % 3] for number, name in enumerate(names)}
    lines = ["case_id,group,image,mask_bar,mask_disc,split,site,age"]
    for number, (name, site) in enumerate(sites.items()):
        split = "train" if number < 6 else "test" if number > 7 else "val"
        files = ",".join(f"{folder}/{name}.png" for folder in ("images", "bar", "disc"))
        lines.append(f"{name},{name.split('_')[0]},{files},{split},{site},{40 + number % 2}")
    table = overlapping / "cases.csv"
    table.write_text("\n".join(lines) + "\n")
    source = ["--config=configs/data/manifest.yaml", *FOLDER[1:], f"--data.source.manifest={table}", *OVERLAPPING]
    options = ["--data.source.init_args.strata=[site,age]"]
    run = fitted_and_tested(tmp_path / "runs", *source, *options)
    rows = rows_of(run / "scores_test.csv")
    assert {row["case_id"]: row["site"] for row in rows} == {name: sites[name] for name in names[8:]}
    assert {row["age"] for row in rows} == {"40", "41"}
    strata = json.loads((run / "summary_test.json").read_text())["strata"]
    assert {name: sorted(values) for name, values in strata.items()} == {
        "site": ["north", "south"],
        "age": ["40", "41"],
    }
    dice = [float(r["dice"]) for r in rows if r["site"] == "north" and r["label"] == "disc"]
    assert strata["site"]["north"]["labels"]["disc"]["dice"]["mean"] == pytest.approx(np.mean(dice))

    images = only(names[8:], overlapping / "images", tmp_path / "images")
    masks = require_kept_masks(run, images, tmp_path / "masks")
    for label in ("disc", "bar"):
        only(names[8:], overlapping / label, tmp_path / "reference" / label)
    evaluated = ["--labels=bar,disc", "--task=multilabel", "--cases", str(table), "--strata=site,age"]
    scores = evaluate(tmp_path / "reference", masks, tmp_path / "scores", *evaluated)
    assert scores.read_bytes() == (run / "scores_test.csv").read_bytes()
    assert json.loads((scores.parent / "summary_evaluate.json").read_text())["strata"] == strata
    assert sorted(tree(scores.parent)) == ["scores_evaluate.csv", "summary_evaluate.json"]


def test_run_lengths_have_the_scores_of_test(checkpoint: str, phantoms: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    assert main(["test", "--ckpt_path", str(tmp_path / "best.ckpt")]) == 0
    masks, data = tmp_path / "predictions" / "test", phantoms["uw_madison"]
    table = evaluate(data, masks, tmp_path / "again")
    assert table.read_bytes() == (tmp_path / "scores_test.csv").read_bytes()
    labels = ["--labels", ",".join(ORGANS), "--task", "multilabel", "--group", "(case[0-9]+)_"]
    assert evaluate(data, masks, tmp_path / "named", *labels).read_bytes() == table.read_bytes()
