"""Small data and one small trained run, made once for all tests that only read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.cli.commands.phantom import write_phantom

Run = Callable[..., int]

SMALL = (
    "--model.network.init_args.encoder_depth=3",
    "--model.network.init_args.decoder_channels=[16,8,8]",
    "--model.input_size=[32,32]",
    "--model.size_divisor=8",
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
)
"""Settings that make any experiment a matter of seconds."""


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small phantom in each layout."""
    roots = {}
    for layout in ("uw_madison", "decathlon", "folder"):
        roots[layout] = tmp_path_factory.mktemp("phantom") / layout
        write_phantom(roots[layout], layout, cases=8, seed=0, slices=6, size=(40, 36))
    return roots


@pytest.fixture(scope="session")
def run_folder(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a fit on the UW-Madison phantom."""
    runs = tmp_path_factory.mktemp("runs")
    fit = ["fit", "--config", "configs/experiment/demo.yaml", "--data.source.root", str(phantoms["uw_madison"])]
    assert main([*fit, "--runs", str(runs), *SMALL]) == 0
    return runs / "demo" / "version_0"


@pytest.fixture
def checkpoint(run_folder: Path) -> str:
    return str(run_folder / "checkpoints" / "best.ckpt")
