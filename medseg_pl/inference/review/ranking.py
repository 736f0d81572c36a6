"""The order in which a person should look at cases, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medseg_pl.inference.review.evidence import CaseEvidence, Evidence, LabelEvidence
from medseg_pl.inference.review.scores import combine_evidence, excess_over_median, implausibility

_WORTH_A_WORD = 0.05


class RankedCase(NamedTuple):
    """A case in the queue.

    Attributes:
        case_id: The case.
        score: From 0 to 1, of the label for which it is highest.
        label: That label.
        signs: Its signs by their names; NaN where one is unknown.
        reason: The signs that count, in words.
    """

    case_id: str
    score: float
    label: str
    signs: dict[str, float]
    reason: str


def rank_cases(cases: Mapping[str, CaseEvidence], names: Sequence[str]) -> list[RankedCase]:
    """All cases, the one to look at first in front.

    The signs of a label, its size among all cases with them, count by how much they exceed what is usual for the
    label, and a case by its worst label.

    Args:
        cases: What each case says of itself; there is at least one.
        names: What the labels are called.
    """
    ids = sorted(cases)
    columns = [_compared([cases[name].labels[index] for name in ids]) for index in range(len(names))]
    scores = np.array(
        [excess_over_median([combine_evidence(_strengths(signs)) for signs in column]) for column in columns]
    )
    queued = []
    for place, name in enumerate(ids):
        worst = int(scores[:, place].argmax())
        signs = columns[worst][place]
        strengths = {key: sign.strength for key, sign in signs.items()}
        queued.append(
            RankedCase(name, float(scores[worst, place]), names[worst], strengths, _reason(names[worst], signs))
        )
    return sorted(queued, key=lambda each: (-each.score, each.case_id))


def format_ranking(queued: Sequence[RankedCase]) -> list[dict[str, str | int | float]]:
    """The queue as a table, the one to look at first on top."""
    return [
        {
            "rank": rank,
            "case_id": each.case_id,
            "score": round(each.score, 4),
            "label": each.label,
            **{name: round(strength, 4) for name, strength in each.signs.items()},
            "reason": each.reason,
        }
        for rank, each in enumerate(queued, start=1)
    ]


def name_picture(rank: int, case_id: str) -> str:
    """Sorted as the queue is.

    >>> name_picture(7, "patient3/ct")
    '0007_patient3_ct.png'
    """
    return f"{rank:04d}_{case_id.replace('/', '_')}.png"


def _compared(label: Sequence[LabelEvidence]) -> list[dict[str, Evidence]]:
    """The signs of one label in each case, with that of its size among the others."""
    sizes = [each.size for each in label]
    usual = label[int(np.argsort(sizes, kind="stable")[len(sizes) // 2])].size_words
    unusual = implausibility(sizes)
    return [
        {**each.signs, "size": Evidence(float(strength), f"{each.size_words} of it, where {usual} are usual")}
        for each, strength in zip(label, unusual, strict=True)
    ]


def _strengths(signs: Mapping[str, Evidence]) -> list[float]:
    return [sign.strength for sign in signs.values()]


def _reason(label: str, signs: Mapping[str, Evidence]) -> str:
    """The signs that count, the strongest first."""
    counting = [sign for sign in signs.values() if sign.strength >= _WORTH_A_WORD]
    ordered = sorted(counting, key=lambda sign: -sign.strength)
    return f"{label}: {'; '.join(sign.words for sign in ordered)}" if ordered else ""
