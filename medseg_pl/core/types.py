"""What flows through medseg: a case becomes a volume, its slices a batch, and a batch a prediction of cases."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from unicodedata import normalize

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from medseg_pl.core.errors import DataError, SettingError, shorten
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.image_findings import ImageFinding
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.validation import find_path_fault

ResizeMode: TypeAlias = Literal["none", "fit"]
"""`none` keeps pixels as they are; `fit` scales a whole image into the network's input."""

Rater: TypeAlias = Literal["first", "random", "mean"]
"""Whose masks are trained on: `first`, those of the source; `random`, each time those of any rater; `mean`, the share
of raters who drew a label."""

TtaMode: TypeAlias = Literal["none", "horizontal", "vertical", "flips", "all"]
"""`horizontal` exchanges left and right, `vertical` top and bottom, `flips` does either and both, and `all` turns by
quarters as well."""


@dataclass(frozen=True)
class PostProcessing:
    """Post-processing of one label of a predicted case, in order.

    Choose it on validation cases, never on test cases.

    Args:
        fill_holes: Fill what the label encloses, except where another label is.
        minimum_size: Remove smaller components: in mm³, in mm² for an image of one slice, or in voxels where the
            spacing is unknown.
        largest_only: Remove all components but the largest.

    Raises:
        SettingError: `minimum_size` is negative or infinite.
    """

    fill_holes: bool = False
    minimum_size: float = 0.0
    largest_only: bool = False

    def __post_init__(self) -> None:
        """Reject sizes that mean nothing."""
        if not 0 <= self.minimum_size < math.inf:
            raise SettingError(f"postprocess: minimum_size must be at least 0; got {self.minimum_size}.")


@dataclass(frozen=True)
class Case:
    """One scored unit, a 2D image or volume, named by its files.

    Args:
        case_id: Unique within the source: a name, or names with `/` between them.
        group: The patient. Cases of one group are never on two sides of a split.
        images: The files of the image; the source that made the case knows whether they are channels or slices.
        masks: The files of the reference, empty where there is none.
        split: `train`, `val` or `test` where the data set itself says so.
        fold: The fold in which the case is held out, where the data set itself says so.
        strata: Further properties, such as `(("site", "A"),)`; scores are also reported by each of them.
        annotated_labels: The labels that were annotated in this case; all where `None`.

    Raises:
        DataError: The id is no safe relative path, see `find_path_fault`.
    """

    case_id: str
    group: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    split: str | None = None
    fold: int | None = None
    strata: tuple[tuple[str, str], ...] = ()
    annotated_labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Reject an id that predictions could not be written under, and spell the patient in one way."""
        # macOS decomposes umlauts: "ü" in one file's name and "u" with dots in another's are one patient.
        object.__setattr__(self, "group", normalize("NFC", self.group))
        if (fault := find_path_fault(self.case_id)) is not None:
            raise DataError(
                f"The case {shorten(self.case_id)} {fault}, but its results are written under that name. Rename it."
            )


@dataclass(frozen=True)
class Volume:
    """The pixels of one case.

    Args:
        image: `(C, D, H, W)`, raw values in the data type of the file.
        mask: `(M, D, H, W)` as `LabelMap.encode` writes it, or `None`.
        geometry: The grid that both share.
        modality: As DICOM writes it, such as `CT`; empty where the files do not say.
    """

    image: Shaped[np.ndarray, "c d h w"]
    mask: UInt8[np.ndarray, "m d h w"] | None
    geometry: Geometry
    modality: str = ""


class Sample(NamedTuple):
    """One training patch; several make a `Batch`.

    Attributes:
        image: `(C * (2k + 1), h, w)`, raw values; the neighbor is the outer index, the channel the inner one.
        mask: `(M, h, w)`; of raters that are averaged, the share of those who drew the label.
        statistics: `(C * (2k + 1), 4)`, see `medseg_pl.core.intensity.compute_channel_statistics`.
        case_id: The case that it is a patch of.
        annotated: `(N,)`, whether each label was looked for in the case; `None` where all were in all cases.
    """

    image: Tensor
    mask: Tensor
    statistics: Tensor
    case_id: str = ""
    annotated: Tensor | None = None


class Batch(NamedTuple):
    """A stack of training samples, with their case names for errors.

    Shapes are as in `Sample` with `B` in front.
    """

    image: Shaped[Tensor, "b c h w"]
    mask: Shaped[Tensor, "b m h w"]
    statistics: Float[Tensor, "b c 4"]
    case_ids: tuple[str, ...] = ()
    annotated: Bool[Tensor, "b n"] | None = None


@dataclass(frozen=True)
class SliceReference:
    """The slice and case that one image of an evaluation batch shows.

    `index` counts its slices from 0, `geometry` is the native grid; other fields are as in `Case`.
    """

    case_id: str
    group: str
    index: int
    geometry: Geometry
    annotated_labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationBatch:
    """Whole slices resized for the network, with what restores their cases.

    Args:
        image: `(B, C * (2k + 1), h, w)` on the fitted grid.
        statistics: `(B, C * (2k + 1), 4)`.
        slices: One entry for each image.
        masks: The references on the native grid, `(M, H, W)` each, kept on the CPU; empty in `predict`.
    """

    image: Shaped[Tensor, "b c h w"]
    statistics: Float[Tensor, "b c 4"]
    slices: list[SliceReference]
    masks: list[UInt8[np.ndarray, "m _ _"]]  # of different sizes

    def to(self, device: torch.device | str, **kwargs: Any) -> EvaluationBatch:
        """Move the network's inputs; references stay where they are scored."""
        # Lightning moves what has a `to`; `replace` leaves the batch of the loader as it is.
        return replace(self, image=self.image.to(device, **kwargs), statistics=self.statistics.to(device, **kwargs))

    def pin_memory(self) -> EvaluationBatch:
        """Pin the network's inputs in memory, for copies that need not wait."""
        return replace(self, image=self.image.pin_memory(), statistics=self.statistics.pin_memory())


