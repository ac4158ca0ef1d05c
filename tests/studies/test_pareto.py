"""The Pareto front against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from sheafnet.studies.pareto import pareto_front

FEW = st.integers(0, 6).map(float)


def dominated(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    cost, quality = point
    return any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in points)


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)
    assert set(front) == {k for k, point in enumerate(points) if not dominated(point, points)}
    assert len(front) == len(set(front))
    assert [points[k][0] for k in front] == sorted(points[k][0] for k in front)


def test_by_hand() -> None:
    assert pareto_front([(2.0, 0.5), (1.0, 0.3), (3.0, 0.4), (2.0, 0.4), (4.0, 0.9)]) == [1, 0, 4]
    assert pareto_front([]) == []
