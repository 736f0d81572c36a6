"""Outlines that annotation tools write: COCO, labelme and CVAT, in one form."""

from medseg_pl.io.annotations.reading import read_annotations
from medseg_pl.io.annotations.regions import AnnotatedImage, Region, Runs, draw_region

__all__ = ["AnnotatedImage", "Region", "Runs", "draw_region", "read_annotations"]
