"""Augmentation of a 256 x 256 patch: against the same changes by MONAI's dictionary transforms, and nnU-Net's policy.

MONAI's pipeline flips, rotates, scales, shifts and changes intensities as ours does, as often and as far. nnU-Net's is
its default for 2D, which does more (blur, noise, low resolution, any angle): what users of either get by default. It
needs `pip install batchgeneratorsv2`; without it that line is left out. One core.

    python benchmarks/augmentation.py [results.json]
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from itertools import count

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from _report import Claim, finish, medians
from monai.transforms import Compose, RandAffined, RandFlipd, RandScaleIntensityd, RandShiftIntensityd

from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.data.transforms.augmentation import StandardAugmentation

SIDE, PATCHES, ROUNDS = 256, 60, 7


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A patch of smooth noise, `float32`, and a disc."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)).astype(np.float32), (0, 0), 2)[None]
    mask = cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (120, 130), 50, 1, -1)[None]
    return image, mask


def ours(image: np.ndarray, mask: np.ndarray) -> Callable[[int], object]:
    """The default of medseg."""
    augmentation, measured = StandardAugmentation(), compute_channel_statistics(image)
    return lambda seed: augmentation(image, mask, measured, seed)


def monai(image: np.ndarray, mask: np.ndarray) -> Callable[[int], object]:
    """The same, as a user of MONAI writes it."""
    both = ["image", "label"]
    pipeline = Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandAffined(
                both,
                prob=0.5,
                rotate_range=math.radians(15),
                scale_range=(0.15, 0.15),
                translate_range=(0.05 * SIDE, 0.05 * SIDE),
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
            RandScaleIntensityd("image", factors=0.15, prob=0.3),
            RandShiftIntensityd("image", offsets=0.15, prob=0.3),
        ]
    )
    return lambda _: pipeline({"image": image, "label": mask})


def nnunet(image: np.ndarray, mask: np.ndarray) -> Callable[[int], object]:
    """The default policy of nnU-Net v2 for 2D."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    def gamma(inverted: int) -> object:
        return GammaTransform(BGContrast((0.7, 1.5)), inverted, False, 1, 1)

    spatial = SpatialTransform(
        (SIDE, SIDE), 0, False, p_rotation=0.2, rotation=(-math.pi, math.pi), p_scaling=0.2, scaling=(0.7, 1.4)
    )
    often = [
        (GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
        (GaussianBlurTransform((0.5, 1.0), False, False, 0.5), 0.2),
        (MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1), 0.15),
        (ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1), 0.15),
        (SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5), 0.25),
        (gamma(1), 0.1),
        (gamma(0), 0.3),
    ]
    pipeline = ComposeTransforms(
        [spatial, *(RandomTransform(change, apply_probability=p) for change, p in often), MirrorTransform((0, 1))]
    )
    tensors = {"image": torch.from_numpy(image), "segmentation": torch.from_numpy(mask.astype(np.int16))}
    return lambda _: pipeline(**{name: tensor.clone() for name, tensor in tensors.items()})


def patches(augment: Callable[[int], object]) -> Callable[[], None]:
    """A round: so many patches, each of another seed."""
    seeds = count()

    def run() -> None:
        for _ in range(PATCHES):
            augment(next(seeds))

    return run


def main() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    patch = scene()
    contenders = {"medseg": ours(*patch), "monai": monai(*patch)}
    if importlib.util.find_spec("batchgeneratorsv2"):
        contenders["nnU-Net"] = nnunet(*patch)
    spent = medians({name: patches(augment) for name, augment in contenders.items()}, ROUNDS)
    for name, seconds in spent.items():
        print(f"{name:30} {1000 * seconds / PATCHES:7.2f} ms a patch, {seconds / spent['medseg']:5.1f} times medseg's")
    ratios = {name: seconds / spent["medseg"] for name, seconds in spent.items() if name != "medseg"}
    peers = {"monai": "the same changes by MONAI", "nnU-Net": "nnU-Net's default policy"}
    claims = [
        Claim("augmenting a patch", peers[name], "3 times as fast", f"{ratio:.1f} times as fast", ratio >= 3)
        for name, ratio in ratios.items()
    ]
    finish(
        claims, {name: seconds / PATCHES for name, seconds in spent.items()}, ["monai", "batchgeneratorsv2"], cores=1
    )


if __name__ == "__main__":
    main()
