"""Palettes that contradict each other: one index with several colors, or one color with several indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.measurements import CaseFacts, MaskFacts

_Color = tuple[int, int, int]


def palette_findings(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Report the first mask whose palette contradicts that of another; a program made one palette for each file.

    Grays are left out: a palette of grays is often there for show, and its order has been checked in each file.
    """
    color_of: dict[int, tuple[_Color, Path]] = {}
    index_of: dict[_Color, tuple[int, Path]] = {}
    for facts in cases:
        for mask in facts.masks:
            for index, color in _used_colors(mask):
                known_color, first = color_of.setdefault(index, (color, mask.path))
                known_index, other = index_of.setdefault(color, (index, mask.path))
                if known_color != color:
                    said = f"Index {index} is {color}; in {first.name} it is {known_color}."
                elif known_index != index:
                    said = f"The color {color} has the index {index}; in {other.name} it has {known_index}."
                else:
                    continue
                yield finding("mask-palettes-differ", said, facts.case.case_id, mask.path)
                return


def _used_colors(mask: MaskFacts) -> Iterator[tuple[int, _Color]]:
    """Index and color of what stands in a mask that is read by its indices, grays left out."""
    if mask.colored or not mask.header.palette:
        return
    for marked in mask.marks:
        index = int(marked.mark[0])
        color = mask.header.colors[index] if 0 <= index < len(mask.header.colors) else (0, 0, 0)
        if len(set(color)) > 1:
            yield index, color
