"""Duplicate images on different sides of a split, which make scores look better than they are.

Memory grows with the number of cases, time with its square, though by matrix products; what is compared is computed
once, when a case is decoded, and what was found for the sides of a split is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from medseg_pl.core.types import Case
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.perceptual_hash import (
    CERTAIN,
    CERTAINLY_DISTINCT,
    COARSE,
    DISTINCT,
    SAME,
    ImageSignature,
    agreement,
    coarse_similarity,
    compute_coarse_patterns,
    distinct_agreement,
    find_equal_orientation,
    usual_correlations,
)
from medseg_pl.data.splits import SIDES, Split
from medseg_pl.io.atomic_files import write_text

log = logging.getLogger(__name__)

MOST_COMPARED = 40_000
"""Each image is compared with each other one: with more of them that would take longer than reading them."""

Kind = Literal["exact", "near", "similar"]

_NEIGHBORS = 24
"""Images of a set that show what is usual in it."""

_BLOCK = 512
"""Cases that are compared with all earlier ones at a time: 40 MB for 20,000."""


@dataclass(frozen=True)
class Duplicate:
    """Two cases that show the same.

    Args:
        case_a: The earlier one.
        case_b: Its copy.
        kind: `exact` where the values are equal, flips and quarter turns aside; `near` where they are as good as
            equal; `similar` where the images look alike and it takes a person to say whether they are copies.
        how: The evidence, in words.
    """

    case_a: str
    case_b: str
    kind: Kind
    how: str

    @property
    def certain(self) -> bool:
        """Whether it is a copy beyond doubt."""
        return self.kind != "similar"

    def __str__(self) -> str:
        return f"{self.case_b} is {self.case_a} ({self.how})"

    def as_dict(self) -> dict[str, str]:
        """Return plain text, for files and checkpoints."""
        return asdict(self)


class DuplicatePair(NamedTuple):
    """The numbers of two copies, and what `Duplicate` says of them."""

    earlier: int
    later: int
    kind: Kind
    how: str


def find_duplicates(cases: Sequence[Case], index: CacheIndex, sides: Sequence[str] | None = None) -> list[Duplicate]:
    """Find the cases that show the same as an earlier one.

    Without the cases found, no two are alike. Images and volumes are not compared with each other, and an image of one
    value is a copy of nothing. Where there are `has_too_many_pairs` to compare, only equal pixels are found.

    Args:
        cases: Their order decides which of two is the earlier.
        index: Of the same cases in the cache.
        sides: Only cases that differ in it are compared; their groups by default, for copies of one patient cannot
            leak.
    """
    if not cases:
        return []
    _, side_numbers = np.unique([case.group for case in cases] if sides is None else list(sides), return_inverse=True)
    signatures = [index.read_signature(number) for number in range(len(index))]
    pairs = {pair.later: pair for pair in _find_equal(signatures, index, side_numbers)}
    if not has_too_many_pairs(side_numbers):
        for pair in find_near_copies(signatures, side_numbers):
            pairs.setdefault(pair.later, pair)
    return [
        Duplicate(cases[pair.earlier].case_id, cases[pair.later].case_id, pair.kind, pair.how)
        for _, pair in sorted(pairs.items())
    ]


def has_too_many_pairs(sides: Int64[np.ndarray, " n"]) -> bool:
    """Check for more pairs on different sides than can be compared.

    >>> [has_too_many_pairs(np.arange(count)) for count in (MOST_COMPARED, 100_000)]
    [False, True]
    >>> has_too_many_pairs(np.arange(MOST_COMPARED + 1) % 2)
    False
    """
    _, counts = np.unique(sides, return_counts=True)
    return int(len(sides) ** 2 - (counts**2).sum()) > MOST_COMPARED * (MOST_COMPARED - 1)


def find_duplicates_across_sides(
    split: Split, cases: Mapping[str, Case], index: CacheIndex, results: Path
) -> list[Duplicate]:
    """Find held-out cases that show the same as another side's.

    Args:
        split: The sides.
        cases: By their ids.
        index: Of all of them in the cache.
        results: A folder for what is found, so that the same sides of the same cases are searched once.
    """
    named = [(name, side) for side in SIDES for name in getattr(split, side)]
    if has_too_many_pairs(np.repeat(range(len(SIDES)), [len(getattr(split, side)) for side in SIDES])):
        log.warning(
            "%d cases are too many to compare each with each other: on two sides of the split only images with equal "
            "pixels are found, and none that are nearly alike.",
            len(named),
        )
    ordered = index.select(name for name, _ in named)
    # A threshold that changes makes what was found before invalid.
    thresholds = (COARSE, SAME, DISTINCT, CERTAIN, CERTAINLY_DISTINCT, MOST_COMPARED)
    keys = [key.decode() for key in ordered.keys.tolist()]
    searched = repr((thresholds, [(name, side, key) for (name, side), key in zip(named, keys, strict=True)]))
    file = results / f"{hashlib.blake2b(searched.encode(), digest_size=20).hexdigest()}.json"
    if file.is_file():
        with suppress(ValueError):  # cut off when a machine was lost
            return [Duplicate(**duplicate) for duplicate in json.loads(file.read_text(encoding="utf-8"))]
    duplicates = find_duplicates([cases[name] for name, _ in named], ordered, [side for _, side in named])
    with suppress(OSError):  # a cache that may only be read, or is full, serves all the same
        write_text(file, json.dumps([duplicate.as_dict() for duplicate in duplicates]), replace=True)
    return duplicates


def _find_equal(
    signatures: Sequence[ImageSignature], index: CacheIndex, sides: Int64[np.ndarray, " n"]
) -> Iterator[DuplicatePair]:
    """Find copies whose values are equal."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for later, digest in enumerate(signature.pixel_digest for signature in signatures):
        for earlier in numbers[digest] if digest else ():
            if sides[earlier] == sides[later]:
                continue
            orientation = find_equal_orientation(index[earlier].image, index[later].image)
            if orientation is not None:
                how = "the same pixels" + ", flipped or turned" * any(orientation)
                yield DuplicatePair(earlier, later, "exact", how)
                break
        numbers[digest].append(later)


