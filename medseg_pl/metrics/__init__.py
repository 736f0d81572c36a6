"""Scores of whole cases, kept by case so that any number of processes gives the same table."""

from medseg_pl.metrics.calibration import CalibrationMetric
from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, Score, from_all_processes
from medseg_pl.metrics.ledger import CaseLedger
from medseg_pl.metrics.overlap import OverlapMetric
from medseg_pl.metrics.summary import summarise
from medseg_pl.metrics.surface import SurfaceMetric
from medseg_pl.metrics.uw_madison import UWMadisonScore
from medseg_pl.metrics.volume import VolumeMetric

__all__ = [
    "CalibrationMetric",
    "CaseLedger",
    "CaseMetric",
    "LabelPair",
    "OverlapMetric",
    "Score",
    "SurfaceMetric",
    "UWMadisonScore",
    "VolumeMetric",
    "from_all_processes",
    "summarise",
]
