"""medseg: from a folder of medical images with masks to a segmentation model that its owner can defend."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

CLASSES = {
    "BoundaryMetric": "metrics",
    "CalibrationMetric": "metrics",
    "Case": "core.types",
    "CaseMetric": "metrics",
    "CenterlineMetric": "metrics",
    "DecathlonSource": "data.sources",
    "DiceCELoss": "models.losses",
    "DiceLoss": "models.losses",
    "DicomSource": "data.sources",
    "FileSource": "data.sources",
    "FocalTverskyLoss": "models.losses",
    "FolderSource": "data.sources",
    "Geometry": "core.geometry",
    "IntensityWindow": "models.normalization",
    "LabelMap": "core.labels",
    "LabelPair": "metrics",
    "ManifestSource": "data.sources",
    "MeanStd": "models.normalization",
    "Normalization": "models.normalization",
    "ObjectMetric": "metrics",
    "OverlapMetric": "metrics",
    "PerChannel": "models.normalization",
    "PixelCELoss": "models.losses",
    "PolygonSource": "data.sources",
    "Prediction": "core.types",
    "Predictor": "inference.predictor",
    "SegmentationDataModule": "training.datamodule",
    "SegmentationModel": "models.segmentation_model",
    "SegmentationModule": "training.module",
    "Source": "data.sources",
    "StandardAugmentation": "data.transforms.augmentation",
    "SurfaceMetric": "metrics",
    "UWMadisonScore": "metrics",
    "UWMadisonSource": "data.sources",
    "Volume": "core.types",
    "VolumeMetric": "metrics",
    "WarmupPolynomialLR": "models.optimizers",
    "WeightedSum": "models.losses",
    "ZScore": "models.normalization",
}
"""The room of each public class; `__init__.pyi` names the same for type checkers."""


def __getattr__(name: str) -> Any:
    """Import a class at its first use: `medseg --help` waits for none."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{CLASSES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *CLASSES})
