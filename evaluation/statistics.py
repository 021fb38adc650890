"""Statistics of scores: intervals, paired tests, corrections and power, as functions of arrays.

Two designs. With one training run per model the unit is the case: `compare_cases` (Wilcoxon, bootstrap over cases)
says whether these two networks differ on cases like these. With several runs per model (seeds, folds) the unit is the
run: `compare_runs` takes runs and cases for drawn anew, and says whether the two methods differ. Only the second one
speaks about methods: networks that differ in nothing but the seed differ on cases, often significantly.

Differences are always second minus first. NaN is undefined and left out. All random numbers come from a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.8
QUADRATURE = 4000  # points: the power is exact to about 1e-5
TIE = 1e-12  # differences up to this are none

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Paired differences, second minus first, and what they say.

    low, high: 95 % interval of the mean difference. p_value: of no difference, uncorrected. effect: the mean difference
    in standard deviations of the units' differences (Cohen's d of paired samples). rank_effect: the share of rank sum
    for minus that against (matched-pairs rank-biserial correlation, Kerby 2014), -1 to 1, over cases. detectable: the
    smallest true difference that this design finds in 80 % of the repetitions. NaN: cannot be said.
    """

    unit: str  # "case" or "run"
    cases: int
    runs: int
    difference: float
    low: float
    high: float
    p_value: float
    effect: float
    rank_effect: float
    higher: int  # cases on which the second has the higher value
    lower: int
    equal: int
    detectable: float
    bootstrap_low: float = math.nan  # of runs: the interval of a two-level bootstrap, beside that of Student's t
    bootstrap_high: float = math.nan


def compare_cases(differences: ArrayLike, seed: int = 0) -> Comparison:
    """Two models with one run each, on the same cases: Wilcoxon's signed-rank test, bootstrap over cases.

    differences: (cases,), second minus first.
    """
    values = _defined(differences)
    low, high = mean_interval(values, seed)
    higher, lower, equal = count_signs(values)
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Comparison(
        unit="case",
        cases=len(values),
        runs=1,
        difference=float(values.mean()) if len(values) else math.nan,
        low=low,
        high=high,
        p_value=wilcoxon(values),
        effect=float(values.mean() / sd) if sd > 0 else math.nan,
        rank_effect=rank_biserial(values),
        higher=higher,
        lower=lower,
        equal=equal,
        detectable=smallest_detectable(sd / math.sqrt(len(values)), len(values) - 1) if len(values) > 1 else math.nan,
    )


def compare_runs(differences: ArrayLike, seed: int = 0) -> Comparison:
    """Two methods with several runs each, paired (same fold, same seed): the run is the unit.

    differences: (runs, cases), second minus first; NaN where a run has not scored a case (another fold).
    Test and interval are Student's with the error of `two_level_error` and runs - 1 degrees of freedom, since two or
    three runs are too few for the percentiles of a bootstrap; those of `two_level_bootstrap` stand beside them.
    Simulated without any difference, false positives are 5 % where runs vary most, and fewer where cases do.
    """
    table = np.atleast_2d(np.asarray(differences, dtype=float))
    table = table[np.isfinite(table).any(1)]
    table = table[:, np.isfinite(table).any(0)]
    runs = len(table)
    of_runs, of_cases = _row_means(table), _row_means(table.T)
    mean = float(of_runs.mean()) if runs else math.nan
    sd = float(of_runs.std(ddof=1)) if runs > 1 else math.nan
    error = two_level_error(table)
    p_value, low, high = student(mean, error, runs - 1)
    bootstrap_low, bootstrap_high = two_level_bootstrap(table, seed)
    higher, lower, equal = count_signs(of_cases)
    return Comparison(
        unit="run",
        cases=len(of_cases),
        runs=runs,
        difference=mean,
        low=low,
        high=high,
        p_value=p_value,
        effect=mean / sd if sd > 0 else math.nan,
        rank_effect=rank_biserial(of_cases),
        higher=higher,
        lower=lower,
        equal=equal,
        detectable=smallest_detectable(error, runs - 1),
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
    )


