"""`medseg postprocess`: what its lines say of a gain."""

from __future__ import annotations

import math

import pytest

from medseg_pl.cli.commands.postprocess import _describe
from medseg_pl.core.types import PostProcessing
from medseg_pl.inference.postprocess import FEWEST_PATIENTS, DiceGain


@pytest.mark.parametrize(
    ("patients", "line"),
    [
        (FEWEST_PATIENTS, "nucleus: nothing helps (Dice 0.9000 on 8 cases)"),
        (2, "nucleus: left as it is, since no gain can be shown with 2 patients; it takes 6 patients"),
    ],
)
def test_few_patients_are_not_told_that_nothing_helps(patients: int, line: str) -> None:
    gain = DiceGain(PostProcessing(), 0.9, 0.9, (math.nan, math.nan), cases=8, patients=patients, tried=5, p=1.0)
    assert _describe("nucleus", gain) == line
