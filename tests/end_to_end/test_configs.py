"""Every shipped configuration is parsed, alone or together with what completes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.strategies import FSDPStrategy

from medseg_pl.__main__ import main

CONFIGS = Path("configs")
UNET, CPU, FOLDER = "configs/model/unet.yaml", "configs/trainer/cpu.yaml", "configs/data/folder.yaml"


def completed(path: Path) -> list[str]:
    """The file with blocks of the other kinds."""
    blocks = {
        "data": [str(path), UNET, CPU],
        "model": [FOLDER, str(path), CPU],
        "trainer": [FOLDER, UNET, str(path)],
        "logger": [FOLDER, UNET, CPU, str(path)],
        "experiment": [str(path)],
    }
    return blocks[path.parent.name]


def assert_keeps(printed: Any, written: Any) -> None:
    """Everything that a file says stands in the complete configuration, with the same value."""
    if isinstance(written, dict):
        for key, value in written.items():
            assert_keeps(printed[key], value)
    elif isinstance(written, list):
        assert len(printed) == len(written)
        for one, other in zip(printed, written, strict=True):
            assert_keeps(one, other)
    else:
        assert printed == written


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=str)
def test_it_parses_and_keeps_its_values(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", *[f"--config={name}" for name in completed(path)], "--print_config"])
    assert left.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(path.read_text())
    assert_keeps(printed, {key: value for key, value in written.items() if value is not None})


def test_each_begins_with_what_it_is_for() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        assert path.read_text().startswith("# "), f"{path} does not say what it is for"


def test_sharded_training_keeps_whole_checkpoints() -> None:
    settings = yaml.safe_load(Path("configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"]["init_args"]
    assert FSDPStrategy(**settings)._state_dict_type == "full"
