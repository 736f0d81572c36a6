"""Losses: `nn.Module(logits, target)`, whatever the task. Those of segmentation-models-pytorch enter by class_path."""

from medseg_pl.models.losses.compound import DiceCELoss, WeightedSum
from medseg_pl.models.losses.pixel import PixelCELoss
from medseg_pl.models.losses.region import DiceLoss, FocalTverskyLoss

__all__ = ["DiceCELoss", "DiceLoss", "FocalTverskyLoss", "PixelCELoss", "WeightedSum"]
