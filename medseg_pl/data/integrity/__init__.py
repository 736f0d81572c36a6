"""Finding every common fault of a data set before training, each with a code that stays the same."""

from medseg_pl.data.integrity.cheap import Counted, cheap_findings, in_brief
from medseg_pl.data.integrity.findings import Finding
from medseg_pl.data.integrity.kinds import KINDS, LEVELS, Kind, Level
from medseg_pl.data.integrity.report import Report

__all__ = ["KINDS", "LEVELS", "Counted", "Finding", "Kind", "Level", "Report", "cheap_findings", "in_brief"]
