"""Intensity statistics in one pass, against numpy with all values in hand."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.planners.fingerprint.intensities import Intensities, sketch

HALF_A_PERCENT = 0.005
VALUES = st.floats(-1e6, 1e6, width=32)
A_RANK = 1e-4  # where values are far apart, the next one is as good a quantile


def statistics_of(cases):
    found = Intensities()
    for values in cases:
        found.add(sketch(np.asarray(values, np.float32)))
    return found.statistics()


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(100, 20, 50_000),
        lambda rng: rng.lognormal(3, 2, 50_000),
        lambda rng: rng.uniform(-1e-3, 1e-3, 50_000),
        lambda rng: np.round(rng.normal(-300, 400, 50_000)),
        lambda rng: rng.normal(0, 1, 50_000) * 1e20,
    ],
    ids=["bell", "long tail", "around zero", "CT", "huge"],
)
def test_statistics_are_those_of_all_voxels_to_half_a_percent(draw):
    values = draw(np.random.default_rng(1)).astype(np.float32)
    found, exact = statistics_of([values]), values.astype(np.float64)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert found.std == pytest.approx(exact.std(), rel=1e-6)
    assert (found.min, found.max) == (exact.min(), exact.max())
    for share, quantile in [(0.5, found.median), (0.005, found.percentile_00_5), (0.995, found.percentile_99_5)]:
        low, high = np.quantile(exact, [share - A_RANK, share + A_RANK])
        assert low - HALF_A_PERCENT * abs(low) <= quantile <= high + HALF_A_PERCENT * abs(high)


def test_whole_numbers_up_to_4096_are_exact():
    values = np.arange(-4096, 4097, dtype=np.float32)
    found = statistics_of([values])
    assert (found.median, found.percentile_00_5, found.percentile_99_5) == (0, -4056, 4056)


def test_every_case_counts_the_same_whatever_its_size():
    found = statistics_of([np.full(1_000_000, 10.0), np.full(10, 20.0), np.full(10, 30.0)])
    assert found.mean == pytest.approx(20)
    assert found.std == pytest.approx(np.std([10, 20, 30]))
    assert found.median == 20


def test_many_cases_are_summed_up_to_half_a_percent_in_memory_that_does_not_grow():
    """400 scanners, each with its own brightness and contrast, against numpy with all their voxels in hand."""
    rng = np.random.default_rng(2)
    cases = [rng.normal(rng.uniform(50, 500), rng.uniform(5, 80), 2000).astype(np.float32) for _ in range(400)]
    found = Intensities()
    found.add(sketch(cases[0]))
    tracemalloc.start()
    for values in cases[1:]:
        found.add(sketch(values))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1000 * len(cases), "of 8000 bytes that each case has"
    exact, statistics = np.concatenate(cases).astype(np.float64), found.statistics()
    assert statistics.mean == pytest.approx(exact.mean(), rel=1e-5)
    assert statistics.std == pytest.approx(exact.std(), rel=1e-5)
    assert statistics.median == pytest.approx(np.median(exact), rel=HALF_A_PERCENT)
    assert statistics.percentile_00_5 == pytest.approx(np.quantile(exact, 0.005), rel=HALF_A_PERCENT)
    assert statistics.percentile_99_5 == pytest.approx(np.quantile(exact, 0.995), rel=HALF_A_PERCENT)


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), min_size=1, max_size=8), st.randoms()
)
def test_the_order_of_cases_does_not_matter_to_the_last_bit(cases: list[list[float]], rng: random.Random):
    shuffled = cases.copy()
    rng.shuffle(shuffled)
    assert statistics_of(cases) == statistics_of(shuffled)


@settings(max_examples=40)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_quantiles_lie_between_the_extremes_and_in_order(values: list[float]):
    found = statistics_of([values])
    assert found.min <= found.percentile_00_5 or found.percentile_00_5 == pytest.approx(found.min, rel=HALF_A_PERCENT)
    assert found.percentile_00_5 <= found.median <= found.percentile_99_5
    assert abs(found.percentile_99_5) <= max(abs(found.max), abs(found.min))


def test_a_case_has_its_own_statistics():
    values = np.random.default_rng(3).normal(100, 20, 10_001).astype(np.float32)
    found = sketch(values).statistics()
    assert found == statistics_of([values])
    assert found.median == pytest.approx(np.median(values), rel=HALF_A_PERCENT)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_a_case_without_labelled_voxels_adds_nothing():
    assert sketch(np.zeros(0, np.float32)) is None
