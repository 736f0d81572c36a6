"""Scores of whole cases, kept by case so that any number of processes gives the same table."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_pl.metrics.calibration import CalibrationMetric as CalibrationMetric
    from medseg_pl.metrics.case_metric import CaseMetric as CaseMetric
    from medseg_pl.metrics.case_metric import LabelPair as LabelPair
    from medseg_pl.metrics.case_metric import Score as Score
    from medseg_pl.metrics.case_metric import from_all_processes as from_all_processes
    from medseg_pl.metrics.ledger import CaseLedger as CaseLedger
    from medseg_pl.metrics.overlap import OverlapMetric as OverlapMetric
    from medseg_pl.metrics.summary import summarize as summarize
    from medseg_pl.metrics.surface import SurfaceMetric as SurfaceMetric
    from medseg_pl.metrics.uw_madison import UWMadisonScore as UWMadisonScore
    from medseg_pl.metrics.volume import VolumeMetric as VolumeMetric

_MODULES = {
    "CalibrationMetric": "calibration",
    "CaseLedger": "ledger",
    "CaseMetric": "case_metric",
    "LabelPair": "case_metric",
    "OverlapMetric": "overlap",
    "Score": "case_metric",
    "SurfaceMetric": "surface",
    "UWMadisonScore": "uw_madison",
    "VolumeMetric": "volume",
    "from_all_processes": "case_metric",
    "summarize": "summary",
}

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
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Import a class at its first use: the formulas in this room need no torchmetrics."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
