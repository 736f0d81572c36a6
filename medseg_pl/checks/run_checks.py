"""A data set gone through from end to end: what it is like, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medseg_pl.checks.alignment_check import shift_findings
from medseg_pl.checks.codes import Level
from medseg_pl.checks.dataset_checks import (
    Annotated,
    ignore_findings,
    label_findings,
    side_findings,
)
from medseg_pl.checks.duplicate_images import duplicate_findings
from medseg_pl.checks.findings import Finding, worst_first
from medseg_pl.checks.geometry_checks import grid_findings, outlier_findings, patch_findings, spacing_findings
from medseg_pl.checks.intensity_checks import comparison_findings, image_findings
from medseg_pl.checks.mask_checks import Claims, mask_findings
from medseg_pl.checks.measurements import CaseFacts, MaskFacts
from medseg_pl.checks.palettes import palette_findings
from medseg_pl.checks.split_checks import Sides
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.duplicates import MOST_COMPARED
from medseg_pl.data.splits import LabelVoxels
from medseg_pl.data.transforms.resize import Resize

Splitting = Callable[[LabelVoxels], tuple[Sequence[Sides], Sequence[Finding]]]
"""Gives the splits of a data set, and what is wrong with them; it is told how many voxels each label has by case."""


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        cases: What is known of each case.
        findings: The worst first.
        labels: What the masks hold, as far as that is known.
        notes: What was concluded rather than read, in words.
    """

    cases: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    labels: LabelMap
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[Level, int]:
        """How many findings there are of each level."""
        found = Counter(finding.level for finding in self.findings)
        return {"error": found["error"], "warning": found["warning"], "note": found["note"]}


def report_on(
    cases: Sequence[CaseFacts],
    discovered: Iterable[Finding],
    labels: LabelMap,
    *,
    modalities: Sequence[str] = (),
    patch: Resize | None = None,
    split: Splitting = lambda _: ([], []),
    tolerated: bool = False,
) -> Report:
    """All findings that follow from what is known of the cases.

    Args:
        cases: What reading each has shown.
        discovered: What looking for them has shown.
        labels: What masks should hold.
        modalities: What the data set says of each channel.
        patch: How images are brought to the network.
        split: Gives the splits that are to be checked.
        tolerated: Whether the tolerance of the labels was found and not set.
    """
    many = f"more than {MOST_COMPARED:,} images are not searched for near-duplicates"
    notes = (many,) if len(cases) > MOST_COMPARED else ()
    claims = Claims(labels)
    voxels = {facts.case.case_id: claims.voxels(facts.masks) for facts in cases if facts.masks}
    sides, found = split(voxels)
    findings = [
        *discovered,
        *found,
        *_of_each(cases, claims, modalities, patch, tolerated),
        *_of_all(cases, modalities),
    ]
    findings.extend(_of_labels(cases, claims, voxels))
    annotated = [Annotated(facts.case, voxels.get(facts.case.case_id, [0] * len(labels.names))) for facts in cases]
    for chosen in sides:
        findings.extend(side_findings(annotated, chosen, labels))
    return Report(tuple(cases), tuple(dict.fromkeys(worst_first(findings))), labels, notes)


def _of_each(
    cases: Sequence[CaseFacts], claims: Claims, modalities: Sequence[str], patch: Resize | None, tolerated: bool
) -> Iterator[Finding]:
    ignores = any(_ignores(mask, claims) for facts in cases for mask in facts.masks)
    for facts in cases:
        yield from facts.findings
        yield from mask_findings(facts, claims, ignores=ignores, tolerated=tolerated)
        yield from grid_findings(facts)
        yield from spacing_findings(facts)
        yield from image_findings(facts, modalities)
        if facts.image is not None:
            yield from patch_findings([(facts.case.case_id, facts.image.path, facts.image.geometry)], patch)


def _of_all(cases: Sequence[CaseFacts], modalities: Sequence[str]) -> Iterator[Finding]:
    yield from outlier_findings(cases)
    yield from comparison_findings(cases, modalities)
    yield from shift_findings(cases)
    yield from duplicate_findings(cases)
    yield from palette_findings(cases)


def _of_labels(cases: Sequence[CaseFacts], claims: Claims, voxels: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    # Where nothing at all is understood, what is wrong with each mask says more than that its labels are missing.
    understood = any(any(counts) for counts in voxels.values())
    if understood or not any(claims.strays(mask) for facts in cases for mask in facts.masks):
        annotated = [Annotated(f.case, voxels[f.case.case_id]) for f in cases if f.masks]
        yield from label_findings(annotated, claims.labels)
    present = {marked.mark[0] for facts in cases for mask in facts.masks for marked in mask.marks}
    yield from ignore_findings(present, claims.labels)


def _ignores(mask: MaskFacts, claims: Claims) -> bool:
    """Whether a mask has 255 beside labels, and nothing else that is unknown."""
    return {marked.mark for marked in claims.strays(mask)} == {(255.0,)} and any(claims.voxels([mask]))
