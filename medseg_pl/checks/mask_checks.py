"""Rules for the values of masks: what they hold, which labels have them, and palettes that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medseg_pl.checks.findings import (
    TINY,
    CaseFacts,
    Codes,
    Dataset,
    Finding,
    LabelLookup,
    MaskFacts,
    MaskValueCount,
    error,
    note,
    warning,
)
from medseg_pl.checks.label_inference import classify_smear, is_smoothed
from medseg_pl.core.errors import count_noun, count_part, suggest_labels
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.mask_values import format_marks

_EXPORT = "Export the mask again from the annotation tool, as PNG or NIfTI with one whole number for each label."

CODES: Codes = Codes(
    {
        "mask-not-finite": error("a mask with NaN or infinity", _EXPORT),
        "mask-not-integer": error("a mask with values between whole numbers", _EXPORT),
        "mask-scaled": warning("a mask whose header scales its values", "Write the mask with slope 1 and intercept 0."),
        "mask-colors": error(
            "a mask in colors that no label claims",
            "Say with labels.colors which color is which label, or convert the mask to label values.",
        ),
        "mask-palette": error(
            "a mask with a palette whose indices are no labels",
            "Convert the palette's colors to label values, or set labels.colors.",
        ),
        "mask-palette-indices": note(
            "a mask with a palette; its indices are read as labels",
            "Nothing, if the indices are the labels. Other programs may show the colors instead.",
        ),
        "mask-palettes-differ": error(
            "masks whose palettes give one index several colors, or one color several indices",
            "Set labels.colors, so that colors count and not indices.",
        ),
        "mask-jpeg-artifacts": error(
            "a mask with the traces of JPEG compression round its values",
            "Export the mask again as PNG; if that cannot be done, set labels.tolerance.",
        ),
        "mask-lossy-format": warning(
            "a mask in a lossy format (JPEG, WebP, JPEG 2000), which changes values", "Store masks as PNG."
        ),
        "mask-is-picture": error(
            "a mask that looks like an image", "Check whether the image was given in place of its mask."
        ),
        "mask-0-255": error(
            "a mask of 0 and 255 where labels have other values",
            "Write the labels' values into the mask, or say with labels.values which value each label has.",
        ),
        "ignore-value-unset": error(
            "255 beside the labels' values, with no meaning set",
            "Set labels.ignore_value to 255 if it marks what nobody annotated.",
        ),
        "mask-antialiased": error("a mask with smoothed edges", "Export the mask without smoothing."),
        "mask-unknown-value": error(
            "a mask with values that no label claims",
            "Correct the mask, or name the label and its value with --labels.",
        ),
        "mask-overlap": error(
            "labels overlap although the task says that they exclude each other",
            "Set labels.task to multilabel, or correct the masks.",
        ),
        "masks-all-empty": error("no mask holds any label", "Check that the masks are those of this data set."),
        "label-never-present": error(
            "a label that is in no mask", "Correct the label's name or value, or leave the label out."
        ),
        "label-in-one-case": warning(
            "a label that is in one case only", "It cannot be both learned and tested: add cases or leave it out."
        ),
        "label-in-one-patient": warning(
            "a label of one patient only", "It cannot be both learned and tested: add patients or leave it out."
        ),
        "annotated-label-unknown": error(
            "a case annotated for a label that does not exist",
            "Correct the names in annotated_labels, or labels.names.",
        ),
        "unannotated-label-present": error(
            "a mask with a label that was not looked for",
            "Name the label in the case's annotated_labels, or take it out of the mask.",
        ),
        "label-not-looked-for": note(
            "a label that was not looked for in some cases", "Nothing: losses and scores leave it out there."
        ),
        "mask-full": warning(
            "a mask without background", "Fine if a label fills the whole image; else export the mask again."
        ),
        "mask-specks": warning(
            "specks of a few voxels beside a large structure", "Remove them if they are slips of the pen."
        ),
        "ignore-value-absent": note("no mask holds the ignore value", "Nothing, if nothing was left open."),
        "mask-empty": note("an empty mask", "Nothing, if there is nothing to see in the image."),
    }
)

_LARGE, _DOMINANT = 100, 0.9
_PICTURE_VALUES = 64
# More different values than this are hardly labels that somebody forgot to name.
_MOST_VALUES = 16
# In a data set of two cases, a label that is in one of them says nothing.
_FEWEST_CASES = 3

_Color = tuple[int, int, int]


def check_mask_values(dataset: Dataset) -> Iterator[Finding]:
    """Find masks with unknown values, risky storage, or doubtful content.

    Masks are doubtful when they are empty, full or in specks.
    """
    lookup = dataset.lookup
    masks = [mask for facts in dataset.cases for mask in facts.masks]
    ignores = any(_holds_ignored(mask, lookup) for mask in masks)
    advice = _advise_labels(masks, lookup)
    for facts in dataset.cases:
        for mask in facts.masks:
            if unknown := lookup.find_unknown(mask):
                finding = _report_unknown(facts, mask, unknown, lookup, ignores)
                yield replace(finding, remedy=advice) if advice and finding.code == "mask-unknown-value" else finding
            else:
                moved = list(_check_tolerance(facts, mask, lookup)) if dataset.tolerance_found else []
                yield from moved or _check_storage(facts, mask)
            yield from _check_specks(facts, mask)
        if facts.overlap and not dataset.labels.overlapping:
            carrying = f"{facts.overlap:,} {'voxel carries' if facts.overlap == 1 else 'voxels carry'}"
            message = f"{carrying} more than one label; expected one at most."
            yield CODES.find("mask-overlap", message, facts.case.case_id, facts.masks[0].path)
        yield from _check_filling(facts, lookup)


def check_labels(dataset: Dataset) -> Iterator[Finding]:
    """Find labels too rare to be learned and tested."""
    cases = [(case, voxels) for case, voxels in dataset.annotated if voxels is not None]
    masks = [mask for facts in dataset.cases for mask in facts.masks]
    if not any(any(voxels) for _, voxels in cases):
        # Where nothing is understood, what is wrong with each mask says more than that its labels are missing.
        if cases and not any(dataset.lookup.find_unknown(mask) for mask in masks):
            message = f"None of {count_noun(len(cases), 'mask')} holds {', '.join(dataset.labels.names)}."
            yield CODES.find("masks-all-empty", message, "", next(iter(cases[0][0].masks), None))
        return
    for index, name in enumerate(dataset.labels.names):
        holders = [case for case, voxels in cases if voxels[index]]
        patients = {case.group for case in holders}
        if not holders:
            yield CODES.find(
                "label-never-present", f"The label {name!r} is in none of {count_noun(len(cases), 'mask')}."
            )
        elif len(holders) == 1 and len(cases) >= _FEWEST_CASES:
            message = f"The label {name!r} is in one of {count_noun(len(cases), 'case')}."
            yield CODES.find("label-in-one-case", message, holders[0].case_id, next(iter(holders[0].masks), None))
        elif len(patients) == 1 and len({case.group for case, _ in cases}) >= _FEWEST_CASES:
            message = f"The label {name!r} is in {len(holders)} cases, all of them of the patient {holders[0].group}."
            yield CODES.find("label-in-one-patient", message, holders[0].case_id, next(iter(holders[0].masks), None))


def check_annotated_labels(dataset: Dataset) -> Iterator[Finding]:
    """Find labels that were not annotated, and what contradicts it."""
    names = dataset.labels.names
    counts = dict.fromkeys(names, 0)
    for case, voxels in dataset.annotated:
        if unknown := sorted(set(case.annotated_labels or ()) - set(names)):
            message = f"annotated_labels names {', '.join(unknown)}; the labels are {', '.join(names)}."
            yield CODES.find("annotated-label-unknown", message, case.case_id, next(iter(case.masks), None))
        for index, is_annotated in enumerate(dataset.labels.find_annotated(case.annotated_labels)):
            counts[names[index]] += not is_annotated
            if not is_annotated and voxels is not None and voxels[index]:
                held = f"{_count_voxels(voxels[index])} of {names[index]!r}"
                message = f"The mask holds {held}, which was not looked for."
                yield CODES.find("unannotated-label-present", message, case.case_id, next(iter(case.masks), None))
    for name, count in counts.items():
        if count:
            message = (
                f"The label {name!r} was not looked for in {count} of {count_noun(len(dataset.annotated), 'case')}."
            )
            yield CODES.find("label-not-looked-for", message)


def check_ignore_value(dataset: Dataset) -> Iterator[Finding]:
    """Find an ignore value that no mask holds."""
    present = {count.value[0] for facts in dataset.cases for mask in facts.masks for count in mask.values}
    value = dataset.labels.ignore_value
    if value is not None and present and float(value) not in present:
        yield CODES.find("ignore-value-absent", f"labels.ignore_value is {value}; no mask holds it.")


def check_palettes(dataset: Dataset) -> Iterator[Finding]:
    """Report the first mask whose palette contradicts that of another.

    A program made one palette for each file. Grays are left out: a palette of grays is often there for show, and its
    order has been checked in each file.
    """
    color_of: dict[int, tuple[_Color, Path]] = {}
    index_of: dict[_Color, tuple[int, Path]] = {}
    for facts in dataset.cases:
        for mask in facts.masks:
            for index, color in _list_used_colors(mask):
                first_color, first = color_of.setdefault(index, (color, mask.path))
                first_index, other = index_of.setdefault(color, (index, mask.path))
                if first_color != color:
                    message = f"Index {index} is {color}; in {first.name} it is {first_color}."
                elif first_index != index:
                    message = f"The color {color} has the index {index}; in {other.name} it has {first_index}."
                else:
                    continue
                yield CODES.find("mask-palettes-differ", message, facts.case.case_id, mask.path)
                return


def _list_used_colors(mask: MaskFacts) -> Iterator[tuple[int, _Color]]:
    """List index and color of an indexed mask's content, without grays."""
    if mask.colored or not mask.header.palette:
        return
    for count in mask.values:
        index = int(count.value[0])
        color = mask.header.colors[index] if 0 <= index < len(mask.header.colors) else (0, 0, 0)
        if len(set(color)) > 1:
            yield index, color


