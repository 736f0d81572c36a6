"""Measurements of cases that no file has, for rules, which judge measurements alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_pl.checks.findings import AnnotatedCase, CaseFacts, Dataset, Finding, ImageFacts, LabelLookup, MaskFacts
from medseg_pl.checks.pixel_measurement import measure_image, measure_mask
from medseg_pl.core.geometry import Affine, Geometry
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case
from medseg_pl.io.file_header import FileHeader

PNG = FileHeader("PNG")
LABELS = LabelMap(["organ", "lesion"], "multiclass")


def make_case(name: str, group: str | None = None) -> Case:
    return Case(name, group or name, (Path(f"{name}.png"),), (Path(f"{name}_mask.png"),))


def measure(
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


def measure_values(pixels: NDArray[Any], header: FileHeader = PNG, label: int | None = None, **grid: Any) -> MaskFacts:
    """Of `(D, H, W)` values, or of `(3, D, H, W)` colors."""
    depth, height, width = pixels.shape[-3:]
    return measure_mask(pixels, Geometry((depth, height, width), **grid), Path("a_mask.png"), header, label)


def make_facts(
    image: ImageFacts | None = None, *masks: MaskFacts, name: str = "a", group: str | None = None, **other: Any
) -> CaseFacts:
    return CaseFacts(make_case(name, group), image, masks, **other)


def make_dataset(*cases: CaseFacts, labels: LabelMap = LABELS, **known: Any) -> Dataset:
    """What rules get of these cases."""
    lookup = LabelLookup(labels)
    annotated = [AnnotatedCase(f.case, lookup.count_voxels(f.masks) if f.masks else None) for f in cases]
    geometries = {f.case.case_id: f.image.geometry for f in cases if f.image is not None}
    return Dataset(labels, known.pop("annotated", annotated), known.pop("geometries", geometries), cases=cases, **known)


def codes(findings: Any) -> list[str]:
    format_marks: list[Finding] = list(findings)
    return [finding.code for finding in format_marks]


def textured(seed: int = 0, shape: tuple[int, ...] = (1, 32, 40)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1000, shape)
