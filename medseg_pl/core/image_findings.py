"""Findings that an image, or its predicted mask, is not what a model was trained on.

An exported model ships this file: it imports numpy and its neighbors alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Literal, NamedTuple

from medseg_pl.core.fact_limits import Limits
from medseg_pl.core.image_facts import ImageFacts
from medseg_pl.core.training_profile import TrainingProfile

OnForeign = Literal["mark", "refuse", "ignore"]
"""What happens to an image with a warning: `mark` lists it, `refuse` writes no mask, `ignore` compares nothing."""


class ImageFinding(NamedTuple):
    """A difference of an image or mask from the training cases.

    Attributes:
        code: Stable from release to release, see `CODES`.
        level: A `warning` marks the case; a `note` says what could not be compared.
        message: What was measured, and what training had.
    """

    code: str
    level: Literal["warning", "note"]
    message: str

    def __str__(self) -> str:
        """Return code and message."""
        return f"{self.code} {self.message}"


class FindingCode(NamedTuple):
    """One kind of finding.

    Attributes:
        meaning: What is unlike the training cases, in a few words.
        remedy: What to do.
    """

    meaning: str
    remedy: str


CODES = {
    "F101": FindingCode(
        "intensities outside the range of the training images",
        "Export the image as the training images were: same type, scale, window and units.",
    ),
    "F102": FindingCode("spacing unlike that of the training images", "Check the header; resample to their spacing."),
    "F103": FindingCode(
        "orientation unlike that of the training images: mirrored, turned, or unknown",
        "Correct the orientation in the header, or store the rows and columns as the training images have them.",
    ),
    "F104": FindingCode("channels that look exchanged", "Bring the channels into the order of the training images."),
    "F105": FindingCode("intensities that look inverted", "Invert the image: bright is dark in it."),
    "F106": FindingCode("modality or kind of pixels unlike the training images", "Use a model of this modality."),
    "F107": FindingCode("colors unlike those of the training images", "Convert gray and color as training did."),
    "F108": FindingCode("an image of one value", "Replace the file; it shows nothing."),
    "F109": FindingCode("many pixels at one end of the range", "Export with a wider window, so that nothing is cut."),
    "F110": FindingCode("noise unlike that of the training images", "Look at the image; denoise or acquire it anew."),
    "F111": FindingCode("sharpness unlike that of the training images", "Look at the image; it may be resampled."),
    "F112": FindingCode("size or field of view unlike the training images", "Crop or pad as training did."),
    "F113": FindingCode("content unlike the training images", "Check that the image shows the same part of the body."),
    "F201": FindingCode("nothing of a label that every training case has", "Look at the prediction."),
    "F202": FindingCode("a label larger or smaller than in any training case", "Look at the prediction."),
    "F203": FindingCode("a label in another place than in training", "Look at the prediction; check the orientation."),
    "F204": FindingCode("a label longer or shorter than in any training case", "Look at the prediction."),
}
"""All codes: F1xx are of images, F2xx of predicted masks."""

_RULES = (
    ("F108", ("blank",)),
    ("F101", ("span", "offset", "step", "filled", "shape10", "shape25", "shape50", "shape75", "shape90")),
    ("F109", ("at_low", "at_high")),
    ("F107", ("color",)),
    ("F110", ("noise",)),
    ("F111", ("sharpness1", "sharpness2", "sharpness4", "sharpness8", "grain", "flat", "repeated")),
    ("F113", ("pattern",)),
    ("F102", ("spacing",)),
    ("F112", ("size", "extent", "constant")),
    ("F103", ("turn", "continuity")),
)
"""The facts that each code looks at, by how their names begin."""

_MASK_RULES = (("F201", "present"), ("F202", "volume"), ("F202", "share"), ("F203", "center"), ("F204", "extent"))
_OF_RANGE = "as a share of the range of values,"
_FACTS = {
    "offset": "darkest value, divided by the range of values,",
    "span": "range from the darkest to the brightest value",
    "shape": f"value below which {{number}} % of the pixels lie, {_OF_RANGE}",
    "at_low": "share of pixels with the darkest value",
    "at_high": "share of pixels with the brightest value",
    "color": f"mean difference between channels {{channel}} and {{next}}, {_OF_RANGE}",
    "noise": f"noise, {_OF_RANGE}",
    "grain": "noise, divided by the mean difference between neighboring pixels,",
    "sharpness": "mean difference between pixels {number} apart, divided by that between pixels {twice} apart,",
    "step": "step from one value to the next",
    "filled": "share of possible values that occur",
    "constant": "share of rows and columns with one value throughout",
    "flat": "share of pixels that equal the pixel beside them",
    "repeated": "share of columns that equal the column beside them",
    "continuity": "mean difference between neighboring slices, divided by that between every second slice,",
    "pattern": "similarity to the mean of the training images, where 1 is equal,",
    "spacing": "spacing",
    "size": "size",
    "extent": "field of view",
}
"""What was measured; `number` is that in the name of a fact such as `shape50`, and `twice` as much is `twice`."""
_LABEL_FACTS = {
    "share": "share of the image",
    "center": "middle, as a share of the image's {axis},",
    "extent": "extent, as a share of the image's {axis},",
}
_BASES = {"size": 2, "extent": 2} | dict.fromkeys(
    ("span", "at_low", "at_high", "color", "noise", "grain", "step", "spacing"), 10
)
_SHARES = ("shape", "at_low", "at_high", "color", "noise", "filled", "constant", "flat", "repeated")
"""Facts that are written in percent."""
_FLOORS = {"at_low": 1e-3, "at_high": 1e-3, "color": 1e-4, "noise": 1e-5}
"""What was added to facts before their logarithm, so that 0 has one."""
_BYTES = ("uint8", "int8")
_UNITS = {"spacing": " mm", "size": " pixels", "extent": " mm"} | dict.fromkeys(_SHARES, " %")
_FLIPS = {"flip_height": "upside down", "flip_width": "mirrored", "flip_depth": "with its slices in reverse order"}


def compare_image(facts: ImageFacts, profile: TrainingProfile) -> list[ImageFinding]:
    """Compare an image with what a model was trained on.

    Args:
        facts: Of the image.
        profile: Of the training images.

    Returns:
        Findings sorted by code; none for an image like the training images.
    """
    numbers = {**facts.numbers, **profile.mean_pattern.compare(facts.pattern)}
    # A blank image has no other facts worth a word: all would be outside.
    outside = _measure_excess(numbers, profile)
    if numbers.get("blank[0]") and _find_furthest(outside, ("blank",)):
        return [ImageFinding("F108", "warning", "The image has one value almost everywhere.")]
    findings = [*_find_words(facts, profile), *_find_unknown(facts, profile)]
    for code, kinds in _RULES:
        if name := _find_furthest(outside, kinds):
            findings.append(ImageFinding(code, "warning", _describe(name, numbers, profile.limits)))
    # A cause alone marks nothing: chance alone may bring a good image nearer by inverting it.
    if findings:
        findings += _find_causes(facts, numbers, profile)
    return sorted(set(findings))


def compare_mask(
    facts: Mapping[str, float], profile: TrainingProfile, names: Sequence[str], spaced: bool = False
) -> list[ImageFinding]:
    """Compare a predicted mask with the references of training.

    Args:
        facts: Of the mask, see `measure_mask`.
        profile: Of the training cases.
        names: The labels.
        spaced: Whether volumes are in millilitres.

    Returns:
        Findings sorted by code.
    """
    excess = _measure_excess({f"label.{fact}": value for fact, value in facts.items()}, profile)
    outside = {fact.removeprefix("label."): amount for fact, amount in excess.items()}
    findings = []
    for name in names:
        for code, kind in _MASK_RULES:
            if code == "F202" and kind == "volume" and not _is_comparable(profile, spaced):
                continue
            unlike = [fact for fact in outside if fact.startswith(f"{name}.{kind}")]
            if unlike:
                fact = max(unlike, key=lambda each: outside[each])
                message = _describe_label(name, kind, fact, facts, profile.limits, spaced=spaced)
                findings.append(ImageFinding(code, "warning", message))
    # One finding of each code and label, though volume and share may both be unlike.
    return sorted({(finding.code, finding.message.split(":")[0]): finding for finding in reversed(findings)}.values())


def _is_comparable(profile: TrainingProfile, spaced: bool) -> bool:
    """Check whether both volumes are known in millilitres, or neither."""
    return spaced == any(name.startswith("spacing.") for name in profile.limits)


def merge_findings(members: Sequence[Sequence[ImageFinding]]) -> list[ImageFinding]:
    """Keep what at least half the models of an ensemble find.

    >>> merge_findings([[ImageFinding("F101", "warning", "Dark.")], [], []])
    []
    """
    # Each member votes once for a code, whatever the labels that it found it in.
    counts = Counter(code for member in members for code in {finding.code for finding in member})
    merged: dict[str, list[ImageFinding]] = {}
    for member in members:
        own = {finding.code: [each for each in member if each.code == finding.code] for finding in member}
        merged = own | merged
    return sorted(each for code, found in merged.items() if 2 * counts[code] >= len(members) for each in found)


def has_warning(findings: Sequence[ImageFinding]) -> bool:
    """Tell whether a case is marked."""
    return any(finding.level == "warning" for finding in findings)


def describe_findings(findings: Sequence[ImageFinding]) -> str:
    """Put findings on one line.

    >>> describe_findings([ImageFinding("F102", "note", "The spacing is unknown.")])
    'F102 The spacing is unknown.'
    """
    return " ".join(str(finding) for finding in findings)


def _measure_excess(numbers: Mapping[str, float], profile: TrainingProfile) -> dict[str, float]:
    """Measure how far each fact lies outside its limits, of those that do."""
    limits = profile.limits
    excess = {name: limits[name].measure_excess(value) for name, value in numbers.items() if name in limits}
    return {name: value for name, value in excess.items() if value > 0}


def _find_furthest(excess: Mapping[str, float], kinds: Sequence[str]) -> str:
    """Find the fact of some kinds that lies furthest outside, if any."""
    names = [name for name in excess if name.split("[")[0].split(".")[0] in kinds]
    return max(names, key=lambda name: excess[name], default="")


def _find_words(facts: ImageFacts, profile: TrainingProfile) -> Iterator[ImageFinding]:
    """Compare what headers say."""
    for name in ("modality", "photometric"):
        known, word = profile.words.get(name, ()), facts.words.get(name)
        if known and word and word not in known:
            yield ImageFinding("F106", "warning", f"The {name} is {word}; training had {', '.join(known)}.")
    known, word = profile.words.get("dtype", ()), facts.words.get("dtype")
    # Ranges differ tenfold in many data sets, so that 256 values alone would pass for a faint image.
    if known and word in _BYTES and not set(known) & set(_BYTES):
        narrowest = max(10**limits.least for name, limits in profile.limits.items() if name.startswith("span["))
        if narrowest > 255:
            pixels = f"{', '.join(known)} with a range of at least {_format(narrowest)}"
            yield ImageFinding("F101", "warning", f"The pixels are of type {word}; training had {pixels}.")
    known, word = profile.words.get("orientation", ()), facts.words.get("orientation")
    if known and word and word not in known:
        yield ImageFinding("F103", "warning", f"The axes run towards {word}; training had {', '.join(known)}.")


def _find_unknown(facts: ImageFacts, profile: TrainingProfile) -> Iterator[ImageFinding]:
    """Say what could not be compared."""
    if profile.words.get("orientation") and "orientation" not in facts.words:
        yield ImageFinding("F103", "note", "The image does not say how it lies, so its orientation was not compared.")
    if "spacing.width" in profile.limits and "spacing.width" not in facts.numbers:
        yield ImageFinding("F102", "note", "The image does not say its spacing, so it was not compared.")


def _find_causes(facts: ImageFacts, numbers: Mapping[str, float], profile: TrainingProfile) -> Iterator[ImageFinding]:
    """Find an inversion or exchange of channels that explains the findings."""
    channels = len(facts.pattern)
    before = _count_outside(numbers, profile, channels)
    if before and _count_outside(_invert(numbers), profile, channels) < before / 2:
        yield ImageFinding("F105", "warning", "The image is like the training images once it is inverted.")
    # The orders of more channels are too many to try on each image.
    if before and 1 < channels <= 4:
        for order in list(permutations(range(channels)))[1:]:
            exchanged = _exchange(facts, order)
            others = {**exchanged.numbers, **profile.mean_pattern.compare(exchanged.pattern)}
            if _count_outside(others, profile, channels) < before / 2:
                listed = ", ".join(str(channel) for channel in order)
                message = f"With its channels in the order {listed} the image is like the training images."
                yield ImageFinding("F104", "warning", message)
                break


def _count_outside(numbers: Mapping[str, float], profile: TrainingProfile, channels: int) -> int:
    """Count the facts of channels outside their limits."""
    kinds: tuple[str, ...] = ("shape10", "shape25", "shape50", "shape75", "shape90", "at_low", "at_high", "pattern")
    # Ranges tell channels apart; that of a single one says nothing of what was inverted.
    kinds += ("span", "offset") if channels > 1 else ()
    names = [name for name in numbers if name in profile.limits and name.split("[")[0] in kinds]
    return sum(profile.limits[name].measure_excess(numbers[name]) > 0 for name in names)


def _invert(numbers: Mapping[str, float]) -> dict[str, float]:
    """Compute facts of the inverted image that do not depend on scale."""
    inverted = dict(numbers)
    for name, value in numbers.items():
        kind, _, channel = name.partition("[")
        if kind.startswith("shape"):
            inverted[f"shape{100 - int(kind[5:])}[{channel}"] = 1 - value
        elif kind in ("at_low", "at_high"):
            inverted[f"{'at_high' if kind == 'at_low' else 'at_low'}[{channel}"] = value
        elif kind == "pattern":
            inverted[name] = -value
    # Values themselves are those of the other end, which depends on how it was inverted.
    return {name: value for name, value in inverted.items() if name.split("[")[0] != "offset"}


def _exchange(facts: ImageFacts, order: Sequence[int]) -> ImageFacts:
    """Compute the facts of an image with its channels in another order."""
    numbers = dict(facts.numbers)
    for place, channel in enumerate(order):
        for name, value in facts.numbers.items():
            if name.endswith(f"[{channel}]") and not name.startswith("color"):
                numbers[f"{name.split('[')[0]}[{place}]"] = value
    return ImageFacts(numbers, facts.words, facts.pattern[list(order)])


def _describe(name: str, numbers: Mapping[str, float], limits: Mapping[str, Limits]) -> str:
    """Describe a fact that lies outside, in units of the image."""
    kind, channel = name.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0], name.partition("[")[2].rstrip("]")
    if kind == "turn":
        flip = _FLIPS.get(name.partition(".")[2], "with its axes exchanged")
        return f"The image looks {flip}, compared with the training images."
    if kind == "blank":
        return f"Channel {channel} has one value almost everywhere."
    axis, known = name.partition(".")[2], limits[name]
    kind, number = kind.rstrip("0123456789"), kind[len(kind.rstrip("0123456789")) :]
    numbered = {"number": number, "twice": 2 * int(number or 0), "channel": channel, "next": int(channel or 0) + 1}
    fact = _FACTS[kind].format(**numbered) + (f" along the {axis}" if axis else "")
    is_one = bool(channel) and f"{kind}{number}[1]" in limits and kind != "color"
    where = f"In channel {channel} the" if is_one else "The"
    values = [_restore(kind, each) for each in (numbers[name], known.least, known.most)]
    return f"{where} {fact} {_compare(values, _UNITS.get(kind, ''))}"


def _restore(kind: str, value: float) -> float:
    """Restore what was measured from a fact, which may be its logarithm."""
    base, floor = _BASES.get(kind), _FLOORS.get(kind, 0.0)
    measured = base**value if base else value
    return (max(0.0, round(measured - floor, 7)) if floor else measured) * (100 if kind in _SHARES else 1)


def _describe_label(
    name: str, kind: str, fact: str, facts: Mapping[str, float], limits: Mapping[str, Limits], *, spaced: bool
) -> str:
    """Describe a fact of a label that lies outside."""
    if kind == "present":
        return f"{name}: nothing of it was found; every training case has some."
    known = limits[f"label.{fact}"]
    values = [10**each if kind in ("volume", "share") else each for each in (facts[fact], known.least, known.most)]
    if kind != "volume":
        what = _LABEL_FACTS[kind].format(axis=fact.rpartition(".")[2])
        return f"{name}: its {what} {_compare([100 * each for each in values], ' %')}"
    if spaced:
        return f"{name}: its volume {_compare(values, ' ml')}"
    is_flat = f"{name}.center.depth" not in facts
    return f"{name}: its {'area' if is_flat else 'volume'} {_compare(values, ' pixels' if is_flat else ' voxels')}"


def _compare(values: Sequence[float], unit: str) -> str:
    """Compare a value with the least and the largest of training.

    >>> _compare([5.76, 0.0, 0.0], " %"), _compare([2000.0, 20.0, 400.0], " pixels")
    ('is 5.76 %; training had 0 %.', 'is 2000 pixels; training had 20 to 400 pixels.')
    """
    value, least, most = map(_format, values)
    return f"is {value}{unit}; training had {least if least == most else f'{least} to {most}'}{unit}."


def _format(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
