"""Predictor: from images of any format to masks, with one model or the mean of several.

```python
predictor = Predictor.from_checkpoint("runs/demo/version_0/checkpoints/best.ckpt")
prediction = predictor.predict("patient7.nii.gz")
stomach = prediction.plane("stomach")
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from medseg_pl.core.errors import DataError, SettingError, count_noun
from medseg_pl.core.geometry import Geometry, Slicing, find_slicing
from medseg_pl.core.image_findings import ImageFinding, OnForeign
from medseg_pl.core.import_policy import restrict_imports
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.training_profile import TrainingProfile
from medseg_pl.core.types import PostProcessing, Prediction, SliceReference, TtaMode, Volume
from medseg_pl.data.cache.case import as_cache_dtype
from medseg_pl.data.sources import DicomSource
from medseg_pl.data.sources.dicom_cases import UnevenSlices
from medseg_pl.data.sources.files import read_image_file, reorient_volume
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.comparison import TrainingComparison, read_profiles
from medseg_pl.inference.inferer import Inferer
from medseg_pl.inference.sliding_window import RowBlock
from medseg_pl.models.checkpoint import read_checkpoint
from medseg_pl.models.ensemble_file import expand_ensembles
from medseg_pl.models.segmentation_model import SegmentationModel, load_model

_AUTOCAST_TYPES = {
    **dict.fromkeys(("bf16-mixed", "bf16"), torch.bfloat16),
    **dict.fromkeys(("16-mixed", "16"), torch.float16),
}
"""By Lightning's names, of which settings may keep the short ones."""


class EnsemblePrediction(NamedTuple):
    """A prediction with its members' masks, to measure where they disagree.

    Attributes:
        prediction: With its probabilities.
        member_masks: Of several models each one's own; of a single model with flips that of the image unflipped;
            else none.
    """

    prediction: Prediction
    member_masks: list[UInt8[np.ndarray, "m d h w"]]