def mean_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """The bootstrap 95 % interval (percentiles) of the mean of one sample; NaN for fewer than two values."""
    low, high = mean_intervals(np.asarray(values, dtype=float)[:, None], seed)
    return float(low[0]), float(high[0])


def mean_intervals(table: Array, seed: int = 0) -> tuple[Array, Array]:
    """As `mean_interval` for each column of (cases, columns), with the same draws of cases for all."""
    means = resampled_means(table, seed)
    return _percentiles(means, np.isfinite(table).sum(0))


def resampled_means(table: Array, seed: int = 0) -> Array:
    """(RESAMPLES, columns): each column's mean over cases drawn with replacement. NaN: no drawn case has a value."""
    defined = np.isfinite(table)
    weights = _draws(len(table), np.random.default_rng(seed))
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ np.where(defined, table, 0.0)) / (weights @ defined))


def mean_of_means_interval(table: Array, seed: int = 0) -> tuple[float, float]:
    """The bootstrap 95 % interval of the mean over columns (labels) of each column's mean over cases (rows)."""
    means = resampled_means(table, seed)
    defined = np.isfinite(means)
    counted = defined.sum(1)
    totals = np.where(defined, means, 0.0).sum(1)
    overall = np.divide(totals, counted, out=np.full(len(totals), np.nan), where=counted > 0)
    low, high = _percentiles(overall[:, None], np.array([np.isfinite(table).any(1).sum()]))
    return float(low[0]), float(high[0])


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test (1945); zeros are left out; 1 where all are zero."""
    from scipy import stats

    values = _defined(differences)
    values = values[np.abs(values) > TIE]
    if not len(values):
        return 1.0 if len(_defined(differences)) else math.nan
    return float(stats.wilcoxon(values).pvalue)


def holm(p_values: ArrayLike) -> Array:
    """p values corrected for their number by Holm (1979): the k-th smallest of m times m - k + 1, never decreasing.

    NaN stays NaN and does not count.
    """
    given = np.asarray(p_values, dtype=float)
    corrected = np.full(given.shape, np.nan)
    defined = np.flatnonzero(np.isfinite(given))
    order = defined[np.argsort(given[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): 1 where all differences are positive, -1 all negative."""
    from scipy import stats

    values = _defined(differences)
    values = values[np.abs(values) > TIE]
    if not len(values):
        return math.nan
    ranks = stats.rankdata(np.abs(values))
    return float((ranks[values > 0].sum() - ranks[values < 0].sum()) / ranks.sum())


def count_signs(differences: ArrayLike) -> tuple[int, int, int]:
    """How many differences are above 0, below 0, and 0."""
    values = _defined(differences)
    higher, lower = int((values > TIE).sum()), int((values < -TIE).sum())
    return higher, lower, len(values) - higher - lower


def two_level_error(table: Array) -> float:
    """Standard error of the mean over runs of each run's mean, for new runs and new cases.

    table: (runs, cases); NaN where a run has not scored a case. Difference = mean + run + case + rest, each random:
    the variance of the runs' means, over the number of runs, has the part of the runs, of the rest, and of cases that
    only one run has; what cases that several runs share add is the covariance of two runs over the cases they share.
    NaN for fewer than two runs.
    """
    runs = len(table)
    if runs < 2:
        return math.nan
    defined = np.isfinite(table)
    of_runs = float(_row_means(table).var(ddof=1)) / runs
    weights = defined / defined.sum(1, keepdims=True)
    sharing = weights @ weights.T
    covariances = [
        float(np.cov(table[a, shared], table[b, shared])[0, 1])
        for a in range(runs)
        for b in range(a)
        if (shared := defined[a] & defined[b]).sum() > 1
    ]
    common = max(float(np.mean(covariances)), 0.0) if covariances else 0.0
    of_cases = common * float(sharing[~np.eye(runs, dtype=bool)].mean())
    return math.sqrt(of_runs + of_cases)


