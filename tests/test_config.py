import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sheafnet.config import Config, MethodConfig, RunConfig, TrainingConfig, load_config
from sheafnet.document import Origin
from sheafnet.errors import ConfigError
from sheafnet.topology import build_topology
from sheafnet.validation import check_model, nearest

GENERATED = "name: t\ndataset: synthetic\ngraph: {generator: ring, nodes: 3}\n"
"""Three lines: what is added to it begins on line 4."""
LISTED = """\
name: t
dataset: {name: synthetic, noise: 0.2}
nodes:
  - left
  - {id: right, encoder: mlp}
edges:
  - [left, right]
evaluation: {few_shot: [1, 5]}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("topologies") / "net.yaml"


@pytest.fixture
def load(file):
    def load_it(text: str, *overrides: str) -> Config:
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides)

    return load_it


@pytest.fixture
def refusal(load):
    def refusal_of(text: str, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value)

    return refusal_of


def test_left_out_keys_are_the_papers_defaults(load):
    config = load(GENERATED)
    assert config.training.temperature == 0.1
    assert config.training.sheaf_weight == config.training.restriction_rate == 0.1
    assert config.training.contrastive_weight == 1.0
    assert config.training.reconstruction_weight == 0.1
    assert config.training.batch_size == 128
    assert config.defaults.edge.comparison_dim == 0.5
    assert config.run.seed == 0


def test_short_forms_are_the_long_ones(load):
    long = LISTED.replace("- left", "- {id: left}").replace(
        "- [left, right]", "- {between: [left, right]}"
    )
    assert load(long.replace("encoder: mlp", "encoder: {name: mlp}")) == load(LISTED)


SHIPPED = sorted((Path(__file__).parents[1] / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_topologies_are_valid(path):
    assert load_config(path).name == path.stem


DIMENSION = "a whole number of dimensions from 1, a fraction above 0.0 and at most 1.0, or auto"

BAD_VALUES = [
    # (what follows GENERATED, line of the error, key and value, remedy)
    ("training:\n  temperature: 0", 5, "training.temperature = 0", "greater than 0"),
    ("training:\n  temperature: -0.1", 5, "training.temperature = -0.1", "greater than 0"),
    ("training: {temperature: .nan}", 4, "training.temperature = nan", "finite number"),
    ("training: {temperature: .inf}", 4, "training.temperature = inf", "finite number"),
    ("training: {temperature: -.inf}", 4, "training.temperature = -inf", "finite number"),
    ("training: {temperature: warm}", 4, "training.temperature = 'warm'", "a valid number"),
    ("training: {learning_rate: null}", 4, "training.learning_rate = None", "a valid number"),
    ("training:\n\n  # why\n  batch_size: 1", 7, "training.batch_size = 1", "equal to 2"),
    ("training: {batch_size: 12.5}", 4, "training.batch_size = 12.5", "a valid integer"),
    ("training: {rounds: -1}", 4, "training.rounds = -1", "equal to 0"),
    ("training: {optimizer: lion}", 4, "training.optimizer = 'lion'", "'adam', 'adamw' or 'sgd'"),
    ("training: {wire_dtype: int4}", 4, "training.wire_dtype = 'int4'", "'int8-row' or"),
    (
        "training: {wire_rounding: stochastic}",
        4,
        "training",
        "rounds the steps of int8, and wire_dtype is float32: choose int8, int8-row or",
    ),
    ("training: {sheaf_reduction: max}", 4, "training.sheaf_reduction = 'max'", "'mean' or 'sum'"),
    ("training: {exchange_gradients: 3}", 4, "training.exchange_gradients = 3", "boolean"),
    ("training: 3", 4, "training = 3", "needs keys below it: rounds, batch_size"),
    ("training: [3]", 4, "training", "needs keys below it: rounds, batch_size"),
    ("inference: {missing_probability: 1.1}", 4, "inference.missing_probability = 1.1", "to 1"),
    ("inference: {missing_nodes: node0}", 4, "inference.missing_nodes = 'node0'", "a list"),
    ("inference: {missing_nodes: [3]}", 4, "inference.missing_nodes.0 = 3", "string"),
    ("inference: {ridge: 0.0}", 4, "inference.ridge = 0.0", "greater than 0"),
    ("inference: {diffusion: heat}", 4, "inference.diffusion = 'heat'", "'relay' or 'harmonic'"),
    (
        "inference: {diffusion_iterations: 256}",
        4,
        "inference.diffusion_iterations = 256",
        "than 256",
    ),
    ("inference: {estimator: magic}", 4, "inference.estimator = 'magic'", "Known: mean, ridge"),
    ("evaluation: {gallery: 1}", 4, "evaluation.gallery = 1", "equal to 2 or 'all'"),
    (
        "evaluation: {gallery: some}",
        4,
        "evaluation.gallery = 'some'",
        "be a valid integer or 'all'",
    ),
    ("evaluation: {few_shot: [1, 0]}", 4, "evaluation.few_shot.1 = 0", "equal to 1"),
    ("evaluation: {few_shot: [1, 1]}", 4, "evaluation.few_shot", "a number of shots twice"),
    ("evaluation: {split: train}", 4, "evaluation.split = 'train'", "'test' or 'validation'"),
    ("run: {nodes_per_actor: 0}", 4, "run.nodes_per_actor = 0", "equal to 1 or 'auto'"),
    ("run: {nodes_per_actor: all}", 4, "run.nodes_per_actor = 'all'", "integer or 'auto'"),
    ("run: {seed: -1}", 4, "run.seed = -1", "equal to 0"),
    (f"run: {{seed: {2**63}}}", 4, f"run.seed = {2**63}", f"less than {2**63}"),
    ("run: {deadline_s: 0}", 4, "run.deadline_s = 0", "greater than 0"),
    ("method: clip", 4, "method.name = 'clip'", "'sheafalign'"),
    ("defaults: {node: {embedding_dim: 0}}", 4, "defaults.node.embedding_dim = 0", "equal to 1"),
    ("defaults: {node: {encoder: 7}}", 4, "defaults.node.encoder = 7", "needs keys below it: name"),
    *[
        (
            f"defaults:\n  edge:\n    comparison_dim: {value}",
            6,
            f"defaults.edge.comparison_dim = {shown}",
            DIMENSION,
        )
        for value, shown in [
            ("0", "0"),
            ("0.0", "0.0"),
            ("-1", "-1"),
            ("-0.5", "-0.5"),
            ("1.5", "1.5"),
            ("abc", "'abc'"),
            (".nan", "nan"),
            (".inf", "inf"),
            ("", "None"),
        ]
    ],
]


@pytest.mark.parametrize(("text", "line", "key", "remedy"), BAD_VALUES)
def test_a_bad_value_is_named_with_its_line_and_the_remedy(refusal, file, text, line, key, remedy):
    message = refusal(GENERATED + text)
    assert message.startswith(f"{file}:{line}: {key}: ")
    assert remedy in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("value", ["true", "false", "yes", "off"])
@pytest.mark.parametrize(
    "key",
    [
        "training.rounds",
        "training.temperature",
        "evaluation.gallery",
        "run.nodes_per_actor",
        "run.directory",
        "defaults.edge.comparison_dim",
        "defaults.node.modality",
    ],
)
def test_a_truth_value_is_neither_number_nor_text(refusal, file, key, value):
    *parents, last = key.split(".")
    text = "".join(f"{'  ' * k}{part}:\n" for k, part in enumerate(parents))
    message = refusal(f"{GENERATED}{text}{'  ' * len(parents)}{last}: {value}\n")
    shown = value in {"true", "yes"}
    assert message.startswith(f"{file}:{4 + len(parents)}: {key} = {shown}: true or false does not")


def test_a_truth_value_in_a_list_of_numbers_is_refused(refusal):
    assert "evaluation.few_shot: true or false" in refusal(
        GENERATED + "evaluation: {few_shot: [2, true]}"
    )


def test_several_problems_are_one_error_with_a_line_each(refusal, file):
    text = GENERATED + "training:\n  rounds: -1\n  batch_size: 1\nrun: {sed: 3}\n"
    first, second, third = refusal(text).splitlines()
    assert first.startswith(f"{file}:5: training.rounds = -1: ")
    assert second.startswith(f"{file}:6: training.batch_size = 1: ")
    assert third.startswith(f"{file}:7: run.sed: unknown key. Did you mean 'seed'?")


UNKNOWN_KEYS = [
    ("trainings: {}", 4, "trainings", "training"),
    ("training:\n  temprature: 0.1", 5, "training.temprature", "temperature"),
    (
        "inference: {missing_probabilty: 0}",
        4,
        "inference.missing_probabilty",
        "missing_probability",
    ),
    ("evaluation: {galery: 9}", 4, "evaluation.galery", "gallery"),
    ("run: {sead: 1}", 4, "run.sead", "seed"),
    ("defaults: {edges: {}}", 4, "defaults.edges", "edge"),
    ("defaults:\n  node:\n    embeding_dim: 8", 6, "defaults.node.embeding_dim", "embedding_dim"),
    (
        "defaults: {edge: {comparision_dim: 8}}",
        4,
        "defaults.edge.comparision_dim",
        "comparison_dim",
    ),
]


@pytest.mark.parametrize(("text", "line", "key", "near"), UNKNOWN_KEYS)
def test_an_unknown_key_is_told_the_nearest(refusal, file, text, line, key, near):
    message = refusal(GENERATED + text)
    assert message.startswith(f"{file}:{line}: {key}: unknown key. Did you mean {near!r}? Known: ")


def test_unknown_keys_of_graph_nodes_and_edges(refusal, file):
    message = refusal(GENERATED.replace("nodes: 3", "nodes: 3, colums: 2"))
    assert message.startswith(f"{file}:3: graph.colums: unknown key. Did you mean 'columns'?")
    message = refusal(LISTED.replace("encoder: mlp", "modalty: x"))
    assert message == (
        f"{file}:5: nodes.1.modalty: unknown key. Did you mean 'modality'? "
        "Known: id, modality, encoder, embedding_dim."
    )
    message = refusal(LISTED.replace("- [left, right]", "- between: [left, right]\n    dim: 3"))
    assert message == (
        f"{file}:8: edges.0.dim: unknown key. Known: between, comparison_dim, temperature, link."
    )


@pytest.mark.parametrize("key", ["int", "float", "a[b", "literal['all']", ""])
def test_unknown_keys_that_look_like_validator_names_are_named(refusal, file, key):
    quoted = yaml.safe_dump(key).strip().removesuffix("...").strip()
    assert refusal(f"{GENERATED}{quoted}: 1").startswith(f"{file}:4: {key}: unknown key. ")
    message = refusal(f"{GENERATED}training:\n  {quoted}: 1")
    assert message.startswith(f"{file}:5: training.{key}: unknown key. ")


@pytest.mark.parametrize("key", ["3", "null", "yes", "1.5", "2020-01-01"])
def test_a_key_that_is_no_text_is_refused_with_its_line(refusal, file, key):
    assert refusal(f"{GENERATED}{key}: 1") == (
        f"{file}:4: the key {key} is no text; put it in quotes."
    )


def test_a_key_that_stands_twice_is_refused(refusal, file):
    message = refusal(GENERATED + "training: {rounds: 1}\ntraining: {rounds: 2}\n")
    assert message == f"{file}:5: the key 'training' stands twice; keep one of them."
    message = refusal(GENERATED + "training:\n  rounds: 1\n  batch_size: 2\n  rounds: 2\n")
    assert message == f"{file}:7: the key 'rounds' stands twice; keep one of them."
    message = refusal(LISTED.replace("encoder: mlp", "id: right"))
    assert message == f"{file}:5: the key 'id' stands twice; keep one of them."


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("# nothing yet\n", "empty"),
        ("- left\n- right\n", "a list"),
        ("just words", "one text"),
        ("3", "one value"),
        ("2020-01-01", "one value"),
    ],
)
def test_a_file_that_is_no_mapping(refusal, file, text, what):
    assert refusal(text) == f"{file}: a topology is a mapping of keys; this is {what}."


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [\nfoo: }\n", 2),
        ("name: t\n\tdataset: x\n", 2),
        ("name: t\ndataset: 'x\n", 3),
        (GENERATED + "---\nname: u\n", 4),
        (GENERATED + "run: *nowhere\n", 4),
    ],
)
def test_broken_yaml_is_named_with_its_line(refusal, file, text, line):
    assert refusal(text).startswith(f"{file}:{line}: this is not YAML: ")


@pytest.mark.parametrize(
    "value", ["2020-13-45", "!!int abc", "!!bool abc", "!!float x", "!!timestamp x", "0b_"]
)
def test_scalars_that_yaml_cannot_build_are_refused(refusal, file, value):
    message = refusal(f"{GENERATED}run: {{directory: {value}}}")
    assert message.startswith(f"{file}: this is not YAML: a value has not the form of its type")
    assert "is not a YAML value" in refusal(GENERATED, f"run.directory={value}")


def test_a_missing_file_is_told_the_nearest(load, file):
    load(GENERATED)
    wrong = file.with_name("nett.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(wrong)
    assert str(caught.value) == f"{wrong}: no such file. Did you mean {file}?"
    with pytest.raises(ConfigError, match=r"zzzzzzzz: no such file\.$"):
        load_config(file.with_name("zzzzzzzz"))
    with pytest.raises(ConfigError, match=r"no such file\.$"):
        load_config(file.parent / "nowhere" / "net.yaml")


def test_a_folder_or_bytes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: "):
        load_config(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"image\.yaml: cannot be read: .*utf-8"):
        load_config(tmp_path / "image.yaml")


def test_what_is_required(refusal, file):
    assert refusal(GENERATED.removeprefix("name: t\n")) == (
        f"{file}: name: is missing and has no default."
    )
    assert refusal(LISTED.replace("id: right", "modality: x")) == (
        f"{file}:5: nodes.1.id: is missing and has no default."
    )
    assert refusal(LISTED.replace("{name: synthetic, noise: 0.2}", "{noise: 0.2}")) == (
        f"{file}:2: dataset.name: is missing and has no default."
    )


def test_graph_and_lists_exclude_each_other(refusal, file):
    for extra in ("nodes: [a, b]\n", "edges: [[a, b]]\n", "nodes: []\n"):
        assert refusal(GENERATED + extra) == (
            f"{file}: give either graph (generated) or nodes and edges, not both."
        )
    for text in ("name: t\ndataset: x\n", "name: t\ndataset: x\nnodes: [a, b]\n"):
        assert refusal(text) == f"{file}: give the network: graph (generated), or nodes and edges."


def test_exchanged_gradients_need_something_to_exchange(load, refusal, file):
    full = "training:\n  exchange_gradients: true\n  reconstruction_gradient: full\n"
    assert load(GENERATED + full).training.exchange_gradients
    for text in (
        "training:\n  exchange_gradients: true\n",
        full + "  reconstruction: inverse\n",
    ):
        message = refusal(GENERATED + text)
        assert message.startswith(f"{file}:4: training: exchange_gradients has nothing to send")
        assert "reconstruction_gradient: full and reconstruction: neighbour" in message


def test_diffusion_needs_iterations_and_neighbours_that_meet(load, refusal, file):
    off = load(GENERATED).inference.measured
    on = load(GENERATED, "inference.diffusion_iterations=2").inference.measured
    assert on == (*off, "diffusion")
    used = "inference:\n  estimator: diffusion\n"
    most = load(GENERATED + used + "  diffusion_iterations: 255\n")
    assert most.inference.estimator == "diffusion"
    assert refusal(GENERATED + used) == (
        f"{file}:4: inference: estimator: diffusion needs diffusion_iterations of at least 1."
    )
    for method in ("local", "concat-supervised"):
        message = refusal(GENERATED, f"method={method}", "inference.diffusion_iterations=1")
        assert f"under {method} neighbours exchange no estimates; leave it at 0" in message


@pytest.mark.parametrize("edge", ["left-right", "[left]", "[left, right, left]", "[1, 2]", "{}"])
def test_an_edge_joins_two_names(refusal, file, edge):
    message = refusal(LISTED.replace("[left, right]", edge))
    assert message.startswith(f"{file}:7: edges.0")


@pytest.mark.parametrize("name", ["a b", "", "-a", "a/b", "ä", "a" * 65, "a\\nb"])
def test_names_that_cannot_stand_in_a_path_are_refused(refusal, name):
    assert "nodes.0.id" in refusal(LISTED.replace("- left", f'- "{name}"'))
    assert "name = " in refusal(LISTED.replace("name: t\n", f'name: "{name}"\n'))


# Overrides.


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        (GENERATED, "training.temperature=0.2", lambda c: c.training.temperature == 0.2),
        (GENERATED, "training.learning_rate=1e-4", lambda c: c.training.learning_rate == 1e-4),
        (GENERATED, "graph.nodes=7", lambda c: c.graph.nodes == 7),
        (GENERATED, "graph.generator=star", lambda c: c.graph.generator == "star"),
        (GENERATED, "training={rounds: 3}", lambda c: c.training.rounds == 3),
        (GENERATED, "evaluation.few_shot=[2, 3]", lambda c: c.evaluation.few_shot == (2, 3)),
        (GENERATED, "evaluation.few_shot=[]", lambda c: c.evaluation.few_shot == ()),
        (
            GENERATED,
            "defaults.edge.comparison_dim=8",
            lambda c: c.defaults.edge.comparison_dim == 8,
        ),
        (GENERATED, "run.address=10.0.0.1:6379", lambda c: c.run.address == "10.0.0.1:6379"),
        (GENERATED, "run.address=a=b", lambda c: c.run.address == "a=b"),
        (GENERATED, "dataset.noise=0.5", lambda c: c.dataset.options == {"noise": 0.5}),
        (GENERATED, "dataset=arrays", lambda c: c.dataset.name == "arrays"),
        (LISTED, "dataset.name=arrays", lambda c: c.dataset.options == {"noise": 0.2}),
        (LISTED, "evaluation.few_shot.1=7", lambda c: c.evaluation.few_shot == (1, 7)),
        (LISTED, "nodes.1.embedding_dim=8", lambda c: c.nodes[1].embedding_dim == 8),
        (LISTED, "nodes.0.embedding_dim=8", lambda c: c.nodes[0].embedding_dim == 8),
        (LISTED, "nodes.0.embedding_dim=8", lambda c: c.nodes[0].id == "left"),
        (LISTED, "nodes.0=up", lambda c: c.nodes[0].id == "up"),
        (LISTED, "nodes.1.encoder.hidden=[8]", lambda c: c.nodes[1].encoder.name == "mlp"),
        (
            LISTED,
            "nodes.1.encoder.hidden=[8]",
            lambda c: c.nodes[1].encoder.options["hidden"] == [8],
        ),
        (LISTED, "edges.0.comparison_dim=4", lambda c: c.edges[0].comparison_dim == 4),
        (LISTED, "edges.0.comparison_dim=4", lambda c: c.edges[0].between == ("left", "right")),
        (LISTED, "edges.0.1=up", lambda c: c.edges[0].between == ("left", "up")),
        (LISTED, "nodes.0.encoder.name=conv", lambda c: c.nodes[0].encoder.name == "conv"),
    ],
)
def test_an_override_sets_one_key(load, text, override, expected):
    assert expected(load(text, override))


def test_a_deeply_nested_override_is_refused(refusal):
    override = f"training.rounds={'[' * 3000}"
    assert refusal(GENERATED, override) == f"--set {override}: {'[' * 3000!r} is not a YAML value."


def test_later_overrides_win(load):
    config = load(GENERATED, "training.rounds=3", "training.rounds=4", "training.batch_size=5")
    assert (config.training.rounds, config.training.batch_size) == (4, 5)
    config = load(GENERATED, "training.rounds=3", "training={batch_size: 5}")
    assert (config.training.rounds, config.training.batch_size) == (1000, 5)


@pytest.mark.parametrize("override", ["training.rounds", "=3", ".rounds=3", "training..rounds=3"])
def test_a_malformed_override_is_refused(refusal, override):
    assert refusal(GENERATED, override) == (
        f"--set {override}: must be key=value, as in --set training.temperature=0.2"
    )


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("training.rounds=[", "'[' is not a YAML value"),
        ("name.first=3", "name is a value, it has no keys"),
        ("evaluation.few_shot.1.x=3", "evaluation.few_shot.1 is a value, it has no keys"),
        ("evaluation.few_shot.2=3", "'2' must be a position from 0 to 1"),
        ("evaluation.few_shot.-1=3", "'-1' must be a position from 0 to 1"),
        ("nodes.first.id=x", "'first' must be a position from 0 to 1"),
        ("nodes.².id=x", "'²' must be a position from 0 to 1"),
        ("nodes.9=x", "'9' must be a position from 0 to 1"),
        ("training.temprature=1", "training.temprature: unknown key. Did you mean 'temperature'?"),
        ("training.temperature=-1", "training.temperature = -1: input should be greater than 0"),
        ("training.temperature.x=1", "training.temperature: input should be a valid number"),
        ("training={rouns: 1}", "training.rouns: unknown key. Did you mean 'rounds'?"),
        ("training=5", "training = 5: needs keys below it: rounds"),
        ("nodes.1.modalty=x", "nodes.1.modalty: unknown key. Did you mean 'modality'?"),
        ("edges.0.comparison_dim=abc", f"edges.0.comparison_dim = 'abc': must be {DIMENSION}"),
        ("evaluation.few_shot.0=-3", "evaluation.few_shot.0 = -3: input should be greater"),
        ("graph.nodes=3", "graph.generator: is missing and has no default"),
        ("1=2", "1: unknown key"),
        ("training.exchange_gradients=true", "training: exchange_gradients has nothing to send"),
    ],
)
def test_an_error_that_an_override_causes_names_the_override(refusal, file, override, remedy):
    message = refusal(LISTED, override).splitlines()[0]
    assert message.startswith(f"--set {override}: {remedy}")
    assert str(file) not in message


def test_an_error_that_file_and_override_make_together_names_both(refusal, file):
    text = GENERATED + "training:\n  reconstruction_gradient: full\n  reconstruction: inverse\n"
    message = refusal(text, "training.exchange_gradients=true", "run.seed=3")
    assert message.startswith(
        f"{file} with --set training.exchange_gradients=true: training: exchange_gradients has"
    )
    message = refusal(GENERATED, "nodes=[a, b]")
    assert message.startswith(f"{file} with --set nodes=[a, b]: give either graph")


def test_an_error_that_two_overrides_make_names_both(refusal):
    pair = ("training.reconstruction=inverse", "training.exchange_gradients=true")
    for overrides in (pair, pair[::-1]):
        message = refusal(GENERATED, *overrides)
        assert message.startswith(f"--set {overrides[0]} --set {overrides[1]}: training: exchange_")


def test_an_error_elsewhere_does_not_blame_the_override(refusal, file):
    message = refusal(GENERATED + "training:\n  rounds: -1\n", "training.batch_size=8")
    assert message.startswith(f"{file}:5: training.rounds = -1: ")


def test_a_replaced_override_is_not_blamed(refusal):
    message = refusal(GENERATED, "training.rounds=-2", "training={rounds: -3}")
    assert message.startswith("--set training={rounds: -3}: training.rounds = -3: ")


def test_an_override_leaves_what_shares_an_alias_alone(load):
    text = LISTED.replace(
        "  - left\n  - {id: right, encoder: mlp}",
        "  - {id: left, encoder: &e {name: mlp, hidden: [4]}}\n  - {id: right, encoder: *e}",
    )
    left, right = load(text, "nodes.0.encoder.hidden.0=9").nodes
    assert left.encoder.options == {"hidden": [9]}
    assert right.encoder.options == {"hidden": [4]}


# Hostile files.


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{}']]",
        "!!python/name:os.system",
        "!include {}",
    ],
)
def test_yaml_builds_no_python_objects(refusal, file, tmp_path, tag):
    mark = tmp_path / "executed"
    value = tag.format(mark)
    message = refusal(f"{GENERATED}run:\n  directory: {value}\n")
    assert message.startswith(f"{file}:5: this is not YAML: could not determine a constructor")
    assert "is not a YAML value" in refusal(GENERATED, f"run.directory={value}")
    assert not mark.exists()


def bomb(levels: int) -> str:
    lines = ["  l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"  l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_a_billion_laughs_are_not_laughed(load, refusal, file):
    # 9^5 values stand below the bound of 500,000, 9^6 do not: that level is in line 4 + 6.
    assert "training.l0: unknown key" in refusal(f"{GENERATED}training:\n{bomb(5)}")
    options = load(GENERATED.replace("synthetic", f"\n  name: arrays\n{bomb(5)}")).dataset.options
    assert len(options) == 5
    for levels in (6, 40):
        message = refusal(f"{GENERATED}training:\n{bomb(levels)}")
        assert message == f"{file}:10: its aliases stand for more than 500,000 values."
    message = refusal(
        f"{GENERATED}x: &a {{k: 1}}\ny: {{<<: [*a, *a]}}\n",
    )
    assert message == f"{file}:5: '<<' takes one mapping, not a list."


def test_one_mapping_can_be_merged_into_another(load):
    base = "{embedding_dim: 8, encoder: mlp}"
    text = LISTED.replace("  - left\n", f"  - &a {{id: left, <<: {base}}}\n")
    text = text.replace("{id: right, encoder: mlp}", "{<<: *a, id: right}")
    assert [(n.id, n.embedding_dim) for n in load(text).nodes] == [("left", 8), ("right", 8)]


@pytest.mark.parametrize(
    "value", ["[" * 5000 + "]" * 5000, "{a: " * 2000 + "1" + "}" * 2000, "[" * 5000]
)
def test_deep_nesting_is_refused(refusal, file, value):
    message = refusal(f"{GENERATED}training: {value}\n")
    assert message == f"{file}: nested too deeply for a topology."


def test_an_alias_to_its_own_container_is_refused(refusal, file):
    assert refusal(f"{GENERATED}run: &a\n  directory: *a\n") == (
        f"{file}:4: an alias stands for what contains it."
    )


SECTIONS = [name for name in Config.model_fields if name != "name"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["mlp", "ring", "auto", "all", "name", "node0"])
)
KEYS = st.sampled_from(
    [*SECTIONS, "rounds", "node", "edge", "between", "id", "name", "generator", "int", "few_shot"]
) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def message_of(file: Path, *overrides: str) -> str | None:
    """What is wrong, or None; any other exception than ConfigError fails the test."""
    try:
        assert isinstance(load_config(file, overrides), Config)
    except ConfigError as error:
        return str(error)
    return None


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_make_a_configuration_or_a_config_error(file, extra):
    file.write_text(yaml.safe_dump({**yaml.safe_load(GENERATED), **extra}), encoding="utf-8")
    assert (message_of(file) or str(file)).startswith(str(file))


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%\n \t?,<=0123.~"), max_size=30))
def test_no_short_text_is_a_configuration(file, text):
    file.write_text(text, encoding="utf-8")
    assert (message_of(file) or "").startswith(str(file))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(KEYS | st.sampled_from(["0", "1"]), min_size=1, max_size=4),
    VALUES.map(lambda v: yaml.safe_dump(v, default_flow_style=True)) | st.text(max_size=8),
)
def test_any_override_makes_a_configuration_or_a_config_error(file, keys, value):
    file.write_text(LISTED, encoding="utf-8")
    override = f"{'.'.join(keys)}={value}"
    assert "--set" in (message_of(file, override) or "--set")


# The models.


def models(config: Any) -> list[Any]:
    found = [config]
    for name in type(config).model_fields:
        value = getattr(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if hasattr(type(part), "model_fields"):
                found += models(part)
    return found


def test_every_part_of_a_configuration_is_frozen(load):
    parts = list(itertools.chain(models(load(GENERATED)), models(load(LISTED))))
    assert len({type(part) for part in parts}) >= 11
    for part in parts:
        name = next(iter(type(part).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))
        with pytest.raises(ValidationError):
            part.brand_new = 1


def test_a_configuration_survives_yaml(load):
    config = load(LISTED, "training.temperature=0.3", "defaults.edge.comparison_dim=1.0")
    again = load(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    assert again == config
    assert isinstance(again.defaults.edge.comparison_dim, float)


def test_an_option_that_is_null_survives_yaml(load):
    config = load(LISTED, "defaults.node.encoder={name: conv, hidden: null}")
    dumped = config.model_dump(mode="json", exclude_none=True)
    assert dumped["defaults"]["node"]["encoder"] == {"name": "conv", "hidden": None}
    assert load(yaml.safe_dump(dumped)) == config


@pytest.mark.parametrize(
    ("reduction", "warmup", "round_", "expected"),
    [
        ("mean", 0, 0, 2.0 / 16),
        ("mean", 0, 999, 2.0 / 16),
        ("sum", 0, 0, 2.0),
        ("sum", 8, 0, 0.0),
        ("sum", 8, 2, 0.5),
        ("sum", 8, 8, 2.0),
        ("sum", 8, 100, 2.0),
        ("mean", 8, 4, 1.0 / 16),
    ],
)
def test_the_factor_of_the_sheaf_loss(reduction, warmup, round_, expected):
    training = f"{{sheaf_weight: 2.0, sheaf_reduction: {reduction}, sheaf_warmup: {warmup}}}"
    config = check_model(Config, yaml.safe_load(GENERATED + f"training: {training}"))
    assert config.sheaf_factor(round_, 16) == pytest.approx(expected)
    other = config.model_copy(update={"method": MethodConfig(name="all-pairs")})
    assert other.sheaf_factor(round_, 16) == 0.0


def test_options_of_a_registry_are_checked_under_their_prefix():
    with pytest.raises(ConfigError) as caught:
        check_model(TrainingConfig, {"round": 3}, source="somewhere", prefix=("dataset",))
    assert str(caught.value).startswith(
        "somewhere: dataset.round: unknown key. Did you mean 'rounds'? Known: rounds, batch_size,"
    )
    lines = {("a", "rounds"): 12}
    with pytest.raises(ConfigError, match=r"^f:12: a\.rounds = -1: "):
        check_model(TrainingConfig, {"rounds": -1}, source=Origin("f", lines), prefix=("a",))


def test_nearest_lists_what_is_known():
    assert nearest("camra0", ["camera0", "camera1"]) == (
        "Did you mean 'camera0'? Known: camera0, camera1."
    )
    assert nearest("zzz", ["camera0"]) == "Known: camera0."


def test_a_section_with_everything_commented_out_is_not_there(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(GENERATED + "training:\n  # rounds: 3\n")
    assert load_config(path).training == TrainingConfig()


@pytest.mark.parametrize(
    ("ports", "expected"),
    [("20000-20100", range(20000, 20101)), ("1-65535", range(1, 65536)), ("7-7", range(7, 8))],
)
def test_ports_include_both_ends(ports, expected):
    assert check_model(RunConfig, {"ports": ports}).port_range == expected
    assert check_model(RunConfig, {}).port_range is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ports": "0-10"}, "from 1 to 65535"),
        ({"ports": "200-100"}, "the lower first"),
        ({"ports": "1-65536"}, "from 1 to 65535"),
        ({"ports": "20000"}, "ports"),
        ({"ports": "20000-20100", "transport": "ipc"}, "transport: ipc has none"),
        ({"ports": "20000-20100", "backend": "local"}, "the local backend has none"),
    ],
)
def test_ports_that_cannot_be(values, words):
    with pytest.raises(ConfigError, match=words):
        check_model(RunConfig, values)


def test_a_mapping_made_in_python_is_what_its_yaml_is(load: Any, tmp_path: Path) -> None:
    values = {
        "name": "t",
        "dataset": {"name": "arrays", "path": tmp_path},
        "nodes": ("left", {"id": "right", "embedding_dim": np.int64(32)}),
        "edges": [("left", "right"), {"between": ("left", "right")}],
        "training": {"learning_rate": np.float32(0.5), "exchange_gradients": np.False_},
        "method": None,
    }
    given = copy.deepcopy(values)
    config = load_config(values, ["training.rounds=7"])
    assert values == given
    text = f"""\
