"""Rules for the intensities of images: each by itself, and among the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medseg_pl.checks.findings import Codes, Dataset, Finding, ImageFacts, error, note, warning
from medseg_pl.core.errors import count_noun

_COMPARE = "Compare its values with another image's: fine if they mean the same; else export it again like the others."

CODES: Codes = Codes(
    {
        "no-finite-value": error("an image of nothing but NaN or infinity", "Remove the case."),
        "constant-image": error("an image of a single value", "Replace the file with an intact copy."),
        "channels-differ": error(
            "another number of channels than most images have", "Convert the images to the same channels."
        ),
        "not-finite": warning(
            "an image with NaN or infinity", "Nothing must be done: they are replaced by the range's ends."
        ),
        "constant-channel": warning(
            "a channel of a single value", "Fine if nothing was recorded in it; else export the channel again."
        ),
        "clipped": warning("intensities cut off at the top", "Convert the image again with its full range of values."),
        "ct-not-rescaled": warning(
            "a CT whose values are not Hounsfield units", "Apply the rescale slope and intercept of the DICOM files."
        ),
        "inverted-image": warning(
            "an image whose dark and bright are exchanged", "Invert it, as the others are (MONOCHROME1)."
        ),
        "alpha-channel": warning(
            "transparency that hides pixels; it is dropped", "Flatten the image onto a background."
        ),
        "intensity-outlier": warning("intensities far from those of the other cases", _COMPARE),
        "monochrome1": note("a DICOM image stored inverted; it is turned back"),
        "alpha-opaque": note("transparency that hides nothing; it is dropped"),
        "intensities-differ": note(
            "images of very different scales",
            "Normalize each case by itself (ZScore); medseg plan does so where intensities have no unit.",
        ),
        "data-types-differ": note("another depth of intensities than most images have", _COMPARE),
    }
)

_CLIPPED_SHARE = 0.005
_CLIPPED_TIMES = 3.0
# Of the pixels of an 8-bit image; photographs reach white here and there, and are not cut off.
_CLIPPED_8_BIT = 0.2
# Hounsfield units: air has -1000, bone up to 2000; stored values of most scanners are 1024 higher.
_AIR, _NEARLY_AIR, _BONE = -500.0, -50.0, 1000.0
_FAR_RANGE, _FAR_CENTER = 8.0, 8.0
_FAR_DEVIATIONS = 6.0
_CLEAR_CONTRAST = 0.5
_MOST, _FEW = 0.9, 0.1
_ENOUGH = 5
_ENOUGH_FOR_CONTRAST = 8


def check_intensities(dataset: Dataset) -> Iterator[Finding]:
    """Find what the image of a case has wrong by itself."""
    for case_id, image in dataset.images:
        modalities = [image.modality] if image.modality else dataset.modalities
        for code, message in (
            *_check_numbers(image),
            *_check_clipping(image),
            *_check_storage(image),
            *_check_rescaling(image, modalities),
        ):
            yield CODES.find(code, message, case_id, image.path)


def compare_intensities(dataset: Dataset) -> Iterator[Finding]:
    """Find cases whose intensities are unlike those of the others."""
    images = [(name, image) for name, image in dataset.images if not _is_constant(image)]
    yield from _find_unusual(dataset.images, "channels-differ", lambda image: count_noun(image.channels, "channel"))
    yield from _find_unusual(dataset.images, "data-types-differ", lambda image: f"values of the type {image.dtype}")
    if len(images) >= _ENOUGH:
        yield from _find_white(images)
        yield from _find_outliers(images)
        if "CT" not in [modality.upper() for modality in dataset.modalities]:
            yield from _find_raw_ct(images)
    if len(images) >= _ENOUGH_FOR_CONTRAST:
        yield from _find_inverted(images)


def _check_numbers(image: ImageFacts) -> Iterator[tuple[str, str]]:
    if image.finite == 0:
        yield "no-finite-value", "All values are NaN or infinity."
    elif image.finite < 1:
        yield "not-finite", f"{1 - image.finite:.2%} of the values are NaN or infinity."
    if image.finite and len(image.constant) == image.channels:
        yield "constant-image", f"All values are {image.lowest:g}."
    elif image.constant:
        channels = ", ".join(str(index) for index in image.constant)
        yield "constant-channel", f"Channel {channels} of {image.channels} holds a single value."


def _check_clipping(image: ImageFacts) -> Iterator[tuple[str, str]]:
    deep = image.dtype not in ("uint8", "int8", "bool")
    if deep and image.at_top >= max(_CLIPPED_SHARE, _CLIPPED_TIMES * image.below_top) and not _is_constant(image):
        yield (
            "clipped",
            f"{image.at_top:.2%} of the values are {image.highest:g}, the highest, {image.below_top:.2%} just below.",
        )


def _check_storage(image: ImageFacts) -> Iterator[tuple[str, str]]:
    alphas = {header.alpha for header in image.headers}
    if "varying" in alphas:
        yield "alpha-channel", "Some pixels are more transparent than others."
    elif "opaque" in alphas:
        yield "alpha-opaque", "The image has an alpha channel with a single value."
    if image.turned_bright:
        yield "monochrome1", "Small stored values are bright (MONOCHROME1)."


def _check_rescaling(image: ImageFacts, modalities: Sequence[str]) -> Iterator[tuple[str, str]]:
    named = list(modalities) * image.channels if len(modalities) == 1 else modalities
    for modality, (lowest, highest) in zip(named, image.ends, strict=False):
        if modality.upper() == "CT" and lowest >= 0 and highest > _BONE:
            yield "ct-not-rescaled", _describe_raw_ct(lowest, highest)
            return


def _describe_raw_ct(lowest: float, highest: float) -> str:
    return f"Values run from {lowest:g} to {highest:g}; expected Hounsfield units, of which air has -1000."


def _is_constant(image: ImageFacts) -> bool:
    return image.finite == 0 or len(image.constant) == image.channels


def _find_unusual(
    images: Sequence[tuple[str, ImageFacts]], code: str, describe: Callable[[ImageFacts], str]
) -> Iterator[Finding]:
    """Find images that do not have what most have."""
    counts = Counter(describe(image) for _, image in images)
    for name, image in images:
        usual, number = counts.most_common(1)[0]
        if describe(image) != usual:
            message = f"The image has {describe(image)}; {number} of {len(images)} have {usual}."
            yield CODES.find(code, message, name, image.path)


def _find_white(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Find 8-bit images that are largely white where others are not."""
    # They are deeper images, cut off at 255.
    usual = float(np.median([image.at_top for _, image in images]))
    for name, image in images:
        if image.dtype == "uint8" and image.highest == 255 and image.at_top >= _CLIPPED_8_BIT > 10 * usual:
            message = f"{image.at_top:.0%} of the values are 255; {usual:.1%} are in the other images."
            yield CODES.find("clipped", message, name, image.path)


