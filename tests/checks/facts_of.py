"""Facts of cases that no file has, for what follows from facts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.checks.findings import Finding
from medseg_pl.checks.image_measurement import measure_image
from medseg_pl.checks.mask_measurement import measure_mask
from medseg_pl.checks.measurements import CaseFacts, ImageFacts, MaskFacts
from medseg_pl.core.geometry import Affine, Geometry
from medseg_pl.core.types import Case
from medseg_pl.io.file_header import FileHeader

PNG = FileHeader("PNG")


def case_of(name: str, group: str | None = None) -> Case:
    return Case(name, group or name, (Path(f"{name}.png"),), (Path(f"{name}_mask.png"),))


def image_of(
    pixels: NDArray[Any],
    header: FileHeader = PNG,
    spacing_mm: tuple[float, float, float] | None = None,
    affine: Affine | None = None,
    **elements: Any,
) -> ImageFacts:
    """Of `(D, H, W)` or `(C, D, H, W)` pixels."""
    volume = pixels if pixels.ndim == 4 else pixels[None]
    depth, height, width = volume.shape[1:]
    geometry = Geometry((depth, height, width), spacing_mm, affine)
    return measure_image(volume, [geometry], [Path("a.png")], [header], **elements)


def mask_of(pixels: NDArray[Any], header: FileHeader = PNG, label: int | None = None, **grid: Any) -> MaskFacts:
    """Of `(D, H, W)` values, or of `(3, D, H, W)` colors."""
    depth, height, width = pixels.shape[-3:]
    return measure_mask(pixels, Geometry((depth, height, width), **grid), Path("a_mask.png"), header, label)


def facts_of(
    image: ImageFacts | None = None, *masks: MaskFacts, name: str = "a", group: str | None = None, **other: Any
) -> CaseFacts:
    return CaseFacts(case_of(name, group), image, masks, **other)


def codes(findings: Any) -> list[str]:
    found: list[Finding] = list(findings)
    return [one.code for one in found]


def textured(seed: int = 0, shape: tuple[int, ...] = (1, 32, 40)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1000, shape)
