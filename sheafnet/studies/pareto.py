"""The Pareto front of quality against cost."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of `points`, as (cost, quality), no other one dominates, in order of cost.

    One dominates another if it costs no more, is no worse, and is better in one of both. Equal
    points do not dominate each other. Cost is to be low, quality high.
    """
    front: list[int] = []
    best: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        point = points[index]
        if best is None or point[1] > best[1] or point == best:
            front.append(index)
            best = point
    return front
