"""What `medseg fit` and `medseg test` say at their end."""

from __future__ import annotations

from typing import Any

import pytest

from medseg_pl.cli.lightning_cli import describe_proof, describe_scored_weights, describe_time_limit
from medseg_pl.training.checkpoints import CheckpointInfo


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


@pytest.mark.parametrize(
    ("planned", "limit", "sentence"),
    [
        (1500, "00:00:04:20", "for 756 of 1500 steps, ended by the time limit (trainer.max_time: 00:00:04:20)."),
        (None, {"minutes": 5}, "for 756 steps, ended by the time limit (trainer.max_time: 5 minutes)."),
        (None, None, "for 756 steps, ended by the time limit."),  # a `Timer`
    ],
)
def test_time_limit_is_named_as_in_the_report(planned: int | None, limit: Any, sentence: str) -> None:
    end = {"epochs": 6, "steps": 756, "planned_steps": planned, "out_of_time": True}
    trainer = {"max_epochs": 12 if planned else -1, "max_steps": -1, "max_time": limit}
    assert describe_time_limit(end, trainer) == f"Trained {sentence} The run is complete."


PROOF = "By its record, the run trained on none of these {}."
TESTED = {"p3_a": "p3", "p3_b": "p3"}
COPY = {"case_a": "p1", "case_b": "p3_a", "kind": "near"}


@pytest.mark.parametrize(
    ("pretrained", "tested", "changes", "sentence"),
    [
        (None, TESTED, {}, PROOF.format("patients")),
        ("medseg:efficientnet_lite0", TESTED, {}, PROOF.format("patients")),
        (None, {"p3": "p3"}, {}, PROOF.format("cases")),
        # The weights of a file may be of any patient, and those of an allowed copy have another name.
        ("runs/other/version_0/checkpoints/best.ckpt", TESTED, {}, ""),
        (None, TESTED, {"split": {"accepted_duplicates": [COPY]}}, ""),
        (None, TESTED, {"groups": []}, ""),
        (None, {}, {}, ""),
    ],
)
def test_test_is_proven_only_by_a_complete_record(
    pretrained: str | None, tested: dict[str, str], changes: dict[str, Any], sentence: str
) -> None:
    data = {"groups": ["p1", "p2"], "split": {"train": ["p1", "p2"]}, **changes}
    assert describe_proof(CheckpointInfo("best.ckpt", {}, data, pretrained=pretrained), tested) == sentence
