"""Which cases a person should look at first: signs of each case, then a queue of all of them."""

from medseg_pl.inference.review.evidence import (
    CaseEvidence,
    Evidence,
    LabelEvidence,
    assess_prediction,
    assess_reference,
)
from medseg_pl.inference.review.ranking import RankedCase, format_ranking, name_picture, rank_cases

__all__ = [
    "CaseEvidence",
    "Evidence",
    "LabelEvidence",
    "RankedCase",
    "assess_prediction",
    "assess_reference",
    "format_ranking",
    "name_picture",
    "rank_cases",
]
