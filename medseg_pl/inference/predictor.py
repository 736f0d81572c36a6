"""From images to masks in Python: one model or several, whatever the format of the image.

```python
predictor = Predictor.from_checkpoint("runs/demo/version_0/checkpoints/best.ckpt")
prediction = predictor.predict("patient7.nii.gz")
stomach = prediction.plane("stomach")
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped, UInt8
from jsonargparse import ArgumentError
from torch import Tensor

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.geometry import Geometry, Slicing, find_slicing
from medseg_pl.core.import_policy import only_known_code, refusal
from medseg_pl.core.intensity import LOW, channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import TtaMode, Volume
from medseg_pl.data.cache.case import as_cache_dtype
from medseg_pl.data.datasets import as_network_type, neighbors
from medseg_pl.data.sources import DicomSource
from medseg_pl.data.sources.dicom_output import UnevenSlices
from medseg_pl.data.sources.files import read_image_file
from medseg_pl.inference.postprocess import apply_postprocess
from medseg_pl.inference.row_blocks import RowBlock, average_members, resize_to_native
from medseg_pl.inference.tta import get_transforms
from medseg_pl.training.checkpoints import CheckpointInfo, read_checkpoint
from medseg_pl.training.module import SegmentationModule


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, on the image's own grid.

    Args:
        mask: As `LabelMap` describes it: one channel with 0 for background and `i + 1` for label `i`, or one channel
            of 0 and 1 for each label where labels may overlap.
        labels: The labels.
        geometry: The grid.
        probabilities: `(K, D, H, W)` before the decision, or `None` where nobody asked for them.
    """

    mask: UInt8[np.ndarray, "m d h w"]
    labels: LabelMap
    geometry: Geometry
    probabilities: Float32[np.ndarray, "k d h w"] | None = None

    def plane(self, label: str) -> Bool[np.ndarray, "d h w"]:
        """Where the label is.

        Raises:
            SettingError: There is no such label.
        """
        if label not in self.labels.names:
            raise SettingError(f"There is no label {label!r}; the model knows {', '.join(self.labels.names)}.")
        return self.labels.plane(self.mask, list(self.labels.names).index(label))


