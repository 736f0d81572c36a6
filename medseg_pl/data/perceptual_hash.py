"""Image signatures by which copies are found, flipped, resized, recompressed or brightened.

An image is reduced to the low frequencies of a small gray thumbnail. Two comparisons follow one another: the signs and
softened sizes of the coarsest frequencies tell at once which of millions of pairs may show the same; the details are
then compared tile by tile, because pictures of one kind share their outline, a round field of view or a body, and
only copies agree everywhere.

What it does not see: a part of another image (1 % cut off on each side is enough), a shift, a small rotation, a slice
of a volume.

References:
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (signs of low DCT frequencies).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Float16, Float32, Float64, Shaped
from numpy.typing import NDArray

from medseg_pl.core.intensity import HIGH, LOW, replace_not_finite
from medseg_pl.data.transforms.grids import resize_image

COARSE = 0.86
"""Coarse similarity from which a pair is worth a closer look. Of 10,000 copies 99 in 100 reach 0.90."""

SAME = 0.75
"""Agreement below which two images do not show the same; copies reach 0.83 in 98 of 100 cases."""

DISTINCT = 0.3
"""Distinct agreement from which a pair stands out of its set.

In sets that share an outline and an anatomy copies reach 0.5 in 95 of 100 cases, whatever they went through. Pairs of
different patients that reach `SAME` stay below 0.1 there: `benchmarks/duplicates.py` measures it.
"""

CERTAIN, CERTAINLY_DISTINCT = 0.9, 0.8
"""As good as the same pixels: agreement, and distinct agreement, that no two patients came near."""

FEWEST_NEIGHBORS = 8
"""With fewer other images nobody knows what is usual, and only `CERTAIN` agreement counts."""

_TILE = 4096
_SIDE = 64
_SLABS = 4
_FREQUENCIES = 32
_COARSEST = 12
_SOFTENING = 0.35  # between 1, where the outline decides alone, and 0, which keeps the signs and with them the noise
_RESOLVED = 0.6  # of the pixels along a side: finer details do not survive halving or compression
_STRUCTURED = 0.3  # of the root mean square: a tile with less is background, and its noise means nothing
_ALL_ALIKE = 0.95  # correlation with the neighbors from which a tile tells none from another
_MAY_DIFFER = 0.15  # of the tiles: a burnt-in text, a saturated highlight


@dataclass(frozen=True)
class ImageSignature:
    """Properties that copies of an image have in common.

    Args:
        pixel_digest: The same for the same values in any order; empty where all values are one.
        frequencies: Low frequencies of a thumbnail, or of four through a volume; zero where there is no structure.
        shortest_side: Of a slice, in pixels.
    """

    pixel_digest: str
    frequencies: Float16[np.ndarray, "z 32 32"]
    shortest_side: int


class Orientation(NamedTuple):
    """A combination of mirroring, quarter turns and reversed slices.

    Attributes:
        reversed_slices: Whether the order of the slices is reversed.
        transposed: Whether rows become columns, before all flips.
        flipped_down: Whether the order of the rows is reversed.
        flipped_across: Whether the order of the columns is reversed.
    """

    reversed_slices: bool
    transposed: bool
    flipped_down: bool
    flipped_across: bool


def compute_image_signature(
    image: Shaped[np.ndarray, "c d h w"], statistics: Float32[np.ndarray, "c 4"]
) -> ImageSignature:
    """Compute the properties of an image that its copies keep.

    Args:
        image: Raw values.
        statistics: As `medseg_pl.core.intensity.compute_channel_statistics` gives them.
    """
    return ImageSignature(compute_pixel_digest(image), compute_low_frequencies(image, statistics), min(image.shape[2:]))


def compute_pixel_digest(image: Shaped[np.ndarray, "c d h w"]) -> str:
    """Digest the pixels without their order, unchanged by flips and turns.

    Different images may have one digest: `find_equal_orientation` has the last word.

    >>> image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    >>> compute_pixel_digest(image) == compute_pixel_digest(image[:, :, ::-1].transpose(0, 1, 3, 2))
    True
    """
    if (image == image.flat[0]).all():
        return ""
    total = np.zeros(2, np.uint64)
    for plane in image.reshape(-1, *image.shape[2:]):  # slice by slice: a volume need not be held twice
        # Bits and not values: floats would be rounded differently in another order.
        bits = np.ascontiguousarray(plane).view(f"u{plane.dtype.itemsize}").astype(np.uint64)
        total += np.array([bits.sum(), (bits * bits).sum()])  # modulo 2^64
    channels, depth, *sides = image.shape
    return f"{channels}x{depth}x{min(sides)}x{max(sides)}-{total[0]:x}-{total[1]:x}"


def find_equal_orientation(a: Shaped[np.ndarray, "..."], b: Shaped[np.ndarray, "..."]) -> Orientation | None:
    """Find the orientation in which `b` equals `a` exactly.

    Returns:
        `None` where they differ in every orientation.

    >>> a = np.arange(6).reshape(1, 1, 2, 3)
    >>> find_equal_orientation(a, a[..., ::-1])
    Orientation(reversed_slices=False, transposed=False, flipped_down=False, flipped_across=True)
    """
    orientations = _list_orientations(a.shape[1])
    return next((each for each in orientations if np.array_equal(a, _reorient(b, each))), None)


def compute_low_frequencies(
    image: Shaped[np.ndarray, "c d h w"], statistics: Float32[np.ndarray, "c 4"]
) -> Float16[np.ndarray, "z 32 32"]:
    """Compute low frequencies of the gray thumbnail without its mean.

    Args:
        image: `(C, D, H, W)` raw values.
        statistics: `(C, 4)`, for the gray values.

    Returns:
        Scaled to 1; one plane for a 2D image, else one for each quarter of the slices; 0 without structure.
    """
    slices = np.stack([_make_thumbnail(image[:, depth], statistics) for depth in range(image.shape[1])])
    if len(slices) > 1:  # the mean of a quarter of the slices survives another slice thickness, a single slice does not
        slices = resize_image(slices.reshape(1, len(slices), -1), (_SLABS, _SIDE * _SIDE))
    frequencies = scipy.fft.dctn(slices.reshape(-1, _SIDE, _SIDE), norm="ortho", axes=(1, 2))[
        :, :_FREQUENCIES, :_FREQUENCIES
    ]
    # The mean is brightness, which copies need not share.
    frequencies[:, 0, 0] = 0
    largest = float(np.abs(frequencies).max())
    if largest <= 1e-5 * float(np.abs(slices).max()):  # what rounding leaves of one value everywhere
        return np.zeros(frequencies.shape, np.float16)
    return np.asarray(frequencies / largest, dtype=np.float16)


def compute_coarse_patterns(frequencies: Float16[np.ndarray, "n z 32 32"]) -> Float32[np.ndarray, "n z 12 12"]:
    """Scale the coarsest frequencies, softened, to unit length."""
    kept = frequencies[..., :_COARSEST, :_COARSEST].astype(np.float32) * _make_ramp(_COARSEST)
    softened = np.sign(kept) * np.abs(kept) ** np.float32(_SOFTENING)
    lengths = np.sqrt((softened**2).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(softened / np.where(lengths > 0, lengths, 1))


def coarse_similarity(
    rows: Float32[np.ndarray, "n z 12 12"], columns: Float32[np.ndarray, "m z 12 12"]
) -> Float32[np.ndarray, "n m"]:
    """Compute each pair's cosine in its best orientation.

    A flip changes the sign of the odd frequencies along its axis. So the products of even and of odd ones are summed
    apart, and the largest of the four sums over both flips follows without a further product of matrices.

    Args:
        rows: Patterns as `compute_coarse_patterns` gives them, of length 1.
        columns: Those that each of them is compared with.

    Returns:
        `(n, m)` cosines.
    """
    best = np.full((len(rows), len(columns)), -1.0, np.float32)
    for start in range(0, len(columns), _TILE):
        tile = best[:, start : start + _TILE]
        for even_even, even_odd, odd_even, odd_odd in _multiply_patterns(rows, columns[start : start + _TILE]):
            np.maximum(tile, even_even + odd_odd + np.abs(odd_even + even_odd), out=tile)
            np.maximum(tile, even_even - odd_odd + np.abs(odd_even - even_odd), out=tile)
    return best


def agreement(a: ImageSignature, b: ImageSignature) -> tuple[float, Orientation]:
    """Compute how well two images agree in nearly all tiles.

    Both are cut into 8 x 8 tiles, 4 x 4 where there are few pixels, and correlated tile by tile, over the frequencies
    that the smaller one resolves.

    Returns:
        The correlation, and the orientation that brings `b` onto `a`.
    """
    tiles = _compare_tiles(a, b, _find_finest_frequency(a, b))
    return tiles.compute_low_quantile(tiles.correlations, np.ones(len(tiles.correlations))), tiles.orientation


def usual_correlations(
    image: ImageSignature, other: ImageSignature, neighbors: Sequence[ImageSignature]
) -> Float64[np.ndarray, " p"] | None:
    """Compute how well each tile agrees with other pictures of its kind.

    Args:
        image: The image.
        other: The one that it is to be compared with; the same frequencies are used.
        neighbors: Images of the same set, few of which may be copies.

    Returns:
        The median over the neighbors, from 0 to 1; `None` where they are too few to tell.
    """
    if len(neighbors) < FEWEST_NEIGHBORS:
        return None
    finest = _find_finest_frequency(image, other)
    usual = np.median([_compare_tiles(image, neighbor, finest).correlations for neighbor in neighbors], axis=0)
    return np.asarray(np.clip(usual, 0, 1), dtype=np.float64)


def distinct_agreement(a: ImageSignature, b: ImageSignature, usual: Float64[np.ndarray, " p"]) -> float:
    """Correct the agreement of two images for what is usual.

    This follows Cohen's kappa, which corrects an agreement for chance: pictures by one camera share its field of view,
    and those of one organ its anatomy, so that tiles full of these agree between any two of them. Tiles in which all
    are alike say nothing and are left out.

    Args:
        a: The image.
        b: The one that may be its copy.
        usual: Of `a`, see `usual_correlations`.
    """
    tiles = _compare_tiles(a, b, _find_finest_frequency(a, b))
    weights = np.where(usual < _ALL_ALIKE, np.sqrt(1 - usual**2), 0)
    corrected = (tiles.correlations - usual) / np.maximum(1 - usual, 1e-12)
    return tiles.compute_low_quantile(corrected, weights)


class _TileComparison(NamedTuple):
    """Two images compared tile by tile.

    Attributes:
        correlations: Of each tile.
        lengths: Root of the energy of each tile, in either image.
        orientation: What brings the second onto the first.
    """

    correlations: Float64[np.ndarray, " p"]
    lengths: Float64[np.ndarray, "2 p"]
    orientation: Orientation

    def compute_low_quantile(self, values: Float64[np.ndarray, " p"], weights: Float64[np.ndarray, " p"]) -> float:
        """Return the value reached in nearly all structured tiles."""
        lengths = self.lengths * weights
        structured = (lengths > _STRUCTURED * np.sqrt((lengths**2).mean(axis=1, keepdims=True))).any(axis=0)
        return float(np.quantile(values[structured], _MAY_DIFFER)) if structured.any() else 0.0


def _compare_tiles(a: ImageSignature, b: ImageSignature, finest: int) -> _TileComparison:
    patterns = [compute_coarse_patterns(one.frequencies[None])[0] for one in (a, b)]
    orientation = max(
        _list_orientations(len(patterns[1])),
        key=lambda each: float((patterns[0] * _reorient_frequencies(patterns[1], each)).sum()),
    )
    details = (
        _compute_details(one, finest) for one in (a.frequencies, _reorient_frequencies(b.frequencies, orientation))
    )
    first, second = (_cut_tiles(one, 8 if finest > 16 else 4).astype(np.float64) for one in details)
    lengths = np.sqrt(np.stack([(first**2).sum(axis=1), (second**2).sum(axis=1)]))
    correlations = (first * second).sum(axis=1) / np.maximum(lengths.prod(axis=0), 1e-12)
    return _TileComparison(np.asarray(correlations), np.asarray(lengths), orientation)


def _find_finest_frequency(a: ImageSignature, b: ImageSignature) -> int:
    """Return the frequency up to which both resolve details."""
    # Below six frequencies nothing is left to compare.
    return min(_FREQUENCIES, max(6, math.floor(_RESOLVED * min(a.shortest_side, b.shortest_side))))


def _multiply_patterns(
    rows: Float32[np.ndarray, "n z 12 12"], columns: Float32[np.ndarray, "m z 12 12"]
) -> Iterator[list[Float32[np.ndarray, "n m"]]]:
    """Sum products over even and odd frequencies, in each orientation unflipped."""
    for each in _list_orientations(rows.shape[1]):
        if not each.flipped_down and not each.flipped_across:
            yield [
                _reorient(rows, each)[..., down::2, across::2].reshape(len(rows), -1)
                @ columns[..., down::2, across::2].reshape(len(columns), -1).T
                for down, across in product((0, 1), repeat=2)
            ]


def _make_thumbnail(
    pixels: Shaped[np.ndarray, "c h w"], statistics: Float32[np.ndarray, "c 4"]
) -> Float32[np.ndarray, "s s"]:
    """Average the channels, each within its percentiles."""
    small = resize_image(replace_not_finite(pixels.astype(np.float32), statistics), (_SIDE, _SIDE))
    low, high = statistics[:, LOW, None, None], statistics[:, HIGH, None, None]
    scaled = (np.clip(small, low, high) - low) / np.where(high > low, high - low, 1)
    return np.asarray(np.where(high > low, scaled, small - low).mean(axis=0))


def _compute_details(frequencies: Float[np.ndarray, "z k k"], finest: int) -> Float32[np.ndarray, "z s s"]:
    """Compute a picture of the frequencies below `finest`, ramp-sharpened."""
    kept = np.zeros((len(frequencies), _SIDE, _SIDE), np.float32)
    kept[:, :_FREQUENCIES, :_FREQUENCIES] = np.asarray(frequencies, np.float32) * _make_ramp(_FREQUENCIES, finest)
    return np.asarray(scipy.fft.idctn(kept, norm="ortho", axes=(1, 2)))


def _make_ramp(count: int, end: int | None = None) -> Float32[np.ndarray, "k k"]:
    """Compute weights that grow with the frequency, up to a circle."""
    radius = np.hypot(*np.ogrid[:count, :count])
    return np.where(radius < (end or count), radius, 0).astype(np.float32)


def _cut_tiles(pictures: Float32[np.ndarray, "z s s"], parts: int) -> Float32[np.ndarray, "p v"]:
    """Cut the pixels of each tile, about their mean."""
    side = _SIDE // parts
    tiles = pictures.reshape(-1, parts, side, parts, side).transpose(0, 1, 3, 2, 4).reshape(-1, side * side)
    return np.asarray(tiles - tiles.mean(axis=1, keepdims=True))


def _list_orientations(slices: int) -> list[Orientation]:
    """List the eight of an image, or the sixteen of a volume."""
    flags = product((False, True), repeat=4)
    return [Orientation(*each) for each in flags if slices > 1 or not each[0]]


def _reorient(voxels: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """Bring `(..., D, H, W)` into another orientation."""
    reversed_slices, transposed, flipped_down, flipped_across = orientation
    swapped = voxels.swapaxes(-1, -2) if transposed else voxels
    z, y, x = (-1 if flipped else 1 for flipped in (reversed_slices, flipped_down, flipped_across))
    return swapped[..., ::z, ::y, ::x]


def _reorient_frequencies(frequencies: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """Do to frequencies what `_reorient` does to their picture."""
    moved = _reorient(frequencies, orientation._replace(flipped_down=False, flipped_across=False))
    signs = np.where(np.arange(frequencies.shape[-1]) % 2, -1, 1).astype(frequencies.dtype)
    moved = moved * signs[:, None] if orientation.flipped_down else moved
    return moved * signs if orientation.flipped_across else moved