def _holds_ignored(mask: MaskFacts, lookup: LabelLookup) -> bool:
    """Tell whether a mask's only unknown value beside labels is 255."""
    return {count.value for count in lookup.find_unknown(mask)} == {(255.0,)} and any(lookup.count_voxels([mask]))


def _report_unknown(
    facts: CaseFacts, mask: MaskFacts, unknown: Sequence[MaskValueCount], lookup: LabelLookup, ignores: bool
) -> Finding:
    code = _classify_unknown(mask, unknown, lookup, ignores)
    voxels = sum(count.voxels for count in unknown)
    kind = ("color" if mask.colored else "value") + ("s" if len(unknown) > 1 else "")
    values = format_marks([count.value for count in unknown], 6)
    expected = f"expected {_describe_expected(mask, lookup.labels)}"
    if mask.header.scaled and code == "mask-not-integer":
        expected += "; the header scales the values, which is meant for intensities"
    size = f"{_count_voxels(voxels)} ({voxels / mask.voxels:.2%})"
    message = f"The mask holds the {kind} {values}, in {size}; {expected}."
    return CODES.find(code, message, facts.case.case_id, mask.path)


def _count_voxels(voxels: int) -> str:
    """Write a number of voxels, with commas since it may have many digits."""
    return f"{voxels:,} voxel{'s' * (voxels != 1)}"


