"""Run lengths: masks to text and back, against the numpy functions that Kaggle's notebooks copy from each other.

Both give the same text and the same masks: that is checked.

    python benchmarks/rle.py [results.json]
"""

from __future__ import annotations

from functools import partial

import numpy as np
from _report import Claim, finish, medians
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medseg_pl.io.regions import decode_runs, encode_runs

ROUNDS, MASKS, SHAPE = 7, 50, (310, 360)
Mask = NDArray[np.bool_]


def masks() -> list[Mask]:
    """Organs of irregular border, as large as slices of the UW-Madison data are."""
    rng = np.random.default_rng(0)
    return [gaussian_filter(rng.normal(size=SHAPE), 12) > 0.02 for _ in range(MASKS)]


def usual_encode(mask: Mask) -> str:
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(run) for run in runs)


def usual_decode(text: str, shape: tuple[int, int]) -> Mask:
    parts = text.split()
    starts, lengths = (np.asarray(part, dtype=int) for part in (parts[::2], parts[1::2]))
    flat = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    for start, length in zip(starts - 1, lengths, strict=True):
        flat[start : start + length] = 1
    return flat.reshape(shape).astype(bool)


def each(function: object, items: list[object]) -> list[object]:
    return [function(item) for item in items]  # type: ignore[operator]


def main() -> None:
    drawn = masks()
    texts = [encode_runs(mask) for mask in drawn]
    assert texts == [usual_encode(mask) for mask in drawn], "the same text"
    for text, mask in zip(texts, drawn, strict=True):
        assert (decode_runs(text, SHAPE) == mask).all() and (usual_decode(text, SHAPE) == mask).all(), "the same mask"
    spent = medians(
        {
            "encode": partial(each, encode_runs, drawn),
            "usual encode": partial(each, usual_encode, drawn),
            "decode": partial(each, lambda text: decode_runs(text, SHAPE), texts),
            "usual decode": partial(each, lambda text: usual_decode(text, SHAPE), texts),
        },
        ROUNDS,
    )
    claims = []
    for name in ("encode", "decode"):
        ratio = spent[f"usual {name}"] / spent[name]
        print(
            f"{name} {1e6 * spent[name] / MASKS:7.0f} us a mask, usual {1e6 * spent[f'usual {name}'] / MASKS:7.0f} us"
        )
        claims.append(Claim(f"run lengths, {name}", "the usual numpy code, equal", "-", f"{ratio:.1f} times as fast"))
    finish(claims, spent, cores=1)


if __name__ == "__main__":
    main()
