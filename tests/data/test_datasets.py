"""From stored cases to samples: which pixels a patch holds, computed on paper."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from medseg_pl.core.geometry import Geometry
from medseg_pl.core.intensity import HIGH, LOW, compute_channel_statistics
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Sample, Volume
from medseg_pl.data.cache.case_cache import CaseCache
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.datasets import (
    PatchDataset,
    SliceDataset,
    SliceIndex,
    collate_samples,
    collate_slices,
    crop,
    stack_context,
)
from medseg_pl.data.samplers import CaseBatchSampler, EpochSampler
from medseg_pl.data.sources import Source
from medseg_pl.data.transforms.augmentation import Augmentation, StandardAugmentation
from medseg_pl.data.transforms.grids import center_padding
from medseg_pl.data.transforms.resize import Resize

LABELS = LabelMap(["large", "small"], "multiclass")


class Given(Source):
    """Cases that stand in no file; a file with the case's number takes their place."""

    def __init__(self, directory: Path, volumes: Sequence[Volume]) -> None:
        self.volumes = volumes
        self.paths = [directory / str(number) for number in range(len(volumes))]
        for path in self.paths:
            path.write_text(path.name)

    def cases(self) -> list[Case]:
        return [Case(path.name, f"patient{path.name}", (path,), (path,)) for path in self.paths]

    def read(self, case: Case, labels: LabelMap) -> Volume:
        return self.volumes[int(case.case_id)]

    def open_unlabeled(self, directory: Path) -> Source:
        raise NotImplementedError

    def write(self, *arguments: Any) -> None:
        raise NotImplementedError


def volume(image: NDArray[Any], mask: NDArray[Any] | None = None) -> Volume:
    """`(C, D, H, W)` or `(D, H, W)`; without a mask all is background."""
    image = image if image.ndim == 4 else image[None]
    mask = np.zeros((1, *image.shape[1:])) if mask is None else mask if mask.ndim == 4 else mask[None]
    return Volume(image, mask.astype(np.uint8), Geometry(image.shape[1:]))


def build(directory: Path, *volumes: Volume, labels: LabelMap = LABELS) -> CacheIndex:
    source = Given(directory, volumes)
    return CaseCache(directory / "store", source, labels).build(source.cases(), threads=1)


def patches(
    index: CacheIndex,
    size: tuple[int, int],
    context: int = 0,
    foreground: float = 0.0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    mode: Any = "none",
) -> PatchDataset:
    return PatchDataset(index, Resize(mode, size), context, foreground, augmentation, seed)


def numbered(depth: int, height: int, width: int, dtype: type = np.uint16) -> NDArray[Any]:
    """Every voxel holds its own number."""
    return np.arange(depth * height * width, dtype=dtype).reshape(depth, height, width)


class TestIndex:
    @given(depths=st.lists(st.integers(1, 9), min_size=1, max_size=12))
    def test_every_slice_of_every_case_once(self, depths: list[int]) -> None:
        index = SliceIndex(depths)
        assert [index.locate(i) for i in range(len(index))] == [
            (case, slice_) for case, depth in enumerate(depths) for slice_ in range(depth)
        ]

    def test_no_case(self) -> None:
        assert len(SliceIndex([])) == 0


class TestNeighbors:
    def test_the_last_slice_stands_in_at_the_ends(self) -> None:
        image = np.arange(3).reshape(1, 3, 1, 1)
        assert stack_context(image, 0, 2).ravel().tolist() == [0, 0, 0, 1, 2]
        assert stack_context(image, 1, 2).ravel().tolist() == [0, 0, 1, 2, 2]
        assert stack_context(image, 2, 2).ravel().tolist() == [0, 1, 2, 2, 2]

    def test_the_neighbor_is_outer_and_the_channel_inner(self) -> None:
        image = np.array([[10, 11, 12], [20, 21, 22]]).reshape(2, 3, 1, 1)
        assert stack_context(image, 1, 1).ravel().tolist() == [10, 20, 11, 21, 12, 22]

    def test_without_context_the_slice_alone(self) -> None:
        image = np.arange(24).reshape(2, 3, 2, 2)
        np.testing.assert_array_equal(stack_context(image, 2, 0), image[:, 2])

    def test_a_single_slice_is_its_own_neighbor(self) -> None:
        assert stack_context(np.full((1, 1, 1, 1), 7), 0, 3).ravel().tolist() == [7] * 7


