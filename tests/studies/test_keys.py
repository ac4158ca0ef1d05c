"""Short keys and lists of values."""

import pytest

from sheafnet.errors import ConfigError
from sheafnet.studies.keys import known_keys, read_axes, read_axis, resolve_key, split_values


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("comparison_dim", "defaults.edge.comparison_dim"),
        ("comparison.dim", "defaults.edge.comparison_dim"),
        ("missing.probability", "inference.missing_probability"),
        ("temperature", "training.temperature"),
        ("noise", "dataset.noise"),
        ("hidden", "defaults.node.encoder.hidden"),
        ("encoder", "defaults.node.encoder"),
        ("encoder.name", "defaults.node.encoder.name"),
        ("hub", "method.hub"),
        ("method", "method"),
        ("name", "name"),  # whole as it stands, although others end in it
        ("training.rounds", "training.rounds"),
        ("nodes.0.embedding_dim", "nodes.0.embedding_dim"),
        ("edges.3.comparison_dim", "edges.3.comparison_dim"),
    ],
)
def test_a_key_by_its_last_words(given: str, whole: str) -> None:
    assert resolve_key(given, "--over") == whole


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("rounds", ["training.rounds", "inference.rounds"]),
        ("wire_dtype", ["training.wire_dtype", "inference.wire_dtype"]),
        ("seed", ["graph.seed or run.seed"]),
        ("weight", ["training.sheaf_weight", "training.contrastive_weight"]),
        ("temprature", ["no such key", "training.temperature"]),
        ("dataset.nose", ["no such key", "dataset.noise"]),
        ("training.objective.weight", ["no such key", "varied with the whole mapping (docs/plug"]),
        ("oise", ["no such key"]),  # a part of a word is not a word
        ("qqq", ["no such key", "docs/configuration.md"]),
    ],
)
def test_a_key_that_is_none_or_several_is_refused_with_what_it_could_be(
    given: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigError, match=rf"--over: {given}") as refused:
        resolve_key(given, "--over")
    for part in parts:
        assert part in str(refused.value)


def test_every_whole_key_stands_for_itself() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys))
    for key in keys:
        assert resolve_key(key, "") == key


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1", ["1"]),
        ("0.1,0.2", ["0.1", "0.2"]),
        ("ring, grid", ["ring", "grid"]),
        ("[1,5],[10]", ["[1,5]", "[10]"]),
        ("{name: conv, hidden: [8,4]},mlp", ["{name: conv, hidden: [8,4]}", "mlp"]),
        ("\"a,b\",'c,d'", ['"a,b"', "'c,d'"]),
        ('["a]",b],c', ['["a]",b]', "c"]),
        ("it's,fine", ["it's", "fine"]),
    ],
)
def test_commas_inside_brackets_and_quotes_separate_nothing(text: str, parts: list[str]) -> None:
    assert split_values(text, "") == parts


def test_values_are_yaml() -> None:
    axis = read_axis("few_shot=[1,5],[10]", "--over")
    assert axis.key == "evaluation.few_shot"
    assert axis.values == ([1, 5], [10])
    assert axis.overrides == ("evaluation.few_shot=[1,5]", "evaluation.few_shot=[10]")
    assert read_axis("hidden=null,8", "--over").values == (None, 8)
    assert read_axis("comparison_dim=1,1.0", "--over").values == (1, 1.0)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("temperature", "must be KEY=V1,V2"),
        ("=1,2", "must be KEY=V1,V2"),
        ("temperature=", "a value is empty"),
        ("temperature=0.1,,0.2", "a value is empty"),
        ("temperature=0.1,0.10", "stands twice"),
        ("temperature=[1", "not a YAML value"),
        ("run.seed=1,2", "--seeds"),
        ("backend=ray,local", "changes no figure"),
    ],
)
def test_a_malformed_axis_is_refused(given: str, part: str) -> None:
    with pytest.raises(ConfigError, match="--over") as refused:
        read_axes([given], "--over")
    assert part in str(refused.value)


def test_a_key_stands_once_however_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"training\.temperature stands twice"):
        read_axes(["temperature=0.1", "training.temperature=0.2"], "--over")
