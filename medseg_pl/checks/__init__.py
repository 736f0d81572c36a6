"""Checks of data sets: every common fault is found before training, with a code that stays the same."""

from medseg_pl.checks.findings import LEVELS, Code, Finding, LabelCounts, Level
from medseg_pl.checks.run_checks import CODES, Report, run_quick_checks, summarize_findings

__all__ = [
    "CODES",
    "LEVELS",
    "Code",
    "Finding",
    "LabelCounts",
    "Level",
    "Report",
    "run_quick_checks",
    "summarize_findings",
]
