"""DICOM: series of CT, MR and PET slices, and what was drawn on them (SEG, RTSTRUCT).

Nothing that names a person is read, unless it is asked for by name or belongs into a segmentation that is written; no
unique identifier enters an error.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_pl.io.dicom.headers import DicomFile as DicomFile
    from medseg_pl.io.dicom.headers import DicomTree as DicomTree
    from medseg_pl.io.dicom.headers import read_modality as read_modality
    from medseg_pl.io.dicom.references import read_masks as read_masks
    from medseg_pl.io.dicom.references import read_structures as read_structures
    from medseg_pl.io.dicom.seg_writer import ANATOMICAL_STRUCTURE as ANATOMICAL_STRUCTURE
    from medseg_pl.io.dicom.seg_writer import ORGAN as ORGAN
    from medseg_pl.io.dicom.seg_writer import Concept as Concept
    from medseg_pl.io.dicom.seg_writer import Segment as Segment
    from medseg_pl.io.dicom.seg_writer import write_segmentation as write_segmentation
    from medseg_pl.io.dicom.series import Series as Series
    from medseg_pl.io.dicom.series import open_series as open_series
    from medseg_pl.io.dicom.series import read_values as read_values
    from medseg_pl.io.dicom.stack import describe_mixed_series as describe_mixed_series

_MODULES = {
    "ANATOMICAL_STRUCTURE": "seg_writer",
    "Concept": "seg_writer",
    "DicomFile": "headers",
    "DicomTree": "headers",
    "ORGAN": "seg_writer",
    "Segment": "seg_writer",
    "Series": "series",
    "describe_mixed_series": "stack",
    "open_series": "series",
    "read_masks": "references",
    "read_modality": "headers",
    "read_structures": "references",
    "read_values": "series",
    "write_segmentation": "seg_writer",
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use, since pydicom takes 0.2 s."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
