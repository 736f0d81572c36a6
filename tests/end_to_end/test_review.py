"""What a person should look at first, from the command line."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import make_scans
from medseg_pl.core.errors import count_part
from medseg_pl.data.sources import UWMadisonSource
from medseg_pl.data.synthetic import ORGANS
from medseg_pl.data.synthetic.layouts import write_uw_madison
from medseg_pl.inference.predictor import Predictor
from medseg_pl.training.checkpoints import read_checkpoint
from tests.end_to_end.conftest import SMALL
from tests.inference.simulated_predictions import FAULTS, with_fault
from tests.sample_files import results


@pytest.fixture(scope="module")
def scans(phantoms: dict[str, Path]) -> Path:
    return phantoms["uw_madison"] / "train"


@pytest.fixture(scope="module")
def relative(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that is a little different."""
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, value in content["state_dict"].items():
        if name.startswith("model.network.") and value.is_floating_point():
            value.mul_(1 + 0.1 * torch.randn(value.shape, generator=generator))
    path = tmp_path_factory.mktemp("relative") / "best.ckpt"
    torch.save(content, path)
    return str(path)


def predict(images: Path, output: Path, *checkpoints: str, options: tuple[str, ...] = ("--review=true",)) -> int:
    paths = [argument for path in checkpoints for argument in ("--ckpt_path", path)]
    return main(["predict", *paths, "--input", str(images), "--output", str(output), *options])


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "review.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_put_in_order(
    checkpoint: str, relative: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(scans, tmp_path / "out", checkpoint, relative, options=("--review=true", "--review_top=3")) == 0
    assert f"Where to look first: {tmp_path / 'out' / 'review.csv'}" in capsys.readouterr().out
    queued = rows(tmp_path / "out")
    assert list(queued[0]) == ["rank", "case_id", "score", "label", "disagreement", "doubt", "size", "reason"]
    assert [int(row["rank"]) for row in queued] == list(range(1, 9))
    scores = [float(row["score"]) for row in queued]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0
    assert queued[0]["reason"].startswith(f"{queued[0]['label']}: ")
    assert any(float(row["disagreement"]) > 0 for row in queued)
    pictures = sorted(path.name for path in (tmp_path / "out" / "review").iterdir())
    assert pictures == [f"{rank:04d}_{row['case_id']}.png" for rank, row in enumerate(queued[:3], start=1)]

    # The masks are those that there would have been.
    assert predict(scans, tmp_path / "plain", checkpoint, relative, options=()) == 0
    plain = results(tmp_path / "plain")
    assert {name: content for name, content in results(tmp_path / "out").items() if name in plain} == plain


def test_votes_are_what_each_model_says_alone(checkpoint: str, relative: str, scans: Path) -> None:
    source = UWMadisonSource(str(scans.parent)).open_unlabeled(scans)
    volume = source.read(source.cases()[0], Predictor.from_checkpoint(checkpoint, device="cpu").labels)
    alone = [Predictor.from_checkpoint(path, device="cpu") for path in (checkpoint, relative)]
    both = Predictor.from_checkpoint([checkpoint, relative], device="cpu")
    prediction, votes = both.predict_members(volume, "the case")
    np.testing.assert_array_equal(votes, [each.predict_volume(volume, "the case").mask for each in alone])
    expected = both.predict_volume(volume, "the case", probabilities=True)
    np.testing.assert_array_equal(prediction.mask, expected.mask)
    np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)

    flipped = Predictor.from_checkpoint(checkpoint, tta="flips", device="cpu")
    _, (plain,) = flipped.predict_members(volume, "the case")
    np.testing.assert_array_equal(plain, alone[0].predict_volume(volume, "the case").mask)
    assert alone[0].predict_members(volume, "the case").member_masks == []


def test_a_single_model_has_its_doubts_and_its_flips(checkpoint: str, scans: Path, tmp_path: Path) -> None:
    assert predict(scans, tmp_path / "alone", checkpoint) == 0
    assert {row["disagreement"] for row in rows(tmp_path / "alone")} == {""}
    assert any(float(row["doubt"]) > 0 for row in rows(tmp_path / "alone"))
    options = ("--review=true", "--model.tta=flips")
    assert predict(scans, tmp_path / "flips", checkpoint, options=options) == 0
    assert any(float(row["disagreement"]) > 0 for row in rows(tmp_path / "flips"))


@pytest.mark.trainings
def test_an_interrupted_review_goes_on(
    checkpoint: str, relative: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scans, tmp_path / "in")
    bad = sorted((tmp_path / "in").rglob("slice_*.png"))[8]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    assert predict(tmp_path / "in", tmp_path / "out", checkpoint, relative) == 1
    assert len(rows(tmp_path / "out")) == 7
    bad.write_bytes(whole)
    assert predict(tmp_path / "in", tmp_path / "out", checkpoint, relative) == 0
    assert "1 new case written" in capsys.readouterr().out
    assert predict(scans, tmp_path / "whole", checkpoint, relative) == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert predict(scans, tmp_path / "whole", checkpoint, relative, options=()) == 1
    assert "holds results of other inputs, checkpoints or settings" in capsys.readouterr().err


