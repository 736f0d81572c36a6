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
from medseg_pl.data.entries import open_entry, open_likeness
from medseg_pl.data.splits import SIDES, Split
from medseg_pl.functional.perceptual import (
    COARSE,
    SAME,
    Likeness,
    agreement,
    coarse_patterns,
    coarse_similarity,
    same_pixels,
)
from medseg_pl.io.files import write_text

log = logging.getLogger(__name__)

MOST_COMPARED = 40_000
"""Each image is compared with each other one: with more of them that would take longer than reading them."""

_BLOCK = 512
"""Cases that are compared with all earlier ones at a time: 40 MB for 20,000."""


@dataclass(frozen=True)
class Duplicate:
    """Two cases that show the same.

    Args:
        case_a: The earlier one.
        case_b: Its copy.
        kind: `exact` where the values are equal, flips and quarter turns aside; else `near`.
        how: What was found, in words.
    """

    case_a: str
    case_b: str
    kind: Literal["exact", "near"]
    how: str

    def __str__(self) -> str:
        return f"{self.case_b} is {self.case_a} ({self.how})"

    def as_dict(self) -> dict[str, str]:
        """Plain text, for files and checkpoints."""
        return asdict(self)


class _Pair(NamedTuple):
    """The places of two copies, and what `Duplicate` says of them."""

    earlier: int
    later: int
    kind: Literal["exact", "near"]
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
    searched = repr((COARSE, SAME, MOST_COMPARED, [(name, side, entries[name].name) for name, side in named]))
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
            for row, columns in _candidates(patterns, sides[chosen]):
                yield from _first_alike(copies, chosen[row], [chosen[column] for column in columns])


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


def _first_alike(copies: Sequence[Likeness], later: int, candidates: Sequence[int]) -> Iterator[_Pair]:
    for earlier in candidates:
        agreed, turn = agreement(copies[earlier], copies[later])
        if agreed >= SAME:
            how = f"nearly the same pixels, agreement {agreed:.2f}" + ", flipped or turned" * any(turn)
            yield _Pair(earlier, later, "near", how)
            return
