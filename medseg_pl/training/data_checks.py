"""Checks of a data set before it is trained on: faults, left-out files, and copies on two sides of the split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medseg_pl.checks import LabelCounts, run_quick_checks, summarize_findings
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.data.duplicates import Duplicate, find_duplicates_across_sides
from medseg_pl.data.prepared_data import PreparedData, find_time_axes
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import describe_left_out
from medseg_pl.data.splits import SIDES
from medseg_pl.data.transforms.resize import Resize

log = logging.getLogger(__name__)


def require_same_settings(data: object, model: object) -> None:
    """Raise `SettingError` where the model would see other images than it was made for."""
    for name in ("labels", "channels", "context_slices", "resize"):
        ours, theirs = getattr(data, name), getattr(model, name, None)
        if theirs is not None and theirs != ours:
            raise SettingError(
                f"{name} is {ours} in the data module, but {theirs} in the model. Make the data module with "
                "SegmentationDataModule.for_module(module, source), which takes it from there."
            )


def warn_about_left_out(source: Source, cases: Sequence[Case]) -> None:
    """Warn of files that may hold an image and are in no case, and of time axes read as channels."""
    for note in find_time_axes(cases):
        log.warning("%s", note)
    lost = [each for each in source.list_left_out() if each.is_lost]
    if lost:
        log.warning(
            "%d file(s) of the data set may hold an image and are left out. %s", len(lost), describe_left_out(lost)
        )


def refuse_faults(data: PreparedData, labels: LabelMap, resize: Resize, *, validates: bool) -> None:
    """Run the checks that need no look at pixels; warn of what is doubtful.

    Args:
        data: What is to be trained on.
        labels: Of its masks.
        resize: How images are brought to the network.
        validates: Whether weights are chosen by the validation cases.

    Raises:
        DataError: A check finds an error, or no validation case holds a label.
    """
    counted = {
        name: LabelCounts(data.index.get_geometry(number), data.index.get_label_voxels(number))
        for number, name in enumerate(data.cases)
    }
    sides = {side: getattr(data.split, side) for side in SIDES}
    findings = run_quick_checks(list(data.cases.values()), counted, labels, sides, resize)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        faults = " ".join(summarize_findings(errors))
        raise DataError(
            f"The data cannot be trained on as it is ({data.split.origin}). {faults} medseg check looks at every pixel "
            "and may find more."
        )
    annotated = [name for name in data.split.val if any(counted[name].label_voxels or ())]
    if not annotated and validates:
        raise DataError(
            f"None of the {len(data.split.val)} validation cases ({data.split.origin}) holds a label, so no score "
            "can choose the best weights. Move a patient who has one to the validation side."
        )
    for message in summarize_findings(findings):
        log.warning("%s", message)


def refuse_duplicates(data: PreparedData, results: Path, *, allowed: bool) -> tuple[Duplicate, ...]:
    """Search for the same image on two sides: a leak as much as a patient is, though no group tells.

    Args:
        data: What is to be trained on.
        results: A folder for what is found.
        allowed: Whether certain copies are warned of and not refused.

    Returns:
        The certain copies.

    Raises:
        DataError: There are certain copies, and they are not allowed.
    """
    alike = find_duplicates_across_sides(data.split, data.cases, data.index, results)
    if similar := [str(duplicate) for duplicate in alike if not duplicate.certain]:
        log.warning(
            "%d cases look like a case on another side of the split: %s. Look at them; if they are copies, give "
            "both the same patient (data.source's group).",
            len(similar),
            "; ".join(similar[:3]),
        )
    certain = tuple(duplicate for duplicate in alike if duplicate.certain)
    if not certain:
        return ()
    listed = "; ".join(str(duplicate) for duplicate in certain[:3])
    message = f"{len(certain)} cases show what a case on another side of the split shows: {listed}"
    if not allowed:
        raise DataError(
            f"{message}. Scores would look better than they are. Remove the copies, or give both the same patient "
            "(data.source's group); data.allow_duplicates=true trains all the same, and the run records it."
        )
    log.warning("%s. They are allowed, and recorded in splits.json.", message)
    return certain
