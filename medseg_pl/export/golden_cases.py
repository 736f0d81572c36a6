"""Golden cases that an exported model has to reproduce, and its Dice on validation cases beside the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Shaped
from numpy.typing import NDArray

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction, Volume
from medseg_pl.data.cache.case import as_cache_dtype
from medseg_pl.data.prepared_data import select_recorded_cases
from medseg_pl.data.sources import Source
from medseg_pl.data.transforms.grids import compute_padded_size
from medseg_pl.export import runner
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.progress import show_progress
from medseg_pl.metrics import MetricTable, OverlapMetric, summarize
from medseg_pl.models.normalization import IntensityWindow, MeanStd, Normalization, PerChannel
from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.training.checkpoints import CheckpointInfo

Spacing = tuple[float, float, float]


class GoldenCase(NamedTuple):
    """An image, or probabilities, with the known result.

    Attributes:
        name: Of its file.
        arrays: The input and the expected output.
        whole_image_max_pixels: In place of the specification's, so that small images show what large ones go through.
    """

    name: str
    arrays: dict[str, NDArray[Any]]
    whole_image_max_pixels: int | None = None


def make_golden_cases(model: SegmentationModel, whole_image_max_pixels: int) -> list[GoldenCase]:
    """Make golden cases of many sizes and types.

    Sizes are odd, smaller and larger than a window, so that cases run whole and in windows.

    Args:
        model: The trained model; or one around the exported graph, where its precision is lower.
        whole_image_max_pixels: Images with more pixels run in windows.
    """
    height, width = compute_padded_size(model.input_size, model.size_divisor)
    rng = np.random.default_rng(0)
    depth = model.context_slices + 2
    low, high = np.array(_find_ranges(model.normalization, model.channels)).T[..., None, None, None]
    large = _make_image(
        rng, (model.channels, depth, _round_to_odd(1.3 * height), _round_to_odd(1.15 * width)), low, high
    )
    large[0, 0, :2, 0] = np.nan  # no infinity: OpenCV scales it as the processor likes
    long = _make_image(rng, (model.channels, 1, _round_to_odd(1.6 * height), _round_to_odd(1.2 * width)), low, high)
    small = _make_image(
        rng,
        (model.channels, 1, _round_to_odd(0.6 * height), _round_to_odd(0.45 * width)),
        np.maximum(0, low),
        np.minimum(255, high),
    )
    spacing = _choose_spacing(model)
    flat = spacing if model.spacing_mm else None
    return [
        _predict(model, "whole", large, spacing, whole_image_max_pixels),
        _predict(model, "windows", np.rint(long).astype(np.int16), spacing, height * width)._replace(
            whole_image_max_pixels=height * width
        ),
        _predict(model, "small", np.rint(small).astype(np.uint8), flat, whole_image_max_pixels),
        _decide(model, rng),
    ]


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a case."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _predict(
    model: SegmentationModel,
    name: str,
    image: Shaped[np.ndarray, "c d h w"],
    spacing_mm: Spacing | None,
    whole_image_max_pixels: int,
) -> GoldenCase:
    """Predict an image as medseg does."""
    depth, height, width = image.shape[1:]
    volume = Volume(image, None, Geometry((depth, height, width), spacing_mm))
    predictor = Predictor([model], whole_image_max_pixels=whole_image_max_pixels)
    prediction = predictor.predict_volume(volume, name, probabilities=True)
    assert prediction.probabilities is not None, "they were asked for"
    arrays = {"image": image, "probabilities": prediction.probabilities, "mask": prediction.mask}
    return GoldenCase(name, arrays | _as_array(spacing_mm))


def _decide(model: SegmentationModel, rng: np.random.Generator) -> GoldenCase:
    """Decide on probabilities in blocks.

    Blocks are sparse on the left, and full of holes on the right.
    """
    labels, spacing_mm = model.labels, (2.0, 0.75, 0.5)
    density = np.where(np.arange(13) < 7, 0.15, 0.85)
    blocks = rng.random((labels.classes, 5, 11, 13), np.float32)
    chosen = np.where(blocks < density, 0.5 + 0.4 * blocks, 0.4 * blocks).astype(np.float32)
    probabilities = chosen.repeat(3, axis=2).repeat(3, axis=3)
    assembler = CaseAssembler(labels, model.postprocess)
    mask = assembler.assemble(probabilities, Geometry((5, 33, 39), spacing_mm)).mask
    arrays = {"probabilities": probabilities, "mask": mask, "values": _paint_labels(mask, labels)}
    return GoldenCase("decision", arrays | _as_array(spacing_mm))


def _paint_labels(mask: NDArray[np.uint8], labels: LabelMap) -> NDArray[Any]:
    """Compute what the pictures hold that a mask is written to."""
    colored = labels.colors is not None
    if not labels.overlapping:
        return np.stack([labels.decode(mask, colored)])
    return np.stack([labels.decode_one(plane, index, 255, colored) for index, plane in enumerate(mask)])


def _as_array(spacing_mm: Spacing | None) -> dict[str, NDArray[Any]]:
    return {} if spacing_mm is None else {"spacing_mm": np.array(spacing_mm)}


def _choose_spacing(model: SegmentationModel) -> Spacing:
    """Choose a spacing for which a slice grows on one axis only."""
    # It shrinks on the other, where the model has a spacing of its own.
    y, x = model.spacing_mm or (0.75, 0.5)
    return 3.0, 1.3 * y, 0.8 * x


def _find_ranges(how: Normalization, channels: int) -> list[tuple[float, float]]:
    """Find each channel's raw values that the model is made for."""
    if isinstance(how, PerChannel):
        return [_find_ranges(one, 1)[0] for one in how.channels if isinstance(one, Normalization)]
    if isinstance(how, IntensityWindow):
        return [(1.2 * how.low - 0.2 * how.high, 1.2 * how.high - 0.2 * how.low)] * channels
    if isinstance(how, MeanStd):
        return [(0.0, float((how.mean + 2 * how.std).max()))] * channels
    return [(0.0, 1000.0)] * channels


