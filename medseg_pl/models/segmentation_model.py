"""The segmentation model: a network with the settings that travel with its weights, and how a checkpoint gives it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import explain_refusal, restrict_imports
from medseg_pl.core.intensity import LOW
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import PostProcessing, ResizeMode, TtaMode
from medseg_pl.core.validation import require_at_least
from medseg_pl.models.checkpoint import CheckpointInfo, load_verified, read_checkpoint
from medseg_pl.models.networks import (
    NetworkFactory,
    compute_logits,
    find_size_divisor,
    pause_autocast_in_depthwise,
    refuse_activation,
)
from medseg_pl.models.normalization import IMAGENET, Normalization
from medseg_pl.models.pretrained import build_pretrained
from medseg_pl.models.weight_adaptation import Classes, Input

log = logging.getLogger(__name__)

PREFIX = "model."
"""Before the names of these weights in a checkpoint, whose other weights are of training alone."""


class SegmentationModel(nn.Module):
    """A segmentation network with what it takes to use it.

    It holds the labels, the normalization, and how images are resized for the network.

    Args:
        network: Any class of segmentation-models-pytorch, or your own, or `functools.partial` of one; called with
            `in_channels` and `classes`. Or a ready network.
        labels: The structures to find.
        normalization: Raw values to network values.
        channels: Channels of an image: 1 for gray, 3 for color.
        context_slices: Neighboring slices on each side that the network sees as further channels.
        resize: `none` keeps pixels as they are; `fit` scales whole images into `input_size`.
        input_size: `(height, width)` of what the network sees in training, and of a window.
        spacing_mm: Distances `(y, x)` between pixels that slices are brought to first, with `resize: none`.
        size_divisor: Sides of an image that the network accepts divide by this; by default what its encoder needs.
        window_overlap: The share of a window that its neighbor covers again.
        whole_image_max_pixels: Images with more pixels run in windows.
        tta: Test-time augmentation, unless another is asked for.
        postprocess: What is done to each label of a predicted case, by its name.
        pretrained: Weights to start from, of the network or its encoder: a file, or `medseg:efficientnet_lite0`.
        channels_last: Memory format; faster with mixed precision.
        compile_network: Whether `torch.compile` is used: slow to start, faster to run.

    Raises:
        SettingError: The network does not fit, or a setting means nothing.
    """

    def __init__(
        self,
        network: NetworkFactory,
        labels: LabelMap,
        normalization: Normalization,
        channels: int = 1,
        context_slices: int = 0,
        resize: ResizeMode = "none",
        input_size: tuple[int, int] = (256, 256),
        spacing_mm: tuple[float, float] | None = None,
        size_divisor: int | None = None,
        window_overlap: float = 0.5,
        whole_image_max_pixels: int = 1 << 20,
        tta: TtaMode = "none",
        postprocess: dict[str, PostProcessing] | None = None,
        pretrained: str | None = None,
        channels_last: bool = False,
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        require_at_least("model", channels=(channels, 1), context_slices=(context_slices, 0))
        require_at_least("model", whole_image_max_pixels=(whole_image_max_pixels, 0))
        if not 0 <= window_overlap < 1:
            raise SettingError(f"model.window_overlap must be at least 0 and below 1; got {window_overlap}.")
        self.labels = labels
        self.channels = channels
        self.context_slices = context_slices
        self.resize: ResizeMode = resize
        self.input_size = (input_size[0], input_size[1])
        self.spacing_mm = spacing_mm and (spacing_mm[0], spacing_mm[1])
        self.window_overlap = window_overlap
        self.whole_image_max_pixels = whole_image_max_pixels
        self.tta: TtaMode = tta
        self.postprocess = _check_labels(postprocess or {}, labels)
        classes = Classes(labels.names, labels.task)
        self.network, statistics = build_pretrained(network, pretrained, Input(channels, context_slices), classes)
        refuse_activation(self.network)
        self.normalization = normalization
        message = normalization.follow_weights(statistics or IMAGENET, channels)
        if statistics is not None:
            log.info("%s", message)
        self.size_divisor = find_size_divisor(self.network) if size_divisor is None else size_divisor
        require_at_least("model", size_divisor=(self.size_divisor, 1))
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        pause_autocast_in_depthwise(self.network)
        if compile_network:
            # In place: `torch.compile(network)` would put `_orig_mod.` before the names of all weights.
            self.network.compile()

    @property
    def in_channels(self) -> int:
        """Count the channels of a slice with its neighbors."""
        return self.channels * (2 * self.context_slices + 1)

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU for a network without weights."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of raw images.

        Args:
            image: `(B, C * (2k + 1), H, W)`; the neighbor is the outer index, the channel the inner one.
            statistics: `(B, C * (2k + 1), 4)` of each channel over its whole case, see `compute_channel_statistics`.
        """
        return self.compute_logits(self.normalize(image, statistics))

    def normalize(
        self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]
    ) -> Float[Tensor, "b c h w"]:
        """Normalize raw values for the network, in its memory format.

        Args:
            image: Raw values of any type, channels as in `forward`.
            statistics: Of each channel over its whole case, as in `forward`.
        """
        values: Tensor = self.normalization(image, statistics)
        return values.contiguous(memory_format=self.memory_format)

    def compute_logits(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Run the network on normalized images.

        Raises:
            SettingError: The network does not take them, or returns something else than logits.
        """
        return compute_logits(self.network, image, self.labels.classes)

    def compute_padding_value(self, statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b c 1 1"]:
        """Normalize the padding value of images: each channel's low percentile."""
        return self.normalize(statistics[..., LOW, None, None], statistics)


def load_model(checkpoint: CheckpointInfo | str | Path, plugins: Sequence[str] = ()) -> SegmentationModel:
    """Build a checkpoint's model on the CPU, ready to predict.

    Args:
        checkpoint: A file, or the result of `read_checkpoint` for it, with settings that may have been changed.
        plugins: Packages of your own that its settings may name, beside those of a surrounding `restrict_imports`.

    Raises:
        SettingError: The settings name code that is not allowed, or do not fit.
        UnreadableFileError: The file is no checkpoint of medseg, or damaged.
    """
    trained = checkpoint if isinstance(checkpoint, CheckpointInfo) else read_checkpoint(str(checkpoint))
    names = inspect.signature(SegmentationModel).parameters
    # jsonargparse puts objects of its own into nested lists.
    settings = deepcopy({name: value for name, value in trained.settings["model"].items() if name in names})
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationModel, "model", fail_untyped=False)
    try:
        with restrict_imports(plugins):
            model: SegmentationModel = parser.instantiate(parser.parse_object({"model": settings})).model
    except (ArgumentError, ImportError) as error:
        reason = explain_refusal(str(error)) or " ".join(str(error).split())
        raise SettingError(f"{trained.path} cannot be loaded. {reason}") from error
    load_weights(model, trained.path)
    return model.eval().requires_grad_(False)


def load_weights(model: SegmentationModel, path: str | Path) -> None:
    """Load a checkpoint's weights into a model of the same settings.

    Raises:
        SettingError: The model is another.
    """
    stored = load_verified(Path(path), mmap=True)["state_dict"]
    state = {name.removeprefix(PREFIX): value for name, value in stored.items() if name.startswith(PREFIX)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SettingError(
            f"The weights in {path} do not fit the model: {str(error).splitlines()[-1].strip()} Leave the settings of "
            "model.network, model.channels, model.context_slices and model.labels as they were in training."
        ) from error


def _check_labels(postprocess: Mapping[str, PostProcessing], labels: LabelMap) -> dict[str, PostProcessing]:
    unknown = sorted(set(postprocess) - set(labels.names))
    if unknown:
        raise SettingError(
            f"model.postprocess names the label {unknown[0]!r}, which is none of {', '.join(labels.names)}. Correct it."
        )
    return dict(postprocess)
