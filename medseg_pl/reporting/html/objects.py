"""Objects that a run missed or invented, the largest first, with their pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medseg_pl.io.case_pictures import CasePicture, draw_thumbnail, encode_base64
from medseg_pl.io.scores import Row
from medseg_pl.metrics.statistics.intervals import format_number
from medseg_pl.reporting.html.cases import CaseEntry
from medseg_pl.reporting.html.pictures import find_picture_folders, read_if_kept
from medseg_pl.reporting.run import Run, read_number

_MOST_PICTURES = 12
_MOST_LISTED = 60


class ObjectEntry(NamedTuple):
    """An object on the page.

    Attributes:
        case: The case that it is in.
        status: `missed` or `invented`.
        label: Its label.
        size: Its volume or its number of voxels, with the unit.
        diameter: That of the ball of its volume, with the unit.
        place: Slice, row and column of its center, counted from 0.
        picture: The slice nearest to its center as a WebP file in base64, with the outlines of reference and
            prediction; `None` where it was not kept.
        slice: The slice that the picture shows.
    """

    case: CaseEntry
    status: str
    label: str
    size: str
    diameter: str
    place: str
    picture: str | None = None
    slice: int | None = None


class ObjectList(NamedTuple):
    """The objects that a run missed or invented.

    Attributes:
        entries: The largest ones.
        missed: The number of missed ones.
        invented: The number of invented ones.
    """

    entries: list[ObjectEntry]
    missed: int
    invented: int


def list_object_entries(run: Run, entries: Sequence[CaseEntry], notes: list[str], *, pictures: bool) -> ObjectList:
    """List the objects that a run missed and invented, the largest first.

    Args:
        run: The run with the table of objects.
        entries: The cases of the page.
        notes: Takes the faults of picture files.
        pictures: Whether the page holds pictures.
    """
    wrong = [row for row in run.objects if row["status"] in ("missed", "invented")]
    cases = {entry.case_id: entry for entry in entries}
    ranked = sorted(wrong, key=lambda row: (-read_number(row, "voxels"), cases[str(row["case_id"])].number))
    listed = [_describe(row, cases) for row in ranked[:_MOST_LISTED]]
    if pictures:
        listed = _add_pictures(run, listed, ranked, notes)
    return ObjectList(
        listed,
        missed=sum(row["status"] == "missed" for row in wrong),
        invented=sum(row["status"] == "invented" for row in wrong),
    )


def _describe(row: Row, cases: Mapping[str, CaseEntry]) -> ObjectEntry:
    volume, unit = read_number(row, "volume_ml"), str(row["unit"])
    size = f"{read_number(row, 'voxels'):.0f} voxels" if math.isnan(volume) else f"{format_number(volume, 3)} ml"
    return ObjectEntry(
        cases[str(row["case_id"])],
        str(row["status"]),
        str(row["label"]),
        size,
        f"{read_number(row, 'diameter'):.1f} {unit}",
        ", ".join(f"{read_number(row, axis):.0f}" for axis in ("z", "y", "x")),
    )


def _add_pictures(run: Run, listed: Sequence[ObjectEntry], rows: Sequence[Row], notes: list[str]) -> list[ObjectEntry]:
    """Add the pictures of the largest objects whose cases keep one."""
    folders = find_picture_folders(run, [])  # what is missing has been noted with the cases
    drawn: list[ObjectEntry] = []
    for entry, row in zip(listed, rows, strict=False):
        enough = sum(each.picture is not None for each in drawn) >= _MOST_PICTURES
        picture = None if enough else read_if_kept(folders, entry.case.case_id, notes)
        drawn.append(entry if picture is None else _draw(entry, picture, read_number(row, "z"), len(run.labels)))
    return drawn


def _draw(entry: ObjectEntry, picture: CasePicture, depth: float, labels: int) -> ObjectEntry:
    """Draw the kept slice nearest to an object's center."""
    nearest = min(picture.slices, key=lambda index: abs(index - depth))
    masks = [picture.reference, picture.prediction]
    thumbnail = draw_thumbnail(picture._replace(telling=nearest), masks, labels)
    return entry._replace(picture=encode_base64(thumbnail), slice=nearest)
