"""Copies of pictures among pictures of their kind: how many are found, and how many pairs are taken for copies wrongly.

Forty retinas of forty synthetic people share the camera, the disc, the macula and the arcades. Each has copies that
were recompressed, resized, turned, made brighter, and all of that one after the other; and, beyond what is promised,
cropped by one percent on each side. `MEDSEG_TEST_DATA` adds the real retinas of CHASE_DB1, if the folder holds them.

    python benchmarks/duplicates.py [results.json]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from _report import Claim, finish
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.data.duplicates import find_near_copies
from medseg_pl.data.perceptual_hash import ImageSignature, agreement, compute_image_signature
from medseg_pl.io.raster import read_image

PEOPLE, SIZE = 40, (292, 282)
CONTRASTS = (0.05, 0.03)
"""Of vessels: with 0.03 the outline of the field is nearly all that a thumbnail shows."""
Picture = NDArray[np.uint8]


def retina(person: int, contrast: float) -> Picture:
    """A fundus photograph `(3, H, W)`: everybody's field, disc, macula and arcades, and vessels of their own."""
    rng = np.random.default_rng((person, 7))
    y, x = (2 * axis / length - 1 for axis, length in zip(np.mgrid[: SIZE[0], : SIZE[1]], SIZE, strict=True))
    disc_x, disc_y, macula_x, macula_y = np.array([-0.45, 0, 0.25, 0]) + rng.normal(0, 0.015, 4)
    light = 0.55 - 0.25 * np.hypot(x, y) ** 2
    light += 0.35 * np.exp(-((x - disc_x) ** 2 + (y - disc_y) ** 2) / 0.02)
    light -= 0.18 * np.exp(-((x - macula_x) ** 2 + (y - macula_y) ** 2) / 0.03)
    vessels = np.zeros(SIZE)
    for angle in (-1.1, 1.1, -1.4, 1.4, -2.4, 2.4):
        _grow(vessels, rng, (disc_x, disc_y), angle + rng.normal(0, 0.15), rng.uniform(0.8, 1.2), 110, 0)
    light -= contrast * np.clip(sum(3 * size**2 * gaussian_filter(vessels, size) for size in (1.0, 1.8)), 0, 1)
    light += 0.07 * gaussian_filter(rng.normal(size=SIZE), 4) + rng.normal(0, 0.012, SIZE)
    seen = np.clip(np.where(np.hypot(x, y) < 0.96, light, 0.01), 0, 1)
    return (255 * np.clip(np.stack([1.3 * seen, 0.8 * seen, 0.35 * seen]), 0, 1)).astype(np.uint8)


def _grow(
    vessels: NDArray[np.float64],
    rng: np.random.Generator,
    place: tuple[float, float],
    angle: float,
    width: float,
    steps: int,
    order: int,
) -> None:
    """Draw a vessel from a place outwards; the large ones bend round the macula, and all branch."""
    x, y = place
    for _ in range(steps):
        x, y = x + 0.012 * np.cos(angle), y + 0.012 * np.sin(angle)
        angle += rng.normal(0, 0.12) - (0.022 * np.sign(y) if order == 0 else 0)
        row, column = int((y + 1) / 2 * SIZE[0]), int((x + 1) / 2 * SIZE[1])
        if not (0 <= row < SIZE[0] and 0 <= column < SIZE[1]):
            return
        vessels[row, column] = max(vessels[row, column], width)
        if order < 2 and rng.random() < 0.035:
            turn = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            _grow(vessels, rng, (x, y), angle + turn, 0.6 * width, steps // 2, order + 1)


def turned(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.rot90(picture, rng.integers(1, 4), (1, 2))[:, :, :: rng.choice([-1, 1])]


def resized(picture: Picture, rng: np.random.Generator) -> Picture:
    image = Image.fromarray(np.moveaxis(picture, 0, -1))
    factor = rng.uniform(0.5, 2)
    return np.moveaxis(np.asarray(image.resize((round(image.width * factor), round(image.height * factor)))), -1, 0)


def recompressed(picture: Picture, rng: np.random.Generator) -> Picture:
    buffer = BytesIO()
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(buffer, format="JPEG", quality=int(rng.integers(30, 91)))
    return np.moveaxis(np.asarray(Image.open(buffer)), -1, 0)


def brighter(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.clip(picture * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15), 0, 255).astype(np.uint8)


def altogether(picture: Picture, rng: np.random.Generator) -> Picture:
    for change in (turned, resized, recompressed, brighter):
        picture = change(picture, rng)
    return picture


def cropped(picture: Picture, rng: np.random.Generator) -> Picture:
    height, width = (max(1, length // 100) for length in picture.shape[1:])
    return picture[:, height:-height, width:-width]


Change = Callable[[Picture, np.random.Generator], Picture]
PROMISED: dict[str, Change] = {
    function.__name__: function for function in (recompressed, resized, turned, brighter, altogether)
}


def reduce_picture(picture: Picture) -> ImageSignature:
    image = np.ascontiguousarray(picture)[:, None]
    return compute_image_signature(image, compute_channel_statistics(image))


def found_pairs(copies: Sequence[ImageSignature]) -> set[tuple[int, int]]:
    return {(pair.earlier, pair.later) for pair in find_near_copies(copies, np.arange(len(copies)))}


def measure(originals: Sequence[Picture]) -> Iterator[tuple[str, float]]:
    """How many of all pairs are taken for copies, and which share of planted copies is found, by their kind."""
    rng = np.random.default_rng(0)
    reduced, people = [reduce_picture(picture) for picture in originals], len(originals)
    alike = [agreement(reduced[a], reduced[b])[0] for b in range(people) for a in range(b)]
    yield "highest agreement of two people", max(alike)
    yield "false pairs", len(found_pairs(reduced))
    wrong = 0
    planted: Mapping[str, Change] = {**PROMISED, cropped.__name__: cropped}
    shares = {}
    for name, change in planted.items():
        pairs = found_pairs([*reduced, *(reduce_picture(change(picture, rng)) for picture in originals)])
        right = pairs & {(person, people + person) for person in range(people)}
        wrong += len(pairs) - len(right)
        shares[name] = len(right) / people
    yield "false pairs among copies", wrong
    yield "promised copies found", float(np.mean([shares[name] for name in PROMISED]))
    yield from ((f"{name} copies found", share) for name, share in shares.items())


def main() -> None:
    results: dict[str, float] = {}
    claims = []
    sets = {f"phantoms, vessels {c}": [retina(person, c) for person in range(PEOPLE)] for c in CONTRASTS}
    real = Path(os.environ.get("MEDSEG_TEST_DATA", "nowhere")) / "chase_db1" / "images"
    if real.is_dir():
        sets["CHASE_DB1"] = [read_image(path) for path in sorted(real.glob("*.jpg"))]
    for name, pictures in sets.items():
        for what, value in measure(pictures):
            results[f"{name}: {what}"] = value
        wrong = results[f"{name}: false pairs"] + results[f"{name}: false pairs among copies"]
        share, planted = results[f"{name}: promised copies found"], len(PROMISED) * len(pictures)
        claims += [
            Claim(f"{name}, {planted} copies", "what was planted", "≥ 95 % found", f"{share:.1%} found", share >= 0.95),
            Claim(f"{name}, pairs of two people", "none", "none taken for copies", f"{wrong:g}", wrong == 0),
        ]
    for what, value in results.items():
        print(f"{what}: {value:.3g}")
    finish(claims, results, cores=1)


if __name__ == "__main__":
    main()
