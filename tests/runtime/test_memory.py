"""The memory that a run needs against modules that were built, and what is free against files."""

from pathlib import Path

import pytest
import torch

from sheafnet.config import Config, Named
from sheafnet.nodes.encoders import build_encoder, encoder_size
from sheafnet.runtime import memory
from sheafnet.runtime.memory import Need, estimate, free_bytes
from sheafnet.runtime.plan import Plan
from sheafnet.validation import check_model


@pytest.mark.parametrize(
    ("encoder", "shape", "dim"),
    [
        ({"name": "mlp"}, (3, 4, 5), 8),
        ({"name": "mlp", "hidden": [], "layer_norm": False}, (7,), 3),
        ({"name": "conv"}, (1, 28, 28), 64),
        ({"name": "conv", "channels": [3, 5, 7, 9], "hidden": None}, (2, 5, 9), 6),
        ({"name": "conv", "layer_norm": False}, (1, 1, 4), 2),
        ({"name": "conv1d"}, (3, 64), 16),
        ({"name": "conv1d", "channels": [2, 3, 4], "kernel": 4, "hidden": None}, (1, 3), 5),
    ],
)
def test_sizes_are_those_of_the_built_encoder(encoder, shape, dim) -> None:
    named = Named(**encoder)
    module = build_encoder(named, shape, dim, "n")
    values = []
    for part in module:
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv1d):
            part.register_forward_hook(lambda _, __, out: values.append(out[0].numel()))
    module(torch.zeros(2, *shape))
    size = encoder_size(named, shape, dim, "n")
    assert size.parameters == sum(p.numel() for p in module.parameters())
    assert size.values == sum(values)


def pair(**values) -> Plan:
    given = {
        "name": "t",
        "dataset": {"name": "synthetic", "features": 10},
        "nodes": ["a", "b"],
        "edges": [["a", "b"]],
        "defaults": {"node": {"encoder": {"name": "mlp", "hidden": []}, "embedding_dim": 8}},
        "training": {"batch_size": 16},
        "inference": {"batch_size": 20},
        "evaluation": {"gallery": 50, "support": 80},
    }
    return Plan.open(check_model(Config, given | values))


def test_what_is_remembered_counts() -> None:
    plain = pair()
    remembering = pair(training={"batch_size": 16, "memory": 5})
    more = [a - b for a, b in zip(estimate(remembering).nodes, estimate(plain).nodes, strict=True)]
    assert more == [5 * 16 * 4 * 4] * 2  # five batches of 16 projections of four float32


def test_the_need_of_a_pair_by_hand() -> None:
    need = estimate(pair())
    # Linear 10 -> 8 with offset and layer norm; P 8 x 4, Q 8 x 4 with an offset of 8.
    parameters = (11 * 8 + 2 * 8) + 32 + 32 + 8
    weights = 4 * 4 * parameters
    kept = 4 * 2 * 16 * (8 + 10)
    moments = 8 * ((8 + 4) * (1 + 4) + 8)
    frames = 4 * ((80 + 50) * 8 + 2 * 50 * 4)
    assert need.nodes == (weights + kept + moments + frames,) * 2
    assert need.actor == 210_000_000 + 4 * 2 * 512 * (8 + 10)
    assert need.of([[0], [1]]) == 2 * need.actor + sum(need.nodes)
    assert need.of([[0, 1]]) == need.actor + sum(need.nodes)


def test_a_forked_process_needs_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is one of a private Ray, where processes can be forked."""
    plan = pair()
    for supported, spared in ((True, 140_000_000), (False, 0)):
        monkeypatch.setattr(memory, "SUPPORTED", supported)
        assert estimate(plan).actor - estimate(plan, private=True).actor == spared
        assert estimate(plan).nodes == estimate(plan, private=True).nodes


def test_moments_of_a_large_hub_count() -> None:
    """A star of 400 has 400 x 32 projections at its hub: 12,800^2 covariances of 8 bytes."""
    graph = {"generator": "star", "nodes": 401}
    values = {"nodes": None, "edges": None, "graph": graph, "defaults": {}}
    need = estimate(pair(**values))
    assert need.nodes[0] > 8 * 12_800**2
    assert max(need.nodes[1:]) < 10**7


def test_the_joined_sections_of_the_upper_bound_count_at_its_hub() -> None:
    need = estimate(pair(method={"name": "concat-supervised", "hub": "b"}))
    # 16 dimensions in all, one labelled edge of 10 classes
    assert need.nodes[1] - need.nodes[0] == 8 * 2 * 16 * 16 + 4 * 4 * 16 * 10


def test_a_sum_over_hosts() -> None:
    assert Need(100, (1, 2, 4)).of([[0, 2], [1]]) == 207


def group(root: Path, folder: str, **files: str) -> None:
    at = root / "sys/fs/cgroup" / folder
    at.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (at / name.replace("__", ".")).write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1000 bytes available, whatever its control groups say."""

    class Memory:
        available = 1000

    monkeypatch.setattr(memory.psutil, "virtual_memory", Memory)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def test_without_control_groups_it_is_what_the_machine_has(root: Path) -> None:
    assert free_bytes(root) == 1000


@pytest.mark.parametrize(("outer", "expected"), [("max", 700), ("600", 100)])
def test_the_tightest_group_of_version_2_bounds(root: Path, outer: str, expected: int) -> None:
    (root / "proc/self/cgroup").write_text("0::/job/task\n")
    stat = {"memory__stat": "anon 100\ninactive_file 150\n"}
    group(root, "job/task", memory__max="900\n", memory__current="350\n", **stat)
    group(root, "job", memory__max=outer, memory__current="650\n", **stat)
    assert free_bytes(root) == expected


def test_version_1_bounds_too(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:cpu:/a\n4:memory:/not/shown/here\n")
    group(
        root,
        "memory",
        memory__limit_in_bytes="500",
        memory__usage_in_bytes="300",
        memory__stat="cache 7\ntotal_inactive_file 50\n",
    )
    assert free_bytes(root) == 500 - 250


def test_a_group_over_its_limit_has_nothing_left(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    group(root, "", memory__max="100", memory__current="200", memory__stat="anon 200\n")
    assert free_bytes(root) == 0
