"""Orders that are a function of seed and epoch, and cases that are never split, padded or repeated."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_pl.data.samplers import CaseBatchSampler, EpochSampler

lengths, seeds = st.integers(1, 60), st.integers(0, 1000)
some_ranks = st.integers(1, 6)


def order(length: int, seed: int = 0, epoch: int = 0, **settings: int) -> list[tuple[int, int]]:
    sampler = EpochSampler(length, seed, **settings)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


class TestEpochSampler:
    @given(length=lengths, seed=seeds, epoch=st.integers(0, 100))
    def test_each_sample_comes_once_in_an_epoch(self, length: int, seed: int, epoch: int) -> None:
        drawn = order(length, seed, epoch)
        assert sorted(index for _, index in drawn) == list(range(length))
        assert {number for number, _ in drawn} == {epoch}

    def test_epochs_and_seeds_have_orders_of_their_own(self) -> None:
        orders = [[index for _, index in order(50, seed, epoch)] for seed in range(4) for epoch in range(4)]
        assert len({tuple(each) for each in orders}) == 16
        # A function of seed and epoch: the pair (1, 0) is not (0, 1).
        assert orders[1] != orders[4]

    def test_the_order_is_a_function_of_seed_and_epoch_alone(self) -> None:
        sampler = EpochSampler(50, seed=3)
        sampler.set_epoch(5)
        assert list(sampler) == list(sampler) == order(50, 3, 5)

    def test_an_epoch_that_has_begun_keeps_its_order(self) -> None:
        sampler = EpochSampler(20, seed=3, samples_per_epoch=60)
        sampler.set_epoch(5)
        opened = iter(sampler)
        first = next(opened)
        sampler.set_epoch(6)  # while the rest, its later passages too, has yet to be asked for
        assert [first, *opened] == order(20, 3, 5, samples_per_epoch=60)
        assert list(sampler) == order(20, 3, 6, samples_per_epoch=60)

    @given(length=lengths, ranks=some_ranks, total=st.integers(1, 150), seed=seeds)
    def test_ranks_share_the_order_without_overlap(self, length: int, ranks: int, total: int, seed: int) -> None:
        alone = order(length, seed, 2, samples_per_epoch=total)
        shares = [order(length, seed, 2, samples_per_epoch=total, rank=rank, ranks=ranks) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        together = [draw for step in zip(*shares, strict=True) for draw in step]
        assert together == alone[: total - total % ranks]
        assert len(set(together)) == len(together)

    @given(length=lengths, passages=st.integers(1, 4))
    def test_a_longer_epoch_passes_through_all_samples_again(self, length: int, passages: int) -> None:
        drawn = [index for _, index in order(length, samples_per_epoch=passages * length)]
        for passage in range(passages):
            part = drawn[passage * length : (passage + 1) * length]
            assert sorted(part) == list(range(passage * length, (passage + 1) * length))

    def test_a_second_passage_has_another_order(self) -> None:
        drawn = [index for _, index in order(50, samples_per_epoch=100)]
        assert [index - 50 for index in drawn[50:]] != drawn[:50]

    def test_a_shorter_epoch_takes_the_first_of_the_order_and_so_in_time_all(self) -> None:
        assert order(50, samples_per_epoch=8) == order(50)[:8]
        seen = {index for epoch in range(60) for _, index in order(50, epoch=epoch, samples_per_epoch=8)}
        assert seen == set(range(50))

    @given(length=lengths, ranks=some_ranks, total=st.integers(1, 150), done=st.integers(0, 60), rank=st.integers(0, 5))
    def test_what_was_drawn_before_a_stop_is_left_out(
        self, length: int, ranks: int, total: int, done: int, rank: int
    ) -> None:
        shared = {"samples_per_epoch": total, "rank": rank % ranks, "ranks": ranks}
        sampler = EpochSampler(length, 0, **shared)
        sampler.set_epoch(2)
        sampler.leave_out(done)
        assert list(sampler) == order(length, 0, 2, **shared)[done:]
        assert len(sampler) == total // ranks
        sampler.set_epoch(3)
        assert list(sampler) == order(length, 0, 3, **shared)

    def test_the_order_is_not_biased(self) -> None:
        first = Counter(order(4, seed)[0][1] for seed in range(2000))
        assert all(abs(count - 500) < 5 * 20 for count in first.values())


some_cases = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from([(64, 64), (64, 96), (32, 32)])), min_size=1, max_size=20
)


def batches(
    cases: list[tuple[int, tuple[int, int]]], batch_size: int, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    sampler = CaseBatchSampler([depth for depth, _ in cases], [size for _, size in cases], batch_size, rank, ranks)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


def case_of(cases: list[tuple[int, tuple[int, int]]]) -> list[int]:
    return [number for number, (depth, _) in enumerate(cases) for _ in range(depth)]


class TestCaseBatchSampler:
    @given(cases=some_cases, batch_size=st.integers(1, 8), ranks=st.sampled_from([1, 2, 3, 5]))
    def test_every_slice_comes_once_and_every_case_stays_whole(
        self, cases: list[tuple[int, tuple[int, int]]], batch_size: int, ranks: int
    ) -> None:
        owner = case_of(cases)
        shares = [batches(cases, batch_size, rank, ranks) for rank in range(ranks)]
        assert Counter(i for share in shares for batch in share for i in batch) == Counter(range(len(owner)))
        owned = [{owner[i] for batch in share for i in batch} for share in shares]
        assert sum(map(len, owned)) == len(cases)
        for batch in (batch for share in shares if share != [[]] for batch in share):
            assert 0 < len(batch) <= batch_size
            assert len({cases[owner[i]][1] for i in batch}) == 1

    @given(cases=some_cases, ranks=st.sampled_from([2, 3, 5]))
    def test_no_rank_has_more_than_a_case_too_many(self, cases: list[tuple[int, tuple[int, int]]], ranks: int) -> None:
        loads = [sum(map(len, batches(cases, 4, rank, ranks))) for rank in range(ranks)]
        assert max(loads) - min(loads) <= max(depth for depth, _ in cases)

    @given(cases=some_cases, ranks=st.sampled_from([1, 2, 3, 5]))
    def test_a_case_goes_to_the_first_rank_that_has_fewest_slices(
        self, cases: list[tuple[int, tuple[int, int]]], ranks: int
    ) -> None:
        filled, owned = [0] * ranks, [set[int]() for _ in range(ranks)]
        for number in sorted(range(len(cases)), key=lambda number: (-cases[number][0], number)):
            rank = filled.index(min(filled))
            filled[rank] += cases[number][0]
            owned[rank].add(number)
        owner = case_of(cases)
        assert owned == [{owner[i] for batch in batches(cases, 3, rank, ranks) for i in batch} for rank in range(ranks)]

    def test_slices_of_a_case_come_in_order(self) -> None:
        cases = [(3, (8, 8)), (2, (8, 8)), (4, (9, 9))]
        assert batches(cases, 4) == [[0, 1, 2, 3], [4], [5, 6, 7, 8]]
        assert batches(cases, 3) == [[0, 1, 2], [3, 4], [5, 6, 7], [8]]

    def test_the_largest_cases_are_dealt_first(self) -> None:
        cases = [(1, (8, 8)), (9, (8, 8)), (4, (8, 8)), (5, (8, 8))]
        owned = [{case_of(cases)[i] for batch in batches(cases, 8, rank, 2) for i in batch} for rank in (0, 1)]
        assert owned == [{0, 1}, {2, 3}]

    def test_every_epoch_is_the_same(self) -> None:
        sampler = CaseBatchSampler([3, 2], [(8, 8), (8, 8)], 2)
        assert list(sampler) == list(sampler) == [[0, 1], [2, 3], [4]]

    @pytest.mark.parametrize("rank", [2, 4])
    def test_a_rank_without_a_case_has_one_empty_batch(self, rank: int) -> None:
        # It takes part in what all ranks do together, with nothing to add.
        assert batches([(3, (8, 8)), (2, (8, 8))], 2, rank, ranks=5) == [[]]
