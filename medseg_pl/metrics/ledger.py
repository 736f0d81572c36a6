"""All metrics of one evaluation, kept by case and checked for completeness."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.types import Prediction
from medseg_pl.metrics.case_metric import CaseMetric, CaseScore


class MetricTable:
    """Scores cases by several metrics, and gives one table for all processes.

    Args:
        metrics: In the order of their columns.

    Raises:
        SettingError: Two metrics would write the same columns.
    """

    def __init__(self, metrics: Sequence[CaseMetric]) -> None:
        kinds = [type(metric).__name__ for metric in metrics]
        twice = [kind for kind in kinds if kinds.count(kind) > 1]
        if twice:
            raise SettingError(
                f"{twice[0]} is there twice and would write its columns twice. Overlap, distances and volumes are "
                "always measured: leave them out of model.metrics, and name others once."
            )
        self.metrics = list(metrics)

    def add(self, case: Prediction) -> None:
        """Score one whole case."""
        for metric in self.metrics:
            metric.update(case)

    def table(self, expected: Collection[str] | None = None) -> list[CaseScore]:
        """One row for each case and label, sorted by case; the same on every process.

        Args:
            expected: The ids of the cases that had to be scored, no more and no fewer; unknown where `None`.

        Raises:
            DataError: A case was scored twice, by nobody, or though nobody expected it.
        """
        rows = _joined([metric.table() for metric in self.metrics])
        if expected is not None:
            _require_all({row.case_id for row in rows}, set(expected))
        return rows

    def reset(self) -> None:
        """Forget all cases."""
        for metric in self.metrics:
            metric.reset()


def _require_all(scored: set[str], expected: set[str]) -> None:
    absent, foreign = sorted(expected - scored), sorted(scored - expected)
    if absent:
        raise DataError(
            f"{len(absent)} of {len(expected)} cases were scored by no process, {absent[0]} among them, so no score is "
            "given. The sampler must serve every case; leave trainer.use_distributed_sampler off."
        )
    if foreign:
        raise DataError(
            f"{len(foreign)} cases were scored that are none of the {len(expected)} expected, {foreign[0]} among them, "
            "so no score is given. The loader serves other cases than its data set names."
        )


def _joined(tables: Sequence[Sequence[CaseScore]]) -> list[CaseScore]:
    """The columns of all metrics side by side."""
    rows = []
    for same in zip(*tables, strict=True):
        first = same[0]
        values = {name: value for score in same for name, value in score.values.items()}
        rows.append(CaseScore(first.case_id, first.group, first.label, values, first.status, first.unit))
    return rows