def find_near_copies(signatures: Sequence[ImageSignature], sides: Int64[np.ndarray, " n"]) -> Iterator[DuplicatePair]:
    """Find copies that look the same, if not equal to the pixel.

    Images and volumes are not compared with each other.

    Args:
        signatures: Of all images.
        sides: Only images that differ in it are compared.
    """
    for slabs in sorted({len(signature.frequencies) for signature in signatures}):
        chosen = [
            number
            for number, signature in enumerate(signatures)
            if len(signature.frequencies) == slabs and signature.frequencies.any()
        ]
        if chosen:
            patterns = compute_coarse_patterns(np.stack([signatures[number].frequencies for number in chosen]))
            neighborhood = _Neighborhood(signatures, chosen)
            for row, columns in _find_candidates(patterns, sides[chosen]):
                yield from _choose_most_alike(neighborhood, chosen[row], [chosen[column] for column in columns])


def _find_candidates(
    patterns: Float32[np.ndarray, "n z k k"], sides: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, list[int]]]:
    """Find earlier patterns like each one on other sides, best first."""
    for start in range(0, len(patterns), _BLOCK):
        end = min(start + _BLOCK, len(patterns))
        if (sides[:end] == sides[start]).all():  # as among all training cases: nothing is compared with its own side
            continue
        similarity = coarse_similarity(patterns[start:end], patterns[:end])
        worth = (similarity >= COARSE) & (sides[start:end, None] != sides[:end])
        worth &= np.tri(end - start, end, start - 1, dtype=bool)
        for row in np.flatnonzero(worth.any(axis=1)).tolist():
            columns = np.flatnonzero(worth[row])
            yield start + row, columns[np.argsort(-similarity[row, columns], kind="stable")].tolist()


class _Neighborhood:
    """Images of one kind, which show what is usual among them.

    Args:
        signatures: Of all images.
        chosen: The numbers of the images of this kind.
    """

    def __init__(self, signatures: Sequence[ImageSignature], chosen: Sequence[int]) -> None:
        self.signatures = signatures
        # Two more than are needed: those of a pair are no neighbors of it.
        spread = np.linspace(0, len(chosen) - 1, min(_NEIGHBORS + 2, len(chosen))).astype(int)
        self.sample = [chosen[number] for number in spread.tolist()]

    def classify(self, earlier: int, later: int) -> tuple[Kind | None, float, bool]:
        """Decide whether two images are copies."""
        a, b = self.signatures[earlier], self.signatures[later]
        agreed, orientation = agreement(a, b)
        if agreed < SAME:
            return None, agreed, any(orientation)
        neighbors = [self.signatures[number] for number in self.sample if number not in (earlier, later)]
        usual = [usual_correlations(one, other, neighbors) for one, other in ((a, b), (b, a))]
        if usual[0] is None or usual[1] is None:
            return "near" if agreed >= CERTAIN else None, agreed, any(orientation)
        distinct = min(distinct_agreement(a, b, usual[0]), distinct_agreement(b, a, usual[1]))
        if agreed >= CERTAIN and distinct >= CERTAINLY_DISTINCT:
            return "near", agreed, any(orientation)
        return "similar" if distinct >= DISTINCT else None, agreed, any(orientation)


def _choose_most_alike(neighborhood: _Neighborhood, later: int, candidates: Sequence[int]) -> Iterator[DuplicatePair]:
    """Choose the first certain copy, or else the first similar image."""
    similar = None
    for earlier in candidates:
        kind, agreed, turned = neighborhood.classify(earlier, later)
        verdict = "nearly the same pixels" if kind == "near" else "perhaps the same picture"
        how = f"{verdict}, agreement {agreed:.2f}" + ", flipped or turned" * turned
        if kind == "near":
            yield DuplicatePair(earlier, later, kind, how)
            return
        similar = similar or (DuplicatePair(earlier, later, kind, how) if kind else None)
    if similar is not None:
        yield similar