class Predictor:
    """Predicts with one model, or with the mean over several that know the same labels.

    The models may differ in everything else: architecture, size, spacing, context, normalization. What post-processing
    there is, is that of the first.

    Args:
        members: The models, in evaluation mode, on one device.
        batch_size: Slices at a time.
        precision: Of the computation, in Lightning's words: `32-true`, `bf16-mixed` or `16-mixed`.
        slicing: How files of volumes are cut into slices; predictions are on the grid of the file.
        uneven_slices: What becomes of DICOM series with uneven slices, see `DicomSource`; of one that is resampled,
            predictions are on the even grid.

    Raises:
        SettingError: The models know different labels, or take different channels.
    """

    def __init__(
        self,
        members: Sequence[SegmentationModule],
        batch_size: int = 8,
        precision: str = "32-true",
        slicing: Slicing = "file",
        uneven_slices: UnevenSlices = "refuse",
    ) -> None:
        if not members:
            raise SettingError("A prediction needs at least one model.")
        self.members = list(members)
        self.batch_size = batch_size
        self.precision = precision
        self.slicing: Slicing = slicing
        self.uneven_slices: UnevenSlices = uneven_slices
        first = self.members[0]
        self.labels = first.labels
        self.channels = first.channels
        for number, member in enumerate(self.members[1:], start=2):
            same = (list(member.labels.names), member.labels.task) == (list(self.labels.names), self.labels.task)
            if not same or member.channels != self.channels:
                raise SettingError(
                    f"The models of an ensemble must know the same labels and take the same channels: model 1 has "
                    f"{_described(first)}, model {number} {_described(member)}. Leave one of them out."
                )

    @classmethod
    def from_checkpoint(
        cls,
        paths: str | Path | Sequence[str | Path],
        tta: TtaMode | None = None,
        device: str | None = None,
        batch_size: int = 8,
        plugins: Sequence[str] = (),
    ) -> Predictor:
        """Load the models of one or several checkpoints.

        Args:
            paths: Files that `medseg fit` wrote.
            tta: Flips to average over, in place of those stored with the model.
            device: `cpu`, `cuda`, `cuda:1` …; a GPU by default, where there is one.
            batch_size: Slices at a time.
            plugins: Packages of your own that the checkpoints' settings may name.

        Raises:
            MedsegError: A file is missing, damaged, or no checkpoint; or the models do not go together.
        """
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        trained = [read_checkpoint(str(path)) for path in files]
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with only_known_code(plugins):
            members = [load_module(each).to(where) for each in trained]
        if tta is not None:
            for member in members:
                member.symmetries = get_transforms(tta)
        precision = str(trained[0].settings["trainer"]["precision"]) if trained else "32-true"
        source = _find_source_settings(trained)
        slicing, uneven_slices = source.get("slicing", "file"), source.get("uneven_slices", "refuse")
        return cls(members, batch_size, precision, slicing, uneven_slices)

    def predict(
        self,
        image: str | Path | Shaped[np.ndarray, "..."],
        spacing_mm: tuple[float, float, float] | None = None,
        *,
        probabilities: bool = True,
    ) -> Prediction:
        """Predict one image.

        Args:
            image: A file of any format that is read, a folder that holds one DICOM series, or raw values
                `(H, W)`, `(D, H, W)` or `(C, D, H, W)`.
            spacing_mm: Of raw values, along `(z, y, x)`; files bring their own.
            probabilities: Whether the prediction keeps its probabilities.

        Raises:
            DataError: The image cannot be read, or has other channels than the models take.
        """
        if isinstance(image, str | Path):
            pixels, geometry = _read(Path(image), self.labels, self.uneven_slices)
            slicing: Slicing = "file" if Path(image).is_dir() else self.slicing
            turn = find_slicing(geometry, slicing, str(image))
            volume = Volume(np.ascontiguousarray(turn.apply(pixels)), None, geometry.reoriented(turn))
            found = self.predict_volume(volume, str(image), probabilities=probabilities)
            kept = found.probabilities if found.probabilities is None else turn.undo(found.probabilities)
            return Prediction(np.ascontiguousarray(turn.undo(found.mask)), self.labels, geometry, kept)
        if not 2 <= image.ndim <= 4:
            raise DataError(f"The image has the shape {image.shape}; expected (H, W), (D, H, W) or (C, D, H, W).")
        pixels = image.reshape((1,) * (4 - image.ndim) + image.shape)
        depth, height, width = pixels.shape[1:]
        geometry = Geometry((depth, height, width), spacing_mm)
        return self.predict_volume(Volume(pixels, None, geometry), "image", probabilities=probabilities)

    def predict_volume(self, volume: Volume, what: str, *, probabilities: bool = False) -> Prediction:
        """Predict what a source has read.

        Args:
            volume: The image, on its grid.
            what: What to call it in an error.
            probabilities: Whether the prediction keeps its probabilities, which take `4 K` bytes for each voxel.

        Raises:
            DataError: The image does not fit the models.
        """
        self._check(volume, what)
        image = as_cache_dtype(volume.image, what)
        statistics = channel_statistics(image)
        depth, height, width = volume.geometry.shape
        mask = np.empty((self.labels.mask_channels, depth, height, width), np.uint8)
        kept = np.empty((self.labels.classes, depth, height, width), np.float32) if probabilities else None
        with torch.inference_mode(), self._autocast():
            for places in self._batches(volume.geometry):
                for rows, mean in self._bands(image, statistics, volume.geometry, places):
                    mask[:, places, rows] = self.labels.decide(mean).cpu().numpy().swapaxes(0, 1)
                    if kept is not None:
                        kept[:, places, rows] = mean.float().cpu().numpy().swapaxes(0, 1)
        cleaning = self.members[0].assembler.cleaning
        mask = apply_postprocess(mask, volume.geometry, self.labels, cleaning) if cleaning else mask
        return Prediction(mask, self.labels, volume.geometry, kept)

    def _batches(self, geometry: Geometry) -> Iterator[slice]:
        """Which slices are seen together: fewer where they are too large for the network to see whole."""
        depth, height, width = geometry.shape
        fitted = [member.resize.on(geometry).fitted_size((height, width)) for member in self.members]
        crowd = max(h * w / m.sliding_window.max_pixels for (h, w), m in zip(fitted, self.members, strict=True))
        count = max(1, int(self.batch_size / max(1, crowd)))
        return (slice(start, min(start + count, depth)) for start in range(0, depth, count))

    def _bands(
        self,
        image: Shaped[np.ndarray, "c d h w"],
        statistics: Float32[np.ndarray, "c 4"],
        geometry: Geometry,
        places: slice,
    ) -> Iterator[RowBlock]:
        """The mean of the models' probabilities of some slices, on the native grid."""
        seen = [_bands(member, image, statistics, geometry, places) for member in self.members]
        return average_members(seen, geometry.shape[1])

    def _check(self, volume: Volume, what: str) -> None:
        if len(volume.image) != self.channels:
            raise DataError(
                f"{what} has {len(volume.image)} channel(s), but the model takes {self.channels}. Give images like "
                "those that it was trained on."
            )
        if volume.geometry.spacing_mm is None and any(m.resize.spacing_mm is not None for m in self.members):
            raise DataError(
                f"{what} does not say its spacing, but the model brings images to a spacing of its own. Give a format "
                "that holds the spacing, such as NIfTI, or raw values with spacing_mm."
            )

    def _autocast(self) -> AbstractContextManager[object]:
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        if self.precision not in kinds:
            return nullcontext()
        return torch.autocast(self.members[0].device.type, kinds[self.precision])


