"""Contenders as they are typed."""

import pytest

from sheafnet.errors import ConfigError
from sheafnet.studies.contenders import METHODS, read_contenders
from tests.conftest import MakeConfig


def test_every_method_is_a_contender() -> None:
    assert METHODS == ("sheafalign", "imagebind", "all-pairs", "local", "concat-supervised")
    assert [c.method for c in read_contenders(",".join(METHODS))] == list(METHODS)


def test_a_contender_with_settings_of_its_own(tiny: MakeConfig) -> None:
    plain, set_ = read_contenders("imagebind,sheafalign@few_shot=[1,5]@comparison_dim=0.25")
    assert plain.overrides(tiny()) == ("method=imagebind",)
    assert set_.label == "sheafalign@few_shot=[1,5]@comparison_dim=0.25"
    assert set_.keys == {"evaluation.few_shot", "defaults.edge.comparison_dim"}
    assert set_.overrides(tiny()) == (
        "evaluation.few_shot=[1,5]",
        "defaults.edge.comparison_dim=0.25",
    )


def test_the_method_of_the_topology_keeps_its_options(tiny: MakeConfig) -> None:
    base = tiny("method={name: imagebind, hub: c}")
    hub, other = read_contenders("imagebind,sheafalign")
    assert hub.overrides(base) == ()
    assert other.overrides(base) == ("method=sheafalign",)
    (joined,) = read_contenders("concat-supervised")
    assert joined.overrides(base) == ("method=concat-supervised", "method.hub=c")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("imagebnd", "Did you mean 'imagebind'"),
        ("sheafalign,sheafalign", "stands twice"),
        ("sheafalign@temperature", "must be KEY=VALUE"),
        ("sheafalign@temprature=1", "training.temperature"),
        ("sheafalign@rounds=1", "training.rounds, inference.rounds or pilot.rounds"),
        ("sheafalign@run.seed=1", "--seeds"),
        ("sheafalign@method=local", "name another contender"),
        ("sheafalign,", "empty"),
    ],
)
def test_what_is_no_contender(given: str, part: str) -> None:
    with pytest.raises(ConfigError, match="--methods") as refused:
        read_contenders(given)
    assert part in str(refused.value)
