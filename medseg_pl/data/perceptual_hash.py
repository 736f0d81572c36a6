"""Whether two images show the same, though one was flipped, turned, resized, recompressed or made brighter.

An image is reduced to the low frequencies of a small gray thumbnail. Two comparisons follow one another: the signs and
softened sizes of the coarsest frequencies tell at once which of millions of pairs may show the same; the details are
then compared place by place, because pictures of one kind share their outline, a round field of view or a body, and
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
from jaxtyping import Float, Float16, Float32, Float64, Shaped
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from medseg_pl.core.intensity import HIGH, LOW, replace_not_finite
from medseg_pl.data.transforms.resize import resize_image

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
_STRUCTURED = 0.3  # of the root mean square: a place with less is background, and its noise means nothing
_ALL_ALIKE = 0.95  # correlation with the neighbors from which a place tells none from another
_MAY_DIFFER = 0.15  # of the places: a burnt-in text, a saturated highlight


@dataclass(frozen=True)
class Likeness:
    """What copies of an image have in common.

    Args:
        pixels: The same for the same values in any order; empty where all values are one.
        signature: Low frequencies of a thumbnail, or of four through a volume; zero where there is no structure.
        shortest: The shorter side of a slice in pixels.
    """

    pixels: str
    signature: Float16[np.ndarray, "z 32 32"]
    shortest: int


class Turn(NamedTuple):
    """One of the ways in which a picture can be mirrored and turned by quarters; for a volume also upside down."""

    reversed_slices: bool
    transposed: bool
    flipped_down: bool
    flipped_across: bool


def likeness(image: Shaped[np.ndarray, "c d h w"], statistics: Float32[np.ndarray, "c 4"]) -> Likeness:
    """Reduce an image to what its copies keep.

    Args:
        image: Raw values.
        statistics: As `medseg_pl.core.intensity.channel_statistics` gives them.
    """
    return Likeness(pixel_digest(image), signature(image, statistics), min(image.shape[2:]))


def pixel_digest(image: Shaped[np.ndarray, "c d h w"]) -> str:
    """A sum over the pixels that knows no order, so that flips and turns leave it; `same_pixels` has the last word.

    >>> image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    >>> pixel_digest(image) == pixel_digest(image[:, :, ::-1].transpose(0, 1, 3, 2))
    True
    """
    if (image == image.flat[0]).all():
        return ""
    total = np.zeros(2, np.uint64)
    for plane in image.reshape(-1, *image.shape[2:]):  # slice by slice: a volume need not be held twice
        bits = np.ascontiguousarray(plane).view(f"u{plane.dtype.itemsize}").astype(np.uint64)
        total += np.array([bits.sum(), (bits * bits).sum()])  # modulo 2^64
    channels, depth, *sides = image.shape
    return f"{channels}x{depth}x{min(sides)}x{max(sides)}-{total[0]:x}-{total[1]:x}"


def same_pixels(a: Shaped[np.ndarray, "..."], b: Shaped[np.ndarray, "..."]) -> Turn | None:
    """How `b` has to be turned to be `a`, value for value; `None` where that cannot be. Both are `(C, D, H, W)`.

    >>> a = np.arange(6).reshape(1, 1, 2, 3)
    >>> same_pixels(a, a[..., ::-1])
    Turn(reversed_slices=False, transposed=False, flipped_down=False, flipped_across=True)
    """
    return next((turn for turn in _turns(a.shape[1]) if np.array_equal(a, _turned(b, turn))), None)


def signature(
    image: Shaped[np.ndarray, "c d h w"], statistics: Float32[np.ndarray, "c 4"]
) -> Float16[np.ndarray, "z 32 32"]:
    """Low frequencies of the gray thumbnail, `z` being 1 for an image and 4 for a volume; without the mean."""
    slices = np.stack([_thumbnail(image[:, depth], statistics) for depth in range(image.shape[1])])
    if len(slices) > 1:  # the mean of a quarter of the slices survives another slice thickness, a single slice does not
        slices = resize_image(slices.reshape(1, len(slices), -1), (_SLABS, _SIDE * _SIDE))
    frequencies = dctn(slices.reshape(-1, _SIDE, _SIDE), norm="ortho", axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES]
    frequencies[:, 0, 0] = 0
    largest = float(np.abs(frequencies).max())
    if largest <= 1e-5 * float(np.abs(slices).max()):  # what rounding leaves of one value everywhere
        return np.zeros(frequencies.shape, np.float16)
    return np.asarray(frequencies / largest, dtype=np.float16)


def coarse_patterns(signatures: Float16[np.ndarray, "n z 32 32"]) -> Float32[np.ndarray, "n z 12 12"]:
    """The coarsest frequencies at unit length, large ones softened so that no outline outweighs what is inside it."""
    kept = signatures[..., :_COARSEST, :_COARSEST].astype(np.float32) * _ramp(_COARSEST)
    softened = np.sign(kept) * np.abs(kept) ** np.float32(_SOFTENING)
    lengths = np.sqrt((softened**2).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(softened / np.where(lengths > 0, lengths, 1))


def coarse_similarity(
    rows: Float32[np.ndarray, "n z 12 12"], columns: Float32[np.ndarray, "m z 12 12"]
) -> Float32[np.ndarray, "n m"]:
    """The cosine between each two patterns, in whichever turn it is largest.

    A flip changes the sign of the odd frequencies along its axis. So the products of even and of odd ones are summed
    apart, and the largest of the four sums over both flips follows without a further product of matrices.
    """
    best = np.full((len(rows), len(columns)), -1.0, np.float32)
    for start in range(0, len(columns), _TILE):
        tile = best[:, start : start + _TILE]
        for even_even, even_odd, odd_even, odd_odd in _products(rows, columns[start : start + _TILE]):
            np.maximum(tile, even_even + odd_odd + np.abs(odd_even + even_odd), out=tile)
            np.maximum(tile, even_even - odd_odd + np.abs(odd_even - even_odd), out=tile)
    return best


def agreement(a: Likeness, b: Likeness) -> tuple[float, Turn]:
    """How well the details of two images agree, in all but the worst 15 % of the places that have any.

    Both are cut into 8 x 8 places, 4 x 4 where there are few pixels, and correlated place by place, over the
    frequencies that the smaller one resolves.

    Returns:
        The correlation, and the turn that brings `b` onto `a`.
    """
    places = _compare(a, b, _finest(a, b))
    return places.in_most(places.correlations, np.ones(len(places.correlations))), places.turn


def usual_correlations(
    image: Likeness, other: Likeness, neighbors: Sequence[Likeness]
) -> Float64[np.ndarray, " p"] | None:
    """Find how well each place of an image agrees with other pictures of its kind.

    Args:
        image: The image.
        other: The one that it is to be compared with; the same frequencies are looked at.
        neighbors: Images of the same set, few of which may be copies.

    Returns:
        The median over the neighbors, from 0 to 1; `None` where they are too few to tell.
    """
    if len(neighbors) < FEWEST_NEIGHBORS:
        return None
    finest = _finest(image, other)
    usual = np.median([_compare(image, neighbor, finest).correlations for neighbor in neighbors], axis=0)
    return np.asarray(np.clip(usual, 0, 1), dtype=np.float64)


def distinct_agreement(a: Likeness, b: Likeness, usual: Float64[np.ndarray, " p"]) -> float:
    """How much of what others of its kind leave open two images agree in: 1 for copies, about 0 for neighbors.

    As Cohen's kappa corrects an agreement for chance: pictures by one camera share its field of view, and those of one
    organ its anatomy, so that places full of these agree between any two of them. Places in which all are alike say
    nothing and are left out.

    Args:
        a: The image.
        b: The one that may be its copy.
        usual: Of `a`, see `usual_correlations`.
    """
    places = _compare(a, b, _finest(a, b))
    telling = np.where(usual < _ALL_ALIKE, np.sqrt(1 - usual**2), 0)
    corrected = (places.correlations - usual) / np.maximum(1 - usual, 1e-12)
    return places.in_most(corrected, telling)


class _Places(NamedTuple):
    """Two images compared place by place.

    Attributes:
        correlations: Of each place.
        lengths: Root of the energy of each place, in either image.
        turn: What brings the second onto the first.
    """

    correlations: Float64[np.ndarray, " p"]
    lengths: Float64[np.ndarray, "2 p"]
    turn: Turn

    def in_most(self, values: Float64[np.ndarray, " p"], weights: Float64[np.ndarray, " p"]) -> float:
        """The value reached in all but the worst 15 % of the places whose weighted details stand out."""
        lengths = self.lengths * weights
        structured = (lengths > _STRUCTURED * np.sqrt((lengths**2).mean(axis=1, keepdims=True))).any(axis=0)
        return float(np.quantile(values[structured], _MAY_DIFFER)) if structured.any() else 0.0


def _compare(a: Likeness, b: Likeness, finest: int) -> _Places:
    shapes = [coarse_patterns(one.signature[None])[0] for one in (a, b)]
    turn = max(_turns(len(shapes[1])), key=lambda turn: float((shapes[0] * _turned_frequencies(shapes[1], turn)).sum()))
    details = (_details(one, finest) for one in (a.signature, _turned_frequencies(b.signature, turn)))
    first, second = (_places(one, 8 if finest > 16 else 4).astype(np.float64) for one in details)
    lengths = np.sqrt(np.stack([(first**2).sum(axis=1), (second**2).sum(axis=1)]))
    correlations = (first * second).sum(axis=1) / np.maximum(lengths.prod(axis=0), 1e-12)
    return _Places(np.asarray(correlations), np.asarray(lengths), turn)


def _finest(a: Likeness, b: Likeness) -> int:
    """The frequency up to which both resolve details."""
    return min(_FREQUENCIES, max(6, math.floor(_RESOLVED * min(a.shortest, b.shortest))))


def _products(
    rows: Float32[np.ndarray, "n z 12 12"], columns: Float32[np.ndarray, "m z 12 12"]
) -> Iterator[list[Float32[np.ndarray, "n m"]]]:
    """Sums of products over the even and the odd frequencies along both axes, in each turn that is no flip."""
    for turn in (turn for turn in _turns(rows.shape[1]) if not turn.flipped_down and not turn.flipped_across):
        yield [
            _turned(rows, turn)[..., down::2, across::2].reshape(len(rows), -1)
            @ columns[..., down::2, across::2].reshape(len(columns), -1).T
            for down, across in product((0, 1), repeat=2)
        ]


def _thumbnail(
    pixels: Shaped[np.ndarray, "c h w"], statistics: Float32[np.ndarray, "c 4"]
) -> Float32[np.ndarray, "s s"]:
    """The mean of the channels, each within its percentiles; a channel that is nearly all background is left whole."""
    small = resize_image(replace_not_finite(pixels.astype(np.float32), statistics), (_SIDE, _SIDE))
    low, high = statistics[:, LOW, None, None], statistics[:, HIGH, None, None]
    scaled = (np.clip(small, low, high) - low) / np.where(high > low, high - low, 1)
    return np.asarray(np.where(high > low, scaled, small - low).mean(axis=0))


def _details(frequencies: Float[np.ndarray, "z k k"], finest: int) -> Float32[np.ndarray, "z s s"]:
    """The picture that the frequencies below `finest` make, sharpened by their ramp."""
    kept = np.zeros((len(frequencies), _SIDE, _SIDE), np.float32)
    kept[:, :_FREQUENCIES, :_FREQUENCIES] = np.asarray(frequencies, np.float32) * _ramp(_FREQUENCIES, finest)
    return np.asarray(idctn(kept, norm="ortho", axes=(1, 2)))


def _ramp(count: int, end: int | None = None) -> Float32[np.ndarray, "k k"]:
    """Weights that grow with the frequency, as its share in natural pictures falls, up to a circle."""
    radius = np.hypot(*np.ogrid[:count, :count])
    return np.where(radius < (end or count), radius, 0).astype(np.float32)


def _places(pictures: Float32[np.ndarray, "z s s"], parts: int) -> Float32[np.ndarray, "p v"]:
    """The pixels of each place, about their mean."""
    side = _SIDE // parts
    cut = pictures.reshape(-1, parts, side, parts, side).transpose(0, 1, 3, 2, 4).reshape(-1, side * side)
    return np.asarray(cut - cut.mean(axis=1, keepdims=True))


def _turns(slices: int) -> Iterator[Turn]:
    """Eight for an image, sixteen for a volume."""
    return (Turn(*flags) for flags in product((False, True), repeat=4) if slices > 1 or not flags[0])


def _turned(voxels: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """`(..., D, H, W)` in another turn."""
    swapped = voxels.swapaxes(-1, -2) if turn.transposed else voxels
    slices, down, across = (
        -1 if flipped else 1 for flipped in (turn.reversed_slices, turn.flipped_down, turn.flipped_across)
    )
    return swapped[..., ::slices, ::down, ::across]


def _turned_frequencies(frequencies: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """What `_turned` does to a picture, done to its frequencies `(..., Z, K, K)`: odd ones change their sign."""
    turned = _turned(frequencies, turn._replace(flipped_down=False, flipped_across=False))
    signs = np.where(np.arange(frequencies.shape[-1]) % 2, -1, 1).astype(frequencies.dtype)
    turned = turned * signs[:, None] if turn.flipped_down else turned
    return turned * signs if turn.flipped_across else turned