class TestCrop:
    @given(
        box=st.tuples(st.integers(-6, 4), st.integers(-6, 6), st.integers(7, 14), st.integers(7, 14)),
        fill=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    )
    def test_it_is_a_crop_of_the_padded_image(self, box: tuple[int, int, int, int], fill: tuple[int, int]) -> None:
        image = numbered(2, 5, 7)
        top, left, height, width = box
        padded = np.stack([np.pad(plane, 20, constant_values=value) for plane, value in zip(image, fill, strict=True)])
        expected = padded[:, 20 + top : 20 + top + height, 20 + left : 20 + left + width]
        np.testing.assert_array_equal(crop(image, box, np.array(fill)), expected)


class TestPatches:
    def test_a_patch_is_a_crop_of_image_and_mask_at_one_place(self, tmp_path: Path) -> None:
        image = numbered(2, 6, 8)
        made = build(tmp_path, volume(image, image % 3))
        origins = set()
        for epoch in range(60):
            sample = patches(made, (3, 4))[epoch, epoch % 2]
            depth, rest = divmod(int(sample.image[0, 0, 0]), 48)
            top, left = divmod(rest, 8)
            expected = image[depth, top : top + 3, left : left + 4]
            assert depth == epoch % 2
            np.testing.assert_array_equal(sample.image[0], expected)
            np.testing.assert_array_equal(sample.mask[0], expected % 3)
            origins.add((top, left))
        assert len(origins) > 15  # of 20 places that a patch can take, 60 draws miss one or two
        assert max(origins) <= (3, 4)

    def test_neighbors_are_cropped_at_the_same_place(self, tmp_path: Path) -> None:
        made = build(tmp_path, volume(numbered(3, 6, 8)))
        before, here, behind = patches(made, (3, 4), context=1)[0, 1].image
        np.testing.assert_array_equal(here - before, np.full((3, 4), 48))
        np.testing.assert_array_equal(behind - here, np.full((3, 4), 48))

    def test_each_channel_has_its_statistics_beside_it(self, tmp_path: Path) -> None:
        image = np.stack([numbered(3, 6, 8), 2 * numbered(3, 6, 8)])
        sample = patches(build(tmp_path, volume(image)), (3, 4), context=1)[0, 1]
        np.testing.assert_array_equal(sample.statistics, np.tile(compute_channel_statistics(image), (3, 1)))
        np.testing.assert_array_equal(sample.image[1::2], 2 * sample.image[::2])

    def test_without_foreground_sampling_every_slice_comes_once(self, tmp_path: Path) -> None:
        constant = [
            np.full((4, 6, 8), 10 * case, np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None] for case in (1, 2)
        ]
        dataset = patches(build(tmp_path, *map(volume, constant)), (3, 4))
        assert [int(dataset[0, i].image[0, 0, 0]) for i in range(len(dataset))] == [10, 11, 12, 13, 20, 21, 22, 23]

    def test_a_second_passage_is_another_patch_of_the_same_slice(self, tmp_path: Path) -> None:
        dataset = patches(build(tmp_path, volume(numbered(2, 60, 80))), (3, 4))
        first, second = dataset[0, 1].image, dataset[0, 1 + len(dataset)].image
        assert not torch.equal(first, second)
        assert int(first.min()) // 4800 == int(second.min()) // 4800 == 1

    def test_the_mask_may_have_channels(self, tmp_path: Path) -> None:
        image = numbered(1, 6, 8)
        mask = np.stack([image % 2, image % 3 == 0, image % 5 == 0])
        overlapping = LabelMap(["two", "three", "five"], "multilabel")
        sample = patches(build(tmp_path, volume(image, mask), labels=overlapping), (3, 4))[0, 0]
        for plane, divisor, rest in zip(sample.mask, (2, 3, 5), (1, 0, 0), strict=True):
            np.testing.assert_array_equal(plane, sample.image[0].numpy() % divisor == rest)