name: t
dataset: {{name: arrays, path: {tmp_path}}}
nodes: [left, {{id: right, embedding_dim: 32}}]
edges: [[left, right], {{between: [left, right]}}]
training: {{learning_rate: 0.5, exchange_gradients: false, rounds: 7}}
"""
    assert config == load(text)
    assert type(config.dataset.options["path"]) is str
    assert config.nodes is not None
    assert type(config.nodes[1].embedding_dim) is int


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "t"}, "configuration: dataset: is missing"),
        ({"training": {"round": 3}}, "configuration: training.round: unknown key. Did you mean"),
        ({"run": {"seed": {1}}}, "configuration: run.seed: is of the type set; a configuration is"),
        ({"nodes": ["a", b"b"]}, "configuration: nodes.1: is of the type bytes"),
        ({"training": {"rounds": float("nan")}}, "training.rounds"),
        ({3: 4}, "configuration: the key 3 is no text"),
        ({"run": {3: 4}}, "configuration: run: the key 3 is no text"),
    ],
    ids=["missing", "unknown", "set", "bytes", "nan", "key", "deep key"],
)
def test_a_mapping_that_is_no_configuration_is_refused(values: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(values)
    assert words in str(caught.value)


def test_a_mapping_within_itself_is_refused() -> None:
    values: dict[str, Any] = {"name": "t"}
    values["dataset"] = values
    with pytest.raises(ConfigError, match="configuration: nested too deeply"):
        load_config(values)


def test_a_fault_of_a_mapping_says_so() -> None:
    values = yaml.safe_load(LISTED) | {"edges": [("left", "rigth")]}
    with pytest.raises(ConfigError, match=r"^configuration: edges.0: no node .* 'right'"):
        build_topology(load_config(values))
