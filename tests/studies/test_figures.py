"""Means, spreads and differences, by hand."""

import pytest

from sheafnet.errors import ConfigError
from sheafnet.studies.figures import (
    Figure,
    Spread,
    apart,
    difference,
    figure_named,
    figures_of,
    mean_of,
)
from tests.conftest import MakeConfig

SHARE = Figure("recall_at_1", "recall@1", "share", "higher")
BYTES = Figure("train_bytes", "bytes in training", "bytes", "lower")


def test_mean_and_sample_deviation() -> None:
    spread = Spread.of([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert spread.mean == 5.0
    assert spread.deviation == pytest.approx((32 / 7) ** 0.5)
    assert Spread.of([None, 1.0, None, 3.0]).values == (1.0, 3.0)
    assert Spread.of([3.0]).deviation is None
    assert Spread.of([None]).mean is None


def test_intervals_that_touch_are_not_apart() -> None:
    one, same = Spread((1.0, 3.0)), Spread((1.0, 3.0))  # 2 ± 1.414
    assert apart(one, same) is False
    assert apart(Spread((5.0, 5.0)), one) is True  # 3 > 1.414
    assert apart(Spread((3.0, 3.0)), one) is False  # 1 < 1.414
    exact = Spread((2.0, 2.0))
    assert apart(exact, exact) is False
    assert apart(Spread((5.0,)), one) is None
    assert apart(Spread(()), one) is None


def test_difference_in_percent_of_the_reference() -> None:
    assert difference(Spread((3.0, 4.0)), Spread((2.0,))) == pytest.approx(75.0)
    assert difference(Spread((1.0,)), Spread((0.0,))) is None
    assert difference(Spread(()), Spread((1.0,))) is None


def test_the_mean_of_what_is_not_complete_is_unknown() -> None:
    assert mean_of([1.0, 2.0]) == 1.5
    assert mean_of([1.0, None]) is None
    assert mean_of([]) is None


def test_how_figures_are_written() -> None:
    assert Spread((0.1, 0.3)).show(SHARE) == "0.200 ± 0.141"
    assert Spread((0.1,)).show(SHARE) == "0.100"
    assert Spread(()).show(SHARE) == "-"
    assert Spread((16680.0, 16680.0)).show(BYTES) == "16,680"
    assert Spread((36.0, 38.0)).show(BYTES) == "37 ± 1.4"
    assert Spread((0.0, 0.0)).show(BYTES) == "0"


def test_an_unknown_figure_is_refused_with_the_nearest(tiny: MakeConfig) -> None:
    figures = figures_of(tiny("evaluation.few_shot=[3]"))
    assert figure_named("few_shot_accuracy_3", figures, "--quality").label == "3-shot accuracy"
    with pytest.raises(ConfigError, match=r"--quality recal_at_1: .* mean 'recall_at_1'"):
        figure_named("recal_at_1", figures, "--quality")