class TestForeground:
    @pytest.mark.parametrize(("row", "column"), [(20, 30), (0, 0), (39, 59), (1, 57)])
    def test_a_patch_is_centerd_on_a_voxel_of_a_label(self, tmp_path: Path, row: int, column: int) -> None:
        mask = np.zeros((5, 40, 60))
        mask[3, row, column] = 2
        dataset = patches(build(tmp_path, volume(np.zeros((5, 40, 60), np.uint8), mask)), (8, 10), foreground=1.0)
        # The voxel is at (4, 5) of the patch, unless the patch would leave the image.
        expected = (row - min(max(row - 4, 0), 32), column - min(max(column - 5, 0), 50))
        for index in range(5):
            assert torch.nonzero(dataset[0, index].mask[0]).tolist() == [list(expected)]

    def test_each_label_is_equally_often_in_the_middle(self, tmp_path: Path) -> None:
        mask = np.zeros((1, 60, 60))
        mask[0, 5:55, 5:30], mask[0, 30, 45] = 1, 2
        dataset = patches(build(tmp_path, volume(np.zeros((1, 60, 60), np.uint8), mask)), (8, 8), foreground=1.0)
        middle = Counter(int(dataset[epoch, 0].mask[0, 4, 4]) for epoch in range(400))
        assert middle[0] == 0
        assert abs(middle[2] - 200) < 50  # five standard deviations of 400 fair draws

    def test_the_fraction_is_the_share_of_centerd_patches(self, tmp_path: Path) -> None:
        mask = np.zeros((1, 400, 400))
        mask[0, 200, 200] = 1
        dataset = patches(build(tmp_path, volume(np.zeros((1, 400, 400), np.uint8), mask)), (8, 8), foreground=0.25)
        hits = sum(int(dataset[epoch, 0].mask[0, 4, 4]) for epoch in range(400))
        assert abs(hits - 100) < 44  # five standard deviations; elsewhere a hit has the chance 1 : 154449

    def test_a_case_without_labels_still_gives_patches(self, tmp_path: Path) -> None:
        dataset = patches(build(tmp_path, volume(numbered(2, 6, 8))), (3, 4), foreground=1.0)
        assert {int(dataset[0, i].image.min()) // 48 for i in range(2)} == {0, 1}


class TestSmallImages:
    def test_they_sit_in_the_middle_of_the_lowest_value(self, tmp_path: Path) -> None:
        image = (numbered(1, 3, 5) + 100).astype(np.float32)
        mask = np.full((1, 3, 5), 2)
        sample = patches(build(tmp_path, volume(image, mask)), (6, 8))[0, 0]
        expected = np.full((6, 8), compute_channel_statistics(image[None])[0, LOW])
        expected[1:4, 1:6] = image[0]
        np.testing.assert_array_equal(sample.image[0], expected)
        assert torch.nonzero(sample.mask[0]).min(0).values.tolist() == [1, 1]
        assert int(sample.mask.sum()) == 2 * 15

    @pytest.mark.parametrize("size", [(3, 5), (4, 4), (1, 7)])
    def test_training_pads_as_evaluation_does(self, tmp_path: Path, size: tuple[int, int]) -> None:
        image = np.full((1, *size), 9, np.uint8)
        sample = patches(build(tmp_path, volume(image, np.ones((1, *size)))), (8, 8))[0, 0]
        padding = center_padding(size, (8, 8))
        first = torch.nonzero(sample.mask[0]).min(0).values.tolist()
        assert first == [padding.top, padding.left]

    def test_one_side_may_be_small_and_the_other_large(self, tmp_path: Path) -> None:
        image = numbered(1, 3, 80)
        sample = patches(build(tmp_path, volume(image)), (5, 8))[0, 0]
        left = int(sample.image[0, 1, 0])
        np.testing.assert_array_equal(sample.image[0, 1:4], image[0, :, left : left + 8])


class TestResize:
    def test_the_whole_slice_is_scaled_and_padded(self, tmp_path: Path) -> None:
        image = np.kron(np.array([[10, 20], [30, 40]]), np.ones((10, 20))).astype(np.uint8)[None]
        mask = (image == 40).astype(np.uint8)
        sample = patches(build(tmp_path, volume(image, mask)), (8, 8), mode="fit")[0, 0]
        # 20 x 40 becomes 4 x 8, with two rows on either side.
        np.testing.assert_array_equal(sample.image[0, 2:6], np.kron([[10, 20], [30, 40]], np.ones((2, 4))))
        np.testing.assert_array_equal(sample.image[0, [0, 1, 6, 7]], np.full((4, 8), 10))
        assert torch.nonzero(sample.mask[0]).tolist() == [[h, w] for h in (4, 5) for w in (4, 5, 6, 7)]

    def test_foreground_sampling_chooses_the_slice(self, tmp_path: Path) -> None:
        mask = np.zeros((9, 20, 40))
        mask[6, :10, :10] = 1
        made = build(tmp_path, volume(np.zeros((9, 20, 40), np.uint8), mask))
        dataset = patches(made, (8, 8), foreground=1.0, mode="fit")
        assert all(dataset[0, index].mask.any() for index in range(9))

    @pytest.mark.parametrize("size", [(37, 50), (50, 31), (16, 16), (200, 90)])
    def test_an_evaluated_slice_comes_back_to_its_grid(self, tmp_path: Path, size: tuple[int, int]) -> None:
        y, x = np.mgrid[: size[0], : size[1]]
        disc = ((y / size[0] - 0.45) ** 2 + (x / size[1] - 0.6) ** 2 < 0.07).astype(np.uint8)
        case = volume((200 * disc)[None].astype(np.uint8), disc[None])
        dataset = SliceDataset(Given(tmp_path, [case]).cases(), build(tmp_path, case), Resize("fit", (64, 64)), 0)
        batch = dataset[0]
        assert batch.image.shape == (1, 1, 64, 64)
        np.testing.assert_array_equal(batch.masks[0], disc[None])
        native = dataset.resize.undo(batch.image.float() / 200, size)[0, 0].numpy() > 0.5
        overlap = 2 * (native & (disc == 1)).sum() / (native.sum() + disc.sum())
        assert overlap > 0.95
        centers = [np.argwhere(mask).mean(axis=0) for mask in (native, disc)]
        assert np.abs(centers[0] - centers[1]).max() < 0.25  # of a native pixel: nothing is shifted


class TestSpacing:
    def test_a_crop_covers_the_pixels_that_its_spacing_asks_for(self, tmp_path: Path) -> None:
        """Pixels of 1 x 0.5 mm, brought to 2 x 2 mm: 3 x 2 pixels are the means of 2 x 4 blocks."""
        image = np.arange(2 * 6 * 8, dtype=np.float32).reshape(2, 6, 8)
        made = build(tmp_path, replace(volume(image), geometry=Geometry((2, 6, 8), (4.0, 1.0, 0.5))))
        blocks = image.reshape(2, 3, 2, 2, 4).mean(axis=(2, 4))
        fit = Resize("none", (3, 2), spacing_mm=(2.0, 2.0))
        sample = PatchDataset(made, fit, 0, 0.0, None, seed=0)[0, 1]
        assert sample.mask.shape == (1, 3, 2)
        np.testing.assert_allclose(sample.image[0], blocks[1])
        dataset = SliceDataset([_case()], made, fit, 0)
        assert dataset.sizes == [(3, 2)]
        np.testing.assert_allclose(dataset[0].image[0, 0], blocks[0])


class TestTypes:
    def test_eight_bits_stay_eight_bits(self, tmp_path: Path) -> None:
        sample = patches(build(tmp_path, volume(numbered(1, 6, 8, np.uint8))), (3, 4))[0, 0]
        assert (sample.image.dtype, sample.mask.dtype) == (torch.uint8, torch.uint8)
        assert sample.statistics.dtype == torch.float32

    @pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
    def test_everything_else_becomes_float(self, tmp_path: Path, dtype: type) -> None:
        made = build(tmp_path, volume(np.full((1, 6, 8), 31000, dtype)))
        sample = patches(made, (3, 4))[0, 0]
        assert sample.image.dtype == torch.float32
        assert sample.image.unique().tolist() == [31000]

    def test_what_is_not_finite_is_replaced(self, tmp_path: Path) -> None:
        image = np.linspace(-50, 50, 48, dtype=np.float32).reshape(1, 6, 8).copy()
        image[0, 0, :3] = np.nan, np.inf, -np.inf
        made = build(tmp_path, volume(image))
        low, high = compute_channel_statistics(image[None])[0, [LOW, HIGH]]
        for result in (
            patches(made, (6, 8))[0, 0].image[0],
            SliceDataset([_case()], made, Resize("none", (6, 8)), 0)[0].image[0, 0],
        ):
            assert result[0, :3].tolist() == pytest.approx([low, high, low])
            np.testing.assert_array_equal(result[1:], image[0, 1:])

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_a_sample_may_be_changed_without_touching_the_store(self, tmp_path: Path, dtype: type) -> None:
        image = np.full((1, 6, 8), 5, dtype)
        made = build(tmp_path, volume(image, np.ones((1, 6, 8))))
        whole, evaluated = patches(made, (6, 8)), SliceDataset([_case()], made, Resize("none", (6, 8)), 0)
        for tensor in (whole[0, 0].image, whole[0, 0].mask, evaluated[0].image):
            tensor.zero_()
        assert int(whole[0, 0].image.min()) == int(evaluated[0].image.min()) == 5
        assert int(whole[0, 0].mask.min()) == 1


def _case() -> Case:
    return Case("0", "patient0", (Path("0"),))


class TestReproducibility:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> PatchDataset:
        rng = np.random.default_rng(0)
        volumes = [
            volume(rng.integers(0, 999, (4, 20, 24)).astype(np.uint16), rng.integers(0, 3, (4, 20, 24)))
            for _ in range(2)
        ]
        return patches(build(tmp_path, *volumes), (12, 16), 1, 0.5, StandardAugmentation(noise=0.1), seed=3)

    def test_the_same_draw_is_the_same_sample_in_another_process(self, dataset: PatchDataset) -> None:
        draws = [(epoch, index) for epoch in (0, 7) for index in (0, 5, 13)]
        context = multiprocessing.get_context("fork")
        receive, send = context.Pipe(duplex=False)
        process = context.Process(
            target=lambda: send.send([tuple(np.asarray(field) for field in dataset[draw]) for draw in reversed(draws)])
        )
        process.start()
        assert receive.poll(60)
        there = dict(zip(reversed(draws), receive.recv(), strict=True))
        process.join()
        for draw in draws:
            for here, away in zip(dataset[draw], there[draw], strict=True):
                np.testing.assert_array_equal(here, away)

    def test_workers_change_nothing(self, dataset: PatchDataset) -> None:
        def samples(workers: int) -> list[Sample]:
            loader: Any = DataLoader(
                dataset, batch_size=None, sampler=EpochSampler(len(dataset), seed=1), num_workers=workers
            )
            return list(loader)

        for alone, loaded in zip(samples(0), samples(2), strict=True):
            for here, there in zip(alone[:3], loaded[:3], strict=True):
                assert torch.equal(here, there)
            assert alone.case_id == loaded.case_id

    def test_epoch_index_and_seed_each_change_the_sample(self, dataset: PatchDataset) -> None:
        same_slice = (0, 1 + len(dataset))
        other_seed = patches(dataset.index, (12, 16), 1, 0.5, StandardAugmentation(noise=0.1), seed=4)
        images = [dataset[0, 1].image, dataset[1, 1].image, dataset[same_slice].image, other_seed[0, 1].image]
        assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[i + 1 :])