def two_level_bootstrap(table: Array, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval (percentiles) of the mean over runs of each run's mean, when runs and cases are drawn anew.

    table: (runs, cases); NaN where a run has not scored a case. Runs and cases are resampled independently; the cell of
    a run and a case weighs the product of both draws (the pigeonhole bootstrap, Owen 2007, which is never too narrow
    for many runs). A bootstrap of R runs is too narrow by sqrt((R - 1) / R), which is corrected; it remains too narrow
    for fewer than about 5. NaN for fewer than two runs.
    """
    runs, cases = table.shape
    if runs < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    defined = np.isfinite(table)
    of_runs, of_cases = _draws(runs, rng), _draws(cases, rng)
    totals, counts = of_cases @ np.where(defined, table, 0.0).T, of_cases @ defined.T  # (resamples, runs)
    means = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 0)
    weights = np.where(counts > 0, of_runs, 0.0)
    drawn = weights.sum(1)
    resampled = (means * weights).sum(1)[drawn > 0] / drawn[drawn > 0]
    mean = float(_row_means(table).mean())
    low, high = np.percentile(resampled, (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE))
    wider = math.sqrt(runs / (runs - 1))
    return float(mean + (low - mean) * wider), float(mean + (high - mean) * wider)


def student(mean: float, error: float, degrees: int) -> tuple[float, float, float]:
    """Two-sided p value of a true mean of 0, and its 95 % interval, by Student's t distribution."""
    from scipy import stats

    if not (degrees > 0 and math.isfinite(error)):
        return math.nan, math.nan, math.nan
    if error == 0:
        return (1.0 if mean == 0 else 0.0), mean, mean
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees)) * error
    return float(2 * stats.t.sf(abs(mean) / error, degrees)), mean - reach, mean + reach


def power(effect: float, error: float, degrees: int, alpha: float = ALPHA) -> float:
    """The probability that a two-sided t test finds a true difference `effect`, whose estimate has this error.

    The noncentral t distribution, as the mean over the estimated error's own distribution (chi): scipy's is NaN for few
    degrees of freedom and large effects.
    """
    from scipy import special, stats

    critical = stats.t.ppf(1 - alpha / 2, degrees)
    shares = (np.arange(QUADRATURE) + 0.5) / QUADRATURE
    estimated = np.sqrt(stats.chi2.ppf(shares, degrees) / degrees)  # error as a test would estimate it / true error
    shift = abs(effect) / error
    found = special.ndtr(shift - critical * estimated) + special.ndtr(-shift - critical * estimated)
    return float(found.mean())


def smallest_detectable(error: float, degrees: int, wanted: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true difference that a two-sided t test finds with the wanted probability.

    error: standard error of the estimated difference. degrees: of freedom (cases or runs, minus 1). NaN below 1.
    """
    from scipy import optimize

    if not (degrees > 0 and math.isfinite(error)):
        return math.nan
    if error == 0:
        return 0.0
    upper = 1.0
    while power(upper, 1.0, degrees, alpha) < wanted:
        upper *= 2
    return float(error * optimize.brentq(lambda shift: power(shift, 1.0, degrees, alpha) - wanted, 0.0, upper))


def _row_means(table: Array) -> Array:
    """The mean of what is defined in each row; every row has something."""
    defined = np.isfinite(table)
    return np.asarray(np.where(defined, table, 0.0).sum(1) / defined.sum(1))


def _draws(number: int, rng: np.random.Generator) -> Array:
    """(RESAMPLES, number): how often each of `number` units is drawn, with replacement."""
    if not number:
        return np.zeros((RESAMPLES, 0))
    return rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(float)


def _percentiles(resampled: Array, counts: NDArray[np.integer]) -> tuple[Array, Array]:
    """The 95 % interval of each column of resampled statistics; NaN where fewer than two values were there."""
    limits = np.full((2, resampled.shape[1]), np.nan)
    for column in np.flatnonzero(counts > 1):
        values = resampled[:, column]
        tails = (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE)
        limits[:, column] = np.percentile(values[np.isfinite(values)], tails)
    return limits[0], limits[1]


def _defined(values: ArrayLike) -> Array:
    given = np.asarray(values, dtype=float)
    return given[np.isfinite(given)]
