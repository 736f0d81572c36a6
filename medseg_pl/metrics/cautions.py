"""Warnings about intervals that are narrower than what is known of the patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medseg_pl.metrics.case_metric import FALSE_ALARM, MISSED, UNDEFINED, CaseScore
from medseg_pl.metrics.statistics.intervals import FEW_GROUPS, HELD_WITH_FEW

_RARE = 0.05
"""Misses that are rarer than this change a mean by less than most intervals are wide."""


def interval_cautions(scores: Sequence[CaseScore], names: Sequence[str]) -> list[str]:
    """Say for which labels an interval is too narrow, and why: few patients, or no miss among them.

    An interval of a mean knows of misses only where some were seen: in simulations with misses, the intervals that do
    not hold the true mean come nearly all from data sets without a miss; see `benchmarks/intervals.py`.

    Args:
        scores: One for each case and label.
        names: The labels, in their order.
    """
    patients = {name: _count_patients([score for score in scores if score.label == name]) for name in names}
    few = {name: total for name, (total, _) in patients.items() if 2 <= total < FEW_GROUPS}
    unseen = {name: total for name, (total, missed) in patients.items() if total >= 2 and not missed}
    with_five = "with 5 it holds the mean {} to {} times in 100".format(*HELD_WITH_FEW)
    said = [
        f"{labels}: {total} patients make a 95 % interval too narrow; {with_five}."
        for total, labels in _by_total(few).items()
    ]
    said += [
        f"{labels}: none of {total} patients was missed, so the interval knows of no misses; up to "
        f"{100 * missed_at_most(total):.0f} % of patients may be missed."
        for total, labels in _by_total(unseen).items()
        if missed_at_most(total) > _RARE
    ]
    return said


def missed_at_most(patients: int) -> float:
    """Compute the upper 95 % limit of the share of patients that are missed, where none of some was.

    References:
        Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249:1743, 1983.

    >>> [round(missed_at_most(patients), 2) for patients in (10, 59)]
    [0.26, 0.05]
    """
    return 1 - math.pow(0.05, 1 / patients)


def _count_patients(scores: Sequence[CaseScore]) -> tuple[int, int]:
    """How many patients have a score, and how many of them a miss or a false alarm."""
    scored = {score.group for score in scores if score.status != UNDEFINED}
    return len(scored), len({score.group for score in scores if score.status in (MISSED, FALSE_ALARM)})


def _by_total(totals: Mapping[str, int]) -> dict[int, str]:
    """Labels with equal numbers of patients share a sentence."""
    return {
        total: ", ".join(name for name, own in totals.items() if own == total)
        for total in dict.fromkeys(totals.values())
    }