def _make_image(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int],
    low: Float64[np.ndarray, "c 1 1 1"],
    high: Float64[np.ndarray, "c 1 1 1"],
) -> Float32[np.ndarray, "c d h w"]:
    """Smooth blobs under noise, on a dark ground."""
    channels, depth, height, width = shape
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, side) for side in (depth, height, width)), indexing="ij")
    image = rng.random(shape) * 0.1
    for channel in range(channels):
        for _ in range(6):
            z, y, x = rng.uniform(-0.8, 0.8, 3)
            radii = ((d - z) / 2) ** 2 + ((h - y) / rng.uniform(0.1, 0.5)) ** 2 + ((w - x) / rng.uniform(0.1, 0.5)) ** 2
            image[channel] += rng.uniform(0.2, 0.8) * np.exp(-radii)
    return np.asarray(low + (high - low) * np.clip(image, 0, 1), dtype=np.float32)


def _round_to_odd(length: float) -> int:
    return max(3, int(length)) | 1  # odd sides show which side the odd row of padding is on


def measure_accuracy(trained: CheckpointInfo, predictor: Predictor, folder: Path, source: Source) -> dict[str, Any]:
    """Measure the mean Dice of checkpoint and export over the validation cases.

    Args:
        trained: The checkpoint.
        predictor: Its model, in the precision that it was trained in.
        folder: The exported model.
        source: The data set of the training.

    Returns:
        `cases`, and for all labels together and each of them `checkpoint`, `exported` and `cost`.

    Raises:
        DataError: The data cannot be read, or was trained on.
    """
    cases = select_recorded_cases(source.cases(), trained.data)
    tables = {name: MetricTable([OverlapMetric(predictor.labels)]) for name in ("checkpoint", "exported")}
    model = runner.Model(folder)
    with show_progress("Measuring", len(cases)) as advance:
        for case in cases:
            read = source.read(case, predictor.labels)
            volume = replace(read, image=as_cache_dtype(read.image, f"Case {case.case_id}"))  # as training saw it
            masks = {
                "checkpoint": predictor.predict_volume(volume, f"Case {case.case_id}").mask,
                "exported": model.predict(volume.image, volume.geometry.spacing_mm)[0],
            }
            for name, mask in masks.items():
                scored = Prediction(case.case_id, case.group, volume.geometry, mask, volume.mask)
                tables[name].add(replace(scored, annotated_labels=case.annotated_labels))
            advance()
    names = list(predictor.labels.names)
    summaries = {name: summarize(table.table(), names, intervals=False) for name, table in tables.items()}
    overall = {name: summary["foreground_mean"]["dice"] for name, summary in summaries.items()}
    by_label = {
        label: _add_cost({name: summary["labels"][label]["dice"]["mean"] for name, summary in summaries.items()})
        for label in names
    }
    return {"cases": len(cases), "dice": _add_cost(overall), "labels": by_label}


def _add_cost(dice: dict[str, float | None]) -> dict[str, float | None]:
    """Add the loss of Dice, unknown if no case has the label."""
    before, after = dice["checkpoint"], dice["exported"]
    return {**dice, "cost": None if before is None or after is None else before - after}
