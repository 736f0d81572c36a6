"""Rules for the data set as a whole: the sides of its splits, and images that are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medseg_pl.checks.findings import Codes, Finding, error, warning
from medseg_pl.checks.measurements import CaseFacts, Dataset, Split
from medseg_pl.core.types import Case
from medseg_pl.data import duplicates
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.splits import SIDES
from medseg_pl.io.config_files import read_json

CODES: Codes = Codes(
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


def check_splits(dataset: Dataset) -> Iterator[Finding]:
    """Find patients on two sides of a split, sides without cases, and labels that cannot be learned."""
    for split in dataset.splits:
        yield from _check_split(dataset, split)


def find_duplicates(dataset: Dataset) -> Iterator[Finding]:
    """Find images with the same pixels, and images of different patients that look the same."""
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
            yield CODES.find(code, message, first.case.case_id, first.case.images[0])
    if len(alike) <= duplicates.MOST_COMPARED:
        yield from _find_near_duplicates([same[0] for same in alike.values()])


def read_declared_splits(cases: Sequence[Case]) -> tuple[list[Split], list[Finding]]:
    """Read the splits that the cases themselves declare: one, or one for each fold."""
    declaring = [case for case in cases if case.split is not None or case.fold is not None]
    if not declaring:
        return [], []
    findings = []
    if silent := [case.case_id for case in cases if case.split is None and case.fold is None]:
        message = f"{len(silent)} of {len(cases)} cases declare neither split nor fold: {abbreviate(silent)}."
        findings.append(CODES.find("split-invalid", message, silent[0]))
    folds = sorted({case.fold for case in declaring if case.split is None and case.fold is not None}) or [0]
    splits = []
    for fold in folds:
        split: dict[str, list[str]] = {side: [] for side in SIDES}
        for case in declaring:
            split[case.split or ("val" if case.fold == fold else "train")].append(case.case_id)
        splits.append(split)
    return list(splits), findings


def read_split_file(path: Path, cases: Sequence[Case]) -> tuple[list[Split], list[Finding]]:
    """Read the split of a `splits.json`, or all folds of nnU-Net's."""
    try:
        content = read_json(path)
        splits = [
            {side: [str(name) for name in split.get(side, ())] for side in SIDES}
            for split in (content if isinstance(content, list) else [content])
        ]
    except (OSError, ValueError, AttributeError, TypeError) as fault:
        return [], [CODES.find("split-invalid", f"The file cannot be read as a split: {fault}.", "", path)]
    present = {case.case_id for case in cases}
    named = dict.fromkeys(name for split in splits for names in split.values() for name in names)
    unknown = [name for name in named if name not in present]
    if unknown:
        message = f"The split names {len(unknown)} cases that are not there: {abbreviate(unknown)}."
        return list(splits), [CODES.find("split-invalid", message, "", path)]
    return list(splits), []


def _check_split(dataset: Dataset, split: Split) -> Iterator[Finding]:
    cases = {case.case_id: (case, voxels) for case, voxels in dataset.annotated}
    named = {side: [cases[name] for name in names if name in cases] for side, names in split.items()}
    for side in ("train", "val"):
        if not split.get(side):
            yield CODES.find("empty-side", f"The side {side} has no case.")
    sides: dict[str, set[str]] = defaultdict(set)
    for side, members in named.items():
        for case, _ in members:
            sides[case.group].add(side)
    for group in sorted(group for group, several in sides.items() if len(several) > 1):
        yield CODES.find("patient-on-both-sides", f"The patient {group} is in {' and '.join(sorted(sides[group]))}.")
    trained = named.get("train", [])
    for index, name in enumerate(dataset.labels.names):
        present = any(voxels[index] for _, voxels in dataset.annotated if voxels is not None)
        if trained and present and not any(voxels[index] for _, voxels in trained if voxels is not None):
            message = f"The label {name!r} is in none of {len(trained)} cases."
            yield CODES.find("label-missing-from-training", message)


def _find_near_duplicates(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    _, groups = np.unique([facts.case.group for facts in cases], return_inverse=True)
    signatures = [
        facts.image.signature for facts in cases if facts.image is not None and facts.image.signature is not None
    ]
    for pair in duplicates.find_near_copies(signatures, groups):
        earlier, later = cases[pair.earlier].case, cases[pair.later].case
        message = f"{later.case_id} looks like {earlier.case_id}: {pair.how}."
        yield CODES.find("near-duplicate", message, later.case_id, later.images[0])
