"""Comparison of images and predictions with what their models were trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from medseg_pl.core.errors import ForeignImageError, UnreadableFileError
from medseg_pl.core.image_findings import (
    ImageFinding,
    OnForeign,
    compare_image,
    compare_mask,
    describe_findings,
    has_warning,
    merge_findings,
)
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.training_profile import TrainingProfile
from medseg_pl.core.types import Prediction, Volume
from medseg_pl.data.profiling import measure_labels, measure_volume
from medseg_pl.models.checkpoint import CheckpointInfo

log = logging.getLogger(__name__)


class TrainingComparison:
    """Compare images and masks with the training cases of models.

    Args:
        profiles: One for each model; without any nothing is compared. A finding of at least half of them counts.
        labels: The structures in the masks.
        on_foreign: What happens to a case with a warning.
    """

    def __init__(self, profiles: Sequence[TrainingProfile], labels: LabelMap, on_foreign: OnForeign = "mark") -> None:
        self.profiles = [] if on_foreign == "ignore" else list(profiles)
        self.labels = labels
        self.on_foreign: OnForeign = on_foreign

    def compare_image(self, volume: Volume, description: str) -> tuple[ImageFinding, ...]:
        """Compare an image before it is predicted.

        Args:
            volume: Raw values and their grid; its mask is not looked at.
            description: The case and its file, which an error begins with.

        Raises:
            ForeignImageError: It has a warning, and such images are refused.
        """
        if not self.profiles:
            return ()
        facts = measure_volume(volume.image, volume.geometry, volume.modality)
        return self._decide([compare_image(facts, profile) for profile in self.profiles], description)

    def compare_prediction(self, prediction: Prediction, description: str) -> tuple[ImageFinding, ...]:
        """Compare the mask of a case with the references of training.

        Args:
            prediction: The mask on the native grid; its reference is not looked at.
            description: The case and its file, which an error begins with.

        Raises:
            ForeignImageError: It has a warning, and such cases are refused.
        """
        if not self.profiles:
            return ()
        # Volumes are in millilitres or in voxels, and the two are not to be compared.
        names, spaced = self.labels.names, prediction.geometry.spacing_mm is not None
        facts = measure_labels(prediction.mask, self.labels, prediction.geometry)
        return self._decide([compare_mask(facts, profile, names, spaced) for profile in self.profiles], description)

    def _decide(self, members: Sequence[Sequence[ImageFinding]], description: str) -> tuple[ImageFinding, ...]:
        findings = tuple(merge_findings(members))
        if self.on_foreign == "refuse" and has_warning(findings):
            raise ForeignImageError(
                f"{description} is unlike what the model was trained on, so no mask was made: "
                f"{describe_findings(findings)} Correct the image, or let it be predicted with on_foreign mark."
            )
        return findings


def read_profiles(checkpoints: Sequence[CheckpointInfo]) -> list[TrainingProfile]:
    """Read the profiles of checkpoints; warn of checkpoints without one.

    Raises:
        UnreadableFileError: A profile is damaged.
    """
    profiles = []
    for checkpoint in checkpoints:
        if checkpoint.profile is None:
            log.warning(
                "%s does not record what its training images were like, so no image can be compared with them.",
                checkpoint.path,
            )
            continue  # an ensemble compares by those that do
        try:
            profiles.append(TrainingProfile.from_dict(checkpoint.profile))
        except ValueError as error:
            raise UnreadableFileError(f"{checkpoint.path} is damaged: {error}. Use another copy of it.") from error
    return profiles
