"""Augmentation: reproducible, image and mask together, nothing that was not there."""

from __future__ import annotations

import pickle
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.core.errors import SettingError
from medseg_pl.core.intensity import compute_channel_statistics
from medseg_pl.data.transforms.augmentation import AlbumentationsAugmentation, StandardAugmentation, _Affine

OFF: dict[str, float] = {
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    "rotate_degrees": 0.0,
    "scale": 0.0,
    "shift": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
}
ALL = StandardAugmentation(
    flip_vertical=0.5, gamma=0.3, noise=0.1, geometric_probability=0.9, intensity_probability=0.9
)
SEEDS = range(20)


def only(**settings: float) -> StandardAugmentation:
    """Everything off but what is named, and that always on."""
    return StandardAugmentation(**{**OFF, **settings}, geometric_probability=1.0, intensity_probability=1.0)


def pixels(channels: int, dtype: str = "uint8", size: tuple[int, int] = (24, 31)) -> NDArray[Any]:
    """Smooth planes with values of the type's usual range, unlike each other."""
    y, x = np.mgrid[: size[0], : size[1]]
    planes = [100 + 50 * np.sin(y / (3 + c)) + 50 * np.cos(x / (4 + c)) for c in range(channels)]
    image = np.stack(planes)
    return image.astype(np.uint8) if dtype == "uint8" else (30 * image - 2000).astype(np.float32)


def labels(channels: int, size: tuple[int, int] = (24, 31)) -> NDArray[np.uint8]:
    y, x = np.mgrid[: size[0], : size[1]]
    discs = [((y - 9 - 2 * c) ** 2 + (x - 14) ** 2 < 40) for c in range(channels)]
    mask = np.stack(discs).astype(np.uint8)
    if channels == 1:
        mask[0, 12:, 12:] = 2
        mask[0, :4] = 255
    return mask


def run(
    augmentation: AlbumentationsAugmentation, image: NDArray[Any], mask: NDArray[np.uint8], seed: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    return augmentation(image, mask, compute_channel_statistics(image), seed)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5, 7])
@pytest.mark.parametrize("mask_channels", [1, 2, 3, 5])
def test_shapes_and_types_stay_and_no_value_enters_the_mask(dtype: str, channels: int, mask_channels: int) -> None:
    image, mask = pixels(channels, dtype), labels(mask_channels)
    original = image.copy(), mask.copy()
    for seed in SEEDS:
        changed, moved = run(ALL, image, mask, seed)
        assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
        assert (moved.shape, moved.dtype) == (mask.shape, np.uint8)
        assert set(np.unique(moved)) <= set(np.unique(mask))
        assert np.isfinite(changed).all()
        assert changed.flags.c_contiguous
        assert changed.flags.writeable
        assert moved.flags.c_contiguous
    np.testing.assert_array_equal(image, original[0])
    np.testing.assert_array_equal(mask, original[1])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_same_seed_gives_the_same_change(dtype: str) -> None:
    image, mask = pixels(3, dtype), labels(1)
    fresh = pickle.loads(pickle.dumps(ALL))
    for seed in (0, 1, 2**32 - 1):
        run(fresh, image, mask, seed + 1 if seed < 9 else 0)  # what came before leaves no trace
        for first, second in zip(run(ALL, image, mask, seed), run(fresh, image, mask, seed), strict=True):
            np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_changes() -> None:
    image, mask = pixels(1), labels(1)
    always = only(rotate_degrees=30.0, scale=0.2, noise=0.2)
    assert len({run(always, image, mask, seed)[0].tobytes() for seed in SEEDS}) == len(SEEDS)


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].tobytes()
    run(ALL, pixels(1), labels(1), 3)
    assert np.random.get_state()[1].tobytes() == before


