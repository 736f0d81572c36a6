"""What is wrong with the intensities of an image: by itself, and among the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.measurements import CaseFacts, ImageFacts

_CLIPPED_SHARE = 0.005
_CLIPPED_TIMES = 3.0
_CLIPPED_8_BIT = 0.2
"""Of the pixels of an 8-bit image; photographs reach white here and there, and are not cut off."""
_AIR, _NEARLY_AIR, _BONE = -500.0, -50.0, 1000.0
"""Hounsfield units: air has -1000, bone up to 2000; stored values of most scanners are 1024 higher."""
_FAR_RANGE, _FAR_PLACE = 8.0, 8.0
_FAR_DEVIATIONS = 6.0
_CLEAR_CONTRAST = 0.5
_MOST, _FEW = 0.9, 0.1
_ENOUGH = 5
_ENOUGH_FOR_CONTRAST = 8


def image_findings(facts: CaseFacts, modalities: Sequence[str] = ()) -> Iterator[Finding]:
    """What the image of one case has wrong.

    Args:
        facts: The case.
        modalities: What the data set says of each channel, such as `CT`; one name stands for all channels.
    """
    if facts.image is None:
        return
    image = facts.image
    for code, said in (
        *_about_numbers(image),
        *_about_top(image),
        *_about_storage(image),
        *_about_rescaling(image, [image.modality] if image.modality else modalities),
    ):
        yield finding(code, said, facts.case.case_id, image.path)


def _about_numbers(image: ImageFacts) -> Iterator[tuple[str, str]]:
    if image.finite == 0:
        yield "no-finite-value", "All values are NaN or infinity."
    elif image.finite < 1:
        yield "not-finite", f"{1 - image.finite:.2%} of the values are NaN or infinity."
    if image.finite and len(image.constant) == image.channels:
        yield "constant-image", f"All values are {image.lowest:g}."
    elif image.constant:
        channels = ", ".join(str(index) for index in image.constant)
        yield "constant-channel", f"Channel {channels} of {image.channels} holds a single value."


def _about_top(image: ImageFacts) -> Iterator[tuple[str, str]]:
    deep = image.dtype not in ("uint8", "int8", "bool")
    if deep and image.at_top >= max(_CLIPPED_SHARE, _CLIPPED_TIMES * image.below_top) and not _is_constant(image):
        yield (
            "clipped",
            f"{image.at_top:.2%} of the values are {image.highest:g}, the highest, {image.below_top:.2%} just below.",
        )


def _about_storage(image: ImageFacts) -> Iterator[tuple[str, str]]:
    alphas = {header.alpha for header in image.headers}
    if "varying" in alphas:
        yield "alpha-channel", "Some pixels are more transparent than others."
    elif "opaque" in alphas:
        yield "alpha-opaque", "The image has an alpha channel with a single value."
    if image.turned_bright:
        yield "monochrome1", "Small stored values are bright (MONOCHROME1)."


def _about_rescaling(image: ImageFacts, modalities: Sequence[str]) -> Iterator[tuple[str, str]]:
    named = list(modalities) * image.channels if len(modalities) == 1 else modalities
    for modality, (lowest, highest) in zip(named, image.ends, strict=False):
        if modality.upper() == "CT" and lowest >= 0 and highest > _BONE:
            yield "ct-not-rescaled", _said_of_ct(lowest, highest)
            return


def _said_of_ct(lowest: float, highest: float) -> str:
    return f"Values run from {lowest:g} to {highest:g}; expected Hounsfield units, of which air has -1000."


def _is_constant(image: ImageFacts) -> bool:
    return image.finite == 0 or len(image.constant) == image.channels


def comparison_findings(cases: Sequence[CaseFacts], modalities: Sequence[str] = ()) -> Iterator[Finding]:
    """Cases whose intensities are unlike those of the others."""
    images = [(f.case.case_id, f.image) for f in cases if f.image is not None and not _is_constant(f.image)]
    everything = [(f.case.case_id, f.image) for f in cases if f.image is not None]
    yield from _unlike(everything, "channels-differ", lambda image: f"{image.channels} channel(s)")
    yield from _unlike(everything, "data-types-differ", lambda image: f"values of the type {image.dtype}")
    if len(images) >= _ENOUGH:
        yield from _white_among_others(images)
        yield from _far_ranges(images)
        if "CT" not in [modality.upper() for modality in modalities]:
            yield from _raw_among_rescaled(images)
    if len(images) >= _ENOUGH_FOR_CONTRAST:
        yield from _inverted(images)


def _unlike(
    images: Sequence[tuple[str, ImageFacts]], code: str, described: Callable[[ImageFacts], str]
) -> Iterator[Finding]:
    """Images that do not have what most have."""
    counts = Counter(described(image) for _, image in images)
    for name, image in images:
        usual, number = counts.most_common(1)[0]
        if described(image) != usual:
            said = f"The image has {described(image)}; {number} of {len(images)} have {usual}."
            yield finding(code, said, name, image.path)


def _white_among_others(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """8-bit images that are white to a large part where others are not: deeper ones that were cut off at 255."""
    usual = float(np.median([image.at_top for _, image in images]))
    for name, image in images:
        if image.dtype == "uint8" and image.highest == 255 and image.at_top >= _CLIPPED_8_BIT > 10 * usual:
            said = f"{image.at_top:.0%} of the values are 255; {usual:.1%} are in the other images."
            yield finding("clipped", said, name, image.path)


def _far_ranges(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Intensities on another scale, or around another value."""
    low, middle, high = np.array([image.percentiles for _, image in images]).T
    ranges = np.maximum(high - low, 1e-12)
    scales, places = np.log(ranges), (middle - np.median(middle)) / np.median(ranges)
    spread = 1.4826 * float(np.median(np.abs(scales - np.median(scales))))
    far = np.abs(scales - np.median(scales)) >= max(np.log(_FAR_RANGE), _FAR_DEVIATIONS * spread)
    far |= np.abs(places) >= _FAR_PLACE
    usual = _numbers([float(np.median(values)) for values in (low, middle, high)])
    if far.sum() > _FEW * len(images):
        least, most = np.exp(scales).min(), np.exp(scales).max()
        said = f"The range from the 1st to the 99th percentile is {least:.4g} in one image and {most:.4g} in another."
        yield finding("intensities-differ", said)
        return
    for index in np.flatnonzero(far).tolist():
        name, image = images[index]
        said = f"The 1st, 50th and 99th percentile are {_numbers(image.percentiles)}; usual are {usual}."
        yield finding("intensity-outlier", said, name, image.path)


def _raw_among_rescaled(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Stored values where most other images have Hounsfield units."""
    rescaled = sum(image.lowest <= _AIR for _, image in images)
    for name, image in images:
        if rescaled >= 0.6 * len(images) and image.lowest >= _NEARLY_AIR and image.highest > _BONE:
            yield finding("ct-not-rescaled", _said_of_ct(image.lowest, image.highest), name, image.path)


def _inverted(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Images whose middle is darker than their rim where nearly all others' is brighter, or the other way round."""
    contrasts = np.array([image.contrast for _, image in images])
    usual = float(np.sign(np.median(contrasts)))
    clear = contrasts * usual >= _CLEAR_CONTRAST
    if clear.mean() < _MOST:
        return
    for (name, image), contrast in zip(images, contrasts.tolist(), strict=True):
        if contrast * usual <= -_CLEAR_CONTRAST:
            dark, bright = ("darker", "brighter") if usual > 0 else ("brighter", "darker")
            said = f"The middle is {dark} than the rim; in {clear.mean():.0%} of the images it is {bright}."
            yield finding("inverted-image", said, name, image.path)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