class Predictor:
    """Predicts with one model, or with the mean over several.

    The models have the same labels. They may differ in everything else: architecture, size, spacing, context,
    normalization.

    Args:
        models: In evaluation mode, on one device.
        batch_size: Slices at a time.
        precision: Of the computation, in Lightning's words: `32-true`, `bf16-mixed` or `16-mixed`.
        slicing: How files of volumes are cut into slices; predictions are on the grid of the file.
        uneven_slices: What becomes of DICOM series with uneven slices, see `DicomSource`; of one that is resampled,
            predictions are on the even grid.
        tta: Flips to average over, in place of each model's own.
        whole_image_max_pixels: Images with more pixels run in windows, in place of each model's own limit.
        postprocess: The post-processing of each label, in place of the first model's.
        orientation: Axis codes of the training slices: files that say how they lie are brought to them, and masks back.
        profiles: Summaries of each model's training images; without them images are compared with nothing.
        on_foreign: What happens to an image that is unlike the training images: `mark` predicts it, and the prediction
            has findings; `refuse` raises `ForeignImageError`; `ignore` compares nothing.

    Raises:
        SettingError: The models know different labels, or take different channels.
    """

    def __init__(
        self,
        models: Sequence[SegmentationModel],
        batch_size: int = 8,
        precision: str = "32-true",
        slicing: Slicing = "file",
        uneven_slices: UnevenSlices = "refuse",
        tta: TtaMode | None = None,
        whole_image_max_pixels: int | None = None,
        postprocess: Mapping[str, PostProcessing] | None = None,
        orientation: str | None = None,
        profiles: Sequence[TrainingProfile] = (),
        on_foreign: OnForeign = "mark",
    ) -> None:
        _check_members(models)
        self.models = list(models)
        self.batch_size = batch_size
        self.precision = precision
        self.slicing: Slicing = slicing
        self.uneven_slices: UnevenSlices = uneven_slices
        self.tta = tta
        self.whole_image_max_pixels = whole_image_max_pixels
        self.labels = models[0].labels
        self.channels = models[0].channels
        self.postprocess = models[0].postprocess if postprocess is None else postprocess
        self.orientation = orientation
        self.profiles = list(profiles)
        self.on_foreign: OnForeign = on_foreign
        self.comparison = TrainingComparison(profiles, self.labels, on_foreign)
        self.inferer = Inferer(models, tta, whole_image_max_pixels)

    @classmethod
    def from_checkpoint(
        cls,
        paths: str | Path | Sequence[str | Path],
        tta: TtaMode | None = None,
        device: str | None = None,
        batch_size: int = 8,
        plugins: Sequence[str] = (),
        postprocess: Mapping[str, PostProcessing] | None = None,
        on_foreign: OnForeign = "mark",
    ) -> Predictor:
        """Load the models of one or several checkpoints.

        Args:
            paths: Files that `medseg fit` wrote, or the `ensemble.json` of `medseg crossval`.
            tta: Flips to average over, in place of those stored with each model.
            device: `cpu`, `cuda`, `cuda:1` …; a GPU by default, where there is one.
            batch_size: Slices at a time.
            plugins: Packages of your own that the checkpoints' settings may name.
            postprocess: The post-processing of each label, in place of the first checkpoint's.
            on_foreign: What happens to an image that is unlike the training images, see the class.

        Raises:
            MedsegError: A file is missing, damaged, or no checkpoint; or the models do not go together.
        """
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        trained = [read_checkpoint(path) for path in expand_ensembles(files)]
        if not trained:
            raise SettingError("A prediction needs at least one checkpoint.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with restrict_imports(plugins):
            models = [load_model(each).to(device) for each in trained]
        settings = trained[0].settings
        source = settings.get("data", {}).get("source", {}).get("init_args") or {}
        return cls(
            models,
            batch_size,
            str(settings["trainer"]["precision"]),  # that of training, by which the model was validated
            source.get("slicing", "file"),
            source.get("uneven_slices", "refuse"),
            tta,
            postprocess=postprocess,
            orientation=trained[0].orientation,
            profiles=read_profiles(trained),
            on_foreign=on_foreign,
        )

    def select_models(self, indices: Sequence[int], tta: TtaMode | None = None) -> Predictor:
        """Return a predictor of some of the models.

        It post-processes as the first of them does.

        Args:
            indices: Numbers of the models, from 0.
            tta: Flips to average over, in place of this predictor's.
        """
        return Predictor(
            [self.models[index] for index in indices],
            self.batch_size,
            self.precision,
            self.slicing,
            self.uneven_slices,
            self.tta if tta is None else tta,
            self.whole_image_max_pixels,
            self.postprocess if indices[0] == 0 else None,  # None: that of the model itself
            self.orientation,
            # An old checkpoint has none, and then nobody knows whose the others are.
            [self.profiles[index] for index in indices] if len(self.profiles) == len(self.models) else self.profiles,
            self.on_foreign,
        )

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
            stored = _read_image(Path(image), self.labels, self.uneven_slices)
            # A series is stacked as it was acquired; only files of volumes have another axis to choose.
            slicing: Slicing = "file" if Path(image).is_dir() else self.slicing
            turn = find_slicing(stored.geometry, slicing, str(image), self.orientation)
            volume = reorient_volume(stored, turn)
            turned = self.predict_volume(volume, str(image), probabilities=probabilities)
            return replace(
                turned,
                geometry=stored.geometry,
                mask=np.ascontiguousarray(turn.undo(turned.mask)),
                probabilities=turned.probabilities if turned.probabilities is None else turn.undo(turned.probabilities),
            )
        if not 2 <= image.ndim <= 4:
            raise DataError(f"The image has the shape {image.shape}; expected (H, W), (D, H, W) or (C, D, H, W).")
        pixels = image.reshape((1,) * (4 - image.ndim) + image.shape)
        depth, height, width = pixels.shape[1:]
        geometry = Geometry((depth, height, width), spacing_mm)
        return self.predict_volume(Volume(pixels, None, geometry), "image", probabilities=probabilities)

    def predict_volume(
        self, volume: Volume, description: str, *, probabilities: bool = False, case_id: str = "", group: str = ""
    ) -> Prediction:
        """Predict an image that a source has read.

        Args:
            volume: The image, on its grid.
            description: The image's name in an error.
            probabilities: Whether the prediction keeps its probabilities, which take `4 K` bytes for each voxel.
            case_id: The case, for the prediction.
            group: Its patient.

        Raises:
            DataError: The image does not fit the models, or is refused.
        """
        self._check(volume, description)
        findings = self.comparison.compare_image(volume, description)
        prediction = self._predict_slices(volume, description, probabilities, case_id, group)
        return self._add_findings(prediction, findings, description)

    def _add_findings(self, prediction: Prediction, findings: tuple[ImageFinding, ...], description: str) -> Prediction:
        return replace(prediction, findings=(*findings, *self.comparison.compare_prediction(prediction, description)))

    def _predict_slices(
        self, volume: Volume, description: str, probabilities: bool, case_id: str = "", group: str = ""
    ) -> Prediction:
        # As the cache of training holds it, so that both see the same values.
        image, geometry = as_cache_dtype(volume.image, description), volume.geometry
        statistics = compute_channel_statistics(image)
        assembler = CaseAssembler(self.labels, self.postprocess, probabilities)
        depth = geometry.shape[0]
        step = self.inferer.count_slices_at_once(geometry, self.batch_size)
        predictions = []
        # Blocks are lazy: the networks run in here, while the assembler takes them.
        with torch.inference_mode(), self.make_autocast():
            for start in range(0, depth, step):
                indices = range(start, min(start + step, depth))
                slice_blocks = self.inferer.infer_slices(image, statistics, geometry, indices)
                blocks = [_require_finite(each, description) for each in slice_blocks]
                slices = [SliceReference(case_id, group, index, geometry) for index in indices]
                predictions += assembler.add(blocks, slices)
        (prediction,) = predictions
        return prediction

    def predict_members(self, volume: Volume, description: str) -> EnsemblePrediction:
        """Predict as `predict_volume` does, and keep the masks of the members.

        Args:
            volume: The image, on its grid.
            description: The image's name in an error.

        Raises:
            DataError: The image does not fit the models.
        """
        if len(self.models) == 1:
            prediction = self.predict_volume(volume, description, probabilities=True)
            if (self.tta or self.models[0].tta) == "none":
                return EnsemblePrediction(prediction, [])
            unflipped = self.select_models([0], tta="none")._predict_slices(volume, description, probabilities=False)
            return EnsemblePrediction(prediction, [unflipped.mask])
        self._check(volume, description)
        findings = self.comparison.compare_image(volume, description)
        masks, total = [], np.zeros(0, np.float32)
        for index in range(len(self.models)):
            member = self.select_models([index])._predict_slices(volume, description, probabilities=True)
            assert member.probabilities is not None, "asked for"
            masks.append(member.mask)
            # One after the other, and in place: probabilities of a volume take 4 K bytes for each voxel.
            total = np.add(total, member.probabilities, out=total) if index else member.probabilities
        mean = np.divide(total, np.float32(len(masks)), out=total)
        prediction = CaseAssembler(self.labels, self.postprocess).assemble(mean, volume.geometry)
        prediction = self._add_findings(replace(prediction, probabilities=mean), findings, description)
        return EnsemblePrediction(prediction, masks)

    def make_autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the networks compute in the chosen precision."""
        if self.precision not in _AUTOCAST_TYPES:
            return nullcontext()
        return torch.autocast(self.models[0].device.type, _AUTOCAST_TYPES[self.precision])

    def _check(self, volume: Volume, description: str) -> None:
        if len(volume.image) != self.channels:
            # A volume has no colors: its channels are sequences, or phases.
            remedies = {1: "Save it in gray", 3: "Save it in color (RGB)"} if volume.image.shape[1] == 1 else {}
            remedy = remedies.get(self.channels, "Give the channels that it was trained on")
            raise DataError(
                f"{description} has {count_noun(len(volume.image), 'channel')}, but the model takes {self.channels}. "
                f"{remedy}, or choose a model of such images."
            )
        if volume.geometry.spacing_mm is None and any(model.spacing_mm is not None for model in self.models):
            raise DataError(
                f"{description} has no spacing, but the model brings images to a spacing of its own. Give a format "
                "that holds the spacing, such as NIfTI, or raw values with spacing_mm."
            )


def _require_finite(blocks: Iterable[RowBlock], description: str) -> Iterator[RowBlock]:
    """Pass blocks on while their probabilities are numbers; others would be decided as background."""
    for block in blocks:
        if not torch.isfinite(block.probabilities).all():
            raise DataError(
                f"{description}: the network's output is not a number. Predict with --trainer.precision 32-true, or "
                "use other weights."
            )
        yield block


def _check_members(models: Sequence[SegmentationModel]) -> None:
    """Check that models have the same labels and channels."""
    if not models:
        raise SettingError("A prediction needs at least one model.")
    first, *others = [(list(model.labels.names), model.labels.task, model.channels) for model in models]
    for number, other in enumerate(others, start=2):
        if other != first:
            raise SettingError(
                "The models of an ensemble must know the same labels and take the same channels: model 1 has "
                f"{_describe(*first)}, model {number} {_describe(*other)}. Leave one of them out."
            )


def _describe(names: Sequence[str], task: str, channels: int) -> str:
    return f"{', '.join(names)} ({task}), {count_noun(channels, 'channel')}"


def _read_image(path: Path, labels: LabelMap, uneven_slices: UnevenSlices) -> Volume:
    """Read a file, or the one DICOM series of a folder."""
    if not path.is_dir():
        pixels, geometry = read_image_file(path)
        return Volume(pixels, None, geometry)
    source = DicomSource(str(path), references=None, uneven_slices=uneven_slices)
    cases = source.cases()
    if len(cases) != 1:
        raise DataError(
            f"{path} holds {len(cases)} DICOM series; expected one. Give the folder of one, or use medseg predict."
        )
    return source.read(cases[0], labels)