@pytest.mark.parametrize("channels", [1, 3, 5, 7])
def test_image_and_mask_move_together(channels: int) -> None:
    # The mask is the image, and large blocks make interpolation a matter of their borders.
    blocks = np.kron(np.arange(6).reshape(2, 3) % 2, np.ones((20, 20))).astype(np.uint8)
    image, mask = np.stack([200 * blocks] * channels), blocks[None]
    geometric = StandardAugmentation(
        **{**OFF, "flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate_degrees": 30.0, "scale": 0.3, "shift": 0.2}
    )
    moved_at_all = 0
    for seed in SEEDS:
        changed, moved = run(geometric, image, mask, seed)
        moved_at_all += int((moved != mask).any())
        for plane in changed:
            assert ((plane > 100) == moved[0]).mean() > 0.99
            np.testing.assert_array_equal(plane, changed[0])
    assert moved_at_all > 10


def test_all_channels_of_a_mask_move_together() -> None:
    mask = labels(1)
    mask[mask == 255] = 0
    stack = np.stack([mask[0]] * 3)
    for seed in SEEDS:
        _, moved = run(ALL, pixels(1), stack, seed)
        np.testing.assert_array_equal(moved[0], moved[1])
        np.testing.assert_array_equal(moved[0], moved[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("setting", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_flip_is_a_flip(setting: str, axis: int, dtype: str, channels: int) -> None:
    image, mask = pixels(channels, dtype), labels(3)
    changed, moved = run(only(**{setting: 1.0}), image, mask, 0)
    np.testing.assert_array_equal(changed, np.flip(image, axis))  # raw values, those beyond the percentiles too
    np.testing.assert_array_equal(moved, np.flip(mask, axis))


def test_changes_come_independently_of_each_other() -> None:
    image, mask = pixels(1), labels(1)
    both = StandardAugmentation(**{**OFF, "flip_horizontal": 0.5, "flip_vertical": 0.5})
    flips = {(across, along): image[:, ::along, ::across] for across in (1, -1) for along in (1, -1)}
    seen = [both(image, mask, compute_channel_statistics(image), seed)[0] for seed in range(200)]
    counts = [sum(np.array_equal(flipped, other) for other in seen) for flipped in flips.values()]
    assert sum(counts) == 200
    assert min(counts) > 30  # a quarter each, within three standard deviations


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_all_off_changes_nothing(dtype: str, channels: int) -> None:
    image, mask = pixels(channels, dtype), labels(1)
    for seed in SEEDS:
        changed, moved = run(only(), image, mask, seed)
        np.testing.assert_array_equal(changed, image)
        np.testing.assert_array_equal(moved, mask)


@pytest.mark.parametrize("setting", ["brightness", "contrast", "gamma", "noise"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_changes_of_intensity_leave_the_mask_alone(setting: str, dtype: str, channels: int) -> None:
    image, mask = pixels(channels, dtype), labels(1)
    changed = [run(only(**{setting: 0.4}), image, mask, seed) for seed in SEEDS]
    assert all((moved == mask).all() for _, moved in changed)
    assert sum(bool((now != image).mean() > 0.5) for now, _ in changed) > len(SEEDS) // 2
    for now, _ in changed:  # nothing leaves the range of the image, whatever its units
        if dtype == "float32":
            assert (now.min(axis=(1, 2)) >= image.min(axis=(1, 2)) - 1).all()
            assert (now.max(axis=(1, 2)) <= image.max(axis=(1, 2)) + 1).all()


@pytest.mark.parametrize("settings", [{"blur": 2.0}, {"low_resolution": 0.3}])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_and_low_resolution_smooth_each_channel(settings: dict[str, float], dtype: str, channels: int) -> None:
    noise = np.random.default_rng(0).normal(100, 20, (channels, 24, 31))
    image = noise.clip(0, 255).astype(np.uint8) if dtype == "uint8" else noise.astype(np.float32)
    for seed in SEEDS:
        changed, mask = run(only(**settings), image, labels(1), seed)
        assert (mask == labels(1)).all()
        assert (changed.std(axis=(1, 2)) < 0.95 * image.std(axis=(1, 2))).all()
        np.testing.assert_allclose(changed.mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=3)


@pytest.mark.parametrize("settings", [{"blur": 0.2}, {"low_resolution": 0.0}, {"low_resolution": 1.5}])
def test_a_strength_that_means_nothing(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=f"StandardAugmentation: {next(iter(settings))}"):
        StandardAugmentation(**settings)


def test_brightness_adds_a_share_of_the_range() -> None:
    image = np.full((1, 16, 16), 500, np.float32)
    statistics = np.array([[500, 100, 0, 1000]], np.float32)
    shifts = [
        float(only(brightness=0.2)(image, np.zeros((1, 16, 16), np.uint8), statistics, seed)[0].mean())
        for seed in range(60)
    ]
    assert 300 - 1 <= min(shifts) < 340
    assert 660 < max(shifts) <= 700 + 1


@pytest.mark.parametrize("setting", ["brightness", "contrast", "gamma", "noise"])
def test_eight_bits_are_changed_as_sixteen_are(setting: str) -> None:
    values = np.random.default_rng(0).integers(0, 40, (2, 64, 64))
    mask = np.zeros((1, 64, 64), np.uint8)
    augmentation, low, high = only(**{setting: 0.15}), values.min(), values.max()
    shifts = []
    for seed in range(60):
        eight, _ = run(augmentation, values.astype(np.uint8), mask, seed)
        sixteen, _ = run(augmentation, values.astype(np.float32), mask, seed)
        np.testing.assert_allclose(eight, sixteen, atol=0.5)
        shifts.append(abs(float(eight.mean()) - float(values.mean())))
    assert max(shifts) <= 0.15 * (high - low) + 0.5
    assert setting != "brightness" or max(shifts) > 0.1 * (high - low)


def half(image: NDArray[Any], **_: Any) -> NDArray[Any]:
    return image * np.float32(0.5)


class Halved(AlbumentationsAugmentation):
    """Every value of 0 … 1 to its half: a change that can be worked out on paper."""

    def make_geometric(self) -> list[Any]:
        return []

    def make_intensity(self) -> list[Any]:
        return [albumentations.Lambda(image=half, p=1.0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_what_lies_beyond_the_percentiles_is_added_again(channels: int) -> None:
    image = np.tile(np.array([[[-400, 100, 200], [300, 500, 900]]], np.float32), (channels, 1, 1))
    statistics = np.tile(np.array([[0, 1, 100, 500]], np.float32), (channels, 1))
    changed, _ = Halved()(image, labels(1, (2, 3)), statistics, 0)
    # In 0 … 1: 0, 0, 0.25, 0.5, 1, 1, whose halves are less by 0, 0, 0.125, 0.25, 0.5, 0.5 of a range of 400.
    expected = [[-400, 100, 150], [200, 300, 700]]
    np.testing.assert_allclose(changed, np.tile(expected, (channels, 1, 1)), atol=1e-3)
    assert changed.dtype == np.float32


def test_each_channel_is_changed_in_its_own_range() -> None:
    image = np.array([[[100, 500]], [[0, 8]]], np.float32)
    changed, _ = Halved()(image, labels(1, (1, 2)), np.array([[0, 1, 100, 500], [0, 1, 0, 8]], np.float32), 0)
    np.testing.assert_allclose(changed, [[[100, 300]], [[0, 4]]], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_a_move_keeps_values_beyond_the_percentiles(channels: int) -> None:
    image = np.full((channels, 40, 40), 40, np.float32)
    image[:, 10:30, 10:30] = 3000  # metal, in a scan whose percentiles are those of soft tissue
    statistics = np.tile(np.array([[40, 20, -100, 300]], np.float32), (channels, 1))
    for seed in SEEDS:
        changed, _ = only(rotate_degrees=20.0, shift=0.05)(image, labels(1, (40, 40)), statistics, seed)
        assert changed.max() == pytest.approx(3000)
        assert changed.min() == pytest.approx(40)


def test_noise_keeps_a_value_beyond_the_percentiles_there() -> None:
    image = np.full((1, 16, 16), 3000, np.float32)
    statistics = np.array([[40, 20, -100, 300]], np.float32)
    changed, _ = only(noise=0.1)(image, labels(1, (16, 16)), statistics, 0)
    # The change is that of the value at the percentile, a share of the range of 400.
    assert 3000 - 400 * 0.6 < changed.min() < 3000
    assert changed.max() <= 3000


@pytest.mark.parametrize("strength", ["make_geometric", "make_intensity"])
def test_only_what_is_switched_on_is_run(strength: str) -> None:
    assert getattr(only(), strength)() == []
    names = {
        "make_geometric": ["HorizontalFlip", "VerticalFlip", "Affine"],
        "make_intensity": ["RandomBrightnessContrast", "RandomGamma", "GaussNoise"],
    }
    found = getattr(ALL, strength)()
    assert all(
        isinstance(each, getattr(albumentations, name)) for each, name in zip(found, names[strength], strict=True)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 9])
def test_a_turned_patch_is_that_of_albumentations(channels: int, dtype: type) -> None:
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 255, (31, 44, channels)).astype(dtype)
    mask = rng.integers(0, 3, (31, 44, channels)).astype(np.uint8)
    given = {"rotate": (10, 20), "scale": (0.8, 1.2), "border_mode": cv2.BORDER_REFLECT_101, "p": 1.0}
    for kind in ({"image": image, "mask": mask}, {"image": image[..., 0], "mask": mask[..., 0]}):
        ours, theirs = _Affine(**given), albumentations.Affine(**given)
        for transform in (ours, theirs):
            transform.set_random_seed(7)
        found, expected = ours(**kind), theirs(**kind)
        for name in kind:
            np.testing.assert_array_equal(found[name], expected[name])
            assert not np.array_equal(found[name], kind[name])


def test_a_shift_moves_by_at_most_its_share() -> None:
    mask = np.zeros((1, 40, 60), np.uint8)
    mask[0, 18:22, 28:32] = 1
    image = mask * np.uint8(200)
    centers = np.array([np.argwhere(run(only(shift=0.1), image, mask, seed)[1][0]).mean(axis=0) for seed in range(60)])
    moved = np.abs(centers - (19.5, 29.5)).max(axis=0)
    assert 2 < moved[0] <= 4.5
    assert 4 < moved[1] <= 6.5


def test_a_rotation_turns_by_at_most_its_degrees() -> None:
    mask = np.zeros((1, 81, 81), np.uint8)
    mask[0, 39:42, 41:70] = 1
    image = mask * np.uint8(200)
    centers = np.array(
        [np.argwhere(run(only(rotate_degrees=20.0), image, mask, seed)[1][0]).mean(axis=0) for seed in range(60)]
    )
    degrees = np.degrees(np.arctan2(*(centers - 40).T))
    assert 14 < np.abs(degrees).max() < 21.5
    assert degrees.min() < -10
    assert degrees.max() > 10


def test_tissue_and_labels_are_mirrored_at_the_border() -> None:
    image = np.full((1, 30, 30), 90, np.uint8)
    mask = np.ones((1, 30, 30), np.uint8)
    for seed in SEEDS:
        changed, moved = run(only(rotate_degrees=45.0, scale=0.4, shift=0.3), image, mask, seed)
        assert (changed == 90).all()
        assert (moved == 1).all()


def test_a_channel_of_one_value_stays_finite() -> None:
    image = np.full((2, 16, 16), 7, np.float32)
    changed, _ = run(ALL, image, labels(1, (16, 16)), 0)
    np.testing.assert_allclose(changed, image, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_lists_of_your_own_are_two_methods(dtype: str) -> None:
    class Transposed(AlbumentationsAugmentation):
        def make_geometric(self) -> list[Any]:
            return [albumentations.Transpose(p=1.0)]

        def make_intensity(self) -> list[Any]:
            return [albumentations.InvertImg(p=1.0)]

    image, mask = pixels(3, dtype, size=(16, 16)), labels(1, (16, 16))
    statistics = compute_channel_statistics(image)
    changed, moved = Transposed()(image, mask, statistics, 0)
    low, high = statistics[:, 2:].T[..., None, None]
    inside = np.clip(image, low, high)
    inverted = image + (low + high - inside) - inside  # what lies beyond the percentiles stays that far beyond
    np.testing.assert_allclose(changed, inverted.transpose(0, 2, 1), atol=0.5 if dtype == "uint8" else 1e-2)
    np.testing.assert_array_equal(moved, mask.transpose(0, 2, 1))


def test_a_list_that_is_missing_is_missed() -> None:
    class Forgetful(AlbumentationsAugmentation):
        def make_geometric(self) -> list[Any]:
            return []

    with pytest.raises(TypeError, match=r"abstract method '?make_intensity"):
        Forgetful()
