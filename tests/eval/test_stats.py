"""Intervals against values worked out by hand or known from tables."""

import math

import pytest

from riallm.eval import stats


def test_wilson_interval_of_eight_in_ten():
    found = stats.share(8, 10)
    z = 1.959964
    centre = (0.8 + z * z / 20) / (1 + z * z / 10)
    half = z / (1 + z * z / 10) * math.sqrt(0.8 * 0.2 / 10 + z * z / 400)
    assert found.value == 0.8
    assert found.low == pytest.approx(centre - half, abs=1e-6) == pytest.approx(0.4901625, abs=1e-6)
    assert found.high == pytest.approx(0.9433178, abs=1e-6)
    assert found.standard_error == pytest.approx(math.sqrt(0.016))


def test_wilson_at_the_ends_and_of_nothing():
    none, every = stats.share(0, 20), stats.share(20, 20)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - every.low) == pytest.approx(0.1611, abs=1e-4)
    assert math.isnan(stats.share(0, 0).value) and stats.share(0, 0).high == 1.0
    with pytest.raises(ValueError, match="5 successes of 4"):
        stats.share(5, 4)


def test_mcnemar_is_the_binomial_of_the_items_that_differ():
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert stats.mcnemar(9, 1) == stats.mcnemar(1, 9)
    assert stats.mcnemar(5, 5) == 1.0
    assert stats.mcnemar(0, 3000) < 1e-300


def test_paired_difference():
    first = [True] * 10 + [False] * 10
    second = [True] * 9 + [False] + [True] * 6 + [False] * 4
    found = stats.compare(first, second, seed=1)
    assert found.estimate.value == pytest.approx(0.25)
    assert (found.only_first, found.only_second) == (1, 6)
    assert found.p_value == pytest.approx(2 * (1 + 7) / 128)
    # The standard error of a mean of paired differences: sqrt((b + c)/n - (mean)^2) / sqrt(n).
    assert found.estimate.standard_error == pytest.approx(math.sqrt((7 / 20 - 0.0625) / 20), rel=0.1)
    assert found.estimate.low < 0.25 < found.estimate.high
    with pytest.raises(ValueError, match="equal lengths"):
        stats.compare([True], [], seed=0)


def test_the_pairing_counts():
    """Two arms with equal shares: the same items solved is certainty, other items is not."""
    same = stats.compare([True, False] * 20, [True, False] * 20, seed=0)
    other = stats.compare([True, False] * 20, [False, True] * 20, seed=0)
    assert (same.estimate.low, same.estimate.high) == (0.0, 0.0)
    assert other.estimate.low < -0.1 and other.estimate.high > 0.1
    assert same.estimate.value == other.estimate.value == 0.0


def test_median_and_its_bootstrap_are_seeded():
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    found = stats.median(values, seed=3)
    assert found.value == 3.0
    assert found == stats.median(values, seed=3)
    assert 1.0 <= found.low <= 3.0 <= found.high <= 100.0
    assert stats.median([7.0], seed=0).low == 7.0
    assert stats.median([], seed=0).num == 0


def test_mean_has_a_standard_error():
    found = stats.mean([0.0, 1.0, 1.0, 0.0])
    assert found.value == 0.5
    assert found.standard_error == pytest.approx(math.sqrt((4 * 0.25) / 3) / 2)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * found.standard_error, rel=1e-5)
    assert math.isnan(stats.mean([1.0]).standard_error)


def test_items_that_are_alike_within_a_group_count_once():
    """Ten copies of each item say no more than the item, and items of their own are what `share` and `mean` have."""
    items = [True] * 70 + [False] * 30
    alone, once = stats.grouped_share([each] for each in items), stats.share(70, 100)
    assert (alone.low, alone.high) == pytest.approx((once.low, once.high), rel=0.01)
    copied = stats.grouped_share([each] * 10 for each in items)
    assert (copied.value, copied.num) == (0.7, 1000)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), rel=0.01)
    mixed = stats.grouped_share([[True] * 7 + [False] * 3] * 100)
    assert (mixed.low, mixed.high) == (stats.share(700, 1000).low, stats.share(700, 1000).high)
    values = [0.5, 1.0, 4.0, 2.0]
    many, few = stats.grouped_mean([each] * 3 for each in values), stats.mean(values)
    assert many.num == 12
    assert (many.low, many.high, many.standard_error) == pytest.approx((few.low, few.high, few.standard_error))


def test_groups_that_are_all_alike_or_alone():
    every, none = stats.grouped_share([[True] * 5] * 20), stats.grouped_share([[False] * 5] * 20)
    assert (every.low, every.high, every.num) == (stats.share(100, 100).low, 1.0, 100)
    assert (none.low, none.high) == (0.0, stats.share(0, 100).high)
    almost = stats.grouped_share([*[[True] * 5] * 19, [True] * 4 + [False]])
    assert almost.low < every.low and almost.low == pytest.approx(stats.share(99, 100).low, abs=0.005)
    one = stats.grouped_share([[True] * 500 + [False] * 500])
    assert one.low < 0.1 and one.high > 0.9, "of one group alone nothing is known"
    assert math.isnan(stats.grouped_share([[], []]).value) and math.isnan(stats.grouped_mean([]).value)
