"""What labels are called and said to be in a DICOM SEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources import DicomSource
from medseg_pl.data.sources.dicom_cases import describe_segments, sort_series
from medseg_pl.io.dicom import DicomTree
from medseg_pl.io.dicom.seg_writer import ANATOMICAL_STRUCTURE, ORGAN, Segment
from tests.dicom_files import save_series

LABELS = LabelMap(["liver", "tumour"], "multilabel")


def test_codes_of_a_configuration_may_be_numbers_or_text() -> None:
    types = {"tumour": (108369006, "SCT", "Neoplasm")}
    categories = {"liver": ("T-62000", "SRT", "Liver")}
    assert describe_segments(LABELS, types, categories) == [
        Segment("liver", ("T-62000", "SRT", "Liver"), ORGAN),
        Segment("tumour", ANATOMICAL_STRUCTURE, ("108369006", "SCT", "Neoplasm")),
    ]


@pytest.mark.parametrize("setting", ["property_types", "property_categories"])
def test_a_meaning_of_no_label_is_named(setting: str) -> None:
    given: dict[str, Any] = {"property_types": {}, "property_categories": {}}
    given[setting] = {"lever": (10200004, "SCT", "Liver")}
    with pytest.raises(SettingError) as error:
        describe_segments(LABELS, given["property_types"], given["property_categories"])
    assert (
        str(error.value)
        == f"data.source.{setting} speaks of lever, but labels.names is liver, tumour. Name both alike."
    )


def test_a_folder_called_like_a_series_hides_no_case(tmp_path: Path) -> None:
    for folder, name, number in (("p1", "a", 2), ("p1", "b", 3), ("p1/series_2", "c", 7)):
        files = [f"{name}{index}.dcm" for index in range(3)]
        save_series(tmp_path / folder, np.zeros((3, 4, 5), np.int16), series=name, names=files, SeriesNumber=number)
    cases, _ = sort_series(DicomTree(tmp_path))
    assert [(case.case_id, case.images[0].name) for case in cases] == [
        ("p1/series_2", "a0.dcm"),
        ("p1/series_2_2", "c0.dcm"),
        ("p1/series_3", "b0.dcm"),
    ]
    assert [case.case_id for case in DicomSource(str(tmp_path), references=None).cases()] == [c.case_id for c in cases]
