"""How a cost grows with the network: the exponent b of y ~ x^b."""

import math
import statistics
from collections.abc import Sequence

FROM = 64
"""Exponents are of sizes from here on, where there are two: below, fixed costs show."""


def fitted_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes, ascending, that an exponent is fitted to."""
    large = sorted({size for size in sizes if size >= FROM})
    return tuple(large if len(large) > 1 else sorted(set(sizes)))


def exponent(points: Sequence[tuple[float, float | None]]) -> float | None:
    """The least-squares slope of log y against log x.

    Args:
        points: (x, y); those whose y is not known or not above 0 are left out.

    Returns:
        None of fewer than two different x.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if y is not None and y > 0]
    if len({x for x, _ in logs}) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope
