"""All rules on a data set, or those that need no pixel, and the report of what they find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from medseg_pl.checks import (
    dataset_checks,
    file_checks,
    geometry_checks,
    intensity_checks,
    mask_checks,
)
from medseg_pl.checks.findings import LEVELS, Codes, Finding, Level
from medseg_pl.checks.measurements import AnnotatedCase, CaseFacts, Dataset, LabelCounts, LabelLookup, Split
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.duplicates import MOST_COMPARED
from medseg_pl.data.splits import LabelVoxels
from medseg_pl.data.transforms.resize import Resize

Rule = Callable[[Dataset], Iterator[Finding]]
ChooseSplits = Callable[[LabelVoxels], tuple[Sequence[Split], Sequence[Finding]]]
"""Gives the splits of a data set, and what is wrong with them, for the label voxels of each case."""

CODES: Codes = Codes(
    {
        **file_checks.CODES,
        **mask_checks.CODES,
        **geometry_checks.CODES,
        **intensity_checks.CODES,
        **dataset_checks.CODES,
    }
)
"""All codes in the order of reports."""

QUICK_RULES: tuple[Rule, ...] = (
    mask_checks.check_labels,
    dataset_checks.check_splits,
    geometry_checks.check_patch,
)
RULES: tuple[Rule, ...] = (
    *QUICK_RULES,
    mask_checks.check_mask_values,
    mask_checks.check_ignore_value,
    mask_checks.check_palettes,
    geometry_checks.check_grids,
    geometry_checks.check_spacings,
    geometry_checks.compare_grids,
    geometry_checks.find_shifted_masks,
    intensity_checks.check_intensities,
    intensity_checks.compare_intensities,
    dataset_checks.find_duplicates,
)


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
        """Count the findings of each level."""
        numbers = Counter(finding.level for finding in self.findings)
        return {level: numbers[level] for level in LEVELS}


def run_checks(
    cases: Sequence[CaseFacts],
    listing_findings: Iterable[Finding],
    labels: LabelMap,
    *,
    modalities: Sequence[str] = (),
    patch: Resize | None = None,
    choose_splits: ChooseSplits = lambda _: ([], []),
    tolerance_found: bool = False,
) -> Report:
    """Run all rules on what is known of the cases.

    Args:
        cases: What reading each has shown.
        listing_findings: What listing them has shown.
        labels: What masks should hold.
        modalities: What the data set says of each channel.
        patch: How images are brought to the network.
        choose_splits: Gives the splits that are to be checked.
        tolerance_found: Whether the tolerance of the labels was concluded from the masks, and not set.
    """
    many = f"more than {MOST_COMPARED:,} images are not searched for near-duplicates"
    lookup = LabelLookup(labels)
    voxels = {facts.case.case_id: lookup.count_voxels(facts.masks) for facts in cases if facts.masks}
    splits, split_findings = choose_splits(voxels)
    dataset = Dataset(
        labels,
        [AnnotatedCase(facts.case, voxels.get(facts.case.case_id)) for facts in cases],
        {facts.case.case_id: facts.image.geometry for facts in cases if facts.image is not None},
        splits,
        patch,
        cases,
        modalities,
        tolerance_found,
    )
    findings = [
        *listing_findings,
        *split_findings,
        *(finding for facts in cases for finding in facts.findings),
        *(finding for rule in RULES for finding in rule(dataset)),
    ]
    # A fault may be found on the way in and by a rule; it is reported once.
    ordered = tuple(dict.fromkeys(sort_by_severity(findings)))
    return Report(tuple(cases), ordered, labels, (many,) if len(cases) > MOST_COMPARED else ())


def run_quick_checks(
    cases: Sequence[Case],
    counts: Mapping[str, LabelCounts],
    labels: LabelMap,
    split: Split,
    patch: Resize | None = None,
) -> list[Finding]:
    """Run the rules that need no pixel: the cache has counted the labels already.

    Args:
        cases: All cases of the run.
        counts: What the cache knows of each, by case id.
        labels: What the masks hold.
        split: The case ids of `train`, `val` and `test`.
        patch: How images are brought to the network.

    Returns:
        The worst first.
    """
    annotated = [AnnotatedCase(case, counts[case.case_id].label_voxels if case.masks else None) for case in cases]
    geometries = {case.case_id: counts[case.case_id].geometry for case in cases}
    dataset = Dataset(labels, annotated, geometries, [split], patch)
    return sort_by_severity(finding for rule in QUICK_RULES for finding in rule(dataset))


def summarize_findings(findings: Sequence[Finding]) -> list[str]:
    """Write a paragraph for each kind: the first in its own words, the number of the others, and the remedy.

    Args:
        findings: As `run_quick_checks` gives them.
    """
    paragraphs = []
    for code, group in groupby(findings, key=lambda finding: finding.code):
        first, *others = group
        where = f"Case {first.case_id}: " if first.case_id else ""
        more = f" The same of {len(others)} more." if others else ""
        paragraphs.append(f"{code}: {where}{first.message}{more} {first.remedy}")
    return paragraphs


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by level, then in the order of the codes, then by case and file."""
    order = {code: index for index, code in enumerate(CODES)}
    return sorted(
        findings, key=lambda f: (LEVELS.index(f.level), order[f.code], f.case_id, str(f.file or ""), f.message)
    )