def _find_outliers(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Find intensities on another scale, or around another value."""
    low, middle, high = np.array([image.percentiles for _, image in images]).T
    ranges = np.maximum(high - low, 1e-12)
    scales, centers = np.log(ranges), (middle - np.median(middle)) / np.median(ranges)
    # 1.4826 times the median absolute deviation estimates the standard deviation of normal data.
    spread = 1.4826 * float(np.median(np.abs(scales - np.median(scales))))
    far = np.abs(scales - np.median(scales)) >= max(np.log(_FAR_RANGE), _FAR_DEVIATIONS * spread)
    far |= np.abs(centers) >= _FAR_CENTER
    usual = _format([float(np.median(values)) for values in (low, middle, high)])
    # With this many outliers there are two groups, and no case is wrong by itself.
    if far.sum() > _FEW * len(images):
        (lowest, _), (highest, _) = images[int(ranges.argmin())], images[int(ranges.argmax())]
        message = (
            f"The range from the 1st to the 99th percentile is {ranges.min():.4g} in {lowest} and {ranges.max():.4g} "
            f"in {highest}."
        )
        yield CODES.find("intensities-differ", message)
        return
    for index in np.flatnonzero(far).tolist():
        name, image = images[index]
        message = f"The 1st, 50th and 99th percentile are {_format(image.percentiles)}; usual are {usual}."
        yield CODES.find("intensity-outlier", message, name, image.path)


def _find_raw_ct(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Find stored values where most other images have Hounsfield units."""
    rescaled = sum(image.lowest <= _AIR for _, image in images)
    for name, image in images:
        if rescaled >= 0.6 * len(images) and image.lowest >= _NEARLY_AIR and image.highest > _BONE:
            yield CODES.find("ct-not-rescaled", _describe_raw_ct(image.lowest, image.highest), name, image.path)


def _find_inverted(images: Sequence[tuple[str, ImageFacts]]) -> Iterator[Finding]:
    """Find images whose contrast between middle and rim is reversed.

    The middle is darker than the rim where it is brighter in nearly all others, or the reverse.
    """
    contrasts = np.array([image.contrast for _, image in images])
    usual = float(np.sign(np.median(contrasts)))
    clear = contrasts * usual >= _CLEAR_CONTRAST
    if clear.mean() < _MOST:
        return
    for (name, image), contrast in zip(images, contrasts.tolist(), strict=True):
        if contrast * usual <= -_CLEAR_CONTRAST:
            dark, bright = ("darker", "brighter") if usual > 0 else ("brighter", "darker")
            message = f"The middle is {dark} than the rim; in {clear.mean():.0%} of the images it is {bright}."
            yield CODES.find("inverted-image", message, name, image.path)


def _format(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