class TestSlices:
    def test_whole_slices_with_what_puts_them_back(self, tmp_path: Path) -> None:
        images = [numbered(2, 5, 6), numbered(3, 4, 9)]
        volumes = [volume(image, image % 3) for image in images]
        made = build(tmp_path, *volumes)
        dataset = SliceDataset(Given(tmp_path, volumes).cases(), made, Resize("none", (64, 64)), context=1)
        assert len(dataset) == 5
        assert (dataset.depths, dataset.sizes) == ([2, 3], [(5, 6), (4, 9)])
        item = dataset[3]
        (reference,) = item.slices
        assert (reference.case_id, reference.group, reference.index) == ("1", "patient1", 1)
        assert reference.geometry == volumes[1].geometry
        np.testing.assert_array_equal(item.image[0], images[1])
        np.testing.assert_array_equal(item.masks[0], images[1][1:2] % 3)
        assert item.statistics.shape == (1, 3, 4)

    def test_without_reference_there_is_no_mask(self, tmp_path: Path) -> None:
        bare = Volume(numbered(2, 5, 6)[None], None, Geometry((2, 5, 6)))
        made = build(tmp_path, bare)
        assert SliceDataset([_case()], made, Resize("none", (8, 8)), 0)[1].masks == []

    def test_batches_are_joined_in_order(self, tmp_path: Path) -> None:
        made = build(tmp_path, volume(numbered(3, 5, 6)))
        dataset = SliceDataset([_case()], made, Resize("none", (8, 8)), 0)
        batch = collate_slices([dataset[2], dataset[0]])
        assert [reference.index for reference in batch.slices] == [2, 0]
        np.testing.assert_array_equal(batch.image[:, 0], numbered(3, 5, 6)[[2, 0]])
        assert len(batch.masks) == len(batch.statistics) == 2

    def test_no_slices_are_an_empty_batch(self) -> None:
        batch = collate_slices([])
        assert (len(batch.image), len(batch.statistics), batch.slices, batch.masks) == (0, 0, [], [])
        assert (batch.image.ndim, batch.statistics.shape[-1]) == (4, 4)
        assert batch.to("cpu").image.dtype == torch.float32

    def test_a_rank_without_a_case_loads_one_empty_batch(self, tmp_path: Path) -> None:
        made = build(tmp_path, volume(numbered(2, 5, 6)), volume(numbered(3, 5, 6)))
        dataset: Any = SliceDataset([_case()] * 2, made, Resize("none", (8, 8)), 0)
        sampler = CaseBatchSampler([2, 3], [(8, 8)] * 2, 4, rank=2, ranks=3)
        (batch,) = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_slices)
        assert (len(batch.image), batch.slices) == (0, [])


