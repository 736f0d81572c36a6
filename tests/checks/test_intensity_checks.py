"""Images that are wrong by themselves, and among others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.checks.findings import CaseFacts
from medseg_pl.checks.intensity_checks import check_intensities, compare_intensities
from medseg_pl.io.file_header import FileHeader
from tests.checks.samples import codes, make_dataset, make_facts, measure, textured


def alone(pixels: NDArray[Any], modality: str = "", **elements: Any) -> list[str]:
    return codes(check_intensities(make_dataset(make_facts(measure(pixels, **elements)), modalities=[modality])))


def among(pixels: NDArray[Any], number: int = 9, change: Any = lambda values: values) -> list[str]:
    usual = [make_facts(measure(change(textured(seed))), name=str(seed)) for seed in range(number)]
    return codes(compare_intensities(make_dataset(*usual, make_facts(measure(pixels), name="odd"))))


def test_an_image_is_in_order() -> None:
    assert alone(textured()) == []
    assert among(textured(99)) == []


def test_numbers() -> None:
    values = textured().astype(np.float32)
    values[0, 0, 0] = -np.inf
    assert alone(values) == ["not-finite"]
    assert alone(np.full((1, 8, 8), np.nan, np.float32)) == ["no-finite-value"]
    assert alone(np.full((1, 8, 8), 3, np.uint8)) == ["constant-image"]
    assert alone(np.stack([textured(), textured() * 0])) == ["constant-channel"]


@pytest.mark.parametrize(("top", "found"), [(900, ["clipped"]), (999.9, [])])
def test_cut_off_at_the_top(top: float, found: list[str]) -> None:
    values = np.random.default_rng(0).uniform(0, 1000, (1, 100, 100))
    assert alone(values.clip(0, top)) == found


def test_8_bits_reach_white() -> None:
    assert alone((textured() / 2).clip(0, 255).astype(np.uint8)) == []


def test_transparency() -> None:
    assert alone(textured(), header=FileHeader("PNG", alpha="varying")) == ["alpha-channel"]
    assert alone(textured(), header=FileHeader("PNG", alpha="opaque")) == ["alpha-opaque"]


def test_monochrome1() -> None:
    assert alone(textured(), turned_bright=True) == ["monochrome1"]


def alone_with(pixels: NDArray[Any], *modalities: str) -> list[str]:
    return codes(check_intensities(make_dataset(make_facts(measure(pixels)), modalities=modalities)))


@pytest.mark.parametrize(
    ("low", "high", "modality", "found"),
    [
        (0, 4000, "CT", ["ct-not-rescaled"]),
        (0, 4000, "ct", ["ct-not-rescaled"]),
        (-1000, 3000, "CT", []),
        (0, 255, "CT", []),
        (0, 4000, "MRI", []),
    ],
)
def test_hounsfield_units(low: float, high: float, modality: str, found: list[str]) -> None:
    assert alone(textured() / 1000 * (high - low) + low, modality) == found


def test_each_channel_has_its_own_modality() -> None:
    stored, pet = textured() * 4, textured(1) / 100
    channels = np.stack([stored, pet - 9])  # the PET is negative, which says nothing of the CT
    assert alone_with(channels, "CT", "PET") == ["ct-not-rescaled"]
    assert alone_with(channels, "PET", "CT") == []


def test_dicom_knows_its_modality() -> None:
    assert alone(textured() * 4, modality="CT") == ["ct-not-rescaled"]
    facts = make_facts(measure(textured() * 4, modality="MR"))
    assert codes(check_intensities(make_dataset(facts, modalities=["CT"]))) == []


def test_stored_values_among_hounsfield_units() -> None:
    assert among(textured(99) * 3, change=lambda values: values * 3 - 1000) == ["ct-not-rescaled"]
    assert among(textured(99) * 3 - 990, change=lambda values: values * 3 - 1000) == []


def test_channels_and_types_are_compared_with_the_commonest() -> None:
    assert among(np.stack([textured(5), textured(6)])) == ["channels-differ"]
    assert among(textured(99).astype(np.float32)) == ["data-types-differ"]


def test_another_scale_and_another_place() -> None:
    assert among(textured(99) * 20) == ["intensity-outlier"]
    assert among(textured(99) / 20) == ["intensity-outlier"]
    assert among(textured(99) + 20000) == ["intensity-outlier"]
    assert among(textured(99) * 3) == []


def test_two_scales_are_no_outliers() -> None:
    images = [make_facts(measure(textured(seed) * (100 if seed % 3 else 1)), name=str(seed)) for seed in range(12)]
    (found,) = compare_intensities(make_dataset(*images))
    assert (found.code, found.case_id) == ("intensities-differ", "")
    ranges = [np.ptp(np.percentile(textured(seed) * (100 if seed % 3 else 1), [1, 99])) for seed in range(12)]
    least, most = int(np.argmin(ranges)), int(np.argmax(ranges))
    assert found.message.endswith(f"is {ranges[least]:.4g} in {least} and {ranges[most]:.4g} in {most}.")
    assert "medseg plan does so" in found.remedy


def test_white_images_among_others_were_cut_off() -> None:
    white = (textured(99) * 255 / 600).clip(0, 255).astype(np.uint8)
    assert among(white, change=lambda values: (values * 255 / 1001).astype(np.uint8)) == ["clipped"]
    assert among(white, change=lambda values: (values * 255 / 600).clip(0, 255).astype(np.uint8)) == []


def test_bright_and_dark_exchanged() -> None:
    body = np.zeros((1, 32, 40))
    body[:, 8:24, 10:30] = 2000
    assert among(3000 - body - textured(99), change=lambda values: values + body) == ["inverted-image"]
    assert among(body + textured(99), change=lambda values: values + body) == []
    assert among(3000 - body - textured(99), number=5, change=lambda values: values + body) == []  # too few to tell


def test_what_cannot_be_read_is_no_outlier() -> None:
    unread = [CaseFacts(make_facts(name=str(number)).case) for number in range(9)]
    assert codes(compare_intensities(make_dataset(*unread))) == []
