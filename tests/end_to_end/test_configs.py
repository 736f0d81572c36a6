"""Every shipped configuration is parsed, alone or together with what completes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=str)
def test_it_parses_and_keeps_its_values(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", *[f"--config={name}" for name in completed(path)], "--print_config"])
    assert left.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(path.read_text())
    for section in ("model", "data", "trainer"):
        for key, value in (written.get(section) or {}).items():
            if not isinstance(value, (dict, list)):
                assert printed[section][key] == value


def test_every_line_is_explained_where_the_name_does_not() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        assert path.read_text().startswith("# "), f"{path} does not say what it is for"