def _advise_labels(masks: Sequence[MaskFacts], lookup: LabelLookup) -> str:
    """Advise which labels to name for all values of the masks, empty where they are none."""
    values = {count.value for mask in masks for count in mask.values}
    by_value = all(mask.finite and mask.whole and mask.label is None and not mask.colored for mask in masks)
    if not by_value or lookup.labels.tolerance or len(values) > _MOST_VALUES:
        return ""
    unclaimed = {int(count.value[0]) for mask in masks for count in lookup.find_unknown(mask)}
    claimed = {int(value) for (value,) in values} - {0, *unclaimed, lookup.labels.ignore_value}
    given = dict.fromkeys(lookup.labels.names)
    named = dict(zip(given, lookup.labels.values or given.values(), strict=True))
    listing = format_marks([(value,) for value in sorted({*claimed, *unclaimed})], _MOST_VALUES)
    example = suggest_labels(named, unclaimed, claimed)
    return f"The masks hold {listing}: correct them, or name each value, as in --labels {example}."


def _classify_unknown(mask: MaskFacts, unknown: Sequence[MaskValueCount], lookup: LabelLookup, ignores: bool) -> str:
    """Tell which fault has left values that no label has."""
    if not mask.finite:
        return "mask-not-finite"
    if not mask.whole:
        return "mask-not-integer"
    if mask.colored:
        return "mask-colors"
    # Before the values are judged: indices of a palette are in no order.
    if mask.header.palette:
        return "mask-palette"
    if mask.header.lossy:
        return "mask-jpeg-artifacts"
    if {count.value for count in unknown} == {(255.0,)}:
        return "ignore-value-unset" if ignores or any(lookup.count_voxels([mask])) else "mask-0-255"
    if mask.distinct > _PICTURE_VALUES and sum(count.voxels for count in unknown) > mask.voxels / 2:
        return "mask-is-picture"
    return classify_smear(mask, list(unknown)) or "mask-unknown-value"


