"""A prediction beside several raters: means and differences worked out on paper."""

from __future__ import annotations

import math

import pytest

from medseg_pl.metrics.case_metric import CaseScore
from medseg_pl.metrics.statistics.intervals import bootstrap_interval
from medseg_pl.metrics.statistics.raters import (
    PREDICTION,
    describe_agreement,
    list_agreement_rows,
    summarize_agreement,
)

PAIRS = [(PREDICTION, "x"), (PREDICTION, "y"), ("x", "y")]


def tables(*dice: list[float], distance: float = 1.0) -> dict[tuple[str, str], list[CaseScore]]:
    """The Dice of each pair in each case; every case is a patient."""
    return {
        pair: [
            CaseScore(f"c{i}", f"p{i}", "a", {"dice": value, "hd95": distance}, "ok", "mm")
            for i, value in enumerate(values)
        ]
        for pair, values in zip(PAIRS, dice, strict=True)
    }


def test_the_mean_of_raters_is_compared_case_by_case() -> None:
    dice = [0.5, 0.75, 0.5, 0.25], [1.0, 0.25, 0.5, 0.75], [1.0, 0.5, 0.25, 0.25]
    summary = summarize_agreement(tables(*dice), ["a"])["a"]["dice"]
    assert summary["pairs"]["prediction – x"]["mean"] == 2 / 4
    assert summary["prediction"]["mean"] == (0.75 + 0.5 + 0.5 + 0.5) / 4
    assert summary["raters"]["mean"] == 2 / 4
    assert summary["difference"]["mean"] == (-0.25 + 0 + 0.25 + 0.25) / 4
    differences = [-0.25, 0.0, 0.25, 0.25]
    assert summary["difference"]["ci95"] == list(bootstrap_interval(differences, ["p0", "p1", "p2", "p3"]))
    assert summary["verdict"] == "within"


@pytest.mark.parametrize(("shift", "verdict"), [(-0.2, "below"), (0.2, "above")])
def test_the_verdict_follows_the_whole_interval(shift: float, verdict: str) -> None:
    raters = [0.5, 0.6, 0.7, 0.65]
    model = [value + shift + noise for value, noise in zip(raters, (0.01, -0.01, 0.02, 0.0), strict=True)]
    summary = summarize_agreement(tables(model, model, raters), ["a"])
    assert summary["a"]["dice"]["verdict"] == verdict
    # All distances are alike, which so few patients may be by chance.
    assert summary["a"]["hd95"]["verdict"] is None
    lines = list(describe_agreement(summary))
    assert lines[0] == "a, dice:"
    assert "a, hd95 in mm:" in lines
    assert lines[4].startswith(f"  {verdict} inter-rater agreement: {shift + 0.005:+.4f} (95 % interval ")


def test_empty_masks_agree_and_cases_without_any_are_left_out() -> None:
    nothing = math.nan
    summary = summarize_agreement(tables([nothing, 0.0], [nothing, 0.0], [nothing, nothing]), ["a"])["a"]["dice"]
    # In the second case both raters found nothing, and the model did: they agree, it does not.
    assert (summary["prediction"]["mean"], summary["raters"]["mean"]) == (0.0, 1.0)
    assert summary["difference"] == {"mean": -1.0, "median": -1.0, "std": None, "ci95": None, "n": 1}
    assert summary["verdict"] is None


def test_a_label_that_a_rater_did_not_look_for_is_left_out() -> None:
    rows = tables([0.5, 0.5], [0.5, 0.5], [0.5, 0.75])
    first = rows["x", "y"][0]
    rows["x", "y"][0] = CaseScore(first.case_id, first.group, "a", {"dice": math.nan}, "not_annotated", "mm")
    assert summarize_agreement(rows, ["a"])["a"]["dice"]["difference"]["mean"] == -0.25
    assert [row["second"] for row in list_agreement_rows(rows)] == ["x", "x", "y", "y", "y", "y"]
