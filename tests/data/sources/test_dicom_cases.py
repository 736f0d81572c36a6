"""What labels are called and said to be in a DICOM SEG."""

from __future__ import annotations

from typing import Any

import pytest

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.data.sources.dicom_cases import describe_segments
from medseg_pl.io.dicom.seg_writer import ANATOMICAL_STRUCTURE, ORGAN, Segment

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
