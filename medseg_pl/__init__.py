"""medseg: from a folder of medical images with masks to a segmentation model that its owner can defend."""

__version__ = "0.1.0"