@dataclass(frozen=True)
class Prediction:
    """A case's mask on its native grid, ready to score or write.

    Args:
        case_id: The case; empty for an image of no data set.
        group: Its patient.
        geometry: Its native grid.
        mask: `(M, D, H, W)` as `LabelMap` describes it: one channel with 0 for background and `i + 1` for label `i`,
            or one channel of 0 and 1 for each label where labels may overlap.
        reference: The annotated mask, `(M, D, H, W)`, or `None` in `predict`.
        probabilities: `(K, D, H, W)` before the decision, or `None` unless asked for.
        labels: The labels; `None` for masks of another program.
        annotated_labels: The labels that the reference was annotated for; all where `None`.
        findings: How the case differs from the model's training cases.
    """

    case_id: str
    group: str
    geometry: Geometry
    mask: UInt8[np.ndarray, "m d h w"]
    reference: UInt8[np.ndarray, "m d h w"] | None = None
    probabilities: Float[np.ndarray, "k d h w"] | None = None
    labels: LabelMap | None = None
    annotated_labels: tuple[str, ...] | None = None
    findings: tuple[ImageFinding, ...] = ()

    def plane(self, label: str) -> Bool[np.ndarray, "d h w"]:
        """Select the mask of one label.

        Raises:
            SettingError: There is no such label.
        """
        names = list(self.labels.names) if self.labels else []
        if self.labels is None or label not in names:
            raise SettingError(f"There is no label {label!r}; the model knows {', '.join(names)}.")
        return self.labels.plane(self.mask, names.index(label))

    @classmethod
    def from_masks(
        cls,
        case_id: str,
        prediction: Tensor | NDArray[Any],
        reference: Tensor | NDArray[Any],
        group: str | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> Prediction:
        """Wrap masks of any program, given as tensors or arrays.

        Use it to feed the metrics from a loop of your own.

        Args:
            case_id: Unique within what is scored.
            prediction: `(H, W)` or `(D, H, W)` with 0 for background and `i + 1` for label `i`; or `(N, D, H, W)`
                with 0 and 1 for each of `N` labels that may overlap.
            reference: As the prediction; 255 where nobody annotated.
            group: The patient; the case is its own by default.
            spacing_mm: Along `(z, y, x)`; distances are in pixels without it.

        Raises:
            DataError: A mask has more axes, or holds anything but whole numbers from 0 to 255.

        >>> Prediction.from_masks("a", np.zeros((2, 3)), np.ones((2, 3))).geometry.shape
        (1, 2, 3)
        """
        mask, annotated = _to_stored_mask(prediction, case_id), _to_stored_mask(reference, case_id)
        # Of (M, D, H, W): labels that overlap share one grid.
        depth, height, width = mask.shape[1:]
        return cls(case_id, group or case_id, Geometry((depth, height, width), spacing_mm), mask, annotated)


def _to_stored_mask(mask: Tensor | NDArray[Any], case_id: str) -> NDArray[np.uint8]:
    """Bring a mask to `(M, D, H, W)`."""
    # A tensor that needs gradients, or lies on a GPU, refuses to become an array.
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if not 2 <= values.ndim <= 4:
        raise DataError(f"Case {case_id}: a mask has the shape {values.shape}; expected two to four axes.")
    # Other types are looked at value by value: `astype(uint8)` would wrap 256 to the background.
    if values.dtype not in (np.bool_, np.uint8) and values.size:
        wrong = values[(values != np.round(values)) | (values < 0) | (values > 255)]
        if len(wrong):
            raise DataError(
                f"Case {case_id}: a mask holds {wrong[0]}; expected decided labels, whole numbers from 0 to 255. "
                "Decide between probabilities first."
            )
    return values.astype(np.uint8).reshape((1,) * (4 - values.ndim) + values.shape)
