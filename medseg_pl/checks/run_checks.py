"""All rules on a data set, those for its splits and copies among them, and the report of what they find."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from medseg_pl.checks import (
    file_checks,
    geometry_checks,
    intensity_checks,
    mask_checks,
)
from medseg_pl.checks.findings import (
    LEVELS,
    AnnotatedCase,
    CaseFacts,
    Codes,
    Dataset,
    Finding,
    LabelCounts,
    LabelLookup,
    Level,
    Split,
    error,
    warning,
)
from medseg_pl.core.errors import count_noun, count_part
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data import duplicates
from medseg_pl.data.duplicates import MOST_COMPARED
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.splits import SIDES, LabelVoxels, read_sides
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.config_files import read_json

_DATASET_CODES: Codes = Codes(
    {
        "patient-on-both-sides": error(
            "a patient in training and in validation or test", "Move all cases of a patient to one side."
        ),
        "empty-side": error("a side of the split without cases", "Correct the split."),
        "split-invalid": error("a split that cannot be used", "Correct the split as the message says."),
        "label-missing-from-training": error(
            "a label that no training case has", "Move a patient who has it to the training side."
        ),
        "exact-duplicate": error(
            "the same pixels under two patients", "Remove one, or give both the same patient (group)."
        ),
        "repeated-image": warning("the same pixels twice in one patient", "Remove one of them."),
        "near-duplicate": warning(
            "nearly the same image under two patients",
            "Give both the same patient (group), so that no split parts them.",
        ),
    }
)

Rule = Callable[[Dataset], Iterator[Finding]]

ChooseSplits = Callable[[LabelVoxels], tuple[Sequence[Split], Sequence[Finding]]]
"""Gives the splits of a data set, and what is wrong with them, for the label voxels of each case."""

CODES: Codes = Codes(
    {
        **file_checks.CODES,
        **mask_checks.CODES,
        **geometry_checks.CODES,
        **intensity_checks.CODES,
        **_DATASET_CODES,
    }
)
"""All codes in the order of reports."""


def check_splits(dataset: Dataset) -> Iterator[Finding]:
    """Find shared patients, empty sides and labels that cannot be learned."""
    for split in dataset.splits:
        yield from _check_split(dataset, split)


def find_duplicates(dataset: Dataset) -> Iterator[Finding]:
    """Find equal images, and similar images of different patients."""
    alike: dict[bytes, list[CaseFacts]] = defaultdict(list)
    for facts in dataset.cases:
        if facts.image is not None and facts.image.signature is not None:
            alike[facts.image.digest].append(facts)
    for first, *others in alike.values():
        if others:
            code = (
                "repeated-image" if {facts.case.group for facts in others} == {first.case.group} else "exact-duplicate"
            )
            copies = abbreviate([facts.case.case_id for facts in others])
            message = f"{first.case.case_id} has the same pixels as {copies}."
            yield _DATASET_CODES.find(code, message, first.case.case_id, first.case.images[0])
    if len(alike) <= duplicates.MOST_COMPARED:
        yield from _find_near_duplicates([same[0] for same in alike.values()])


def read_declared_splits(cases: Sequence[Case]) -> tuple[list[Split], list[Finding]]:
    """Read the splits that cases declare: one, or one for each fold."""
    declaring = [case for case in cases if case.split is not None or case.fold is not None]
    if not declaring:
        return [], []
    findings = []
    if silent := [case.case_id for case in cases if case.split is None and case.fold is None]:
        message = (
            f"{count_part(len(silent), len(cases), 'case', 'declares', 'declare')} neither split nor fold: "
            f"{abbreviate(silent)}."
        )
        findings.append(_DATASET_CODES.find("split-invalid", message, silent[0]))
    folds = sorted({case.fold for case in declaring if case.split is None and case.fold is not None}) or [0]
    splits = []
    for fold in folds:
        split: dict[str, list[str]] = {side: [] for side in SIDES}
        for case in declaring:
            split[case.split or ("val" if case.fold == fold else "train")].append(case.case_id)
        splits.append(split)
    return list(splits), findings


def read_split_file(path: Path, cases: Sequence[Case]) -> tuple[list[Split], list[Finding]]:
    """Read the split of a `splits.json`, or all folds of nnU-Net's.

    Returns:
        The splits, and what is wrong with them.
    """
    try:
        content = read_json(path)
        splits = [read_sides(split) for split in (content if isinstance(content, list) else [content])]
    except (OSError, ValueError, AttributeError, TypeError) as fault:
        return [], [_DATASET_CODES.find("split-invalid", f"The file cannot be read as a split: {fault}.", "", path)]
    present = {case.case_id for case in cases}
    named = dict.fromkeys(name for split in splits for names in split.values() for name in names)
    unknown = [name for name in named if name not in present]
    if unknown:
        amount = count_noun(len(unknown), "case that is", "cases that are")
        message = f"The split names {amount} not there: {abbreviate(unknown)}."
        return list(splits), [_DATASET_CODES.find("split-invalid", message, "", path)]
    return list(splits), []


def _check_split(dataset: Dataset, split: Split) -> Iterator[Finding]:
    cases = {case.case_id: (case, voxels) for case, voxels in dataset.annotated}
    named = {side: [cases[name] for name in names if name in cases] for side, names in split.items()}
    for side in ("train", "val"):
        if not split.get(side):
            yield _DATASET_CODES.find("empty-side", f"The side {side} has no case.")
    sides: dict[str, set[str]] = defaultdict(set)
    for side, members in named.items():
        for case, _ in members:
            sides[case.group].add(side)
    for group in sorted(group for group, several in sides.items() if len(several) > 1):
        yield _DATASET_CODES.find(
            "patient-on-both-sides", f"The patient {group} is in {' and '.join(sorted(sides[group]))}."
        )
    trained = named.get("train", [])
    for index, name in enumerate(dataset.labels.names):
        present = any(voxels[index] for _, voxels in dataset.annotated if voxels is not None)
        if trained and present and not any(voxels[index] for _, voxels in trained if voxels is not None):
            message = f"The label {name!r} is in none of {count_noun(len(trained), 'case')}."
            yield _DATASET_CODES.find("label-missing-from-training", message)


def _find_near_duplicates(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    _, groups = np.unique([facts.case.group for facts in cases], return_inverse=True)
    signatures = [
        facts.image.signature for facts in cases if facts.image is not None and facts.image.signature is not None
    ]
    for pair in duplicates.find_near_copies(signatures, groups):
        earlier, later = cases[pair.earlier].case, cases[pair.later].case
        message = f"{later.case_id} looks like {earlier.case_id}: {pair.how}."
        yield _DATASET_CODES.find("near-duplicate", message, later.case_id, later.images[0])


QUICK_RULES: tuple[Rule, ...] = (
    mask_checks.check_labels,
    mask_checks.check_annotated_labels,
    check_splits,
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
    find_duplicates,
)


@dataclass(frozen=True)
class Report:
    """The findings of all checks.

    Args:
        cases: The facts of each case.
        findings: The worst first.
        labels: The labels of the masks, as far as they are known.
        notes: What was concluded rather than read, in words.
        patients: The number of patients; `None` where nothing identifies them.
    """

    cases: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    labels: LabelMap
    notes: tuple[str, ...] = ()
    patients: int | None = None

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
    """Run all rules on the facts of the cases.

    Args:
        cases: The facts of each case.
        listing_findings: The findings of listing them.
        labels: The labels that masks should hold.
        modalities: The modality of each channel as the data set says.
        patch: How images are resized for the network.
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
    """Run the rules that need no pixels, only the cache's label counts.

    Args:
        cases: All cases of the run.
        counts: The label counts of each, by case id.
        labels: The labels of the masks.
        split: The case ids of `train`, `val` and `test`.
        patch: How images are resized for the network.

    Returns:
        The worst first.
    """
    annotated = [AnnotatedCase(case, counts[case.case_id].label_voxels if case.masks else None) for case in cases]
    geometries = {case.case_id: counts[case.case_id].geometry for case in cases}
    dataset = Dataset(labels, annotated, geometries, [split], patch)
    return sort_by_severity(finding for rule in QUICK_RULES for finding in rule(dataset))


def summarize_findings(findings: Sequence[Finding]) -> list[str]:
    """Write a paragraph for each kind of finding.

    It has the message of the first finding, the number of the others, and the remedy.

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
    """Sort by level, code, case and file."""
    order = {code: index for index, code in enumerate(CODES)}
    return sorted(
        findings, key=lambda f: (LEVELS.index(f.level), order[f.code], f.case_id, str(f.file or ""), f.message)
    )
