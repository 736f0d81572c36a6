"""The specification of an export: what is done to an image before and after the network, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from medseg_pl import __version__
from medseg_pl.core import intensity
from medseg_pl.data.transforms.grids import SIGMA, compute_padded_size
from medseg_pl.export.golden_cases import GoldenCase
from medseg_pl.export.onnx_model import OPSET
from medseg_pl.models.segmentation_model import SegmentationModel

_TOLERANCES = {
    "fp32": {"agreement": 0.9999, "mean_difference": 1e-4},
    # Processors round half precision in their own ways, and differ in the instructions that they have for 8 bits.
    "fp16": {"agreement": 0.999, "mean_difference": 2e-3},
    "int8": {"agreement": 0.99, "mean_difference": 2e-2},
}
"""The share of pixels that must agree with a golden case, and how far its probabilities may be, on average."""


def make_specification(
    model: SegmentationModel, settings: Mapping[str, Any], *, slicing: str, any_size: bool, precision: str
) -> dict[str, Any]:
    """Make the specification: all that a program has to know to use the exported network.

    Args:
        model: The trained model.
        settings: Those of the model, as a checkpoint holds them.
        slicing: Across which axis volumes are cut.
        any_size: Whether the graph takes images of any size.
        precision: Of the graph.
    """
    labels, window = model.labels, compute_padded_size(model.input_size, model.size_divisor)
    exclusive = labels.task == "multiclass"
    values = labels.values if labels.overlapping else labels.file_values
    spec = {
        "format": 2,
        "medseg": __version__,
        "network": settings["network"],
        "normalization": settings["normalization"],
        "channels": model.channels,
        "context_slices": model.context_slices,
        "in_channels": model.in_channels,
        "slicing": slicing,
        "statistics": {"sample": intensity.SAMPLE, "percentiles": list(intensity.PERCENTILES), "of": "clipped values"},
        "padding": "low",
        "resize": model.resize,
        "input_size": model.input_size,
        "spacing_mm": model.spacing_mm,
        "size_divisor": model.size_divisor,
        "window": window,
        "window_overlap": model.window_overlap,
        "window_sigma": SIGMA,
        "whole_image_max_pixels": model.whole_image_max_pixels if any_size else window[0] * window[1],
        "tta": settings.get("tta", "none"),
        "activation": "softmax" if exclusive else "sigmoid",
        "decision": {"rule": "likeliest"} if exclusive else {"rule": "above", "threshold": 0.5},
        "classes": (["background"] if exclusive else []) + list(labels.names),
        "labels": {**asdict(labels), "values": values and list(values)},
        "postprocess": {name: asdict(cleaning) for name, cleaning in model.postprocess.items()},
        "precision": precision,
        "opset": OPSET,
        "any_size": any_size,
        "tolerance": _TOLERANCES[precision],
    }
    # As it is read back: tuples are lists, so that a comparison with the file finds no difference.
    plain: dict[str, Any] = json.loads(json.dumps(spec))
    return plain


def seal_folder(folder: Path, model: onnx.ModelProto, spec: Mapping[str, Any]) -> None:
    """Write the model with the specification inside, and the specification with the checksum of every file.

    Args:
        folder: Where all other files are.
        model: The network.
        spec: Of all fields but `files`.
    """
    del model.metadata_props[:]
    model.metadata_props.add(key="medseg", value=json.dumps(spec))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "spec.json")
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    text = json.dumps({**spec, "files": digests}, indent=1) + "\n"
    (folder / "spec.json").write_bytes(text.encode())


def list_golden_entries(cases: list[GoldenCase]) -> list[dict[str, Any]]:
    """List the golden cases as the specification does."""
    return [
        {"file": f"golden/{case.name}.npz", "whole_image_max_pixels": case.whole_image_max_pixels} for case in cases
    ]
