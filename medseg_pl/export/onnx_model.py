"""A trained network as an ONNX graph, and the specification of what is done to an image before and after it."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float, Shaped
from onnxruntime.quantization import QuantType, quantize_dynamic
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError

from medseg_pl import __version__
from medseg_pl.core import intensity
from medseg_pl.core.errors import ExportError
from medseg_pl.data.transforms.grids import SIGMA, compute_padded_size
from medseg_pl.export.golden_cases import GoldenCase
from medseg_pl.models.normalization import Normalization
from medseg_pl.models.segmentation_model import SegmentationModel

OPSET = 18
"""The version of the operators; the lowest that torch writes, so that old runtimes read it."""

_REFUSALS = (OnnxExporterError, RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError)
"""What torch raises where it cannot follow a network, or not for every size."""

_TOLERANCES = {
    "fp32": {"agreement": 0.9999, "mean_difference": 1e-4},
    # Processors round half precision in their own ways, and differ in the instructions that they have for 8 bits.
    "fp16": {"agreement": 0.999, "mean_difference": 2e-3},
    "int8": {"agreement": 0.99, "mean_difference": 2e-2},
}
"""The share of pixels that must agree with a golden case, and how far its probabilities may be, on average."""


class OnnxModel(NamedTuple):
    """A network in ONNX.

    Attributes:
        model: Takes `image` `(B, C, H, W)` and `statistics` `(B, C, 4)`, gives `logits` `(B, K, H, W)`.
        any_size: Whether it takes any number of images of any size that the network's multiple divides; otherwise one
            image of the window's size.
    """

    model: onnx.ModelProto
    any_size: bool


class DeployedNetwork(nn.Module):
    """Normalization and network, the part of a model that becomes a graph.

    Args:
        model: The trained model.
        dtype: Of the network's computation; normalization keeps 32 bits.
    """

    def __init__(self, model: SegmentationModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.normalization = model.normalization
        self.network = copy.deepcopy(model.network).to(dtype).to(memory_format=torch.contiguous_format)
        self.dtype = dtype

    def forward(self, image: Float[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of raw images.

        Args:
            image: `(B, C, H, W)`.
            statistics: `(B, C, 4)` of each channel over its whole case.
        """
        logits: Tensor = self.network(self.normalization(image, statistics).to(self.dtype))
        return logits.float()


def export_onnx(model: SegmentationModel, precision: str) -> OnnxModel:
    """Export the network for any size, or else for the window's.

    Args:
        model: The trained model, in evaluation mode on the CPU.
        precision: `fp32`, `fp16` or `int8`.

    Raises:
        ExportError: torch cannot write the network as ONNX.
    """
    deployed = DeployedNetwork(model).eval()
    refusals: list[str] = []
    for any_size in (True, False):
        try:
            graph = _export_graph(deployed, model, any_size)
        except _REFUSALS as error:
            refusals.append(str(error).strip().splitlines()[0])
            continue
        if not any_size or _agrees(graph, deployed, model):
            return OnnxModel(_convert_precision(graph, model, any_size, precision), any_size)
    raise ExportError(
        f"torch cannot write this network as ONNX: {refusals[-1]} Use a network of segmentation-models-pytorch, or "
        "take out of yours what depends on the values of a tensor."
    )


def replace_network(model: SegmentationModel, graph: onnx.ModelProto) -> SegmentationModel:
    """Copy a model, with a graph for its network and normalization."""
    replaced = copy.deepcopy(model)
    replaced.normalization = _RawValues()
    replaced.network = _Session(graph, replaced.normalization)
    return replaced


class _RawValues(Normalization):
    """Leave normalization to the graph, and keep the statistics for it."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics = torch.zeros(0)

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """See `Normalization`."""
        self.statistics = statistics
        return image.float()


class _Session(nn.Module):
    """A graph as a network, one image at a time."""

    def __init__(self, graph: onnx.ModelProto, raw: _RawValues) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        self.raw = raw

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Compute the graph's logits."""
        pairs = zip(image.numpy(), self.raw.statistics.numpy(), strict=True)
        logits = [self.session.run(None, {"image": i[None], "statistics": s[None]})[0] for i, s in pairs]
        return torch.from_numpy(np.concatenate(logits))


def _convert_precision(
    graph: onnx.ModelProto, model: SegmentationModel, any_size: bool, precision: str
) -> onnx.ModelProto:
    if precision == "fp16":
        return _export_graph(DeployedNetwork(model, torch.float16).eval(), model, any_size)
    return _quantize(graph) if precision == "int8" else graph


