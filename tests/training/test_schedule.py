"""The schedule: warm-up, cosine, the same for steps and for time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.training.schedule import FINAL_RATE, WARM_UP, TrainingLimit, learning_rate_factor, planned


def test_it_rises_to_one_and_falls_to_its_end():
    assert learning_rate_factor(0) == FINAL_RATE
    assert learning_rate_factor(WARM_UP / 2) == pytest.approx(0.5)
    assert learning_rate_factor(WARM_UP) == pytest.approx(1)
    assert learning_rate_factor((1 + WARM_UP) / 2) == pytest.approx((1 + FINAL_RATE) / 2)
    assert learning_rate_factor(1) == pytest.approx(FINAL_RATE)


@given(st.floats(WARM_UP, 1), st.floats(WARM_UP, 1))
def test_after_the_warm_up_it_never_rises(a, b):
    early, late = sorted((a, b))
    assert learning_rate_factor(early) >= learning_rate_factor(late)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_half_the_steps_are_half_the_time(steps, share):
    by_steps = TrainingLimit(steps=steps).share_done(round(share * steps), elapsed=0)
    by_time = TrainingLimit(seconds=float(steps)).share_done(0, elapsed=float(round(share * steps)))
    assert by_steps == pytest.approx(by_time)


@pytest.mark.parametrize("both", [{}, {"steps": 3, "seconds": 4.0}])
def test_a_limit_is_one_of_the_two(both):
    with pytest.raises(ValueError, match="either"):
        TrainingLimit(**both)


def test_a_plan_for_a_time_is_trained_for_it_and_any_other_for_its_steps():
    assert planned(400, None) == TrainingLimit(steps=400)
    assert planned(400, 90.0) == TrainingLimit(seconds=90.0)


def test_a_limit_says_what_it_is():
    assert str(TrainingLimit(steps=1)) == "1 step"
    assert str(TrainingLimit(seconds=90.0)) == "90 s"