def load_module(trained: CheckpointInfo) -> SegmentationModule:
    """The model of a checkpoint with its weights, ready to predict.

    Raises:
        SettingError: Its settings name code that is not allowed, or do not fit.
    """
    settings = deepcopy(trained.settings["model"])  # jsonargparse puts objects of its own into nested lists
    try:
        module = SegmentationModule.load_from_checkpoint(
            trained.path, map_location="cpu", weights_only=True, **settings
        )
    except (ArgumentError, ImportError) as error:
        reason = refusal(str(error)) or " ".join(str(error).split())
        raise SettingError(f"{trained.path} cannot be loaded. {reason}") from error
    return module.eval().requires_grad_(False)


def load_weights(module: SegmentationModule, path: str) -> None:
    """Put a checkpoint's weights into a model of the same settings.

    Raises:
        SettingError: The model is another.
    """
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise SettingError(
            f"The weights in {path} do not fit the model: {str(error).splitlines()[-1].strip()} Leave the settings of "
            "model.network, model.channels, model.context_slices and model.labels as they were in training."
        ) from error


def _bands(
    member: SegmentationModule,
    image: Shaped[np.ndarray, "c d h w"],
    statistics: Float32[np.ndarray, "c 4"],
    geometry: Geometry,
    places: slice,
) -> Iterator[RowBlock]:
    """Of one model, on the native grid."""
    native = geometry.shape[1:]
    resize = member.resize.on(geometry)
    repeated = np.tile(statistics, (2 * member.context_slices + 1, 1))
    fitted = [
        resize.apply(neighbors(image, place, member.context_slices), repeated[:, LOW])
        for place in range(places.start, places.stop)
    ]

    def read(rows: slice) -> Tensor:
        return torch.from_numpy(np.stack([as_network_type(pixels[:, rows], repeated) for pixels in fitted]))

    of_all = torch.from_numpy(np.tile(repeated, (len(fitted), 1, 1)))
    return resize_to_native(member.bands(read, resize.fitted_size(native), of_all), resize, native)


def _read(path: Path, labels: LabelMap, uneven_slices: UnevenSlices) -> tuple[Shaped[np.ndarray, "c d h w"], Geometry]:
    if not path.is_dir():
        return read_image_file(path)
    source = DicomSource(str(path), references=None, uneven_slices=uneven_slices)
    cases = source.cases()
    if len(cases) != 1:
        raise DataError(
            f"{path} holds {len(cases)} DICOM series; expected one. Give the folder of one, or use medseg predict."
        )
    volume = source.read(cases[0], labels)
    return volume.image, volume.geometry


def _find_source_settings(trained: Sequence[CheckpointInfo]) -> dict[str, Any]:
    """Find how the first model's data set was read."""
    source = trained[0].settings.get("data", {}).get("source", {}) if trained else {}
    return source.get("init_args") or {}


def _described(member: SegmentationModule) -> str:
    return f"{', '.join(member.labels.names)} ({member.labels.task}), {member.channels} channel(s)"
