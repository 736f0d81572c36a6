"""Facts of images and masks against numbers that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg_pl.core.image_facts import measure_image, measure_mask


def make_ramp(side: int = 64) -> np.ndarray:
    return np.tile(np.arange(side, dtype=np.float32), (1, 1, side, 1))


class TestImages:
    def test_sizes_and_spacings_are_logarithms(self) -> None:
        numbers = measure_image(np.zeros((1, 4, 8, 16), np.uint8) + np.arange(16, dtype=np.uint8), (5, 2, 1)).numbers
        assert (numbers["size.depth"], numbers["size.height"], numbers["size.width"]) == (2, 3, 4)
        assert numbers["spacing.depth"] == pytest.approx(math.log10(5))
        assert numbers["extent.width"] == 4

    def test_a_ramp_has_even_quantiles_and_no_noise(self) -> None:
        numbers = measure_image(make_ramp()).numbers
        assert numbers["shape50[0]"] == pytest.approx(0.5, abs=0.01)
        assert numbers["shape10[0]"] == pytest.approx(0.1, abs=0.01)
        assert numbers["noise[0]"] == pytest.approx(-5)  # its second derivative is 0
        assert numbers["sharpness1[0]"] == pytest.approx(0.5)  # a step of 1 is half of one of 2

    @pytest.mark.parametrize("factor", [0.01, 3.0, 1000.0])
    def test_scaling_changes_the_range_alone(self, factor: float) -> None:
        image = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
        one, other = measure_image(image), measure_image(factor * image)
        changed = {name for name, value in one.numbers.items() if abs(value - other.numbers[name]) > 1e-3}
        assert changed == {"span[0]", "span[1]", "step[0]", "step[1]"}
        assert other.numbers["span[0]"] - one.numbers["span[0]"] == pytest.approx(math.log10(factor), abs=1e-4)
        np.testing.assert_allclose(one.pattern, other.pattern, atol=1e-5)

    def test_white_noise_is_as_sharp_as_can_be(self) -> None:
        noise = np.random.default_rng(0).normal(size=(1, 1, 128, 128)).astype(np.float32)
        assert measure_image(noise).numbers["sharpness1[0]"] == pytest.approx(1, abs=0.05)

    def test_a_stretched_window_leaves_gaps_between_values(self) -> None:
        ramp = make_ramp().astype(np.uint8)
        assert measure_image(ramp).numbers["step[0]"] == 0
        assert measure_image(4 * ramp).numbers["step[0]"] == pytest.approx(math.log10(4))
        # A third of the levels with steps of 3, and two thirds with steps of 1: 2 of 3 steps are in use.
        values = np.r_[np.arange(0, 60, 3), np.arange(60, 100)].astype(np.uint8)
        assert measure_image(np.tile(values, (1, 1, 60, 1))).numbers["filled[0]"] == pytest.approx(0.6, abs=0.02)

    def test_blurring_takes_noise_from_beside_the_edges(self) -> None:
        noise = np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype(np.float32)
        smooth = np.mean([np.roll(noise, (y, x), (2, 3)) for y in range(5) for x in range(5)], axis=0)
        # Of white noise the Laplacian is sqrt(20) standard deviations wide, and differences are sqrt(2).
        assert measure_image(noise).numbers["grain[0]"] == pytest.approx(math.log10(math.sqrt(10)), abs=0.02)
        assert measure_image(smooth).numbers["grain[0]"] < 0.4

    def test_half_an_image_without_content_is_half_of_its_columns(self) -> None:
        image = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
        image[..., :32] = 0
        assert measure_image(image).numbers["constant[0]"] == pytest.approx(0.25)

    def test_columns_that_repeat_their_neighbors(self) -> None:
        image = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
        assert measure_image(image).numbers["repeated[0]"] == 0
        # Three of four borders between columns lie inside of a block.
        blocks = image[..., ::4].repeat(4, axis=-1)
        assert measure_image(blocks).numbers["repeated[0]"] == pytest.approx(48 / 63)
        image[..., :32] = 0
        assert measure_image(image).numbers["repeated[0]"] == 0  # a margin

    def test_one_value_is_blank(self) -> None:
        facts = measure_image(np.full((1, 2, 8, 8), 7, np.int16))
        assert facts.numbers["blank[0]"] == 1
        assert not facts.pattern.any()

    def test_values_that_are_no_numbers_do_not_count(self) -> None:
        image = make_ramp()
        image[0, 0, 0, :3] = (np.nan, np.inf, -np.inf)
        assert all(math.isfinite(value) for value in measure_image(image).numbers.values())

    def test_a_pattern_is_the_mean_of_its_cells(self) -> None:
        image = np.zeros((1, 1, 16, 16), np.float32)
        image[..., :8, :] = 10
        pattern = measure_image(image).pattern
        assert pattern.shape == (1, 1, 8, 8)
        np.testing.assert_allclose(pattern[0, 0, :4], 1 / 8)
        np.testing.assert_allclose(pattern[0, 0, 4:], -1 / 8)

    def test_huge_images_are_looked_at_in_part(self) -> None:
        image = np.broadcast_to(np.arange(4000, dtype=np.uint16), (1, 200, 4000, 4000))  # 6 GB if it were read
        assert measure_image(image).numbers["size.width"] == pytest.approx(math.log2(4000))


class TestMasks:
    def test_a_box_has_its_volume_center_and_extent(self) -> None:
        plane = np.zeros((4, 10, 20), np.uint8)
        plane[1:3, :5, 10:] = 1
        facts = measure_mask([plane], ["liver"], (2.0, 1.0, 0.5))
        assert facts["liver.volume"] == pytest.approx(math.log10(100 * 1.0 / 1000))
        assert facts["liver.share"] == pytest.approx(math.log10(100 / 800))
        assert [facts[f"liver.center.{axis}"] for axis in ("depth", "height", "width")] == [0.5, 0.25, 0.75]
        assert [facts[f"liver.extent.{axis}"] for axis in ("depth", "height", "width")] == [0.5, 0.5, 0.5]

    def test_an_absent_label_has_nothing_else(self) -> None:
        assert measure_mask([np.zeros((1, 4, 4))], ["a"]) == {"a.present": 0.0}

    def test_large_masks_are_thinned_and_small_labels_are_not(self) -> None:
        plane = np.zeros((200, 300, 300), bool)
        plane[:, :150] = True
        assert measure_mask([plane], ["a"])["a.volume"] == pytest.approx(math.log10(9_000_000), abs=1e-3)
        plane[:] = False
        plane[7, 7, 7] = True
        assert measure_mask([plane], ["a"])["a.volume"] == 0
