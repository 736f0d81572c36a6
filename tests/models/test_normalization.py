"""Raw values to network values: worked out on paper, for every type of file and any context."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg_pl.core.errors import SettingError
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.models.normalization import InputStatistics, IntensityWindow, MeanStd, Normalization, PerChannel, ZScore

TYPES = [torch.uint8, torch.int16, torch.uint16, torch.float16, torch.float32]
UNUSED = torch.full((1, 1, 4), torch.nan)


def images(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1).to(dtype)


class TestZScore:
    @pytest.mark.parametrize("dtype", TYPES)
    def test_mean_and_deviation_of_the_case(self, dtype: torch.dtype) -> None:
        statistics = torch.tensor([[[50.0, 10.0, 0.0, 100.0]]])
        normalized = ZScore()(images(50, 60, 30, dtype=dtype), statistics)
        assert normalized.dtype == torch.float32
        assert normalized.flatten().tolist() == [0, 1, -2]

    def test_values_beyond_the_percentiles_are_cut(self) -> None:
        statistics = torch.tensor([[[50.0, 10.0, 20.0, 90.0]]])
        values = images(-1000, 20, 90, 1000)
        assert ZScore()(values, statistics).flatten().tolist() == [-3, -3, 4, 4]
        assert ZScore(clip=False)(values, statistics).flatten().tolist() == [-105, -3, 4, 95]

    def test_each_image_and_channel_has_its_own(self) -> None:
        statistics = torch.tensor([[[0.0, 1.0, -9, 9], [1.0, 2.0, -9, 9]], [[2.0, 4.0, -9, 9], [3.0, 8.0, -9, 9]]])
        normalized = ZScore()(torch.full((2, 2, 3, 5), 7.0), statistics)
        assert normalized.shape == (2, 2, 3, 5)
        assert normalized[:, :, 2, 4].tolist() == [[7, 3], [1.25, 0.5]]

    def test_a_whole_case_becomes_mean_0_and_deviation_1(self) -> None:
        pixels = np.random.default_rng(0).normal(1000, 200, (2, 60, 70)).astype(np.float32)
        statistics = torch.from_numpy(compute_channel_statistics(pixels))[None]
        normalized = ZScore()(torch.from_numpy(pixels)[None], statistics)
        torch.testing.assert_close(normalized.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(normalized.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)

    def test_hot_pixels_leave_mean_0_and_deviation_1(self) -> None:
        pixels = np.random.default_rng(0).normal(100, 20, (1, 100, 100)).astype(np.float32)
        pixels[0, 50, 50] = 30_000.0
        statistics = torch.from_numpy(compute_channel_statistics(pixels))[None]
        normalized = ZScore()(torch.from_numpy(pixels)[None], statistics)
        assert normalized.mean().item() == pytest.approx(0, abs=1e-4)
        assert normalized.std(correction=0).item() == pytest.approx(1, abs=1e-4)
        unclipped = ZScore(clip=False)(torch.from_numpy(pixels)[None], statistics)
        assert unclipped.flatten().sort().values[:-50].std().item() == pytest.approx(1, abs=0.05)

    def test_an_empty_scan_becomes_zero(self) -> None:
        pixels = np.full((1, 4, 4), 7.0, np.float32)
        normalized = ZScore()(
            torch.from_numpy(pixels)[None], torch.from_numpy(compute_channel_statistics(pixels))[None]
        )
        assert (normalized == 0).all()


class TestIntensityWindow:
    @pytest.mark.parametrize("dtype", [torch.int16, torch.float16, torch.float32])
    def test_the_window_becomes_minus_one_to_one(self, dtype: torch.dtype) -> None:
        normalized = IntensityWindow(-160, 240)(images(-1000, -160, 40, 140, 240, 3000, dtype=dtype), UNUSED)
        assert normalized.dtype == torch.float32
        torch.testing.assert_close(normalized.flatten(), torch.tensor([-1, -1, 0, 0.5, 1, 1]))

    @pytest.mark.parametrize(("low", "high"), [(10, 10), (240.0, -160.0), (0.0, float("nan"))])
    def test_a_window_upside_down_is_refused(self, low: float, high: float) -> None:
        with pytest.raises(SettingError, match=f"An intensity window needs low < high; got {low} and {high}"):
            IntensityWindow(low, high)


class TestMeanStd:
    def test_equal_to_torchvision_with_imagenets_values(self) -> None:
        from torchvision.transforms.v2.functional import normalize

        pixels = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        expected = normalize(pixels / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        torch.testing.assert_close(MeanStd()(pixels, torch.zeros(2, 3, 4)), expected, atol=1e-5, rtol=1e-5)

    def test_sixteen_bits(self) -> None:
        layer = MeanStd([0.5], [0.25], maximum=65535)
        normalized = layer(images(0, 65535, dtype=torch.uint16), UNUSED)
        torch.testing.assert_close(normalized.flatten(), torch.tensor([-2.0, 2.0]))

    def test_neighbors_come_outside_and_channels_inside(self) -> None:
        layer = MeanStd([0.0, 100.0], [1.0, 10.0], maximum=1)
        slices = torch.tensor([1.0, 110, 2, 120, 3, 130]).view(1, 6, 1, 1)
        assert layer(slices, torch.zeros(1, 6, 4)).flatten().tolist() == [1, 1, 2, 2, 3, 3]

    @pytest.mark.parametrize(("std", "maximum"), [([0.2, 0.0], 255.0), ([0.2, -0.1], 255.0), ([0.2, 0.1], 0.0)])
    def test_nothing_is_divided_by_zero(self, std: list[float], maximum: float) -> None:
        with pytest.raises(SettingError) as caught:
            MeanStd([0.5, 0.5], std, maximum)
        assert str(caught.value) == f"std and maximum must be greater than 0; got {std} and {maximum}."

    def test_channels_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(SettingError) as caught:
            MeanStd()(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 4))
        assert str(caught.value) == (
            "MeanStd has 3 channels, but the images have 4. Give model.normalization one mean and one std for each "
            "of model.channels."
        )

    @pytest.mark.parametrize(("mean", "std"), [([0.5], [0.1, 0.2]), ([], [])])
    def test_mean_and_std_must_be_as_many(self, mean: list[float], std: list[float]) -> None:
        with pytest.raises(SettingError, match=f"one value for each channel; got {len(mean)} and {len(std)}"):
            MeanStd(mean, std)

    def test_its_constants_follow_the_device(self) -> None:
        assert {buffer.device.type for buffer in MeanStd().to("meta").buffers()} == {"meta"}


class TestPerChannel:
    def test_each_channel_goes_its_own_way(self) -> None:
        layer = PerChannel([IntensityWindow(-100, 100), ZScore(clip=False)])
        pixels = torch.tensor([-100.0, 6.0, 0.0, 8.0]).view(1, 4, 1, 1)  # two slices of a CT and a PET
        statistics = torch.tensor([[0.0, 1.0, 0.0, 0.0], [4.0, 2.0, 0.0, 9.0]]).repeat(2, 1)[None]
        assert layer(pixels, statistics).flatten().tolist() == [-1, 1, 0, 2]

    def test_one_normalization_for_each_channel(self) -> None:
        with pytest.raises(SettingError, match=r"has 2 normalizations, but the images have 3 channels"):
            PerChannel([ZScore(), ZScore()])(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 4))
        with pytest.raises(SettingError, match=r"for each of model\.channels; got none"):
            PerChannel([])


@pytest.mark.parametrize(
    "layer", [ZScore(), ZScore(clip=False), IntensityWindow(0, 9), MeanStd([0], [1]), PerChannel([ZScore()])]
)
def test_settings_travel_as_hyper_parameters_and_not_as_weights(layer: Normalization) -> None:
    assert layer.state_dict() == {}


@pytest.mark.parametrize("layer", [ZScore(), IntensityWindow(0, 9), MeanStd([0.5], [0.1])])
def test_the_image_is_left_as_it_is(layer: Normalization) -> None:
    pixels = images(-3, 5, 700)
    before = pixels.clone()
    layer(pixels, torch.tensor([[[1.0, 2.0, 0.0, 9.0]]]))
    assert torch.equal(pixels, before)


class TestStatisticsOfWeights:
    """Mean and deviation that nobody gave are those of the weights, and travel with them."""

    HALF = InputStatistics((0.25, 0.5, 0.75), (0.5, 0.25, 0.75))

    def test_color_images_have_the_values_of_the_weights(self) -> None:
        layer = MeanStd()
        said = layer.follow_weights(self.HALF, channels=3)
        assert said == "Input normalization follows the weights: mean 0.25/0.5/0.75 and std 0.5/0.25/0.75 of 255."
        image = torch.full((1, 6, 1, 1), 255.0)  # two slices
        expected = [(1 - mean) / std for mean, std in zip(*self.HALF, strict=True)]
        torch.testing.assert_close(layer(image, torch.zeros(1, 6, 4)).flatten(), torch.tensor(expected * 2))

    def test_other_images_have_their_average(self) -> None:
        layer = MeanStd(maximum=1)
        layer.follow_weights(self.HALF, channels=1)
        torch.testing.assert_close(layer(torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 4)), torch.ones(1, 3, 1, 1))

    def test_given_values_stay(self) -> None:
        layer = MeanStd([0.5], [0.5], maximum=1)
        said = layer.follow_weights(InputStatistics((0.5,), (0.25,)), 1)
        assert said == "Input normalization stays as it is given; the weights were trained with mean 0.5 and std 0.25."
        assert "is that of the weights" in layer.follow_weights(InputStatistics((0.5,), (0.5,)), 1)
        assert layer(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 4)).item() == 1

    @pytest.mark.parametrize("layer", [ZScore(), IntensityWindow(0, 9)])
    def test_others_stay(self, layer: Normalization) -> None:
        assert layer.follow_weights(self.HALF, 1) == f"Input normalization stays {type(layer).__name__}."

    def test_each_channel_follows(self) -> None:
        layer = PerChannel([ZScore(), MeanStd(maximum=1)])
        said = layer.follow_weights(self.HALF, channels=2)
        assert "stays ZScore. Input normalization follows the weights: mean 0.5 and std 0.5 of 1." in said

    def test_a_checkpoint_brings_them_back(self) -> None:
        layer, again = MeanStd(), MeanStd()
        layer.follow_weights(self.HALF, channels=1)
        again.load_state_dict(layer.state_dict())
        assert again.mean.tolist() == [127.5]
        assert again.std.tolist() == [127.5]

    def test_an_older_checkpoint_has_none(self) -> None:
        layer = MeanStd()
        layer.load_state_dict({})
        assert layer.mean.tolist() == MeanStd().mean.tolist()

    def test_given_values_win_over_those_of_a_checkpoint(self) -> None:
        layer = MeanStd([0.5], [0.5])
        layer.load_state_dict(MeanStd().state_dict())
        assert layer.mean.tolist() == [127.5]
