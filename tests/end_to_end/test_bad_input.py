"""Wrong use and broken data: one paragraph with the remedy, the exit code, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg_pl.__main__ import main
from medseg_pl.core.errors import SettingError
from medseg_pl.io import raster
from tests.end_to_end.conftest import SMALL

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `fit` with options, see that it fails with one paragraph and leaves no run folder, and give the paragraph."""

    def run(*options: str, code: int, config: str = "configs/experiment/demo.yaml") -> str:
        assert main(["fit", "--config", config, "--runs", str(tmp_path / "runs"), *SMALL, *options]) == code
        assert not (tmp_path / "runs").exists()
        error = capsys.readouterr().err.strip()
        assert error.startswith("medseg: ")
        assert "\n" not in error
        assert "Traceback" not in error
        return error

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three gray images with masks of 0 and 1."""
    root = tmp_path / "data"
    for name in "abc":
        pixels = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)
        raster.write_png(root / "images" / f"{name}.png", pixels)
        raster.write_png(root / "masks" / f"{name}.png", (pixels > 200).astype(np.uint8))
    return root


@pytest.fixture
def refused_folder(refused: Refused, folder: Path) -> Refused:
    """`refused` on the folder of three images."""

    def run(*options: str, code: int) -> str:
        return refused(
            "--config=configs/data/folder.yaml",
            f"--data.source.root={folder}",
            "--data.source.init_args.group=null",
            "--data.split_fractions=null",
            "--model.channels=1",
            "--model.normalization=ZScore",
            "--data.folds=3",
            *options,
            code=code,
            config="configs/model/tiny.yaml",
        )

    return run


def test_missing_folder(refused: Refused, tmp_path: Path) -> None:
    error = refused(f"--data.source.root={tmp_path / 'nowhere'}", code=1)
    assert "nowhere, found nothing there" in error
    assert "Set data.source.root" in error


def test_image_without_mask(refused_folder: Refused, folder: Path) -> None:
    (folder / "masks" / "b.png").unlink()
    error = refused_folder(code=1)
    assert "1 of 3 images has no mask" in error
    assert str(folder / "images" / "b.png") in error
    assert "set data.source.mask_name" in error


def test_a_spacing_that_the_images_do_not_have(refused_folder: Refused) -> None:
    error = refused_folder("--model.spacing_mm=[1,1]", "--model.resize=none", code=2)
    assert "images/a.png) does not say its spacing, but model.spacing_mm is (1.0, 1.0)" in error


def test_mask_of_another_shape(refused_folder: Refused, folder: Path) -> None:
    mask = folder / "masks" / "b.png"
    mask.unlink()
    raster.write_png(mask, np.zeros((48, 39), np.uint8))
    error = refused_folder(code=1)
    assert f"Case b: {mask} is 1 x 48 x 39" in error
    assert "1 x 48 x 40" in error


def test_truncated_image(refused_folder: Refused, folder: Path) -> None:
    image = folder / "images" / "b.png"
    image.write_bytes(image.read_bytes()[:-30])
    error = refused_folder(code=1)
    assert f"{image}" in error
    assert "intact copy" in error


def test_wrong_number_of_channels(refused_folder: Refused) -> None:
    error = refused_folder("--model.channels=3", code=2)
    assert "has 1 channel, but model.channels is 3. Set model.channels to 1" in error


def test_encoder_that_does_not_exist(refused: Refused, phantoms: dict[str, Path]) -> None:
    root = f"--data.source.root={phantoms['uw_madison']}"
    error = refused(root, "--model.network.init_args.encoder_name=resnet19", code=2)
    assert "no encoder 'resnet19'" in error
    assert "Did you mean resnet18" in error
    error = refused(root, "--model.network.init_args.encoder_name=tu-resnet10", code=2)
    assert "no encoder 'tu-resnet10'" in error
    assert "Did you mean tu-resnet10t" in error


def test_weights_that_cannot_be_downloaded(refused: Refused, phantoms: dict[str, Path]) -> None:
    error = refused(
        f"--data.source.root={phantoms['uw_madison']}",
        "--model.network.init_args.encoder_name=resnet18",
        "--model.network.init_args.encoder_weights=imagenet",
        code=1,
    )
    assert "could not be downloaded" in error
    assert "encoder_weights=null" in error
    assert "--model.pretrained=FILE" in error


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--data.batchsize=3", "data.batch_size"),
        ("--model.network.init_args.encoder_nam=resnet18", "encoder_name"),
        ("--data.source.rot=x", "root"),
    ],
)
def test_misspelled_key(refused: Refused, option: str, nearest: str) -> None:
    error = refused(option, code=2)
    assert option.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in error
    assert error.endswith((f"Did you mean {nearest}?", f"Use --{nearest}."))


def test_misspelled_section_of_a_file(refused: Refused, tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("modle: {}\n")
    assert refused(f"--config={config}", code=2).endswith(
        "has the section 'modle', which does not exist. Did you mean model?"
    )


def test_missing_configuration(refused: Refused) -> None:
    assert "There is no configuration nowhere.yaml" in refused("--config=nowhere.yaml", code=2)


def test_missing_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", "nowhere.ckpt"]) == 1
    assert "There is no checkpoint nowhere.ckpt" in capsys.readouterr().err
    assert main(["test"]) == 2
    assert "needs --ckpt_path" in capsys.readouterr().err
    assert main(["test", "--ckpt_path", "https://example.org/best.ckpt"]) == 2
    assert "loaded from files alone" in capsys.readouterr().err


def test_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "best.ckpt"
    damaged.write_bytes(b"no checkpoint")
    assert main(["test", "--ckpt_path", str(damaged)]) == 1
    assert "is not a checkpoint that medseg fit wrote, or it is damaged" in capsys.readouterr().err


def test_checkpoint_with_a_flipped_byte(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(Path(checkpoint).read_bytes())
    content[len(content) // 3] ^= 0xFF
    damaged = tmp_path / "best.ckpt"
    damaged.write_bytes(content)
    assert main(["test", "--ckpt_path", str(damaged)]) == 1
    assert "or it is damaged" in capsys.readouterr().err


def test_checkpoint_that_would_run_code(refused: Refused, phantoms: dict[str, Path], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"state_dict": Evil(), "hyper_parameters": {}}, tmp_path / "evil.ckpt")
    root = f"--data.source.root={phantoms['uw_madison']}"
    assert "is not a checkpoint that medseg fit wrote" in refused(root, f"--ckpt_path={tmp_path / 'evil.ckpt'}", code=1)
    assert "would run code" in refused(root, "--weights_only=false", code=2)
    assert "is a URL" in refused(root, "--ckpt_path=http://127.0.0.1:9/evil.ckpt", code=2)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("option", "phrase"),
    [
        ("--model.window_overlap=1.0", "model.window_overlap must be at least 0 and below 1"),
        ("--model.resize=stretch", "none"),
        ("--model.labels.task=binary", "A binary task has one label; got 3"),
        ("--model.loss=torch.nn.CTCLoss", "cannot be computed for the task multilabel"),
        ("--model.optimizer.init_args.lr=-1", "model.optimizer cannot be made: Invalid learning rate: -1.0. Correct"),
        ("--model.lr_scheduler.init_args.warmup_steps=-1", "model.lr_scheduler cannot be made: warmup_steps must be"),
        ("--data.batch_size=0", "data.batch_size must be at least 1; got 0"),
        ("--data.split_fractions=[0.5,0.1,0.1]", "three shares (train, val, test) that add up to 1"),
        ("--trainer.precision=bf16-true", "Set it to bf16-mixed"),
        ("--trainer.max_epochs=0", "trainer.max_epochs is 0: nothing would be trained"),
        ("--trainer.max_steps=0", "trainer.max_steps is 0: nothing would be trained"),
        ("--trainer.accelerator=abacus", "The settings do not fit"),
    ],
)
def test_settings_that_cannot_work(refused: Refused, phantoms: dict[str, Path], option: str, phrase: str) -> None:
    assert phrase in refused(f"--data.source.root={phantoms['uw_madison']}", option, code=2)


def test_a_network_that_returns_another_size(refused: Refused, phantoms: dict[str, Path], tmp_path: Path) -> None:
    root = f"--data.source.root={phantoms['uw_madison']}"
    error = refused_late(root, "--model.network=tests.end_to_end.plugins.Halving", "--plugins=tests", tmp_path=tmp_path)
    assert "The network returned logits of the shape" in error
    assert "Correct model.network" in error


def refused_late(*options: str, tmp_path: Path) -> str:
    """What `fit` says of a fault that only the first batch shows."""
    small = [option for option in SMALL if "network" not in option]
    with pytest.raises(SettingError) as caught:
        fit = ["fit", "--debug", "--config", "configs/experiment/demo.yaml", "--runs", str(tmp_path / "late")]
        main([*fit, *small, *options])
    return str(caught.value)


def test_training_that_diverges_leaves_no_best_weights(
    phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--runs", str(tmp_path), *SMALL]
    root = f"--data.source.root={phantoms['uw_madison']}"
    assert main([*fit, root, "--model.optimizer.init_args.lr=1e30"]) == 1
    assert "The training loss is nan at step" in capsys.readouterr().err
    assert not list(tmp_path.rglob("best.ckpt"))
    assert not list(tmp_path.rglob("scores_*"))


def test_output_inside_the_input(
    checkpoint: str, phantoms: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    scans = phantoms["uw_madison"] / "train"
    predict = ["predict", "--ckpt_path", checkpoint, "--input", str(scans), "--output", str(scans / "out")]
    assert main(predict) == 2
    assert "lies inside --input" in capsys.readouterr().err
    assert not (scans / "out").exists()


def test_a_file_in_the_place_of_the_runs(
    phantoms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("mine")
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--runs", str(tmp_path / "runs"), *SMALL]
    assert main([*fit, f"--data.source.root={phantoms['uw_madison']}"]) == 1
    assert str(tmp_path / "runs") in capsys.readouterr().err
    assert (tmp_path / "runs").read_text() == "mine"


def test_configuration_that_holds_no_settings(refused: Refused, tmp_path: Path) -> None:
    for text in ("", "- a\n- b\n", "plain"):
        (tmp_path / "own.yaml").write_text(text)
        assert "own.yaml holds no settings" in refused(f"--config={tmp_path / 'own.yaml'}", code=2)


def test_fit_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "medseg fit needs --config FILE" in capsys.readouterr().err
