"""Scoring: distances against MONAI, counts against torchmetrics, and all of it against the inference it scores.

Each peer gets what it asks for (its own tensors, made beforehand), and gives the same numbers: that is checked.

    python benchmarks/metrics.py [results.json]
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import segmentation_models_pytorch as smp
import torch
from _report import Claim, finish
from _report import medians as medians_of
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torchmetrics.segmentation import DiceScore

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Prediction, SliceReference
from medseg_pl.inference.assembler import CaseAssembler
from medseg_pl.inference.sliding_window import RowBlock
from medseg_pl.metrics import MetricTable, OverlapMetric, SurfaceMetric, VolumeMetric
from medseg_pl.metrics.functional import surface
from medseg_pl.metrics.functional.overlap import count

ROUNDS = 5
TOLERANCE = 2.0
Mask = NDArray[np.bool_]


class Scene(NamedTuple):
    """A pair of masks to make: how large, how coarse, and by how much the prediction is off."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    roughness: float
    error: float


SCENES = [
    Scene((1, 128, 128), (1.0, 1.0, 1.0), 5, 0.02),
    Scene((1, 512, 512), (1.0, 1.0, 1.0), 10, 0.02),
    Scene((1, 512, 512), (1.0, 1.0, 0.7), 10, 0.06),
    Scene((1, 1024, 1024), (1.0, 1.0, 1.0), 20, 0.06),
    Scene((32, 96, 96), (3.0, 1.0, 1.0), 3, 0.02),
    Scene((64, 256, 256), (3.0, 1.0, 1.0), 6, 0.06),
    Scene((96, 160, 160), (1.0, 1.0, 1.0), 6, 0.06),
    Scene((64, 256, 256), (3.0, 1.0, 1.0), 1, 0.02),
]


