"""What is wrong with the values of a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.mask_measurement import TINY
from medseg_pl.checks.measurements import CaseFacts, Mark, Marked, MaskFacts
from medseg_pl.checks.smears import is_smoothed, kind_of_smear
from medseg_pl.core.errors import MaskValueError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.mask_values import format_marks

_LARGE, _DOMINANT = 100, 0.9
_PICTURE_VALUES = 64


class Claims:
    """Which label each value or color of a mask stands for.

    Args:
        labels: What masks should hold.
    """

    def __init__(self, labels: LabelMap) -> None:
        self.labels = labels
        self._known: dict[tuple[Mark, int | None, bool, bool], int | None] = {}

    def of(self, mark: Mark, mask: MaskFacts) -> int | None:
        """The label, counted from 1; 0 the background, 255 what nobody annotated, `None` what nothing claims."""
        key = (mark, mask.label, mask.colored, mask.stored)
        if key not in self._known:
            self._known[key] = self._look_up(mark, mask)
        return self._known[key]

    def strays(self, mask: MaskFacts) -> list[Marked]:
        """What nothing claims."""
        return [marked for marked in mask.marks if self.of(marked.mark, mask) is None]

    def voxels(self, masks: Sequence[MaskFacts]) -> list[int]:
        """How many voxels each label has in the masks of a case, as far as they can be read."""
        voxels = [0] * len(self.labels.names)
        for mask in masks:
            for marked in mask.marks:
                index = self.of(marked.mark, mask)
                if index is not None and 0 < index <= len(voxels):
                    voxels[index - 1] += marked.voxels
        return voxels

    def _look_up(self, mark: Mark, mask: MaskFacts) -> int | None:
        if mask.colored and self.labels.colors is None:
            return None
        if mask.stored:
            value = int(mark[0])
            return value if value in (0, IGNORE) or mask.label is None else mask.label + 1
        # With a tolerance a file of nothing above 1 is refused as unclear; 255 beside it says which kind of file it is.
        beside = [255.0] if self.labels.tolerance and not mask.colored else []
        pixels = np.array([[part, *beside] for part in mark])
        pixels = pixels if mask.colored else pixels[0]
        try:
            if mask.label is None:
                return int(self.labels.encode(pixels, "mask", mask.colored)[0])
            encoded = int(self.labels.encode_one(pixels, mask.label, "mask", mask.colored)[0])
        except MaskValueError:
            return None
        return mask.label + 1 if encoded == 1 else encoded


def mask_findings(facts: CaseFacts, claims: Claims, *, ignores: bool, tolerated: bool = False) -> Iterator[Finding]:
    """What the masks of one case have wrong.

    Args:
        facts: The case.
        claims: What its masks should hold.
        ignores: Whether 255 stands beside labels in some mask of the data set, so that it is no label.
        tolerated: Whether the tolerance was found and not set, so that the values it moves are told.
    """
    for mask in facts.masks:
        if strays := claims.strays(mask):
            yield _about_strays(facts, mask, strays, claims, ignores)
        else:
            moved = list(_about_tolerance(facts, mask, claims)) if tolerated else []
            yield from moved or _about_storage(facts, mask)
        yield from _about_specks(facts, mask)
    if facts.overlap and not claims.labels.overlapping:
        yield finding(
            "mask-overlap",
            f"{facts.overlap:,} voxels carry more than one label; expected one at most.",
            facts.case.case_id,
            facts.masks[0].path,
        )
    yield from _about_filling(facts, claims)


def _about_strays(
    facts: CaseFacts, mask: MaskFacts, strays: Sequence[Marked], claims: Claims, ignores: bool
) -> Finding:
    code = _kind_of_strays(mask, strays, claims, ignores)
    count, share = sum(mark.voxels for mark in strays), sum(mark.voxels for mark in strays) / mask.voxels
    what = "color" if mask.colored else "value"
    shown = format_marks([mark.mark for mark in strays], 6)
    said = f"{what}{'s' if len(strays) > 1 else ''} {shown}, in {count:,} voxels ({share:.2%})"
    expected = f"expected {_expected(mask, claims.labels)}"
    if mask.header.scaled and code == "mask-not-integer":
        expected += "; the header scales the values, which is meant for intensities"
    return finding(code, f"The mask holds the {said}; {expected}.", facts.case.case_id, mask.path)


def _about_tolerance(facts: CaseFacts, mask: MaskFacts, claims: Claims) -> Iterator[Finding]:
    """A mask that only the tolerance makes readable: what `plan` writes trains, on edges that were guessed."""
    exact = Claims(replace(claims.labels, tolerance=0))
    if not (moved := exact.strays(mask)):
        return
    code = "mask-antialiased" if is_smoothed(mask) and not mask.header.lossy else "mask-jpeg-artifacts"
    held = format_marks([mark.mark for mark in moved], 6)
    said = f"The mask holds {held}; labels.tolerance {claims.labels.tolerance:g} "
    found = finding(code, f"{said}reads each as the nearest label.", facts.case.case_id, mask.path)
    yield replace(found, level="warning")


def _expected(mask: MaskFacts, labels: LabelMap) -> str:
    """What would be understood."""
    if mask.colored:
        return "one value for each label" if labels.colors is None else f"{dict(labels.colors)}"
    if labels.values is None and (mask.label is not None or len(labels.names) == 1):
        return "0 and 1, or 0 and 255"
    values = labels.file_values if mask.label is None else (labels.file_values[mask.label],)
    return format_marks([(value,) for value in (0, *values)])


def _kind_of_strays(mask: MaskFacts, strays: Sequence[Marked], claims: Claims, ignores: bool) -> str:
    """Which fault has left values that no label claims."""
    if not mask.finite:
        return "mask-not-finite"
    if not mask.whole:
        return "mask-not-integer"
    if mask.colored:
        return "mask-colors"
    if mask.header.palette:
        return "mask-palette"
    if mask.header.lossy:
        return "mask-jpeg-artifacts"
    if {mark.mark for mark in strays} == {(255.0,)}:
        return "ignore-value-unset" if ignores or any(claims.voxels([mask])) else "mask-0-255"
    if mask.distinct > _PICTURE_VALUES and sum(mark.voxels for mark in strays) > mask.voxels / 2:
        return "mask-is-picture"
    return kind_of_smear(mask, list(strays)) or "mask-unknown-value"


def _about_storage(facts: CaseFacts, mask: MaskFacts) -> Iterator[Finding]:
    case = facts.case.case_id
    if mask.header.lossy:
        yield finding(
            "mask-lossy-format",
            f"The mask is a lossy {mask.header.content}; its values happen to be intact.",
            case,
            mask.path,
        )
    if mask.header.palette and not mask.colored:
        values = format_marks([mark.mark for mark in mask.marks])
        yield finding("mask-palette-indices", f"The indices {values} of a palette are labels.", case, mask.path)
    if mask.header.scaled:
        yield finding("mask-scaled", "The header scales the values; they come out whole.", case, mask.path)


def _about_specks(facts: CaseFacts, mask: MaskFacts) -> Iterator[Finding]:
    voxels = {mark.mark[0]: mark.voxels for mark in mask.marks}
    for found in mask.specks:
        if found.tiny and found.largest >= max(_LARGE, _DOMINANT * voxels[found.value]):
            yield finding(
                "mask-specks",
                f"{found.tiny} of {found.components} components of the value {found.value:g} have {TINY} voxels or "
                f"fewer; the largest has {found.largest:,}.",
                facts.case.case_id,
                mask.path,
            )


def _about_filling(facts: CaseFacts, claims: Claims) -> Iterator[Finding]:
    """Masks of nothing but background, and masks of nothing but one label."""
    known = [claims.of(marked.mark, mask) for mask in facts.masks for marked in mask.marks]
    if not facts.masks or None in known:
        return
    if not any(index and index != IGNORE for index in known):
        yield finding("mask-empty", "The mask holds no label.", facts.case.case_id, facts.masks[0].path)
    elif len(facts.masks) == 1 and 0 not in known and IGNORE not in known and len(set(known)) == 1:
        value = format_marks([mark.mark for mark in facts.masks[0].marks])
        yield finding("mask-full", f"Every voxel is {value}.", facts.case.case_id, facts.masks[0].path)
