"""What is wrong with a data set, as far as it can be told from what `fit` has in its hands anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.integrity.dataset import Annotated, label_findings, side_findings
from medseg_pl.data.integrity.findings import Finding, worst_first
from medseg_pl.data.integrity.geometry import patch_findings
from medseg_pl.data.integrity.sides import Sides
from medseg_pl.data.store import StoredCase
from medseg_pl.functional.fit import Fit


def cheap_findings(
    cases: Sequence[Case], stored: Mapping[str, StoredCase], labels: LabelMap, sides: Sides, patch: Fit | None = None
) -> list[Finding]:
    """Labels that cannot be learnt, sides without cases, patients on two sides, images smaller than the patch.

    No pixel is read: the store has counted the labels already.

    Args:
        cases: All cases of the run.
        stored: What the store keeps of each, by case id.
        labels: What the masks hold.
        sides: The case ids of `train`, `val` and `test`.
        patch: How images are brought to the network.

    Returns:
        The worst first.
    """
    return worst_first(_findings(cases, stored, labels, sides, patch))


def _findings(
    cases: Sequence[Case], stored: Mapping[str, StoredCase], labels: LabelMap, sides: Sides, patch: Fit | None
) -> Iterator[Finding]:
    annotated = [
        Annotated(case, stored[case.case_id].label_voxels or [0] * len(labels.names)) for case in cases if case.masks
    ]
    yield from label_findings(annotated, labels)
    yield from side_findings(annotated, sides, labels)
    yield from patch_findings([(case.case_id, case.images[0], stored[case.case_id].geometry) for case in cases], patch)
