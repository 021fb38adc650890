"""Intervals, tests, corrections and power: against scipy, tables worked out by hand, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mvl_auto.evaluation import statistics
from mvl_auto.evaluation.statistics import (
    compare_cases,
    compare_runs,
    holm,
    mean_interval,
    mean_of_means_interval,
    power,
    rank_biserial,
    smallest_detectable,
    two_level_bootstrap,
    two_level_error,
    wilcoxon,
)

SIMULATIONS = 600
CHANCE = 4 * math.sqrt(0.05 * 0.95 / SIMULATIONS)  # four standard errors of a share of 5 %


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, math.nan]) == pytest.approx([1.0, 1.0, math.nan], nan_ok=True)
    assert holm([]).shape == (0,)


def test_wilcoxon_of_six_differences_by_hand():
    """All positive: of the 2^6 patterns of signs only this one and its mirror image are as far out."""
    assert wilcoxon([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 2**6)
    assert wilcoxon([1, 2, 3, 4, 5, 6, 0, math.nan]) == pytest.approx(2 / 2**6), "zeros and undefined are left out"
    assert wilcoxon([0.0, 0.0]) == 1
    assert math.isnan(wilcoxon([]))


def test_wilcoxon_by_all_patterns_of_signs():
    differences = np.array([0.3, -0.1, 0.7, 0.2, -0.5, 0.9, 0.4])
    ranks = stats.rankdata(np.abs(differences))
    sums = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=len(ranks))])
    observed = ranks[differences > 0].sum()
    both_tails = 2 * min((sums >= observed).mean(), (sums <= observed).mean())
    assert wilcoxon(differences) == pytest.approx(both_tails)


def test_rank_biserial_by_hand():
    assert rank_biserial([1, 2, -3]) == pytest.approx((1 + 2 - 3) / 6)
    assert rank_biserial([4, 5]) == 1
    assert math.isnan(rank_biserial([0.0]))


def test_the_interval_of_a_mean_is_near_the_normal_one_and_shrinks_with_the_root_of_the_cases():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert mean_interval(values) == (low, high), "the same numbers each time"
    assert all(map(math.isnan, mean_interval([1.0])))


def test_the_interval_of_a_mean_of_labels_leaves_out_what_is_undefined():
    table = np.random.default_rng(2).normal(0, 1, (60, 3))
    table[5:, 2] = np.nan
    low, high = mean_of_means_interval(table)
    assert low < np.nanmean(table, axis=0).mean() < high
    rare = mean_interval(table[:, 2])
    assert high - low > (rare[1] - rare[0]) / 3 * 0.7, "the label that five cases have is a third of the mean"


def test_two_models_on_four_cases_by_hand():
    found = compare_cases([0.1, 0.3, 0.0, -0.1, math.nan])
    assert (found.unit, found.cases, found.runs) == ("case", 4, 1)
    assert found.difference == pytest.approx(0.075)
    assert (found.higher, found.lower, found.equal) == (2, 1, 1)
    assert found.effect == pytest.approx(0.075 / np.std([0.1, 0.3, 0.0, -0.1], ddof=1))
    assert found.rank_effect == pytest.approx((1.5 + 3 - 1.5) / 6)


def test_runs_without_common_cases_are_a_t_test_of_their_means():
    means = np.array([0.02, 0.05, 0.03, 0.06])
    table = np.full((4, 12), np.nan)
    for run, mean in enumerate(means):
        table[run, 3 * run : 3 * run + 3] = mean + np.array([-0.01, 0.0, 0.01])
    found = compare_runs(table)
    assert (found.unit, found.cases, found.runs) == ("run", 12, 4)
    assert found.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    interval = stats.ttest_1samp(means, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_common_cases_add_their_own_variance():
    """Runs that all agree on every case: only the cases vary, as in one sample of them."""
    of_cases = np.random.default_rng(3).normal(0, 1, 30)
    error = two_level_error(np.tile(of_cases, (4, 1)))
    assert error == pytest.approx(of_cases.std(ddof=1) / math.sqrt(30))
    of_runs = np.array([[0.1], [0.4], [0.3]])
    assert two_level_error(np.tile(of_runs, (1, 30))) == pytest.approx(of_runs.std(ddof=1) / math.sqrt(3))


@pytest.mark.parametrize("spread", [(1.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.3, 1.0, 2.0)])
def test_the_two_level_error_is_that_of_repeated_experiments(spread):
    rng = np.random.default_rng(4)
    tables = [simulated(rng, 5, 20, *spread) for _ in range(SIMULATIONS)]
    true = np.std([table.mean() for table in tables])
    assert math.sqrt(np.mean([two_level_error(table) ** 2 for table in tables])) == pytest.approx(true, rel=0.12)


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("runs", [2, 3, 6])
def test_false_positives_over_runs_are_5_percent_at_most(runs, folds, monkeypatch):
    """Seeds of one method: no true difference, but each run has its own level."""
    monkeypatch.setattr(statistics, "RESAMPLES", 10)  # the test does not need them
    rng = np.random.default_rng(runs)
    found = 0
    for _ in range(SIMULATIONS):
        table = simulated(rng, runs, 36, of_runs=1.0, of_cases=1.0, rest=1.0)
        if folds:
            table[np.arange(36) % runs != np.arange(runs)[:, None]] = np.nan
        found += statistics.student(statistics._row_means(table).mean(), two_level_error(table), runs - 1)[0] < 0.05
    assert found / SIMULATIONS <= 0.05 + CHANCE
    if folds or runs == 6:
        assert found / SIMULATIONS >= 0.05 - CHANCE


def test_a_test_over_the_cases_of_one_run_calls_the_noise_of_seeds_significant():
    rng = np.random.default_rng(5)
    found = sum(wilcoxon(simulated(rng, 1, 36, of_runs=1.0, of_cases=0.0, rest=1.0)[0]) < 0.05 for _ in range(200))
    assert found / 200 > 0.5


def test_false_positives_over_cases_are_5_percent():
    rng = np.random.default_rng(6)
    found = sum(wilcoxon(rng.normal(0, 1, 25)) < 0.05 for _ in range(SIMULATIONS))
    assert found / SIMULATIONS == pytest.approx(0.05, abs=CHANCE)


def test_the_two_level_bootstrap_covers_the_truth_with_many_runs():
    rng = np.random.default_rng(7)
    inside = 0
    for number in range(200):
        low, high = two_level_bootstrap(simulated(rng, 12, 20, 1.0, 1.0, 1.0) + 0.7, seed=number)
        inside += low <= 0.7 <= high
    assert inside / 200 >= 0.9


def test_power_of_known_designs():
    """34 pairs and an effect of half a standard deviation: G*Power's own example has 0.8078."""
    assert power(0.5, 1 / math.sqrt(34), 33) == pytest.approx(0.8078, abs=1e-4)
    assert power(0.0, 1.0, 10) == pytest.approx(0.05, abs=1e-4)


