"""What is wrong with a data set, as far as it can be told from what `fit` has in its hands anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from medseg_pl.checks.dataset_checks import Annotated, label_findings, side_findings
from medseg_pl.checks.findings import Finding, worst_first
from medseg_pl.checks.geometry_checks import patch_findings
from medseg_pl.checks.split_checks import Sides
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.transforms.resize import Resize


class Counted(NamedTuple):
    """What the store has noted of a case when it was decoded; no array has to stay open for it.

    Attributes:
        geometry: Its grid.
        label_voxels: How many voxels each label has; `None` without a reference.
    """

    geometry: Geometry
    label_voxels: Sequence[int] | None


def cheap_findings(
    cases: Sequence[Case], counted: Mapping[str, Counted], labels: LabelMap, sides: Sides, patch: Resize | None = None
) -> list[Finding]:
    """Labels that cannot be learned, sides without cases, patients on two sides, images smaller than the patch.

    No pixel is read: the store has counted the labels already.

    Args:
        cases: All cases of the run.
        counted: What the store has noted of each, by case id.
        labels: What the masks hold.
        sides: The case ids of `train`, `val` and `test`.
        patch: How images are brought to the network.

    Returns:
        The worst first.
    """
    return worst_first(_findings(cases, counted, labels, sides, patch))


def in_brief(findings: Sequence[Finding]) -> list[str]:
    """A paragraph for each kind: the first in its own words, the number of the others, and the remedy.

    Args:
        findings: As `cheap_findings` gives them.
    """
    return [_paragraph(list(alike)) for _, alike in groupby(findings, key=lambda finding: finding.code)]


def _paragraph(alike: Sequence[Finding]) -> str:
    first, others = alike[0], len(alike) - 1
    where = f"Case {first.case_id}: " if first.case_id else ""
    more = f" The same of {others} more." if others else ""
    return f"{first.code}: {where}{first.message}{more} {first.remedy}"


def _findings(
    cases: Sequence[Case], counted: Mapping[str, Counted], labels: LabelMap, sides: Sides, patch: Resize | None
) -> Iterator[Finding]:
    annotated = [
        Annotated(case, counted[case.case_id].label_voxels or [0] * len(labels.names)) for case in cases if case.masks
    ]
    yield from label_findings(annotated, labels)
    yield from side_findings(annotated, sides, labels)
    yield from patch_findings([(case.case_id, case.images[0], counted[case.case_id].geometry) for case in cases], patch)
