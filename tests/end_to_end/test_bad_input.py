"""Wrong use and broken data: one paragraph with the remedy, the exit code, and nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg_pl.__main__ import main
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
            "--data.fractions=null",
            "--model.channels=1",
            "--model.normalisation=ZScore",
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
    assert "1 of 3 images have no mask" in error
    assert str(folder / "images" / "b.png") in error
    assert "set data.source.mask_name" in error


def test_mask_without_image(refused_folder: Refused, folder: Path) -> None:
    shutil.copy(folder / "masks" / "b.png", folder / "masks" / "d.png")
    error = refused_folder(code=1)
    assert "1 of 4 masks belong to no image" in error
    assert "d.png" in error


def test_wrong_mask_value(refused_folder: Refused, folder: Path) -> None:
    mask = folder / "masks" / "b.png"
    mask.unlink()
    raster.write_png(mask, np.full((48, 40), 7, np.uint8))
    error = refused_folder(code=1)
    assert f"{mask} holds the value 7, which no label claims" in error
    assert "labels.values" in error


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
    assert "has 1 channel(s), but model.channels is 3. Set model.channels to 1" in error


def test_encoder_that_does_not_exist(refused: Refused, phantoms: dict[str, Path]) -> None:
    root = f"--data.source.root={phantoms['uw_madison']}"
    error = refused(root, "--model.network.init_args.encoder_name=resnet19", code=2)
    assert "no encoder 'resnet19'" in error
    assert "Did you mean resnet18" in error
    error = refused(root, "--model.network.init_args.encoder_name=tu-resnet10", code=2)
    assert "no encoder 'tu-resnet10'" not in error or "tu-resnet10t" in error


def test_weights_that_cannot_be_downloaded(refused: Refused, phantoms: dict[str, Path]) -> None:
    error = refused(
        f"--data.source.root={phantoms['uw_madison']}",
        "--model.network.init_args.encoder_name=resnet18",
        "--model.network.init_args.encoder_weights=imagenet",
        code=1,
    )
    assert "could not be downloaded" in error
    assert "encoder_weights=null" in error
    assert "--model.initial_weights=FILE" in error


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--data.batchsize=3", "data.batch_size"),
        ("--trainer.max_epoch=3", "trainer.max_epochs"),
        ("--model.network.init_args.encoder_nam=resnet18", "encoder_name"),
        ("--data.source.rot=x", "root"),
        ("--model.optimizer.init_args.lrr=1", "lr"),
    ],
)
def test_misspelt_key(refused: Refused, option: str, nearest: str) -> None:
    error = refused(option, code=2)
    assert option.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in error
    assert error.endswith(f"Did you mean {nearest}?")


def test_misspelt_section_of_a_file(refused: Refused, tmp_path: Path) -> None:
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
    assert "needs --ckpt_path FILE" in capsys.readouterr().err
    assert main(["test", "--ckpt_path", "https://example.org/best.ckpt"]) == 2
    assert "loaded from files alone" in capsys.readouterr().err


def test_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "best.ckpt"
    damaged.write_bytes(b"no checkpoint")
    assert main(["test", "--ckpt_path", str(damaged)]) == 1
    assert "is not a checkpoint that medseg fit wrote, or it is damaged" in capsys.readouterr().err
