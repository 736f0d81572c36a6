"""What a run folder says of itself, for whoever writes about it: a report, a README, the cards of an export."""

from medseg_pl.reporting.run import Run, read_run

__all__ = ["Run", "read_run"]
