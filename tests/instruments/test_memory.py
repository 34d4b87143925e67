"""What a block did to the memory of its process."""

import tracemalloc

import pytest

from scalelab.measure import memory, run_fresh

MIB = 2**20


def test_what_stays_and_what_was_given_back():
    with memory() as used:
        kept = bytearray(2 * MIB)
        del_me = bytearray(8 * MIB)
        del del_me
    assert used.traced == pytest.approx(2 * MIB, rel=0.05)
    assert used.traced_peak == pytest.approx(10 * MIB, rel=0.05)
    assert not tracemalloc.is_tracing()
    assert len(kept) == 2 * MIB


def test_without_tracing_only_the_system_is_asked():
    with memory(trace=False) as used:
        assert not tracemalloc.is_tracing()
    assert used.traced == used.traced_peak == 0


def test_blocks_may_lie_inside_each_other():
    with memory() as outer:
        first = bytearray(4 * MIB)
        with memory() as inner:
            second = bytearray(MIB)
        assert tracemalloc.is_tracing()
    assert inner.traced == pytest.approx(MIB, rel=0.05)
    assert outer.traced == pytest.approx(5 * MIB, rel=0.05)
    assert len(first) + len(second) == 5 * MIB


def test_a_failing_block_is_measured_too():
    def fail():
        kept = bytearray(MIB)
        raise KeyError(len(kept))

    with pytest.raises(KeyError), memory() as used:
        fail()
    assert used.traced_peak >= MIB
    assert not tracemalloc.is_tracing()


def test_the_system_sees_what_is_touched():
    def grown():
        from scalelab import memory

        with memory(trace=False) as used:
            block = b"x" * (64 * 2**20)
        return used.resident / len(block)

    assert 0.9 < run_fresh(grown) < 1.5