def test_a_batch_of_two_types_becomes_float(tmp_path: Path) -> None:
    dataset = patches(
        build(tmp_path, volume(np.full((1, 6, 8), 7, np.uint8)), volume(np.full((1, 6, 8), 700, np.uint16))), (3, 4)
    )
    batch = collate_samples([dataset[0, 0], dataset[0, 1]])
    assert batch.image.dtype == torch.float32
    assert [image.unique().tolist() for image in batch.image] == [[7], [700]]
    assert collate_samples([dataset[0, 0], dataset[1, 0]]).image.dtype == torch.uint8


class TestRaters:
    """Two raters, of whom the second drew one more column; and a third, who left one open."""

    @pytest.fixture
    def raters(self, tmp_path: Path) -> list[CacheIndex]:
        masks = np.zeros((3, 1, 4, 4), np.uint8)
        masks[:, :, :, 0], masks[1, :, :, 1], masks[2, :, :, 3] = 1, 1, 255
        labels = LabelMap(["a"], "binary", ignore_value=9)
        indices = []
        for number, mask in enumerate(masks):
            (tmp_path / str(number)).mkdir()
            indices.append(build(tmp_path / str(number), volume(numbered(1, 4, 4), mask), labels=labels))
        return indices

    def test_a_random_one_each_time(self, raters: list[CacheIndex]) -> None:
        data = PatchDataset(raters[0], Resize("none", (4, 4)), 0, 0.5, None, 0, raters=raters[1:2], rater="random")
        widths = Counter(int(data[epoch, 0].mask[0, 0].sum()) for epoch in range(200))
        assert set(widths) == {1, 2}
        assert 70 < widths[1] < 130
        assert torch.equal(data[3, 0].mask, data[3, 0].mask)

    def test_the_share_of_those_who_drew_the_label(self, raters: list[CacheIndex]) -> None:
        data = PatchDataset(raters[0], Resize("none", (4, 4)), 0, 0.5, None, 0, raters=raters[1:], rater="mean")
        mask = data[0, 0].mask
        torch.testing.assert_close(mask[0, 0], torch.tensor([1.0, 1 / 3, 0.0, 255.0]))
        assert mask.shape == (1, 4, 4)
