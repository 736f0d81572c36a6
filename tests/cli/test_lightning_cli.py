"""What `medseg fit` says at its end."""

from __future__ import annotations

import pytest

from medseg_pl.cli.lightning_cli import describe_scored_weights


@pytest.mark.parametrize(
    ("tta", "best", "sentence"),
    [
        ("none", True, "Scored with the best weights, of step 1200 (epoch 8)."),
        ("none", False, "Scored with the last weights, of step 1200 (epoch 8)."),
        (
            "flips",
            True,
            "Scored with the best weights, of step 1200 (epoch 8), averaged over flips (model.tta: flips); the epochs' "
            "scores above are without flips.",
        ),
        (
            "all",
            True,
            "Scored with the best weights, of step 1200 (epoch 8), averaged over flips and turns (model.tta: all); the "
            "epochs' scores above are without flips and turns.",
        ),
    ],
)
def test_scored_weights_are_named_by_their_step(tta: str, best: bool, sentence: str) -> None:
    assert describe_scored_weights({"step": 1200, "epoch": 8}, tta, best=best) == sentence
