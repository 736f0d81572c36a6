"""Finding every common fault of a data set before training, each with a code that stays the same."""

from medseg_pl.checks.codes import KINDS, LEVELS, Kind, Level
from medseg_pl.checks.findings import Finding
from medseg_pl.checks.quick_checks import Counted, cheap_findings, in_brief
from medseg_pl.checks.run_checks import Report

__all__ = ["KINDS", "LEVELS", "Counted", "Finding", "Kind", "Level", "Report", "cheap_findings", "in_brief"]
