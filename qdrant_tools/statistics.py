"""Counts -> shares with intervals, exact tests of whether a share has grown; few values -> how far their mean may lie.

Guarantees: the tests are exact sums, without approximation by a normal distribution; they work for 0 and for all.
Does not know: what is counted or measured.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError

__all__ = ["FEW", "growth_p_value", "holm", "mean_half_width", "order_statistic_p_value", "student_t_95", "wilson"]

Z_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution."""
_ONE_VALUE = 9.68
FEW = 100
"""Values below which a percentile bootstrap is too narrow, so that Student's interval is asked too: with 20 values it
calls twice as much better as it should. `benchmarks/intervals.py` measures both."""


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of the share `count / of`; (0, 1) if nothing was looked at.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    _check(count, of)
    if of == 0:
        return 0.0, 1.0
    share = count / of
    middle = (share + Z_95**2 / (2 * of)) / (1 + Z_95**2 / of)
    half = Z_95 / (1 + Z_95**2 / of) * math.sqrt(share * (1 - share) / of + Z_95**2 / (4 * of * of))
    # rounding can leave 0 to 1 by a little
    return max(0.0, middle - half), min(1.0, middle + half)


def growth_p_value(before: tuple[int, int], after: tuple[int, int]) -> float:
    """How likely `after` has so large a share, or a larger one, if both come from one population.

    Each is (count, of). Fisher's exact test, one-sided ("The Design of Experiments", 1935): given all counts, the one
    `after` is hypergeometric.
    """
    _check(*before)
    _check(*after)
    counted, everything = before[0] + after[0], before[1] + after[1]
    # from the observed count up to the largest that the totals allow
    x = np.arange(max(after[0], counted - before[1]), min(counted, after[1]) + 1)
    factorials = _log_factorials(everything)

    def choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        ways: NDArray[np.float64] = factorials[n] - factorials[k] - factorials[n - k]
        return ways

    log_p = choose(counted, x) + choose(everything - counted, after[1] - x)
    return _tail(log_p - choose(everything, np.array(after[1])))


def order_statistic_p_value(rank: int, before: int, below: int, after: int) -> float:
    """How likely `below` or more of `after` new values lie under the `rank`-th smallest of `before` old ones, if all
    come from one continuous distribution, whichever it is.

    The share of the distribution below that order statistic is Beta(rank, before - rank + 1), so the number of new
    values below it is beta-binomial: David and Nagaraja, "Order Statistics", 2003, section 2.3. Ties make the true
    probability smaller than the one given.
    """
    if not 1 <= rank <= before:
        raise InputError(f"rank is {rank} of {before} values, expected 1 to {before}")
    _check(below, after)
    y = np.arange(below, after + 1)
    factorials = _log_factorials(before + after)
    log_p = factorials[y + rank - 1] - factorials[y] - factorials[rank - 1]
    log_p += factorials[after - y + before - rank] - factorials[after - y] - factorials[before - rank]
    whole = factorials[before + after] - factorials[after] - factorials[before]
    return _tail(log_p - whole)


def holm(p_values: dict[str, float], alpha: float) -> set[str]:
    """The names of the tests that fire. The probability that any of them fires by mistake is `alpha` at most.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    fired: set[str] = set()
    for number, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        # the larger ones cannot fire either, even where they are below their own bound
        if p_value > alpha / (len(p_values) - number):
            break
        fired.add(name)
    return fired


def mean_half_width(values: NDArray[np.float64]) -> float:
    """Half the width of Student's 95 % interval of the mean of (n,) values.

    One value has no spread to estimate: then it is 9.68 times its size, which holds the mean of whatever normal
    distribution it came from 95 times in 100 (Wall, Boen and Tweedie, "An effective confidence interval for the mean
    with samples of size one and two", The American Statistician 2001), and always holds 0.
    """
    if len(values) == 1:
        return _ONE_VALUE * abs(float(values[0]))
    return student_t_95(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))


def student_t_95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution with so many degrees of freedom ("The probable error of a mean",
    Biometrika 1908), from its finite sums (Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7)."""
    if freedom < 1:
        raise InputError(f"freedom is {freedom}, expected at least 1")
    low, high = Z_95, 13.0  # that of one degree is 12.7
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for i in range(2 + odd, freedom, 2):
        term *= math.cos(angle) ** 2 * (i - 1) / i
        total += term
    if freedom == 1:
        total = 0.0
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _check(count: int, of: int) -> None:
    if not 0 <= count <= of:
        raise InputError(f"count is {count} of {of}, expected 0 to {of}")


def _log_factorials(n: int) -> NDArray[np.float64]:
    """log(0!), log(1!), ..., log(n!), shape (n + 1,)."""
    # logarithms, because the factorials of the counts of a log are too large for floats
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _tail(log_p: NDArray[np.float64]) -> float:
    # rounding can lift the sum a little above 1
    return min(1.0, float(np.exp(log_p).sum()))
