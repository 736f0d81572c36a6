"""A trained network as an ONNX graph: raw values and their statistics in, logits out."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float, Shaped
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError

from medseg_pl.core.errors import ExportError
from medseg_pl.data.transforms.resize import compute_padded_size
from medseg_pl.models.normalization import Normalization
from medseg_pl.models.segmentation_model import SegmentationModel

OPSET = 18
"""The version of the operators; the lowest that torch writes, so that old runtimes read it."""

_REFUSALS = (OnnxExporterError, RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError)
"""What torch raises where it cannot follow a network, or not for every size."""


class Graph(NamedTuple):
    """A network in ONNX.

    Attributes:
        model: Takes `image` `(B, C, H, W)` and `statistics` `(B, C, 4)`, gives `logits` `(B, K, H, W)`.
        any_size: Whether it takes any number of images of any size that the network's multiple divides; otherwise one
            image of the window's size.
    """

    model: onnx.ModelProto
    any_size: bool


class Deployed(nn.Module):
    """The part of a module that an exported model carries.

    Args:
        module: The trained module.
        dtype: Of the network's computation; normalization keeps 32 bits.
    """

    def __init__(self, module: SegmentationModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.normalization = module.normalization
        self.network = copy.deepcopy(module.network).to(dtype).to(memory_format=torch.contiguous_format)
        self.dtype = dtype

    def forward(self, image: Float[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b k h w"]:
        """Logits of raw images."""
        logits: Tensor = self.network(self.normalization(image, statistics).to(self.dtype))
        return logits.float()


def make_graph(module: SegmentationModel, precision: str) -> Graph:
    """Export the network for any size, or for the window's where it cannot be done for any.

    Args:
        module: The trained module, in evaluation mode on the CPU.
        precision: `fp32`, `fp16` or `int8`.

    Raises:
        ExportError: torch cannot write the network as ONNX.
    """
    deployed = Deployed(module).eval()
    refused: list[str] = []
    for any_size in (True, False):
        try:
            model = _exported(deployed, module, any_size)
        except _REFUSALS as error:
            refused.append(str(error).strip().splitlines()[0])
            continue
        if not any_size or _agrees(model, deployed, module):
            return Graph(_in_precision(model, module, any_size, precision), any_size)
    raise ExportError(
        f"torch cannot write this network as ONNX: {refused[-1]} Use a network of segmentation-models-pytorch, or take "
        "out of yours what depends on the values of a tensor."
    )


def around(module: SegmentationModel, model: onnx.ModelProto) -> SegmentationModel:
    """The module with a graph in the place of its network and its normalization."""
    standing = copy.deepcopy(module)
    standing.normalization = _RawValues()
    standing.network = _Session(model, standing.normalization)
    return standing


class _RawValues(Normalization):
    """Leaves normalization to the graph, and keeps the statistics for it."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics = torch.zeros(0)

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c h w"]:
        """See `Normalization`."""
        self.statistics = statistics
        return image.float()


class _Session(nn.Module):
    """A graph as a network, one image at a time."""

    def __init__(self, model: onnx.ModelProto, raw: _RawValues) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.raw = raw

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """The graph's logits."""
        pairs = zip(image.numpy(), self.raw.statistics.numpy(), strict=True)
        found = [self.session.run(None, {"image": i[None], "statistics": s[None]})[0] for i, s in pairs]
        return torch.from_numpy(np.concatenate(found))


def _in_precision(model: onnx.ModelProto, module: SegmentationModel, any_size: bool, precision: str) -> onnx.ModelProto:
    if precision == "fp16":
        return _exported(Deployed(module, torch.float16).eval(), module, any_size)
    return _quantized(model) if precision == "int8" else model


def _exported(deployed: Deployed, module: SegmentationModel, any_size: bool) -> onnx.ModelProto:
    window, multiple = compute_padded_size(module.input_size, module.size_divisor), module.size_divisor
    # Two different sides, and no side or batch of 1: torch would take these for constants.
    size = (window[0] + multiple, window[1] + 2 * multiple) if any_size else window
    example = _example(module, size, 2 if any_size else 1)
    shapes = {"image": {0: Dim("batch"), 2: _side("rows", multiple), 3: _side("columns", multiple)}}
    with _quietly():
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
    return _without_origin(written.model_proto)


def _side(name: str, multiple: int) -> Any:
    """The lengths that a side may have."""
    return Dim(name) if multiple == 1 else multiple * Dim(name)


def _example(module: SegmentationModel, size: tuple[int, int], batch: int) -> tuple[Tensor, Tensor]:
    """Raw images of some size, and statistics that say what is in them."""
    channels = module.in_channels
    generator = torch.Generator().manual_seed(0)
    image = 100 * torch.rand((batch, channels, *size), generator=generator)
    return image, torch.tensor([50.0, 30.0, 0.5, 99.5]).expand(batch, channels, 4).contiguous()


def _agrees(model: onnx.ModelProto, deployed: Deployed, module: SegmentationModel) -> bool:
    """Whether the graph computes what the network does at sizes that it was not exported with.

    Some networks look at the size of an image in Python, which export turns into a constant without a word.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    multiple = module.size_divisor
    height, width = compute_padded_size(module.input_size, multiple)
    for size in ((height, width), (height + 3 * multiple, width + multiple)):
        image, statistics = _example(module, size, 1)
        try:
            (logits,) = session.run(None, {"image": image.numpy(), "statistics": statistics.numpy()})
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException:
            return False
        with torch.inference_mode():
            expected = deployed(image, statistics).numpy()
        if logits.shape != expected.shape or np.abs(logits - expected).max() > 1e-2 * np.abs(expected).max():
            return False
    return True


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in 8 bits, values quantized as they come."""
    ready = onnx.ModelProto()
    ready.CopyFrom(model)
    # What its own preparation notes: without it, it recommends that, which is done already and needs fixed sizes.
    ready.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        # Unsigned: the runtime has no convolution of signed weights on a CPU.
        quantize_dynamic(ready, path, weight_type=QuantType.QUInt8)
        return onnx.load(path)


def _without_origin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what torch notes of where each operator comes from: lines of code, and paths of this machine."""
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
def _quietly() -> Iterator[None]:
    """Without the exporter's warnings, which are about its own insides."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
