"""Pictures of the viewer and the galleries, from what scoring kept in the run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.errors import UnreadableFileError
from medseg_pl.io.case_pictures import (
    MOST_SLICES,
    CasePicture,
    draw_thumbnail,
    encode_base64,
    pack_mask,
    picture_path,
    read_picture,
    select_cases,
)
from medseg_pl.io.scores import pictures_in, predictions_beside
from medseg_pl.reporting.html.cases import CaseEntry
from medseg_pl.reporting.run import Run

_IN_GALLERY = 6


@dataclass
class Pictures:
    """Pixels of the page.

    Args:
        cases: The content of the viewer, by the number of the case.
        thumbnails: WebP files of the galleries as base64, by the number of the case.
        overlapping: Whether labels have a channel of the masks each.
        notes: What is missing and why, for the terminal: they name files.
    """

    cases: dict[int, dict[str, Any]] = field(default_factory=dict)
    thumbnails: dict[int, str] = field(default_factory=dict)
    overlapping: bool = False
    notes: list[str] = field(default_factory=list)


def load_pictures(runs: Sequence[Run], entries: Sequence[CaseEntry], most: int) -> Pictures:
    """Read the pictures that the runs keep of their cases.

    A missing one is left out, with a note.

    Args:
        runs: The runs.
        entries: The cases, the worst first.
        most: How many cases get pictures.
    """
    pictures = Pictures()
    folders = [find_picture_folders(run, pictures.notes) for run in runs]
    available = [entry for entry in entries if any(_find_picture(each, entry.case_id) is not None for each in folders)]
    means = {entry.number: float("nan") if entry.means[0] is None else entry.means[0] for entry in available}
    chosen = set(select_cases({str(number): mean for number, mean in means.items()}, most))
    shown = [entry for entry in available if str(entry.number) in chosen]
    in_gallery = {entry.number for entry in select_gallery(shown)}
    for entry in shown:
        read = [read_if_kept(each, entry.case_id, pictures.notes) for each in folders]
        first = next((index for index, picture in enumerate(read) if picture is not None), None)
        if first is None:
            continue
        fitting = [
            picture if _is_comparable(picture, read[first], run, runs[first]) else None
            for picture, run in zip(read, runs, strict=True)
        ]
        _add_case(pictures, entry, fitting, len(runs[first].labels), with_thumbnail=entry.number in in_gallery)
    return pictures


def select_gallery(entries: Sequence[CaseEntry]) -> list[CaseEntry]:
    """Choose the worst and the best, no case twice, in the order of the entries."""
    scored = [entry for entry in entries if entry.means[0] is not None]
    return [*scored[:_IN_GALLERY], *scored[max(_IN_GALLERY, len(scored) - _IN_GALLERY) :]]


def split_gallery(entries: Sequence[CaseEntry], pictures: Pictures) -> list[tuple[str, list[CaseEntry]]]:
    """Split the cases with a thumbnail into the worst and the best; few stay together."""
    shown = [entry for entry in entries if entry.number in pictures.thumbnails]
    scored = sum(entry.means[0] is not None for entry in entries)
    if scored <= 2 * _IN_GALLERY:
        return [("", shown)] if shown else []
    half = (len(shown) + 1) // 2
    return [(title, part) for title, part in (("The worst", shown[:half]), ("The best", shown[half:][::-1])) if part]


def find_picture_folders(run: Run, notes: list[str]) -> list[Path]:
    """Find picture folders of a run or its folds; note a lack."""
    kept = [pictures_in(predictions_beside(each.table)) for each in run.folds or [run] if each.table is not None]
    folders = [folder for folder in kept if folder.is_dir()]
    if not folders and run.stage != "evaluate":
        stage = "test" if run.stage == "test" else "validate"
        notes.append(f"{run.folder} keeps no pictures of the scored cases. Run medseg {stage} again to have them.")
    return folders


def _find_picture(folders: Sequence[Path], case_id: str) -> Path | None:
    return next((path for folder in folders if (path := picture_path(folder, case_id)).is_file()), None)


def read_if_kept(folders: Sequence[Path], case_id: str, notes: list[str]) -> CasePicture | None:
    """Read the picture of a case, if it was kept; note damage.

    Returns:
        `None` where no picture was kept, or it is damaged.
    """
    if (path := _find_picture(folders, case_id)) is None:
        return None
    try:
        return read_picture(path)
    except UnreadableFileError as error:
        notes.append(str(error))
        return None


def _is_comparable(picture: CasePicture | None, first: CasePicture | None, run: Run, first_run: Run) -> bool:
    """Tell whether masks of two runs have the same labels and grid."""
    if picture is None or first is None:
        return False
    same_grid = picture.reference.shape == first.reference.shape and picture.overlapping == first.overlapping
    return same_grid and run.labels == first_run.labels


def _add_case(
    pictures: Pictures, entry: CaseEntry, read: Sequence[CasePicture | None], labels: int, *, with_thumbnail: bool
) -> None:
    """Add a case with all runs' masks, on slices that any keeps."""
    available = [picture for picture in read if picture is not None]
    first = available[0]
    images = {
        index: data
        # Reversed, so that where several runs keep a slice the first run's pixels win.
        for picture in reversed(available)
        for index, data in zip(picture.slices, picture.images, strict=True)
    }
    # Each run keeps slices of its own; together they could be more than the page is meant to hold.
    slices = sorted(images) if len(images) <= MOST_SLICES else first.slices
    height, width = first.reference.shape[2:]
    pictures.overlapping = first.overlapping
    pictures.cases[entry.number] = {
        "width": width,
        "height": height,
        "aspect": first.aspect,
        "depth": first.reference.shape[1],
        "slices": slices,
        "left_out": describe_left_out(slices, [first.reference, *(picture.prediction for picture in available)]),
        "telling": slices.index(first.telling),
        "images": [encode_base64(images[index]) for index in slices],
        "reference": pack_mask(first.reference[:, slices], level=9),
        "predictions": [picture and pack_mask(picture.prediction[:, slices], level=9) for picture in read],
    }
    if with_thumbnail:
        masks = [first.reference, *(picture.prediction for picture in available)]
        pictures.thumbnails[entry.number] = encode_base64(draw_thumbnail(first, masks, labels))


def describe_left_out(slices: Sequence[int], masks: Sequence[NDArray[np.uint8]]) -> str:
    """Say which slices of a case are not on the page.

    Args:
        slices: The slices on the page.
        masks: `(M, D, h, w)` each, of the whole case.
    """
    depth = masks[0].shape[1]
    left_out = np.setdiff1d(np.arange(depth), slices)
    if not left_out.size:
        return ""
    numbers = f"{len(slices)} of {depth} slices are on this page"
    if not any(mask[:, left_out].any() for mask in masks):
        return f"{numbers}: the others hold neither reference nor prediction."
    return f"{numbers}, evenly spread to keep it small: others hold labels too."
