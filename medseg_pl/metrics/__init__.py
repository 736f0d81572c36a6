"""Scores of whole cases, kept by case so that any number of processes gives the same table."""

from medseg_pl.metrics.case_metric import CaseMetric, Score
from medseg_pl.metrics.overlap import OverlapMetric
from medseg_pl.metrics.summary import summarise

__all__ = ["CaseMetric", "OverlapMetric", "Score", "summarise"]