def _export_graph(deployed: DeployedNetwork, model: SegmentationModel, any_size: bool) -> onnx.ModelProto:
    window, multiple = compute_padded_size(model.input_size, model.size_divisor), model.size_divisor
    # Two different sides, and no side or batch of 1: torch would take these for constants.
    size = (window[0] + multiple, window[1] + 2 * multiple) if any_size else window
    example = _make_example(model, size, 2 if any_size else 1)
    shapes = {"image": {0: Dim("batch"), 2: _limit_side("rows", multiple), 3: _limit_side("columns", multiple)}}
    with _silence_exporter(), _settle_same_padding():
        program = torch.export.export(
            deployed, example, dynamic_shapes={**shapes, "statistics": {0: Dim("batch")}} if any_size else None
        )
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image", "statistics"],
            output_names=["logits"],
            verbose=False,
        )
    assert written is not None, "it is one where dynamo is set"
    return _remove_origin(written.model_proto)


def _limit_side(name: str, multiple: int) -> Any:
    """Limit the lengths of a side to those that the network takes."""
    return Dim(name) if multiple == 1 else multiple * Dim(name)


def _make_example(model: SegmentationModel, size: tuple[int, int], batch: int) -> tuple[Tensor, Tensor]:
    """Make raw images of some size, and statistics that fit them."""
    channels = model.in_channels
    generator = torch.Generator().manual_seed(0)
    image = 100 * torch.rand((batch, channels, *size), generator=generator)
    return image, torch.tensor([50.0, 30.0, 0.5, 99.5]).expand(batch, channels, 4).contiguous()


def _agrees(graph: onnx.ModelProto, deployed: DeployedNetwork, model: SegmentationModel) -> bool:
    """Tell whether the graph matches the network at other sizes.

    Some networks look at the size of an image in Python, which export turns into a constant without a word.
    """
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    multiple = model.size_divisor
    height, width = compute_padded_size(model.input_size, multiple)
    for size in ((height, width), (height + 3 * multiple, width + multiple)):
        image, statistics = _make_example(model, size, 1)
        try:
            (logits,) = session.run(None, {"image": image.numpy(), "statistics": statistics.numpy()})
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException:
            return False
        with torch.inference_mode():
            expected = deployed(image, statistics).numpy()
        if logits.shape != expected.shape or np.abs(logits - expected).max() > 1e-2 * np.abs(expected).max():
            return False
    return True


def _quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize weights to 8 bits, and values at run time."""
    ready = onnx.ModelProto()
    ready.CopyFrom(model)
    # What its own preparation notes: without it, it recommends that, which is done already and needs fixed sizes.
    ready.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        # Unsigned: the runtime has no convolution of signed weights on a CPU.
        quantize_dynamic(ready, path, weight_type=QuantType.QUInt8)
        return onnx.load(path)


def _remove_origin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the origin of operators that torch notes."""
    # It names lines of code, and paths of this machine.
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in (model, graph, *graph.node, *values, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in (node for function in model.functions for node in function.node):
        del node.metadata_props[:]
        node.doc_string = ""
    return model


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Silence the exporter's warnings, which are about its own insides."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _settle_same_padding() -> Iterator[None]:
    """Fix timm's padding at what every allowed size needs.

    timm would compute the padding from the size. Its formula for an unknown size puts each layer's expression into the
    next one's, and torch then compares them for hours. The sides are multiples of all strides, for which the padding is
    one number; `_agrees` holds it to that.
    """
    compute = padding.get_same_padding

    def settle(x: Any, kernel_size: int, stride: int, dilation: int) -> Any:
        unknown = isinstance(x, torch.SymInt)
        return (
            max((kernel_size - 1) * dilation + 1 - stride, 0) if unknown else compute(x, kernel_size, stride, dilation)
        )

    padding.get_same_padding = settle
    try:
        yield
    finally:
        padding.get_same_padding = compute


def make_specification(
    model: SegmentationModel,
    settings: Mapping[str, Any],
    *,
    slicing: str,
    any_size: bool,
    precision: str,
    orientation: str | None = None,
) -> dict[str, Any]:
    """Make the specification that a program needs to use the exported network.

    Args:
        model: The trained model.
        settings: Those of the model, as a checkpoint holds them.
        slicing: Across which axis volumes are cut.
        any_size: Whether the graph takes images of any size.
        precision: Of the graph.
        orientation: Axis codes of the training slices, where they were known.
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
        "orientation": orientation,
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
    """Write the model and the specification, with checksums of all files.

    The model holds the specification too.

    Args:
        folder: Where all other files are.
        model: The network.
        spec: All fields but `files`.
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
