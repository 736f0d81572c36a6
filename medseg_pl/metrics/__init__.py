"""Scores of whole cases, kept by case so that any number of processes gives the same table."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_pl.metrics.case_metric import CaseMetric as CaseMetric
    from medseg_pl.metrics.case_metric import CaseScore as CaseScore
    from medseg_pl.metrics.case_metric import LabelPair as LabelPair
    from medseg_pl.metrics.case_metric import MetricTable as MetricTable
    from medseg_pl.metrics.case_metric import gather_from_ranks as gather_from_ranks
    from medseg_pl.metrics.measures import BoundaryMetric as BoundaryMetric
    from medseg_pl.metrics.measures import CalibrationMetric as CalibrationMetric
    from medseg_pl.metrics.measures import CenterlineMetric as CenterlineMetric
    from medseg_pl.metrics.measures import OverlapMetric as OverlapMetric
    from medseg_pl.metrics.measures import SurfaceMetric as SurfaceMetric
    from medseg_pl.metrics.measures import UWMadisonScore as UWMadisonScore
    from medseg_pl.metrics.measures import VolumeMetric as VolumeMetric
    from medseg_pl.metrics.objects import ObjectMetric as ObjectMetric
    from medseg_pl.metrics.objects import ObjectTable as ObjectTable
    from medseg_pl.metrics.objects import collect_objects as collect_objects
    from medseg_pl.metrics.summary import summarize as summarize

_MODULES = {
    "CalibrationMetric": "measures",
    "BoundaryMetric": "measures",
    "CenterlineMetric": "measures",
    "MetricTable": "case_metric",
    "ObjectMetric": "objects",
    "ObjectTable": "objects",
    "collect_objects": "objects",
    "CaseMetric": "case_metric",
    "LabelPair": "case_metric",
    "OverlapMetric": "measures",
    "CaseScore": "case_metric",
    "SurfaceMetric": "measures",
    "UWMadisonScore": "measures",
    "VolumeMetric": "measures",
    "gather_from_ranks": "case_metric",
    "summarize": "summary",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a class at its first use, since formulas need no torchmetrics."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
