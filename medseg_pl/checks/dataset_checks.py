"""What is wrong with a data set as a whole: labels that nobody has, images that are there twice, sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case

_FEWEST_CASES = 3
"""In a data set of two cases, a label that is in one of them says nothing."""


class Annotated(NamedTuple):
    """How many voxels of each label a case has."""

    case: Case
    voxels: Sequence[int]


def label_findings(cases: Sequence[Annotated], labels: LabelMap) -> Iterator[Finding]:
    """Labels that are nowhere, or in too few places to be learned and tested."""
    if not cases:
        return
    if not any(any(voxels) for _, voxels in cases):
        said = f"None of {len(cases)} masks holds {', '.join(labels.names)}."
        yield finding("masks-all-empty", said, "", next(iter(cases[0].case.masks), None))
        return
    for index, name in enumerate(labels.names):
        holders = [case for case, voxels in cases if voxels[index]]
        patients = {case.group for case in holders}
        if not holders:
            yield finding("label-never-present", f"The label {name!r} is in none of {len(cases)} masks.")
        elif len(holders) == 1 and len(cases) >= _FEWEST_CASES:
            said = f"The label {name!r} is in one of {len(cases)} cases."
            yield finding("label-in-one-case", said, holders[0].case_id, next(iter(holders[0].masks), None))
        elif len(patients) == 1 and len({case.group for case, _ in cases}) >= _FEWEST_CASES:
            said = f"The label {name!r} is in {len(holders)} cases, all of them of the patient {holders[0].group}."
            yield finding("label-in-one-patient", said, holders[0].case_id, next(iter(holders[0].masks), None))


def side_findings(
    cases: Sequence[Annotated], sides: Mapping[str, Sequence[str]], labels: LabelMap
) -> Iterator[Finding]:
    """Patients on two sides of a split, sides without cases, and labels that cannot be learned.

    Args:
        cases: All of the data set.
        sides: The case ids of `train`, `val` and `test`; a test side may be empty or absent.
        labels: What masks hold.
    """
    known = {case.case_id: (case, voxels) for case, voxels in cases}
    named = {side: [known[name] for name in names if name in known] for side, names in sides.items()}
    for side in ("train", "val"):
        if not sides.get(side):
            yield finding("empty-side", f"The side {side} has no case.")
    seen: dict[str, set[str]] = defaultdict(set)
    for side, members in named.items():
        for case, _ in members:
            seen[case.group].add(side)
    leaking = sorted(group for group, there in seen.items() if len(there) > 1)
    for group in leaking:
        yield finding("patient-on-both-sides", f"The patient {group} is in {' and '.join(sorted(seen[group]))}.")
    trained, everything = named.get("train", []), [voxels for _, voxels in cases]
    for index, name in enumerate(labels.names):
        present = any(voxels[index] for voxels in everything)
        if trained and present and not any(voxels[index] for _, voxels in trained):
            yield finding("label-missing-from-training", f"The label {name!r} is in none of {len(trained)} cases.")


def ignore_findings(marks: set[float], labels: LabelMap) -> Iterator[Finding]:
    """An ignore value that no mask holds."""
    if labels.ignore_value is not None and marks and float(labels.ignore_value) not in marks:
        yield finding("ignore-value-absent", f"labels.ignore_value is {labels.ignore_value}; no mask holds it.")
