"""Data sets: one file a layout. A class's docstring is its data card."""

from medseg_pl.data.sources.base import Source
from medseg_pl.data.sources.decathlon import DecathlonSource
from medseg_pl.data.sources.dicom import DicomSource
from medseg_pl.data.sources.files import FileSource
from medseg_pl.data.sources.folder import FolderSource
from medseg_pl.data.sources.manifest import ManifestSource
from medseg_pl.data.sources.polygons import PolygonSource
from medseg_pl.data.sources.uw_madison import UWMadisonSource

__all__ = [
    "DecathlonSource",
    "DicomSource",
    "FileSource",
    "FolderSource",
    "ManifestSource",
    "PolygonSource",
    "Source",
    "UWMadisonSource",
]
