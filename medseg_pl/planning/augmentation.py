"""Augmentation of a plan: flips and turns by how images are oriented, noise and blur by how fine the labels are."""

from __future__ import annotations

import re
from typing import Any

from medseg_pl.core.labels import LabelMap
from medseg_pl.io.config_files import Commented
from medseg_pl.planning.fingerprint import Fingerprint
from medseg_pl.planning.objects import find_thickest, find_thinnest

_SIDES = re.compile(r"(^|[_\s-])(left|right|l|r|sin|dex|lt|rt)([_\s-]|$)", re.IGNORECASE)
_ORDERED = 0.5
"""Of `measure_vertical_order`: above it, images have a side up."""
_TEXTURE = 0.05
"""Objects that reach over less of an image look alike whichever side is up."""
_FINE = 4.0
"""Pixels: blur takes the border from thinner structures."""


def plan_augmentation(fingerprint: Fingerprint, labels: LabelMap) -> dict[str, Any]:
    """Plan the augmentation, `Commented` wherever there was a choice.

    Args:
        fingerprint: The data set in numbers.
        labels: The labels of the masks; one that is named by its side rules out a horizontal flip.
    """
    sided = [name for name in labels.names if _SIDES.search(name)]
    flip = Commented(0.0, f"{sided[0]} knows its side") if sided else Commented(0.5, "no label is named by its side")
    settings = {"flip_horizontal": flip, **_plan_moves(fingerprint), "scale": 0.2, **_plan_intensities(fingerprint)}
    return {"class_path": "medseg_pl.StandardAugmentation", "init_args": settings}


def _plan_moves(fingerprint: Fingerprint) -> dict[str, Any]:
    if fingerprint.depth > 1 or any(fingerprint.modalities):
        return {"rotate_degrees": Commented(20.0, "scans lie nearly alike")}
    order = fingerprint.vertical_order
    large = bool(fingerprint.objects) and find_thickest(fingerprint.objects)[1].reach_share >= _TEXTURE
    if order > _ORDERED and large:
        return {
            "flip_vertical": Commented(0.0, f"all images have the same side up ({order:.2f} of 1)"),
            "rotate_degrees": 15.0,
        }
    reason = "small structures look alike upside down" if order > _ORDERED else f"no side is up ({order:.2f} of 1)"
    return {"flip_vertical": Commented(0.5, reason), "rotate_degrees": 45.0}


def _plan_intensities(fingerprint: Fingerprint) -> dict[str, Any]:
    settings: dict[str, Any] = {"gamma": 0.2, "noise": 0.05}
    if not fingerprint.objects:
        return settings
    name, size = find_thinnest(fingerprint.objects)
    if size.thickness_pixels < _FINE:
        return settings | {"blur": Commented(0.0, size.describe_thickness(name))}
    return settings | {
        "blur": Commented(1.0, f"{size.describe_thickness(name)}, so that borders stay"),
        "low_resolution": 0.6,
    }
