"""How many items travel together, by what was measured of them."""

import math

import pytest

from parallel_facade._dispatch.chunk_sizer import (
    CHUNKS_PER_WORKER,
    GROWTH,
    GROWTH_TO_TAKE_BACK,
    LEAST_PART,
    MOST_ITEMS,
    QUICK_SECONDS,
    TARGET_BYTES,
    TARGET_SECONDS,
    ChunkSizer,
    shares,
)


def test_nothing_measured_is_one_grain():
    assert ChunkSizer(1, workers=2).size(left=1_000_000) == 1
    assert ChunkSizer(7, workers=2).size(left=1_000_000) == 7


def test_a_chunk_is_worth_its_message():
    sizer = ChunkSizer(1, workers=2)
    sizer.note_run(1_000, seconds=1_000 * 1e-5)

    assert sizer.size(math.inf) == pytest.approx(TARGET_SECONDS / 1e-5, abs=1)


def test_slow_items_travel_alone():
    sizer = ChunkSizer(1, workers=2)
    sizer.note_run(1, seconds=0.1)

    assert sizer.size(math.inf) == 1


@pytest.mark.parametrize(
    ("can_take_back", "growth"), [(False, GROWTH), (True, GROWTH_TO_TAKE_BACK)]
)
def test_chunks_grow_by_steps_since_the_first_items_may_be_quicker_than_the_others(
    can_take_back, growth
):
    sizer = ChunkSizer(1, workers=2, can_take_back=can_take_back)
    sizer.note_run(1, seconds=1e-7)

    assert sizer.size(math.inf) == growth


def test_what_is_packed_stays_so_if_it_is_done_in_a_moment_and_is_no_longer_step():
    sizer = ChunkSizer(1, workers=2)
    assert not sizer.may_stay_packed(1), "nothing is known yet"
    sizer.note_run(1_000, seconds=1_000 * 1e-6)
    few = int(QUICK_SECONDS / 1e-6) - 1

    assert sizer.size(left=few) < few
    assert sizer.may_stay_packed(few)
    assert not sizer.may_stay_packed(few + 2)
    sizer.note_run(1, seconds=1e-12)
    assert not sizer.may_stay_packed(1_000 * GROWTH + 1)


@pytest.mark.parametrize("begin_size", [3, 10, 5_000])
@pytest.mark.parametrize("seconds", [1e-7, 1e-4, 1.0])
def test_a_chunk_is_made_of_whole_groups(begin_size, seconds):
    sizer = ChunkSizer(begin_size, workers=2)
    for _ in range(5):
        size = sizer.size(math.inf)
        sizer.note_run(size, seconds * size)

        assert sizer.size(math.inf) % begin_size == 0
        assert sizer.size(math.inf) <= max(begin_size, MOST_ITEMS)


def test_the_latest_items_count_most():
    sizer = ChunkSizer(1, workers=2)
    sizer.note_run(1, seconds=1.0)  # it imported something
    for _ in range(20):
        sizer.note_run(1, seconds=1e-5)

    assert sizer.size(math.inf) > 1


def test_chunks_shrink_so_that_workers_end_together():
    sizer = ChunkSizer(1, workers=4)
    sizer.note_run(100, seconds=100 * 1e-3)

    sizes = [sizer.size(left) for left in (10_000, 100, 40, 8)]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == 40 // (2 * 4)
    assert sizes[3] == max(1, int((LEAST_PART * TARGET_SECONDS) / 1e-3))


def test_large_items_travel_in_small_numbers():
    sizer = ChunkSizer(1, workers=2)
    sizer.note_run(1_000, seconds=1e-6)
    sizer.note_packed(10, 10 * (TARGET_BYTES // 4))

    assert sizer.size(math.inf) == 4
    assert sizer.size_to_check(1_000_000) == 4


def test_a_worker_that_is_replaced_soon_gets_no_more_than_it_runs():
    sizer = ChunkSizer(1, workers=2, most=5)
    sizer.note_run(1_000, seconds=1e-6)

    assert sizer.size(math.inf) == 5


def test_what_is_short_was_measured_to_be():
    sizer = ChunkSizer(1, workers=2)

    assert not sizer.is_short(1)
    sizer.note_run(10, seconds=0.01)
    assert sizer.is_short(2)
    assert not sizer.is_short(100)


@pytest.mark.parametrize("total", [0, 1, 63, 64, 129, 1_000, 99_999])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_shares_are_many_enough_to_balance_and_no_smaller_than_needed(total, workers):
    size = shares(total, 1, workers)

    assert size >= 1
    assert size == 1 or total / size >= workers * CHUNKS_PER_WORKER
