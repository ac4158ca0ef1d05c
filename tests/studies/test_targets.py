"""Bytes, seconds and joules to a quality, from curves written by hand."""

import pytest

from sheafnet.errors import ConfigError
from sheafnet.studies.targets import (
    Reached,
    Target,
    cost_of,
    default_targets,
    read_target,
    scaled,
)
from tests.studies.conftest import Pretend


def curve(*recalls: float | None) -> list[tuple[int, int, dict[str, float | None]]]:
    return [(10 * (k + 1), 1000 * (k + 1), {"recall_at_1": r}) for k, r in enumerate(recalls)]


def test_the_first_evaluation_that_reached_it_counts(pretend: Pretend) -> None:
    evaluations = pretend(curve(0.1, 0.3, 0.2, 0.4)).evaluations
    for value, size in ((0.0, 1000), (0.1, 1000), (0.2, 2000), (0.3, 2000), (0.31, 4000)):
        assert cost_of(Target("recall_at_1", value), evaluations) == size
    assert cost_of(Target("recall_at_1", 0.41), evaluations) is None
    assert cost_of(Target("probe_accuracy", 0.0), evaluations) is None


def test_a_figure_that_is_not_measured_at_first(pretend: Pretend) -> None:
    evaluations = pretend(curve(None, None, 0.2)).evaluations
    assert cost_of(Target("recall_at_1", 0.1), evaluations) == 3000


def test_over_seeds(pretend: Pretend) -> None:
    target = Target("recall_at_1", 0.3)
    early, late = pretend(curve(0.1, 0.3)), pretend(curve(0.1, 0.2, 0.2, 0.5))
    never, without = pretend(curve(0.1, 0.2)), pretend(curve(None, None))
    assert Reached.of(target, [early, late]).show() == "3.00 kB ± 1.41 kB"
    assert Reached.of(target, [early, never]).show() == "2.00 kB (1 of 2)"
    assert Reached.of(target, [never, never]).show() == "never"
    assert Reached.of(target, [without, without]).show() == "-"
    assert Reached.of(target, []).show() == "-"
    at_once = pretend(curve(0.3, 0.4))
    assert Reached.of(target, [at_once]).show() == "≤ 1.00 kB"
    assert Reached.of(target, [at_once, early]).show() == "≤ 1.50 kB ± 707 B"


def test_in_seconds_and_joules(pretend: Pretend) -> None:
    """A second a round, and a millijoule a byte."""
    points = [
        (after, size, values | {"train_seconds": 1.0 * after, "train_joules": size / 1000})
        for after, size, values in curve(0.1, 0.3)
    ]
    target, run = Target("recall_at_1", 0.2), pretend(points)
    assert cost_of(target, run.evaluations, "seconds") == 20.0
    assert cost_of(target, run.evaluations, "joules") == 2.0
    assert Reached.of(target, [run], "seconds").show() == "20 s"
    assert Reached.of(target, [run], "joules").show() == "2 J"
    assert Reached.of(target, [run]).show() == "2.00 kB"
    assert Reached.of(Target("recall_at_1", 0.1), [run], "seconds").show() == "≤ 10 s"
    assert Reached.of(Target("recall_at_1", 0.9), [run], "seconds").show() == "never"


def test_every_run_gets_to_the_default_targets(pretend: Pretend) -> None:
    runs = [
        pretend(curve(0.1, 0.2), recall_at_1=0.2000000001),  # curves have seven digits
        pretend(curve(0.3, 0.4)),
        pretend(curve(None)),
    ]
    targets = default_targets(runs)
    assert [target.value for target in targets] == pytest.approx([0.1, 0.16, 0.2])
    for target in targets:
        assert Reached.of(target, runs).cost.values
        assert Reached.of(target, runs).runs == len(Reached.of(target, runs).cost.values) == 2
    assert default_targets(runs[2:]) == ()


def test_targets_as_typed() -> None:
    assert read_target("zero_shot_accuracy=0.5") == Target("zero_shot_accuracy", 0.5)
    for given, part in (
        ("recal=0.2", "Known: recall_at_1"),
        ("recall_at_1", "0 to 1"),
        ("recall_at_1=much", "0 to 1"),
        ("recall_at_1=20", "0 to 1"),
        ("train_bytes=0.2", "Known: recall_at_1"),
    ):
        with pytest.raises(ConfigError, match=f"--target {given}") as refused:
            read_target(given)
        assert part in str(refused.value)


def test_seconds_and_joules_have_none() -> None:
    assert [scaled(n, "seconds") for n in (0, 0.01234, 12.345, 1234.5)] == [
        "0 s",
        "0.0123 s",
        "12.3 s",
        "1,234 s",
    ]
    assert scaled(0.5, "joules") == "0.5 J"


def test_bytes_with_a_prefix() -> None:
    assert [scaled(n) for n in (0, 999, 1000, 12_345, 196_903_392, 2.5e15)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "12.3 kB",
        "196.9 MB",
        "2500.0 TB",
    ]
