"""Images that are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.measurements import CaseFacts, ImageFacts
from medseg_pl.core.types import Case
from medseg_pl.data import duplicates
from medseg_pl.data.sources.base import abbreviate


class _Image(NamedTuple):
    case: Case
    facts: ImageFacts


def duplicate_findings(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Images with the same pixels, and images of different patients that look the same."""
    images = [
        _Image(facts.case, facts.image)
        for facts in cases
        if facts.image is not None and facts.image.signature is not None
    ]
    alike: dict[bytes, list[_Image]] = defaultdict(list)
    for image in images:
        alike[image.facts.digest].append(image)
    for same in alike.values():
        if len(same) > 1:
            yield _about_same(same)
    if len(alike) <= duplicates.MOST_COMPARED:
        yield from _near([same[0] for same in alike.values()])


def _about_same(same: Sequence[_Image]) -> Finding:
    first, others = same[0], abbreviate([image.case.case_id for image in same[1:]])
    code = "repeated-image" if len({image.case.group for image in same}) == 1 else "exact-duplicate"
    said = f"{first.case.case_id} has the same pixels as {others}."
    return finding(code, said, first.case.case_id, first.facts.path)


def _near(images: Sequence[_Image]) -> Iterator[Finding]:
    _, sides = np.unique([image.case.group for image in images], return_inverse=True)
    copies = [image.facts.signature for image in images if image.facts.signature is not None]
    for pair in duplicates.find_near_copies(copies, sides):
        earlier, later = images[pair.earlier], images[pair.later]
        said = f"{later.case.case_id} looks like {earlier.case.case_id}: {pair.how}."
        yield finding("near-duplicate", said, later.case.case_id, later.facts.path)
