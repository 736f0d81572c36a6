"""The cards of an export: what is known stands there, what is not is said to be not known, and nobody is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from tests.export.checkpoints import OURS, write_checkpoint
from tests.reporting.run_folders import CONFIG, ENVIRONMENT, score, write_run

SURVEY = {
    "cases": 24,
    "groups": 12,
    "slices": 480,
    "channels": 1,
    "types": ["uint16"],
    "sizes": [[90, 100], [96, 112], [120, 130]],
    "depth": 20,
    "spacing_mm": [3.0, 1.5, 1.5],
    "spacing_varies": 1.0,
    "label_shares": {"a": 0.0215, "b": 0.001},
    "label_cases": {"a": 24, "b": 7},
}


def export(checkpoint: str, output: Path, *options: str) -> tuple[str, str]:
    """The model card and the data card."""
    plugins = ("--plugins", OURS.rsplit(".", 1)[0])
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(output), *plugins, *options]) == 0
    model, data = ((output / name).read_text() for name in ("MODEL_CARD.md", "DATA_CARD.md"))
    return model, data


def trained(folder: Path, name: str = "best.ckpt") -> str:
    """A checkpoint in a run folder with scores of 12 patients."""
    table = [score(f"secret{i}", f"Jane{i}", label, 0.8 + i / 100) for i in range(12) for label in ("a", "b")]
    run = write_run(folder / "runs" / "demo" / "version_0", table, ["a", "b"], config=CONFIG)
    record = {**ENVIRONMENT, "data": {**ENVIRONMENT["data"], "survey": SURVEY}}
    (run / "environment.json").write_text(json.dumps(record))
    (run / "checkpoints").mkdir()
    return write_checkpoint(run / "checkpoints" / name)


def test_what_the_run_knows_stands_in_the_cards(tmp_path: Path) -> None:
    model, data = export(trained(tmp_path), tmp_path / "out")
    assert model.startswith("---\nlibrary_name: onnx\n") and "# Model card: demo, version_0" in model
    assert "| a | 0.855 | 0." in model and "| b | 0.855 | 0." in model
    assert "no medical device" in model and "| cost in Dice | not known |" in model
    assert "does not resample: others were not tried" in model
    assert "| patients | 12 |" in data and "| 3 × 1.5 × 1.5 mm |" in data
    assert "| b | 7 of 24 | 0.10% |" in data
    assert f"`{'4f9c' * 16}`" in data


def test_nobody_and_no_folder_is_named(tmp_path: Path) -> None:
    cards = "".join(export(trained(tmp_path), tmp_path / "out"))
    assert not [word for word in ("secret", "Jane", "someone", str(tmp_path)) if word in cards]


def test_a_checkpoint_that_lies_alone_says_what_it_knows(tmp_path: Path) -> None:
    model, data = export(write_checkpoint(tmp_path / "moved.ckpt", names=("&lt;b", "b")), tmp_path / "out")
    assert "Its scores are not known" in model and "- No score of this model is known." in model
    assert "&amp;lt;b" in model and "&lt;b" not in model
    assert "| `model.channels` | 1 |" in model
    assert "What the data is like was not recorded." in data and "it does not say who was trained on" in data


def test_scores_may_be_those_of_another_checkpoint(tmp_path: Path) -> None:
    model, _ = export(trained(tmp_path, "last.ckpt"), tmp_path / "out", "--precision", "fp16")
    assert "this export is of last.ckpt, which may not be what was scored" in model
    assert "What fp16 costs in Dice was not measured." in model


def test_an_author_may_write_on_them(tmp_path: Path) -> None:
    export(write_checkpoint(tmp_path / "moved.ckpt"), tmp_path / "out")
    (tmp_path / "out" / "MODEL_CARD.md").write_text("of my own")
    command = [sys.executable, "-I", "run.py", "--self-test"]
    assert subprocess.run(command, cwd=tmp_path / "out", capture_output=True, check=False).returncode == 0


def test_a_damaged_run_folder_leaves_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = trained(tmp_path)
    (tmp_path / "runs/demo/version_0/summary_test.json").write_text("{")
    assert main(["export", "--ckpt_path", checkpoint, "-o", str(tmp_path / "out"), "--plugins", OURS.rsplit(".", 1)[0]])
    assert "is not valid JSON" in capsys.readouterr().err and not (tmp_path / "out").exists()
