"""Every shipped configuration is parsed, alone or together with others that complete it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.strategies import FSDPStrategy

from medseg_pl.__main__ import main

CONFIGS = Path("configs")
BLOCKS = [sorted(CONFIGS.glob(f"{kind}/*.yaml")) for kind in ("data", "model", "trainer", "logger")]
WHOLE = [[path] for path in sorted(CONFIGS.glob("experiment/*.yaml"))]
"""Experiments are complete; a block of each kind together is, too."""
COMPLETE = [
    *WHOLE,
    *([kind[number % len(kind)] for kind in BLOCKS] for number in range(max(map(len, BLOCKS)))),
]


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


@pytest.mark.parametrize("paths", COMPLETE, ids=lambda paths: "+".join(path.stem for path in paths))
def test_they_parse_and_keep_their_values(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", *[f"--config={path}" for path in paths], "--print_config"])
    assert left.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for path in paths:
        written = yaml.safe_load(path.read_text())
        assert_keeps(printed, {key: value for key, value in written.items() if value is not None})


def test_none_is_left_out() -> None:
    searched = set(CONFIGS.glob("sweeps/*.yaml"))  # spaces of settings, which `medseg tune` reads
    assert {path for paths in COMPLETE for path in paths} == set(CONFIGS.glob("*/*.yaml")) - searched


def test_each_begins_with_what_it_is_for() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        assert path.read_text().startswith("# "), f"{path} does not say what it is for"


def test_sharded_training_keeps_whole_checkpoints() -> None:
    settings = yaml.safe_load(Path("configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"]["init_args"]
    assert FSDPStrategy(**settings)._state_dict_type == "full"