def masks(scene: Scene) -> tuple[Mask, Mask]:
    """An organ of irregular border, and a prediction of it."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, length) if length > 1 else np.zeros(1) for length in scene.shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    smoothing = (0 if scene.shape[0] == 1 else scene.roughness, scene.roughness, scene.roughness)
    bumps, errors = (gaussian_filter(rng.normal(size=scene.shape), smoothing) for _ in range(2))
    reference = radius + 0.06 * bumps / bumps.std()
    return reference + scene.error * errors / errors.std() < 0.6, reference < 0.6


def medians(*contenders: Callable[[], object]) -> list[float]:
    """Median milliseconds of each."""
    spent = medians_of({str(place): run for place, run in enumerate(contenders)}, ROUNDS)
    return [1e3 * seconds for seconds in spent.values()]


def distances() -> list[dict[str, Any]]:
    """HD95 and NSD of eight shapes."""
    print(f"\nHD95 + NSD {'medseg':>27} {'MONAI':>11} {'ratio':>7}")
    rows: list[dict[str, Any]] = []
    for scene in SCENES:
        prediction, reference = masks(scene)
        ours, theirs = _ours(prediction, reference, scene.spacing), _monai(prediction, reference, scene.spacing)
        np.testing.assert_allclose(ours(), theirs(), atol=1e-4, rtol=0)
        mine, peer = medians(ours, theirs)
        name = "x".join(map(str, scene.shape))
        rows.append({"shape": name, "spacing": scene.spacing, "medseg_ms": mine, "monai_ms": peer})
        print(f"{name:>14} {scene.spacing!s:>15} {mine:6.1f} ms {peer:8.1f} ms {peer / mine:6.1f}x")
    return rows


def search_rule() -> None:
    """What a step of the tree costs beside a voxel of the distance transform: the rule in `functional.surface`."""
    print("\nnearest border: k-d tree against distance transform (rule: tree if cost x n log2 n < voxels)")
    rng = np.random.default_rng(0)
    pairs = [(*masks(scene), scene.spacing) for scene in SCENES]
    noise = [tuple(rng.random((48, 128, 128)) < share for _ in range(2)) for share in (0.001, 0.01, 0.1, 0.5)]
    for prediction, reference, spacing in [*pairs, *((*pair, (1.0, 1.0, 1.0)) for pair in noise)]:
        box = surface.find_bounding_box(prediction | reference)
        ours, theirs = surface.find_border(prediction[box]), surface.find_border(reference[box])
        origins, length = ours & ~theirs, np.asarray(spacing)
        tree, transform = medians(
            lambda: surface._query_tree(origins, theirs, length),  # noqa: B023  called at once
            lambda: surface._apply_transform(origins, theirs, length),  # noqa: B023
        )
        points = int(origins.sum() + theirs.sum())
        cost = (tree / (points * np.log2(points))) / (transform / origins.size)
        chosen = "tree" if surface._is_tree_faster(origins, theirs) else "transform"
        print(
            f"{origins.size:9} voxels {points:7} points: {tree:7.1f} / {transform:7.1f} ms, cost {cost:.2f}, {chosen}"
        )


def counts() -> list[dict[str, Any]]:
    """TP, FP and FN of three labels in a slice and in a volume."""
    print(f"\ncounts, 3 labels {'medseg':>10} {'DiceScore':>12} {'ratio':>7}")
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for shape in ((1, 512, 512), (64, 256, 256)):
        prediction = rng.integers(0, 4, shape, dtype=np.uint8)
        reference = np.where(rng.random(shape) < 0.9, prediction, 0).astype(np.uint8)
        peer = DiceScore(num_classes=4, input_format="index", average="none")
        tensors = [torch.from_numpy(mask)[None].long() for mask in (prediction, reference)]
        ours = [count(prediction == label, reference == label) for label in (1, 2, 3)]
        peer.update(*tensors)
        overlaps = [int(value) for value in peer.numerator[0][0, 1:] // 2]
        assert overlaps == [label.tp for label in ours], "equal integers"

        def mine(prediction: NDArray[np.uint8] = prediction, reference: NDArray[np.uint8] = reference) -> None:
            for label in (1, 2, 3):
                count(prediction == label, reference == label)

        fast, slow = medians(mine, lambda peer=peer, tensors=tensors: peer.update(*tensors))  # type: ignore[misc]
        name = "x".join(map(str, shape))
        rows.append({"shape": name, "medseg_ms": fast, "torchmetrics_ms": slow})
        print(f"{name:>14} {fast:9.2f} ms {slow:9.1f} ms {slow / fast:6.1f}x")
    return rows


def share_of_inference() -> dict[str, float]:
    """A 512 x 512 image with three labels: the network, then everything after it."""
    labels = LabelMap(["a", "b", "c"], "multiclass")
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=labels.classes).eval()
    image = torch.randn(1, 1, 512, 512)
    mask = np.stack([masks(SCENES[1])[1][0]]).astype(np.uint8)
    slice_ = SliceReference("case", "case", 0, Geometry((1, 512, 512)))
    logits = torch.nn.functional.one_hot(torch.from_numpy(masks(SCENES[1])[0].astype(np.int64)), labels.classes)
    probabilities = labels.activate(8.0 * logits.permute(0, 3, 1, 2).float())

    @torch.inference_mode()
    def infer() -> None:
        labels.activate(network(image))

    def score(*metrics: object) -> None:
        ledger = MetricTable([metric(labels) for metric in metrics])  # type: ignore[operator]
        for case in CaseAssembler(labels).add([[RowBlock(slice(0, 512), probabilities)]], [slice_], [mask]):
            ledger.add(case)
        ledger.table()

    network_ms, overlap_ms, all_ms = medians(
        infer, lambda: score(OverlapMetric, VolumeMetric), lambda: score(OverlapMetric, SurfaceMetric, VolumeMetric)
    )
    print(f"\nUnet-resnet34 at 512 x 512: {network_ms:.0f} ms")
    print(f"scoring {overlap_ms:.1f} ms, with distances {all_ms:.1f} ms")
    print(f"share of inference {overlap_ms / network_ms:.1%}, with distances {all_ms / network_ms:.1%}")
    return {"inference_ms": network_ms, "scoring_ms": overlap_ms, "scoring_with_distances_ms": all_ms}


def hundred_million() -> None:
    """10^8 voxels, where float32 would stop counting at 16,777,216."""
    ones = np.ones((400, 500, 500), bool)
    case = Prediction.from_masks("large", ones, ones)
    metric = OverlapMetric(LabelMap(["all"], "binary"))
    started = time.perf_counter()
    metric.update(case)
    print(f"\n{metric.table()[0].values['tp']:,} voxels counted in {time.perf_counter() - started:.2f} s")


def claims(distances: list[dict[str, Any]], counts: list[dict[str, Any]], share: dict[str, float]) -> list[Claim]:
    ratios = [row["monai_ms"] / row["medseg_ms"] for row in distances]
    mean, least = statistics.geometric_mean(ratios), min(ratios)
    faster = statistics.geometric_mean(row["torchmetrics_ms"] / row["medseg_ms"] for row in counts)
    part = share["scoring_with_distances_ms"] / share["inference_ms"]
    distance = f"{mean:.1f} times as fast (geometric mean), at least {least:.1f}"
    promised = "4 times as fast (geometric mean), at least 1.3"
    return [
        Claim("HD95 and NSD", "MONAI, equal within 1e-4, 8 shapes", promised, distance, mean >= 4 and least >= 1.3),
        Claim("overlap counts", "torchmetrics, equal", "20 times as fast", f"{faster:.0f} times as fast", faster >= 20),
        Claim("all of scoring", "the inference it scores", "5 %", f"{part:.1%}", part <= 0.05),
    ]


def main() -> None:
    warnings.simplefilter("ignore")  # the peers' own, of deprecated arguments
    torch.set_num_threads(os.cpu_count() or 1)
    results = {"distances": distances(), "counts": counts(), "share": share_of_inference()}
    search_rule()
    hundred_million()
    finish(claims(**results), results, ["monai", "torchmetrics", "scipy"])  # type: ignore[arg-type]


def _ours(prediction: Mask, reference: Mask, spacing: tuple[float, float, float]) -> Callable[[], tuple[float, float]]:
    def run() -> tuple[float, float]:
        measured = surface.surface_distances(prediction, reference, spacing)
        return surface.hd95(measured), surface.nsd(measured, TOLERANCE)

    return run


def _monai(prediction: Mask, reference: Mask, spacing: tuple[float, float, float]) -> Callable[[], tuple[float, float]]:
    flat = prediction.shape[0] == 1
    pair = [torch.from_numpy(mask[0] if flat else mask)[None, None] for mask in (prediction, reference)]
    lengths = list(spacing[1:] if flat else spacing)

    def run() -> tuple[float, float]:
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=lengths)
        return float(hd95), float(
            compute_surface_dice(*pair, [TOLERANCE], include_background=True, spacing=lengths, use_subvoxels=False)
        )

    return run


if __name__ == "__main__":
    main()