class TestLabels:
    def review(self, output: Path, *arguments: str) -> int:
        return main(["review", "--ckpt_path", *arguments, "-o", str(output), "--device=cpu"])

    def test_those_who_were_trained_on_a_patient_do_not_judge(
        self, checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.review(tmp_path / "out", checkpoint, "--top=2") == 0
        known = set(read_checkpoint(checkpoint).data["groups"])
        cases = UWMadisonSource(str(phantoms["uw_madison"])).cases()
        left = {case.case_id for case in cases if case.group not in known}
        assert 0 < len(left) < len(cases)
        queued = rows(tmp_path / "out")
        assert list(queued[0]) == ["rank", "case_id", "score", "label", "surprise", "size", "reason"]
        assert {row["case_id"] for row in queued} == left
        assert len(list((tmp_path / "out" / "review").iterdir())) == 2
        said = capsys.readouterr().out
        assert count_part(len(cases) - len(left), len(cases), "case", "is", "are") + " left out" in said
        assert f"Where to look first: {tmp_path / 'out' / 'review.csv'}" in said

    def test_corrected_labels_are_looked_at_again(
        self, checkpoint: str, phantoms: dict[str, Path], tmp_path: Path
    ) -> None:
        moved = shutil.copytree(phantoms["uw_madison"], tmp_path / "moved")
        assert self.review(tmp_path / "out", checkpoint, "--data_root", str(moved)) == 0
        before = rows(tmp_path / "out")
        emptied = before[0]["case_id"]
        table = (moved / "train.csv").read_text().splitlines()
        kept = [line.rsplit(",", 1)[0] + "," if line.startswith(f"{emptied}_") else line for line in table]
        (moved / "train.csv").write_text("\n".join(kept) + "\n")
        assert self.review(tmp_path / "out", checkpoint, "--data_root", str(moved)) == 0
        assert rows(tmp_path / "out") != before
        assert self.review(tmp_path / "anew", checkpoint, "--data_root", str(moved)) == 0
        assert results(tmp_path / "out") == results(tmp_path / "anew")

    def test_whom_a_checkpoint_knows_has_to_be_known(
        self, checkpoint: str, phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = torch.load(checkpoint, weights_only=True)
        groups = content["SegmentationDataModule"].pop("groups")
        torch.save(content, tmp_path / "silent.ckpt")
        assert self.review(tmp_path / "out", str(tmp_path / "silent.ckpt")) == 2
        assert "silent.ckpt does not record its training patients" in capsys.readouterr().err
        everyone = [
            case.group
            for case in UWMadisonSource(content["datamodule_hyper_parameters"]["source"]["init_args"]["root"]).cases()
        ]
        content["SegmentationDataModule"]["groups"] = [*groups, *everyone]
        torch.save(content, tmp_path / "all.ckpt")
        assert self.review(tmp_path / "out", str(tmp_path / "all.ckpt")) == 1
        assert "None of the 8 cases can be reviewed" in capsys.readouterr().err


FAULTY = 5


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Phantoms of which a tenth has organs that are shifted, dropped or exchanged, and which these are."""
    root, rng = tmp_path_factory.mktemp("faulty") / "data", np.random.default_rng(0)
    scans = list(make_scans(10 * FAULTY, seed=0, slices=10, size=(48, 44)))
    places = rng.choice(len(scans), FAULTY, replace=False).tolist()
    for number, place in enumerate(places):
        fault = FAULTS[number % len(FAULTS)]
        scans[place] = scans[place]._replace(masks=with_fault(scans[place].masks, fault, rng))
    write_uw_madison(root, scans, ORGANS)
    return root, [scans[place].case_id for place in places]


@pytest.fixture(scope="module")
def folds(faulty: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The checkpoints of two folds that were trained on all that."""
    runs = tmp_path_factory.mktemp("folds")
    options = ["--data.source.root", str(faulty[0]), "--data.split_fractions=null", "--data.folds=2", *SMALL]
    options += ["--trainer.max_epochs=20", "--trainer.check_val_every_n_epoch=20", "--runs", str(runs)]
    for fold in ("0", "1"):
        own = ["--data.fold", fold, "--experiment", f"fold{fold}"]
        assert main(["fit", "--config", "configs/experiment/demo.yaml", *options, *own]) == 0
    return sorted(str(path) for path in runs.rglob("best.ckpt"))


@pytest.mark.slow
def test_wrong_training_labels_come_first(faulty: tuple[Path, list[str]], folds: list[str], tmp_path: Path) -> None:
    assert main(["review", "--ckpt_path", *folds, "-o", str(tmp_path / "out"), "--device=cpu"]) == 0
    queued = [row["case_id"] for row in rows(tmp_path / "out")]
    assert len(queued) == 10 * FAULTY
    assert len(set(queued[:FAULTY]) & set(faulty[1])) / FAULTY >= 0.8


@pytest.mark.slow
def test_predictions_on_odd_images_come_first(folds: list[str], tmp_path: Path) -> None:
    """Of new images one is inverted, and one is dark on the side that is far from the receiving coil."""
    scans = list(make_scans(20, seed=1, slices=10, size=(48, 44)))
    dark = np.linspace(0, 1, scans[7].image.shape[-1]) ** 2
    spoilt = {3: scans[3].image.max() - scans[3].image, 7: scans[7].image * dark}
    for place, image in spoilt.items():
        scans[place] = scans[place]._replace(image=image.astype(scans[place].image.dtype))
    write_uw_madison(tmp_path / "new", scans, ORGANS)
    assert predict(tmp_path / "new" / "train", tmp_path / "out", *folds) == 0
    first = {row["case_id"] for row in rows(tmp_path / "out")[:2]}
    assert first == {scans[place].case_id for place in spoilt}