def test_power_by_simulation():
    rng = np.random.default_rng(8)
    samples = rng.normal(1.0, 1.0, (4000, 6))
    share = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power(1.0, 1 / math.sqrt(6), 5) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("degrees", [1, 2, 5, 39])
def test_the_smallest_detectable_difference_is_found_in_80_percent(degrees):
    smallest = smallest_detectable(0.02, degrees)
    assert power(smallest, 0.02, degrees) == pytest.approx(0.8, abs=1e-6)
    assert smallest_detectable(0.04, degrees) == pytest.approx(2 * smallest)


def test_what_cannot_be_said_is_not_said():
    one_run = compare_runs([[0.1, 0.2]])
    assert math.isnan(one_run.p_value)
    assert math.isnan(one_run.detectable)
    assert math.isnan(compare_cases([]).difference)
    alike = compare_runs(np.zeros((3, 4)))
    assert (alike.p_value, alike.difference, alike.detectable) == (1, 0, 0)


def simulated(
    rng: np.random.Generator, runs: int, cases: int, of_runs: float, of_cases: float, rest: float
) -> np.ndarray:
    """(runs, cases) of differences whose true mean is 0: run + case + rest, standard deviations as given."""
    table = rng.normal(0, of_runs, (runs, 1)) + rng.normal(0, of_cases, (1, cases))
    return table + rng.normal(0, rest, (runs, cases))


def test_two_runs_have_an_effect_and_one_has_none():
    """Mean by standard deviation of the runs: of 0.1 and 0.3, 0.2 / 0.1414."""
    assert compare_runs([[0.1], [0.3]]).effect == pytest.approx(math.sqrt(2))
    assert math.isnan(compare_runs([[0.1]]).effect)
