"""Intensities inside the labels of a dataset, in one pass and in memory that does not grow with it.

Each case gives its exact mean, variance, least and greatest value, and a histogram over float32's own bits: the
sign, the exponent and the first 11 bits of the mantissa make a bucket, so that a bucket is at most 2^-11 = 0.05 % of
its value wide, and integers up to 4096 (every CT number) have one of their own. Nothing needs to be known of the
range beforehand. Buckets add up as integers: the sum is the same in whatever order the cases come.

Every case counts the same, however many labelled voxels it has, as in nnU-Net (fingerprint_extractor.py draws equally
many voxels from each case).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mvl_auto.arrays import Floats, Integers
from mvl_auto.plans import ChannelStatistics

MANTISSA_BITS = 11  # of float32's 23: buckets of at most 0.05 %, half a percent is asked for
SHIFT = 23 - MANTISSA_BITS
BUCKETS = 1 << (32 - SHIFT)
SHARES = 1 << 32  # what the buckets of one case add up to
QUANTILES = (0.005, 0.5, 0.995)
LARGEST = float(np.finfo(np.float32).max)  # of a voxel
SIGN = np.uint32(1 << 31)


@dataclass(frozen=True)
class Sketch:
    """The labelled voxels of one channel of one case. buckets, shares: the occupied buckets and their shares.

    Raises ValueError for numbers that no voxels can have, as a damaged file may hold them.
    """

    mean: float
    variance: float
    least: float
    greatest: float
    buckets: Integers
    shares: Integers

    def __post_init__(self) -> None:
        values = (self.mean, self.least, self.greatest)
        if not all(abs(value) <= LARGEST for value in values) or not 0 <= self.variance <= LARGEST**2:
            raise ValueError("a mean, variance, least or greatest value is impossible")
        buckets, shares = self.buckets, self.shares
        if buckets.ndim != 1 or buckets.shape != shares.shape or {buckets.dtype.kind, shares.dtype.kind} != {"i"}:
            raise ValueError("buckets and shares are not two lists of integers of one length")
        if not buckets.size or buckets[0] < 0 or buckets[-1] >= BUCKETS or (np.diff(buckets) <= 0).any():
            raise ValueError("the buckets are not increasing numbers of buckets")
        if shares.min() < 0 or not 0 < shares.sum(dtype=np.float64) <= SHARES:
            raise ValueError("the shares are not those of one case")

    def statistics(self) -> ChannelStatistics:
        """Of this case alone."""
        return _statistics(self.mean, self.variance, self.least, self.greatest, self.buckets, self.shares)


def sketch(values: Floats) -> Sketch | None:
    """What remains of the intensities of one channel of one case; None without any. values: (voxels,)."""
    if not values.size:
        return None
    counts = np.bincount(_bucket(values))
    occupied = np.flatnonzero(counts)
    return Sketch(
        mean=float(values.mean(dtype=np.float64)),
        variance=float(values.var(dtype=np.float64)),
        least=float(values.min()),
        greatest=float(values.max()),
        buckets=occupied,
        shares=counts[occupied].astype(np.int64) * SHARES // values.size,
    )


class Intensities:
    """One channel over many cases: 8 MB, and four numbers per case."""

    def __init__(self) -> None:
        self.shares: Integers = np.zeros(BUCKETS, np.int64)
        self.moments: list[tuple[float, float, float, float]] = []

    def add(self, case: Sketch) -> None:
        self.shares[case.buckets] += case.shares
        self.moments.append((case.mean, case.variance, case.least, case.greatest))

    def statistics(self) -> ChannelStatistics:
        """Over all cases added, at least one. Standard deviation by the law of total variance."""
        means, variances, least, greatest = zip(*sorted(self.moments), strict=True)
        mean = math.fsum(means) / len(means)
        variance = math.fsum(v + (m - mean) ** 2 for v, m in zip(variances, means, strict=True)) / len(means)
        occupied = np.flatnonzero(self.shares)
        return _statistics(mean, variance, min(least), max(greatest), occupied, self.shares[occupied])


def _statistics(
    mean: float, variance: float, least: float, greatest: float, buckets: Integers, shares: Integers
) -> ChannelStatistics:
    """With the quantiles, to 0.05 %: the values that so many of the voxels in `buckets` do not exceed."""
    cumulated = np.cumsum(shares)
    places = np.searchsorted(cumulated, np.asarray(QUANTILES) * float(cumulated[-1]))
    percentile_00_5, median, percentile_99_5 = _value(buckets[np.minimum(places, len(buckets) - 1)]).tolist()
    return ChannelStatistics(
        mean=mean,
        std=math.sqrt(variance),
        min=least,
        max=greatest,
        percentile_00_5=percentile_00_5,
        median=median,
        percentile_99_5=percentile_99_5,
    )


def _bucket(values: Floats) -> Integers:
    """The bucket of each value: larger values have larger numbers."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    ordered = np.where(bits & SIGN, ~bits, bits | SIGN)
    return (ordered >> np.uint32(SHIFT)).astype(np.int64)


def _value(buckets: Integers) -> Floats:
    """The value of each bucket that lies nearest to zero: the integer itself where the bucket holds just one."""
    ordered = (buckets << SHIFT).astype(np.uint32)
    low = np.uint32((1 << SHIFT) - 1)
    bits = np.where(ordered & SIGN, ordered ^ SIGN, ~(ordered | low))
    return bits.astype(np.uint32).view(np.float32)
