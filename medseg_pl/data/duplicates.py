"""The same image under two names: what makes scores look better than they are, though no patient is on two sides.

Memory grows with the number of cases, time with its square, though by matrix products; what is compared is made once,
when a case is decoded, and what was found for the sides of a split is kept.
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
from medseg_pl.data.cache.case import open_entry, open_likeness
from medseg_pl.data.perceptual_hash import (
    CERTAIN,
    CERTAINLY_DISTINCT,
    COARSE,
    DISTINCT,
    SAME,
    Likeness,
    agreement,
    coarse_patterns,
    coarse_similarity,
    distinct_agreement,
    same_pixels,
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
        how: What was found, in words.
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
        """Plain text, for files and checkpoints."""
        return asdict(self)


class _Pair(NamedTuple):
    """The places of two copies, and what `Duplicate` says of them."""

    earlier: int
    later: int
    kind: Kind
    how: str


def find_duplicates(
    cases: Sequence[Case], entries: Sequence[Path], apart: Sequence[str] | None = None
) -> list[Duplicate]:
    """The cases that show what an earlier case shows, each with one such case: without them no two are alike.

    Images and volumes are not compared with each other, and an image of one value is a copy of nothing. Where there
    are `too_many` to compare, only equal pixels are found.

    Args:
        cases: Their order decides which of two is the earlier.
        entries: Where the store keeps each.
        apart: Only cases that differ in it are compared; their groups by default, for copies of one patient cannot
            leak.
    """
    if not cases:
        return []
    _, sides = np.unique([case.group for case in cases] if apart is None else list(apart), return_inverse=True)
    copies = [open_likeness(entry) for entry in entries]
    exact = {pair.later: pair for pair in _exact(copies, entries, sides)}
    looked_at = () if too_many(sides) else near_copies(copies, sides)
    near = {pair.later: pair for pair in looked_at if pair.later not in exact}
    pairs = sorted((exact | near).values(), key=lambda pair: pair.later)
    return [Duplicate(cases[p.earlier].case_id, cases[p.later].case_id, p.kind, p.how) for p in pairs]


def too_many(sides: Int64[np.ndarray, " n"]) -> bool:
    """Whether there are more pairs on different sides than `MOST_COMPARED` images make, each a side of its own.

    >>> too_many(np.arange(MOST_COMPARED)), too_many(np.arange(MOST_COMPARED + 1) % 2), too_many(np.arange(100_000))
    (False, False, True)
    """
    _, counts = np.unique(sides, return_counts=True)
    return int(len(sides) ** 2 - (counts**2).sum()) > MOST_COMPARED * (MOST_COMPARED - 1)


def duplicates_across_sides(
    split: Split, cases: Mapping[str, Case], entries: Mapping[str, Path], known: Path
) -> list[Duplicate]:
    """The held-out cases that show what a case on another side shows, a training case where there is one.

    Args:
        split: The sides.
        cases: By their ids.
        entries: Where the store keeps each, by the same ids.
        known: A folder for what was found, so that the same sides of the same entries are searched once.
    """
    named = [(name, side) for side in SIDES for name in getattr(split, side)]
    if too_many(np.repeat(range(len(SIDES)), [len(getattr(split, side)) for side in SIDES])):
        log.warning(
            "%d cases are too many to compare each with each other: on two sides of the split only images with equal "
            "pixels are found, and none that are nearly alike.",
            len(named),
        )
    thresholds = (COARSE, SAME, DISTINCT, CERTAIN, CERTAINLY_DISTINCT, MOST_COMPARED)
    searched = repr((thresholds, [(name, side, entries[name].name) for name, side in named]))
    file = known / f"{hashlib.blake2b(searched.encode(), digest_size=20).hexdigest()}.json"
    if file.is_file():
        with suppress(ValueError):  # cut off when a machine was lost
            return [Duplicate(**found) for found in json.loads(file.read_text(encoding="utf-8"))]
    found = find_duplicates(
        [cases[name] for name, _ in named], [entries[name] for name, _ in named], [side for _, side in named]
    )
    with suppress(OSError):  # a store that may only be read, or is full, serves all the same
        write_text(file, json.dumps([duplicate.as_dict() for duplicate in found]), replace=True)
    return found


def _exact(copies: Sequence[Likeness], entries: Sequence[Path], sides: Int64[np.ndarray, " n"]) -> Iterator[_Pair]:
    """Copies whose values are equal; the digests only say which are worth being read."""
    seen: dict[str, list[int]] = defaultdict(list)
    for later, copy in enumerate(copies):
        for earlier in seen[copy.pixels] if copy.pixels else ():
            if sides[earlier] == sides[later]:
                continue
            turn = same_pixels(open_entry(entries[earlier]).image, open_entry(entries[later]).image)
            if turn is not None:
                yield _Pair(earlier, later, "exact", "the same pixels" + ", flipped or turned" * any(turn))
                break
        seen[copy.pixels].append(later)


def near_copies(copies: Sequence[Likeness], sides: Int64[np.ndarray, " n"]) -> Iterator[_Pair]:
    """Copies that look the same; images and volumes each among themselves."""
    for slabs in sorted({len(copy.signature) for copy in copies}):
        chosen = [place for place, copy in enumerate(copies) if len(copy.signature) == slabs and copy.signature.any()]
        if chosen:
            patterns = coarse_patterns(np.stack([copies[place].signature for place in chosen]))
            neighborhood = _Neighborhood(copies, chosen)
            for row, columns in _candidates(patterns, sides[chosen]):
                yield from _most_alike(neighborhood, chosen[row], [chosen[column] for column in columns])


def _candidates(
    patterns: Float32[np.ndarray, "n z k k"], sides: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, list[int]]]:
    """Each pattern that has earlier ones like it on other sides, with these, the most similar first."""
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
        copies: All images.
        chosen: The places of those of this kind.
    """

    def __init__(self, copies: Sequence[Likeness], chosen: Sequence[int]) -> None:
        self.copies = copies
        # Two more than are needed: those of a pair are no neighbors of it.
        spread = np.linspace(0, len(chosen) - 1, min(_NEIGHBORS + 2, len(chosen))).astype(int)
        self.sample = [chosen[place] for place in spread.tolist()]

    def kind(self, earlier: int, later: int) -> tuple[Kind | None, float, bool]:
        """Say whether two images are copies, with their agreement and whether one is turned."""
        a, b = self.copies[earlier], self.copies[later]
        agreed, turn = agreement(a, b)
        if agreed < SAME:
            return None, agreed, any(turn)
        neighbors = [self.copies[place] for place in self.sample if place not in (earlier, later)]
        usual = [usual_correlations(one, other, neighbors) for one, other in ((a, b), (b, a))]
        if usual[0] is None or usual[1] is None:
            return "near" if agreed >= CERTAIN else None, agreed, any(turn)
        distinct = min(distinct_agreement(a, b, usual[0]), distinct_agreement(b, a, usual[1]))
        if agreed >= CERTAIN and distinct >= CERTAINLY_DISTINCT:
            return "near", agreed, any(turn)
        return "similar" if distinct >= DISTINCT else None, agreed, any(turn)


def _most_alike(neighborhood: _Neighborhood, later: int, candidates: Sequence[int]) -> Iterator[_Pair]:
    """The first candidate that is certainly the same, or else the first that is similar."""
    similar = None
    for earlier in candidates:
        kind, agreed, turned = neighborhood.kind(earlier, later)
        said = "nearly the same pixels" if kind == "near" else "perhaps the same picture"
        how = f"{said}, agreement {agreed:.2f}" + ", flipped or turned" * turned
        if kind == "near":
            yield _Pair(earlier, later, kind, how)
            return
        similar = similar or (_Pair(earlier, later, kind, how) if kind else None)
    if similar is not None:
        yield similar
