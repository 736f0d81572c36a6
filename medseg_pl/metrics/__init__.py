"""Scores of whole cases, kept by case so that any number of processes gives the same table."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_pl.metrics.calibration import CalibrationMetric as CalibrationMetric
    from medseg_pl.metrics.case_metric import CaseMetric as CaseMetric
    from medseg_pl.metrics.case_metric import CaseScore as CaseScore
    from medseg_pl.metrics.case_metric import LabelPair as LabelPair
    from medseg_pl.metrics.case_metric import MetricTable as MetricTable
    from medseg_pl.metrics.case_metric import gather_from_ranks as gather_from_ranks
    from medseg_pl.metrics.overlap import OverlapMetric as OverlapMetric
    from medseg_pl.metrics.overlap import UWMadisonScore as UWMadisonScore
    from medseg_pl.metrics.overlap import VolumeMetric as VolumeMetric
    from medseg_pl.metrics.summary import summarize as summarize
    from medseg_pl.metrics.surface import SurfaceMetric as SurfaceMetric

_MODULES = {
    "CalibrationMetric": "calibration",
    "MetricTable": "case_metric",
    "CaseMetric": "case_metric",
    "LabelPair": "case_metric",
    "OverlapMetric": "overlap",
    "CaseScore": "case_metric",
    "SurfaceMetric": "surface",
    "UWMadisonScore": "overlap",
    "VolumeMetric": "overlap",
    "gather_from_ranks": "case_metric",
    "summarize": "summary",
}

__all__ = [
    "CalibrationMetric",
    "CaseMetric",
    "CaseScore",
    "LabelPair",
    "MetricTable",
    "OverlapMetric",
    "SurfaceMetric",
    "UWMadisonScore",
    "VolumeMetric",
    "gather_from_ranks",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Import a class at its first use: the formulas in this room need no torchmetrics."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