def _describe_expected(mask: MaskFacts, labels: LabelMap) -> str:
    if mask.colored:
        return "one value for each label" if labels.colors is None else f"{dict(labels.colors)}"
    if labels.values is None and (mask.label is not None or len(labels.names) == 1):
        return "0 and 1, or 0 and 255"
    values = labels.file_values if mask.label is None else (labels.file_values[mask.label],)
    return format_marks([(value,) for value in (0, *values)])


def _check_tolerance(facts: CaseFacts, mask: MaskFacts, lookup: LabelLookup) -> Iterator[Finding]:
    """Report a mask that only the tolerance makes readable."""
    # The configuration of `plan` trains on it, with edges that were guessed.
    if moved := LabelLookup(replace(lookup.labels, tolerance=0)).find_unknown(mask):
        code = "mask-antialiased" if is_smoothed(mask) and not mask.header.lossy else "mask-jpeg-artifacts"
        message = (
            f"The mask holds {format_marks([count.value for count in moved], 6)}; labels.tolerance "
            f"{lookup.labels.tolerance:g} reads each as the nearest label."
        )
        yield replace(CODES.find(code, message, facts.case.case_id, mask.path), level="warning")


def _check_storage(facts: CaseFacts, mask: MaskFacts) -> Iterator[Finding]:
    case_id = facts.case.case_id
    if mask.header.lossy:
        message = f"The mask is a lossy {mask.header.content}; its values happen to be intact."
        yield CODES.find("mask-lossy-format", message, case_id, mask.path)
    if mask.header.palette and not mask.colored:
        values = format_marks([count.value for count in mask.values])
        yield CODES.find("mask-palette-indices", f"The indices {values} of a palette are labels.", case_id, mask.path)
    if mask.header.scaled:
        yield CODES.find("mask-scaled", "The header scales the values; they come out whole.", case_id, mask.path)


def _check_specks(facts: CaseFacts, mask: MaskFacts) -> Iterator[Finding]:
    voxels = {count.value[0]: count.voxels for count in mask.values}
    for value, largest, tiny, count in mask.components:
        if tiny and largest >= max(_LARGE, _DOMINANT * voxels[value]):
            message = (
                f"{count_part(tiny, count, 'component', 'has', 'have')} {TINY} voxels or fewer (value {value:g}); "
                f"the largest has {largest:,}."
            )
            yield CODES.find("mask-specks", message, facts.case.case_id, mask.path)


def _check_filling(facts: CaseFacts, lookup: LabelLookup) -> Iterator[Finding]:
    """Find masks of background alone, or of one label alone."""
    indices = [lookup.find(count.value, mask) for mask in facts.masks for count in mask.values]
    if not facts.masks or None in indices:
        return
    if not any(index and index != IGNORE for index in indices):
        yield CODES.find("mask-empty", "The mask holds no label.", facts.case.case_id, facts.masks[0].path)
    elif len(facts.masks) == 1 and 0 not in indices and IGNORE not in indices and len(set(indices)) == 1:
        value = format_marks([count.value for count in facts.masks[0].values])
        yield CODES.find("mask-full", f"Every voxel is {value}.", facts.case.case_id, facts.masks[0].path)
