"""clDice and boundary IoU of whole cases."""

from __future__ import annotations

from collections.abc import Mapping

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.metrics.case_metric import CaseMetric, LabelPair, apply_empty_mask_rule
from medseg_pl.metrics.functional.shape import (
    boundary_iou,
    cl_dice,
    count_centerlines,
    topology_precision,
    topology_sensitivity,
)
from medseg_pl.metrics.functional.surface import measure_diagonal


class CenterlineMetric(CaseMetric):
    r"""Agreement of the centerlines of tubes, such as vessels.

    A thin tube counts as much as a thick one. With $S_P$ and $S_R$ the centerlines of prediction $P$ and reference $R$:

    - `topology_precision` $= |S_P \cap R| / |S_P|$ and `topology_sensitivity` $= |S_R \cap P| / |S_R|$;
    - `cl_dice`, their harmonic mean.

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) are in neither mask.

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure segmentation", CVPR 2021.
    """

    in_training = False

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute clDice and its two parts."""
        worst = dict.fromkeys(("cl_dice", "topology_precision", "topology_sensitivity"), 0.0)
        return apply_empty_mask_rule(pair, worst, lambda: _score_centerlines(pair))


class BoundaryMetric(CaseMetric):
    r"""Agreement of the masks near their borders: `boundary_iou`.

    The inside of large objects does not raise it. With $P_d$ and $R_d$ the voxels of prediction and reference within
    $d$ of their own border, it is $|P_d \cap R_d| / |P_d \cup R_d|$, where $d$ is a share of the image's diagonal.

    Both masks empty: NaN. Exactly one empty: 0. Voxels that the reference leaves open (255) are in neither mask.

    Args:
        labels: The labels that are scored.
        width: $d$ as a share of the diagonal of the image, or of one slice.

    Raises:
        SettingError: The width is not between 0 and 1.

    References:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021.
    """

    in_training = False

    def __init__(self, labels: LabelMap, width: float = 0.02) -> None:
        super().__init__(labels)
        if not 0 < width < 1:
            raise SettingError(f"BoundaryMetric needs a width between 0 and 1; got {width}. Set such as 0.02.")
        self.width = width

    def score(self, pair: LabelPair) -> Mapping[str, float | int]:
        """Compute boundary IoU."""
        geometry = pair.case.geometry
        _, height, columns = geometry.shape
        # Of a volume a slice's diagonal: the number of slices says nothing about how wide a border is.
        width = self.width * measure_diagonal((1, height, columns), geometry.spacing_in_unit)
        masks = pair.prediction, pair.reference
        return apply_empty_mask_rule(
            pair,
            {"boundary_iou": 0.0},
            lambda: {"boundary_iou": boundary_iou(*masks, width=width, spacing=geometry.spacing_in_unit)},
        )


def _score_centerlines(pair: LabelPair) -> dict[str, float]:
    counts = count_centerlines(pair.prediction, pair.reference)
    return {
        "cl_dice": cl_dice(counts),
        "topology_precision": topology_precision(counts),
        "topology_sensitivity": topology_sensitivity(counts),
    }
