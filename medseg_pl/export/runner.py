"""Runs the model of this folder on images, without torch and without medseg.

    python run.py IMAGE ... -o DIR     a mask for each PNG, JPEG, TIFF, BMP or NIfTI file
    python run.py --self-test          prove that this folder still computes what it did when it was made

It needs numpy and onnxruntime, and Pillow to read pictures or nibabel to read NIfTI. All that is done to an image is
written down in spec.json beside this file; model.onnx holds the same, and a folder in which they differ is refused.

In Python, `Model(folder).predict(image)` takes raw values `(C, D, H, W)`, of which a picture has `D = 1`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
Spacing = tuple[float, float, float]

FOLDER = Path(__file__).resolve().parent
COLUMNS = ("mean", "std", "low", "high")
PLANES = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, -1), (2, -1), (0, -1)),
    "sagittal": ((0, 1), (2, -1), (1, -1)),
}
"""Where slices, rows and columns run: the axis of the body (right, front, head) and the direction on it."""
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz")


class RefusedError(Exception):
    """What was expected, what came instead, and what to do."""


# The model.


class Model:
    """A network with all that happens before and after it.

    Args:
        folder: Where spec.json and model.onnx are.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.spec = read_specification(folder)
        # Of a damaged file onnxruntime raises errors of its own kinds.
        check_file(folder, "model.onnx", self.spec.get("files", {}).get("model.onnx"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        check_specification(self.spec, self.session.get_modelmeta().custom_metadata_map)

    def predict(
        self,
        image: Array,
        spacing_mm: Spacing | None = None,
        *,
        probabilities: bool = False,
        whole_image_max_pixels: int | None = None,
    ) -> tuple[Array, Array | None]:
        """The mask of a case, and its probabilities.

        Args:
            image: `(C, D, H, W)` raw values.
            spacing_mm: Between voxels along `(z, y, x)`, where it is known.
            probabilities: Whether they are wanted; they take `4 K` bytes for each voxel.
            whole_image_max_pixels: Up to how many a slice is seen at once; by default what the specification says.

        Returns:
            `(M, D, H, W)` with 0 for background and `i + 1` for label `i`, or one channel of 0 and 1 for each label
            where labels may overlap; and `(K, D, H, W)` or `None`.
        """
        image = storable(image)
        scale = self._scale(image, spacing_mm)
        statistics = channel_statistics(image, self.spec["statistics"])
        most = self.spec["whole_image_max_pixels"] if whole_image_max_pixels is None else whole_image_max_pixels
        masks, kept = [], []
        for depth in range(image.shape[1]):
            found = self._of_slice(image, statistics, depth, scale, most)
            masks.append(decide(found, self.spec["decision"]))
            kept += [found] if probabilities else []
        mask = clean(np.stack(masks, axis=1), spacing_mm, self.spec)
        return mask, np.stack(kept, axis=1) if probabilities else None

    def _scale(self, image: Array, spacing_mm: Spacing | None) -> tuple[float, float]:
        """By how much a slice grows to have the model's spacing."""
        if len(image) != self.spec["channels"]:
            raise RefusedError(f"it has {len(image)} channel(s), but the model takes {self.spec['channels']}")
        goal = self.spec["spacing_mm"]
        if goal is None:
            return 1.0, 1.0
        if spacing_mm is None:
            raise RefusedError("it does not say its spacing, which the model needs: give it with --spacing Z Y X")
        return spacing_mm[1] / goal[0], spacing_mm[2] / goal[1]

    def _of_slice(self, image: Array, statistics: Array, depth: int, scale: tuple[float, float], most: int) -> Array:
        """`(K, H, W)` on the image's own grid."""
        context = self.spec["context_slices"]
        repeated = np.tile(statistics, (2 * context + 1, 1))
        planes = neighbors(image, depth, context)
        native = (planes.shape[1], planes.shape[2])
        inner, outer = fitted_sizes(native, scale, self.spec)
        low = repeated[:, COLUMNS.index(self.spec["padding"])]
        fitted = padded(resized(planes, inner), outer, low.astype(planes.dtype))
        probabilities = self._of_windows(finite(fitted, repeated), repeated, low, most)
        if outer == native:
            return probabilities
        return enlarged(cropped(probabilities, inner), native)

    def _of_windows(self, image: Array, statistics: Array, low: Array, most: int) -> Array:
        """Of a fitted slice: whole where it is small enough, else the weighted mean over windows."""
        size, multiple, window = image.shape[1:], self.spec["size_divisor"], self.spec["window"]
        frame = [max(pair) for pair in zip(size, window, strict=True)]
        whole = [-(-side // multiple) * multiple for side in frame]
        if whole[0] * whole[1] <= most:
            frame = window = whole
        framed = padded(image, tuple(frame), low)
        height, width = frame
        places = [
            (slice(y, y + window[0]), slice(x, x + window[1]))
            for y in starts(height, window[0], self.spec["window_overlap"])
            for x in starts(width, window[1], self.spec["window_overlap"])
        ]
        if len(places) == 1:
            return cropped(self._of_window(framed, statistics), size)
        trust = gaussian_weights(window, self.spec["window_sigma"])
        total = np.zeros((len(self.spec["classes"]), height, width), np.float32)
        weight = np.zeros((height, width), np.float32)
        for rows, columns in places:
            total[:, rows, columns] += self._of_window(framed[:, rows, columns], statistics) * trust
            weight[rows, columns] += trust
        return cropped(total / weight, size)

    def _of_window(self, image: Array, statistics: Array) -> Array:
        """The mean over the symmetries that the model is seen in."""
        seen = [
            laid_back(activate(self._logits(laid(image, symmetry), statistics), self.spec["activation"]), symmetry)
            for symmetry in SYMMETRIES[self.spec["tta"]]
        ]
        mean: Array = sum(seen[1:], seen[0]) / len(seen)
        return mean

    def _logits(self, image: Array, statistics: Array) -> Array:
        feed = {"image": np.ascontiguousarray(image)[None], "statistics": statistics[None]}
        logits: Array = self.session.run(["logits"], feed)[0][0]
        return logits


def read_specification(folder: Path) -> dict[str, Any]:
    """What spec.json holds."""
    try:
        spec: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"spec.json is no JSON: {error}. Take the folder as it was made.") from error
    check_names(spec)
    return spec


def check_names(spec: Any) -> None:
    """Raise `RefusedError` where a name would lead out of the folder that it is part of: it may be a stranger's."""
    try:
        golden = [case["file"].removeprefix("golden/") for case in spec.get("golden", ())]
        names = [*spec.get("labels", {}).get("names", ()), *golden]
        wrong = [name for name in names if not is_name(name)]
    except (AttributeError, KeyError, TypeError) as error:
        raise RefusedError("spec.json is no specification. Take the folder as it was made.") from error
    if wrong:
        raise RefusedError(f"spec.json has the name {wrong[0]!r}, which is none of a file. Take the folder as made.")


def is_name(name: str) -> bool:
    """Whether a file or a folder may be called so, on every system."""
    return name.strip(". ") == name != "" and name.isprintable() and not set(name) & set('/\\:*?"<>|')


def check_specification(spec: dict[str, Any], metadata: dict[str, str]) -> None:
    """Raise `RefusedError` unless spec.json says what the model was exported with, in every field."""
    if "medseg" not in metadata:
        raise RefusedError("model.onnx holds no specification, so it is not the one that belongs to spec.json.")
    own = {name: value for name, value in spec.items() if name != "files"}
    if changed := differences(own, json.loads(metadata["medseg"])):
        raise RefusedError(f"spec.json is not what the model was exported with: {'; '.join(changed)}. Export it again.")


def differences(now: Any, then: Any, where: str = "") -> list[str]:
    """Which fields of two JSON values differ, and how."""
    if isinstance(now, dict) and isinstance(then, dict):
        names = sorted({*now, *then})
        pairs = [(now.get(name, ...), then.get(name, ...), f"{where}.{name}".lstrip(".")) for name in names]
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        pairs = [(one, other, f"{where}[{i}]") for i, (one, other) in enumerate(zip(now, then, strict=True))]
    else:
        texts = ["absent" if value is ... else json.dumps(value) for value in (now, then)]
        return [] if texts[0] == texts[1] else [f"{where} is {texts[0]} and was {texts[1]}"]
    return [line for one, other, place in pairs for line in differences(one, other, place)]


# Before the network.


def storable(image: Array) -> Array:
    """The types that scanners write stay; everything else becomes `float32`."""
    kept = image.dtype.name in ("uint8", "uint16", "int16", "float32")
    stored = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("=") if kept else np.float32)
    if not np.isfinite(stored).any():
        raise RefusedError("it holds no number at all, only NaN or infinity")
    return stored


def channel_statistics(image: Array, how: dict[str, Any]) -> Array:
    """`(C, 4)`, the `COLUMNS` of each channel: percentiles of its finite values, and of these clipped mean and std."""
    rows = []
    for channel in image:
        values = channel.ravel()
        values = values[:: max(1, values.size // how["sample"])].astype(np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            rows.append([0.0, 1.0, 0.0, 0.0])
            continue
        low, high = np.percentile(values, how["percentiles"])
        if low == high:
            low, high = values.min(), values.max()
        clipped = values.clip(low, high)
        rows.append([clipped.mean(), clipped.std() if low < high else 1.0, low, high])
    return np.array(rows, np.float32)


def neighbors(image: Array, depth: int, context: int) -> Array:
    """A slice with those around it as channels; at the ends the last slice stands in."""
    places = np.clip(np.arange(depth - context, depth + context + 1), 0, image.shape[1] - 1)
    return image[:, places].swapaxes(0, 1).reshape(-1, *image.shape[2:])


def finite(image: Array, statistics: Array) -> Array:
    """As `float32`, with the low percentile for NaN and minus infinity, and the high one for infinity."""
    values = image.astype(np.float32)
    low, high = (statistics[:, COLUMNS.index(name), None, None] for name in ("low", "high"))
    return np.where(np.isfinite(values), values, np.where(values == np.inf, high, low))


def fitted_sizes(
    native: tuple[int, int], scale: tuple[float, float], spec: dict[str, Any]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that a slice is scaled to, and the size that it is then padded to."""
    if spec["resize"] == "fit":
        goal = (spec["input_size"][0], spec["input_size"][1])
        least = min(goal[0] / native[0], goal[1] / native[1])
        height, width = (min(side, max(1, round(own * least))) for side, own in zip(goal, native, strict=True))
        return (height, width), goal
    height, width = (max(1, round(own * grow)) for own, grow in zip(native, scale, strict=True))
    return (height, width), (height, width)


def padded(image: Array, size: tuple[int, ...], fill: Array) -> Array:
    """`(C, H, W)` in the middle of a larger frame, the odd row or column at the end."""
    height, width = image.shape[1:]
    if (height, width) == tuple(size):
        return image
    frame = np.empty((len(image), *size), image.dtype)
    frame[...] = fill[:, None, None]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    frame[:, top : top + height, left : left + width] = image
    return frame


def cropped(image: Array, size: tuple[int, ...]) -> Array:
    """What `padded` put into the frame."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


# Scaling, as OpenCV does it.

Taps = tuple[Array, Array]
"""`(n, t)` positions in the old image that each new pixel is made of, and `(n, t)` their weights."""


def resized(image: Array, size: tuple[int, int]) -> Array:
    """`(C, H, W)` at another size: by area when shrinking, linear when growing."""
    height, width = image.shape[1:]
    if (height, width) == size:
        return image
    shrinks = height * width > size[0] * size[1]
    by_area = shrinks and height >= size[0] and width >= size[1]
    taps = area_taps if by_area else mixed_taps if shrinks else linear_taps
    rows, columns = taps(height, size[0]), taps(width, size[1])
    if image.dtype == np.uint8 and not by_area:
        return in_fixed_point(image, rows, columns)
    with np.errstate(invalid="ignore"):  # NaN and infinity are replaced afterwards
        scaled = along(along(image.astype(np.float32), columns, 2), rows, 1)
    if image.dtype.kind in "iu":
        # Only its own way for halves rounds a half up; elsewhere it goes to the even neighbor.
        scaled = np.floor(scaled + 0.5) if (height, width) == (2 * size[0], 2 * size[1]) else np.rint(scaled)
    return scaled.astype(image.dtype)


def along(image: Array, taps: Taps, axis: int) -> Array:
    """The weighted sum of the positions, on one axis."""
    positions, weights = taps
    shape = [-1 if i == axis else 1 for i in range(image.ndim)]
    parts = [image.take(positions[:, t], axis) * weights[:, t].reshape(shape) for t in range(positions.shape[1])]
    total: Array = sum(parts[1:], parts[0])
    return total


def linear_taps(old: int, new: int) -> Taps:
    """Between the two nearest pixel centers."""
    at = (np.arange(new) + 0.5) * (1 / (new / old)) - 0.5
    return two_taps(np.floor(at).astype(int), at - np.floor(at), old)


def mixed_taps(old: int, new: int) -> Taps:
    """OpenCV's for an image that shrinks on one axis and grows on the other."""
    at = np.arange(new)
    low = np.floor(at * (1 / (new / old))).astype(int)
    share = (at + 1) - (low + 1) * (new / old)
    return two_taps(low, np.where(share <= 0, 0, share - np.floor(share)), old)


def two_taps(low: Array, share: Array, old: int) -> Taps:
    """The positions `low` and the next, of which the next has the share; beyond the border both are the last one."""
    positions = np.stack([low, low + 1], 1).clip(0, old - 1)
    share = share.astype(np.float32)
    return positions, np.stack([1 - share, share], 1)


def area_taps(old: int, new: int) -> Taps:
    """Each old pixel by how much of it a new one covers."""
    step = 1 / (new / old)
    begin = np.arange(new) * step
    positions = np.floor(begin).astype(int)[:, None] + np.arange(math.ceil(step) + 1)
    end = np.minimum(np.minimum(positions + 1, (begin + step)[:, None]), old)
    covered = end - np.maximum(positions, begin[:, None])
    weights = np.where(covered > 1e-3, covered, 0) / np.minimum(step, old - begin)[:, None]
    most = positions[np.arange(new), weights.argmax(axis=1)]  # what has no weight is not looked at: it may be NaN
    return np.where(weights > 0, positions, most[:, None]), weights.astype(np.float32)


def in_fixed_point(image: Array, rows: Taps, columns: Taps) -> Array:
    """How OpenCV scales 8 bits: with whole numbers, the weights in 2048ths."""
    (y, down), (x, across) = ((at, np.rint(weights * 2048).astype(np.int64)) for at, weights in (rows, columns))
    across[x[:, 0] == x[:, 1]] = 2048, 0  # two weights that are rounded need not add up; rows are left as they are
    wide = along(image.astype(np.int64), (x, across), 2) >> 4
    parts = [wide.take(y[:, t], 1) * down[:, t, None] >> 16 for t in (0, 1)]
    scaled: Array = (parts[0] + parts[1] + 2) >> 2
    return scaled.astype(np.uint8)


def enlarged(probabilities: Array, size: tuple[int, int]) -> Array:
    """Back to the image's own size: linear both ways, as torch's `interpolate` does it."""
    for axis in (1, 2):
        old, new = probabilities.shape[axis], size[axis - 1]
        at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
        at = np.maximum(at, 0)
        probabilities = along(probabilities, two_taps(np.floor(at).astype(int), at - np.floor(at), old), axis)
    return probabilities


# Windows and symmetries.

TURNS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
SYMMETRIES = {
    "none": [(False, 0)],
    "horizontal": [(False, 0), (True, 0)],
    "vertical": [(False, 0), (True, 2)],
    "flips": [(False, 0), (True, 0), (True, 2), (False, 2)],
    "all": TURNS,
}
"""Of each kind of test-time augmentation: whether left and right are exchanged, then how many quarter turns."""


def laid(image: Array, symmetry: tuple[bool, int]) -> Array:
    """`(C, H, W)` mirrored, then turned against the clock."""
    mirrored, turns = symmetry
    return np.rot90(image[..., ::-1] if mirrored else image, turns, (-2, -1))


def laid_back(image: Array, symmetry: tuple[bool, int]) -> Array:
    """What `laid` was given."""
    mirrored, turns = symmetry
    turned = np.rot90(image, -turns, (-2, -1))
    return turned[..., ::-1] if mirrored else turned


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis, the last one flush with the end."""
    if window >= length:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    return [min(i * step, length - window) for i in range(-(-(length - window) // step) + 1)]


def gaussian_weights(window: list[int], sigma: float) -> Array:
    """Weights that trust the middle of a window more than its border; `sigma` is a share of its side."""
    axes = [(np.arange(side, dtype=np.float32) - (side - 1) / 2) / (side * sigma) for side in window]
    y, x = (np.exp(-0.5 * axis**2) for axis in axes)
    weights: Array = np.maximum(y[:, None] * x[None, :], 1e-3)
    return weights.astype(np.float32)


# After the network.


def activate(logits: Array, activation: str) -> Array:
    """Probabilities `(K, H, W)`."""
    if activation == "sigmoid":
        return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))
    powers = np.exp(logits - logits.max(axis=0))
    shares: Array = powers / powers.sum(axis=0)
    return shares


def decide(probabilities: Array, decision: dict[str, Any]) -> Array:
    """The mask `(M, ...)` that `(K, ...)` stand for: the likeliest class, or every label above a threshold."""
    if decision["rule"] == "likeliest":
        likeliest: Array = probabilities.argmax(axis=0)[None]
        return likeliest.astype(np.uint8)
    above: Array = probabilities > decision["threshold"]
    return above.astype(np.uint8)


def clean(mask: Array, spacing_mm: Spacing | None, spec: dict[str, Any]) -> Array:
    """`(M, D, H, W)` with each label cleaned as its entry of `postprocess` says, in the order of the labels."""
    overlapping = spec["labels"]["task"] == "multilabel"
    z, y, x = spacing_mm or (1.0, 1.0, 1.0)
    voxel = y * x if mask.shape[1] == 1 else z * y * x
    for index, name in enumerate(spec["labels"]["names"]):
        if (how := spec["postprocess"].get(name)) is None:
            continue
        plane, value = (mask[index], 1) if overlapping else (mask[0], index + 1)
        before = plane == value
        after = filled(before) if how["fill_holes"] else before
        after = without_small(after, how["minimum_size"] / voxel) if how["minimum_size"] else after
        after = largest_component(after) if how["largest_only"] else after
        plane[before & ~after] = 0
        plane[after & (plane == 0)] = value
    return mask


def largest_component(mask: Array) -> Array:
    """The component with most voxels; of several that have as many, the first in the array."""
    labeled = components(mask)
    sizes = np.bincount(labeled.ravel())
    return labeled == 1 + sizes[1:].argmax() if len(sizes) > 2 else mask


def without_small(mask: Array, least: float) -> Array:
    """The components of at least as many voxels."""
    labeled = components(mask)
    kept = np.bincount(labeled.ravel()) >= least
    kept[0] = False
    return kept[labeled]


def filled(mask: Array) -> Array:
    """The mask with what it encloses: in space, or within the slice where there is one only."""
    around = [(1, 1) if length > 1 or axis else (0, 0) for axis, length in enumerate(mask.shape)]
    outside = components(~np.pad(mask, around), corners=False) == 1  # the frame comes first
    inner = tuple(slice(before, length - after) for (before, after), length in zip(around, outside.shape, strict=True))
    inside: Array = ~outside[inner]
    return inside


def components(mask: Array, *, corners: bool = True) -> Array:
    """`(D, H, W)` whole numbers: 0 outside, 1 for the component that comes first in the array, and so on.

    Runs of voxels are found row by row, runs of neighboring rows that touch are joined, and every run takes the
    lowest number that it can reach.

    Args:
        mask: `(D, H, W)`.
        corners: Whether voxels that share an edge or a corner touch, beside those that share a face.
    """
    framed = np.pad(mask, 1)  # so that no row has a neighbor behind the end of another
    changes = np.flatnonzero(np.diff(framed.ravel().astype(np.int8)))
    begin, end = changes[::2] + 1, changes[1::2] + 1
    row, plane = framed.shape[2], framed.shape[1] * framed.shape[2]
    steps = [row, plane - row, plane, plane + row] if corners else [row, plane]
    pairs = [touching(begin, end, step, int(corners)) for step in steps]
    number = connected(len(begin), np.concatenate(pairs, axis=1))
    labeled = np.zeros(framed.size, np.int32)
    labeled[begin] += number
    labeled[end] -= number
    return labeled.cumsum(dtype=np.int32).reshape(framed.shape)[1:-1, 1:-1, 1:-1]


def touching(begin: Array, end: Array, step: int, reach: int) -> Array:
    """`(2, n)`: the runs, and those that they touch in the row that lies `step` further on."""
    first = np.searchsorted(end, begin + step - reach, side="right")
    last = np.searchsorted(begin, end + step + reach, side="left")
    count = np.maximum(last - first, 0)
    ones = np.repeat(np.arange(len(begin)), count)
    others = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return np.stack([ones, others])


def connected(length: int, pairs: Array) -> Array:
    """Numbers from 1 for what pairs connect, in the order in which the components begin."""
    lowest = np.arange(length)
    while True:
        before = lowest.copy()
        least = np.minimum(lowest[pairs[0]], lowest[pairs[1]])
        for side in pairs:
            np.minimum.at(lowest, lowest[side], least)
            np.minimum.at(lowest, side, least)
        lowest = lowest[lowest]
        if (lowest == before).all():
            return np.unique(lowest, return_inverse=True)[1].reshape(-1) + 1


# Files.


def read(path: Path, spec: dict[str, Any]) -> tuple[Array, Spacing | None]:
    """`(C, D, H, W)` raw values, and the spacing along `(z, y, x)` where the file knows it."""
    if is_volume(path):
        image, affine = read_volume(path)
        order, flips = find_slicing(affine, spec["slicing"])
        z, y, x = np.linalg.norm(affine[:3, :3], axis=0)[order].tolist()
        return flipped(image.transpose(0, *(1 + axis for axis in order)), flips), (z, y, x)
    if path.suffix.lower() not in PICTURES:
        raise RefusedError(f"it is of no format that is read; expected one of {', '.join((*PICTURES, *VOLUMES))}")
    return read_picture(path)[:, None], None


def read_picture(path: Path) -> Array:
    """`(C, H, W)`: one channel for gray, three for color, upright, no value changed."""
    from PIL import Image, ImageOps

    try:
        opened = Image.open(path, formats=("PNG", "JPEG", "BMP", "TIFF"))
    except Image.DecompressionBombError as error:
        raise RefusedError(f"it is too large: {error}") from error
    with opened as image:
        check_depth(image, path)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("L", "I;16", "I;16B", "I", "F", "RGB"):
            color = upright.mode not in ("1", "LA", "La")
            if upright.mode == "P":
                palette = np.asarray(upright.getpalette() or [0, 0, 0]).reshape(-1, 3)
                color = bool((palette != palette[:, :1]).any())
            upright.info.pop("transparency", None)
            upright = upright.convert("RGB" if color else "L")
        pixels = np.asarray(upright)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def check_depth(image: Any, path: Path) -> None:
    """Raise `RefusedError` for files that Pillow would change on reading."""
    if image.format in ("TIFF", "PNG") and getattr(image, "n_frames", 1) > 1:
        raise RefusedError("it holds several images; save each as a file of its own")
    if image.format == "PNG":
        with path.open("rb") as file:
            bits, kind = file.read(26)[24:]
        deep = bits > 8 and kind != 0
    else:
        tags = getattr(image, "tag_v2", {})
        bits, kinds = tags.get(258, (8,)), tags.get(339, (1,))
        inverted = tags.get(262) == 0 and bits[0] > 1
        data = 0 in tags.get(338, ()) or (len(bits) == 4 and tags.get(262) == 2 and 338 not in tags)
        deep = (max(bits) > 8 and len(bits) > 1) or inverted or data or (bits[0] == 8 and kinds[0] == 2)
        if image.format == "BMP" and image.mode == "1":  # Pillow takes bytes of two colors for bits
            with path.open("rb") as file:
                deep = file.read(30)[28] != 1
    if deep:
        raise RefusedError("its kind of pixels cannot be read without loss here; save it as gray or as 8-bit color")


def read_volume(path: Path) -> tuple[Array, Array]:
    """`(C, D, H, W)` with `D` the file's last axis, and what takes `(d, h, w, 1)` to millimeters."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
    except nibabel.filebasedimages.ImageFileError as error:
        raise RefusedError(f"it cannot be read: {error}") from error
    except (EOFError, ValueError, zlib.error) as error:
        raise RefusedError(f"it is damaged: {error}") from error
    data = data.astype(np.float32) if data.dtype == np.float64 else data
    data = data[:, :, None] if data.ndim == 2 else data
    data = data[:, :, :, 0] if data.ndim == 5 and data.shape[3] == 1 else data
    data = data[..., None] if data.ndim == 3 else data
    if data.ndim != 4 or data.dtype.kind not in "iuf":
        raise RefusedError(f"it has the shape {image.shape}; expected (x, y, z) or (x, y, z, channels) of real numbers")
    affine = np.asarray(image.affine, np.float64)
    if abs(np.linalg.det(affine)) < 1e-12 and image.header["qform_code"]:
        affine = np.asarray(image.header.get_qform(), np.float64)
    affine = affine[:, [2, 1, 0, 3]]
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) % 8, 1.0)
    return data.transpose(3, 2, 1, 0), affine


def find_slicing(affine: Array, slicing: str) -> tuple[list[int], list[bool]]:
    """Which of the axes `(D, H, W)` come first, second and third, and which of them then run backwards."""
    if slicing == "file":
        return [0, 1, 2], [False] * 3
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if slicing == "thick":
        across = int(np.argmax(spacing > 0.999 * spacing.max()))
        return [across, *(axis for axis in range(3) if axis != across)], [False] * 3
    cosines, plane = affine[:3, :3] / spacing, PLANES[slicing]
    (first, _), (second, _), (third, _) = plane
    across = int(np.argmax(np.abs(cosines[first])))
    one, other = (axis for axis in range(3) if axis != across)
    straight = abs(cosines[second, one]) + abs(cosines[third, other])
    crossed = abs(cosines[second, other]) + abs(cosines[third, one])
    order = [across, one, other] if straight >= crossed else [across, other, one]
    return order, [bool(cosines[world, axis] * sign < 0) for axis, (world, sign) in zip(order, plane, strict=True)]


def flipped(array: Array, flips: list[bool]) -> Array:
    """The last three axes backwards, where they should be."""
    return np.flip(array, tuple(array.ndim - 3 + axis for axis, flip in enumerate(flips) if flip))


def file_values(mask: Array, spec: dict[str, Any], picture: bool) -> dict[str, Array]:
    """What is written: `(D, H, W)` values or `(3, D, H, W)` colors, by the sub-folder that they go to."""
    labels = spec["labels"]
    colors = labels["colors"] if picture else None
    background = [0] if colors is None else colors.get("background", [0, 0, 0])
    marks = [[value] for value in labels["values"] or range(1, len(labels["names"]) + 1)]
    if colors is not None:
        marks = [colors[name] for name in labels["names"]]
    if labels["task"] != "multilabel":
        return {"": painted(mask[0], [background, *marks])}
    if colors is None and labels["values"] is None and picture:
        marks = [[255]] * len(marks)
    pairs = zip(labels["names"], mask, marks, strict=True)
    return {name: painted(plane, [background, mark]) for name, plane, mark in pairs}


def painted(plane: Array, marks: list[list[int]]) -> Array:
    """Every index exchanged for its mark, a value or a color."""
    table = np.array(marks)
    low, high = int(table.min()), int(table.max())
    table = table.astype(np.min_scalar_type(min(low, -high - 1) if low < 0 else high))
    channels = [column[plane] for column in table.T]
    return channels[0] if len(channels) == 1 else np.stack(channels)


def write(folder: Path, sources: list[Path], mask: Array, spec: dict[str, Any]) -> None:
    """One file for each source and, where labels may overlap, each label; named like the source, and on its grid."""
    volume = is_volume(sources[0])
    for name, values in file_values(mask, spec, picture=not volume).items():
        for depth, source in enumerate(sources):
            path = folder / name / output_name(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".writing-{path.name}")
            if volume:
                write_volume(unfinished, values, source, spec)
            else:
                write_picture(unfinished, values[..., depth, :, :])
            unfinished.replace(path)


def output_paths(folder: Path, sources: list[Path], spec: dict[str, Any]) -> list[Path]:
    """What `write` writes."""
    names = spec["labels"]["names"] if spec["labels"]["task"] == "multilabel" else [""]
    return [folder / name / output_name(source) for name in names for source in sources]


def output_name(source: Path) -> str:
    """PNG for pictures, the same name for volumes."""
    return source.name if is_volume(source) else f"{source.stem}.png"


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(VOLUMES)


def write_picture(path: Path, values: Array) -> None:
    """`(H, W)` values or `(3, H, W)` colors as a PNG."""
    from PIL import Image

    if values.min(initial=0) < 0 or values.max(initial=0) > (255 if values.ndim == 3 else 65535):
        raise RefusedError("its labels have values that a PNG cannot hold")
    pixels = values if values.ndim == 2 else np.moveaxis(values, 0, -1)
    Image.fromarray(pixels.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)).save(path, format="PNG")


def write_volume(path: Path, values: Array, source: Path, spec: dict[str, Any]) -> None:
    """`(D, H, W)` values with the header of their image."""
    import nibabel

    image: Any = nibabel.load(source)
    order, flips = find_slicing(read_volume(source)[1], spec["slicing"])
    header = image.header.copy()
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"], header["cal_max"] = 0, 0
    if not np.array_equal(values.astype(header.get_data_dtype()), values):
        header.set_data_dtype(values.dtype)
    header.set_data_shape((*image.shape, 1, 1)[: max(2, min(3, len(image.shape)))])
    data = flipped(values, flips).transpose(np.argsort(order)).transpose(2, 1, 0).astype(header.get_data_dtype())
    result = type(image)(data.reshape(header.get_data_shape()), None, header)
    result.header["pixdim"][:4] = image.header["pixdim"][:4]
    nibabel.save(result, path)


# The command.


def self_test(folder: Path = FOLDER) -> list[str]:
    """Run the golden cases.

    Returns:
        A line for each of them.

    Raises:
        RefusedError: A file or a field is not as it was, or a result differs.
    """
    model = Model(folder)
    check_files(folder, model.spec)
    return [check_case(model, folder / case["file"], case["whole_image_max_pixels"]) for case in model.spec["golden"]]


def check_files(folder: Path, spec: dict[str, Any]) -> None:
    """Raise `RefusedError` unless every file is the one that was exported."""
    expected = {"model.onnx", "weights.safetensors", "run.py", *(case["file"] for case in spec["golden"])}
    if set(spec["files"]) != expected:
        raise RefusedError(f"spec.json lists {sorted(spec['files'])} as its files; expected {sorted(expected)}.")
    for name, digest in spec["files"].items():
        check_file(folder, name, digest)


def check_file(folder: Path, name: str, digest: str | None) -> None:
    """Raise `RefusedError` unless the file has the checksum."""
    if not (folder / name).is_file():
        raise RefusedError(f"{name} is missing. Take the folder as it was made.")
    if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
        raise RefusedError(f"{name} is not the file that was exported. Take the folder as it was made.")


def check_case(model: Model, path: Path, whole_image_max_pixels: int | None) -> str:
    """One golden case: a line that says how well it agrees, or `RefusedError`."""
    with np.load(path) as case:
        expected = dict(case)
    spacing = tuple(expected["spacing_mm"].tolist()) if "spacing_mm" in expected else None
    if "image" in expected:
        mask, probabilities = model.predict(
            expected["image"], spacing, probabilities=True, whole_image_max_pixels=whole_image_max_pixels
        )
    else:
        probabilities = expected["probabilities"]
        mask = clean(decide(probabilities, model.spec["decision"]), spacing, model.spec)
        if (np.stack([*file_values(mask, model.spec, picture=True).values()]) != expected["values"]).any():
            raise RefusedError(f"{path.name}: other values would be written into the mask's file.")
    assert probabilities is not None, "they were asked for"
    agreed = float((mask == expected["mask"]).mean())
    apart = np.abs(probabilities.astype(np.float64) - expected["probabilities"])
    line = f"{path.name}: {100 * agreed:.4f} % of pixels agree, probabilities within {apart.max():.1e}"
    least, mean = model.spec["tolerance"]["agreement"], model.spec["tolerance"]["mean_difference"]
    if not (agreed >= least and apart.mean() <= mean):
        raise RefusedError(f"{line}, {apart.mean():.1e} on average; expected {100 * least} % and {mean:.0e}.")
    return line


def cases_of(images: list[Path], together: str | None) -> list[tuple[list[Path], list[Path]]]:
    """The files of each case, and those of them that get a mask."""
    if together is None:
        return [([path], [path]) for path in images]
    return [(images, images if together == "slices" else images[:1])]


def check_outputs(paths: list[Path]) -> None:
    """Raise `RefusedError` where a mask would take the place of another file."""
    for path in paths:
        if paths.count(path) > 1 or path.exists():
            reason = "is there already" if path.exists() else "would be written twice"
            raise RefusedError(f"{path} {reason}. Choose another folder, or other names.")


def run_case(model: Model, paths: list[Path], masked: list[Path], arguments: argparse.Namespace) -> None:
    """Read, predict and write one case."""
    parts = [read(path, model.spec) for path in paths]
    slices = arguments.together == "slices"
    image = np.concatenate([image for image, _ in parts], axis=1 if slices else 0)
    if slices and image.shape[1] != len(paths):
        raise RefusedError("volumes are no slices: give each of them by itself")
    spacing = parts[0][1] or (tuple(arguments.spacing) if arguments.spacing else None)
    mask, probabilities = model.predict(image, spacing, probabilities=arguments.probabilities)
    write(arguments.output, masked, mask, model.spec)
    if probabilities is not None:
        path = arguments.output / f"{masked[0].name}.npz"
        unfinished = path.with_name(f".writing-{path.name}")
        np.savez_compressed(unfinished, probabilities=probabilities)
        unfinished.replace(path)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 if all went well, 1 if something failed, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="run.py", description=str(__doc__).splitlines()[0])
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF, BMP or NIfTI")
    add("-o", "--output", type=Path, metavar="DIR", help="where the masks go")
    add("--together", choices=("channels", "slices"), help="the images are the channels, or the slices, of one case")
    add("--spacing", nargs=3, type=float, metavar=("Z", "Y", "X"), help="of pictures, in mm")
    add("--probabilities", action="store_true", help="write these as well, as IMAGE.npz")
    add("--self-test", action="store_true", help="run the golden cases")
    arguments = parser.parse_args(argv)
    if bool(arguments.images) == arguments.self_test or bool(arguments.images) != bool(arguments.output):
        parser.error("give images and -o DIR, or --self-test")
    try:
        if arguments.self_test:
            sys.stdout.write("\n".join([*self_test(), "The self-test passed.\n"]))
            return 0
        model = Model()
        cases = cases_of(arguments.images, arguments.together)
        outputs = [out for _, masked in cases for out in output_paths(arguments.output, masked, model.spec)]
        tables = [arguments.output / f"{masked[0].name}.npz" for _, masked in cases if arguments.probabilities]
        check_outputs([*outputs, *tables])
    except (RefusedError, OSError) as error:
        sys.stderr.write(f"run.py: {error}\n")
        return 1
    failed = 0
    for paths, masked in cases:
        try:
            run_case(model, paths, masked, arguments)
            sys.stdout.write(f"{paths[0]}: done\n")
        except (RefusedError, ImportError, OSError, ValueError, SyntaxError) as error:
            failed += 1
            sys.stderr.write(f"run.py: {paths[0]} was left out: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
