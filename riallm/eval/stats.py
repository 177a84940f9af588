"""Uncertainty of what is measured: intervals of shares, of medians, and of two arms over the same items; and of items
that depend on each other within groups.

Standard library only; every resampling takes a seed, so a report can be made again to the last digit.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

RESAMPLES = 2000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval and its standard error; `num` items were measured."""

    value: float
    low: float
    high: float
    standard_error: float
    num: int
    level: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Second arm minus first arm over the same items.

    only_first, only_second: items that exactly one of the two solved. p_value: exact McNemar test, two-sided:
    how likely so uneven a split is when both arms are equally good.
    """

    estimate: Estimate
    only_first: int
    only_second: int
    p_value: float


def normal_quantile(level: float) -> float:
    """Half-width in standard deviations of the central interval that holds `level` of a normal distribution."""
    return statistics.NormalDist().inv_cdf(0.5 + level / 2)


def share(successes: int, num: int, *, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927) and sqrt(p(1-p)/n); nothing is known of no items."""
    if not 0 <= successes <= num:
        raise ValueError(f"{successes} successes of {num} items: the first must be in [0, {num}]")
    if num == 0:
        return Estimate(value=math.nan, low=0.0, high=1.0, standard_error=math.nan, num=0, level=level)
    p = successes / num
    low, high = _wilson(p, num, level)
    return Estimate(value=p, low=low, high=high, standard_error=math.sqrt(p * (1 - p) / num), num=num, level=level)


def _wilson(p: float, num: float, level: float) -> tuple[float, float]:
    """Wilson's interval of a share of `num` independent items, of which there may be a fraction."""
    z = normal_quantile(level)
    centre = (p + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(p * (1 - p) / num + z * z / (4 * num * num))
    return (0.0 if p == 0.0 else max(0.0, centre - half)), (1.0 if p == 1.0 else min(1.0, centre + half))


def grouped_share(groups: Iterable[Sequence[bool]], *, level: float = 0.95) -> Estimate:
    """A proportion of items that depend on each other within a group: `share`, as of so many independent items as would
    vary by as much (Kish 1965, design effect; at least 1). Where all items are alike, or all groups, none of that is
    seen, and the interval is that of `share`, as it is the limit of; of one group alone it is that of one item."""
    found = [group for group in groups if group]
    whole = share(sum(map(sum, found)), sum(map(len, found)), level=level)
    if not found:
        return whole
    error = _grouped_error(found, whole.value)
    independent = 1.0 if len(found) == 1 else float(whole.num)
    if error > 0.0:
        independent *= min(1.0, (whole.standard_error / error) ** 2)
    low, high = _wilson(whole.value, independent, level)
    return replace(whole, low=low, high=high, standard_error=error)


def grouped_mean(groups: Iterable[Sequence[float]], *, level: float = 0.95) -> Estimate:
    """A mean over all items, with the error that it has where items depend on each other within a group."""
    found = [group for group in groups if group]
    whole = mean([value for group in found for value in group], level=level)
    error = _grouped_error(found, whole.value)
    half = normal_quantile(level) * error
    return replace(whole, low=whole.value - half, high=whole.value + half, standard_error=error)


def _grouped_error(groups: Sequence[Sequence[float]], middle: float) -> float:
    """The standard error of a ratio of sums over groups (Cochran 1977, 11.5); of one group alone it is not known."""
    if len(groups) < 2:
        return math.nan
    apart = sum((sum(group) - len(group) * middle) ** 2 for group in groups)
    return math.sqrt(apart * len(groups) / (len(groups) - 1)) / sum(map(len, groups))


def bootstrap(
    items: Sequence[_T], statistic: Callable[[Sequence[_T]], float], *, seed: int, level: float = 0.95
) -> Estimate:
    """`statistic` of the items with its percentile bootstrap interval; items are drawn whole, so pairs stay pairs."""
    if not items:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, standard_error=math.nan, num=0, level=level)
    draw = random.Random(seed)
    values = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(RESAMPLES))
    tail = (1 - level) / 2
    low, high = (values[min(RESAMPLES - 1, int(part * RESAMPLES))] for part in (tail, 1 - tail))
    error = statistics.pstdev(values)
    return Estimate(value=statistic(items), low=low, high=high, standard_error=error, num=len(items), level=level)


def median(values: Sequence[float], *, seed: int, level: float = 0.95) -> Estimate:
    """Median with a bootstrap interval."""
    return bootstrap(values, statistics.median, seed=seed, level=level)


def mean(values: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean with its standard error s/sqrt(n) and the normal interval; one item alone has no known error."""
    if not values:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, standard_error=math.nan, num=0, level=level)
    middle = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    half = normal_quantile(level) * error
    return Estimate(
        value=middle, low=middle - half, high=middle + half, standard_error=error, num=len(values), level=level
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test (McNemar 1947): a fair coin tossed once for each item that differs."""
    num = only_first + only_second
    if num == 0:
        return 1.0
    tail = sum(math.comb(num, k) for k in range(min(only_first, only_second) + 1)) / (1 << num)
    return min(1.0, 2 * tail)


def compare(first: Sequence[bool], second: Sequence[bool], *, seed: int, level: float = 0.95) -> Difference:
    """How much more the second arm solves than the first on the same items, in the same order."""
    if len(first) != len(second):
        raise ValueError(f"two arms over the same items need equal lengths, got {len(first)} and {len(second)}")
    gains = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
    estimate = bootstrap(gains, statistics.fmean, seed=seed, level=level)
    only_first, only_second = gains.count(-1), gains.count(1)
    return Difference(
        estimate=estimate, only_first=only_first, only_second=only_second, p_value=mcnemar(only_first, only_second)
    )
