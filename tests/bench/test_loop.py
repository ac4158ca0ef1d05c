"""The reference of a round computes what the run computes, and so may be compared with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sheafnet.bench import actors, loop
from sheafnet.bench.loop import DirectEndpoint, Loop
from sheafnet.bench.networks import ring
from sheafnet.bench.rounds import check_same
from sheafnet.bench.trace import Trace, steady
from sheafnet.config import Config, load_config
from sheafnet.network.frame import Kind
from sheafnet.runtime.host import Host
from sheafnet.runtime.plan import Plan
from tests.conftest import MakeConfig

ROOT = Path(__file__).parents[2]


def records_agree(config: Config) -> None:
    """Compare every record of every node and stretch with that of a host with frames."""
    plan = Plan.open(config)
    ours = Host(plan, Path("run"), range(len(plan.topology.nodes)))
    direct = Loop(plan)
    stretches = list(plan.stretches())
    assert {stretch.phase for stretch in stretches} == {"train", "evaluation", "inference"}
    for stretch in stretches:
        report = ours.run(stretch)
        assert report.failure is None
        assert len(report.balanced) > 0
        found = direct.run(stretch)
        assert found == report.records, stretch
        phase = stretch.phase
        counts = [len(getattr(records, phase)) for records in found.values()]
        assert counts == [stretch.rounds] * len(plan.topology.nodes)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            "training.reconstruction_gradient=full",
            "training.exchange_gradients=true",
            "evaluation.every=2",
        ],
        ["inference.missing_nodes=[b]"],
        ["method={name: imagebind, hub: b}"],
        ["method=concat-supervised"],
    ],
    ids=["default", "gradients", "one-fails", "imagebind", "concat-supervised"],
)
def test_the_loop_records_exactly_what_a_host_records(
    tiny: MakeConfig, overrides: list[str]
) -> None:
    records_agree(tiny(*overrides))


def test_the_loop_of_the_shipped_ring_too() -> None:
    records_agree(ring(6, "training.rounds=3", "inference.rounds=2", "run.backend=local"))


def test_partial_answers_occur_in_that_comparison(tiny: MakeConfig) -> None:
    """Both ends of an edge miss some rows, so that answers name their rows."""
    plan = Plan.open(tiny())
    masks = []
    send = DirectEndpoint.send

    def spied(self: DirectEndpoint, edge: int, kind: Kind, *rest: Any, **named: Any) -> None:
        masks.append((kind, rest[2] if len(rest) > 2 else named.get("mask")))
        send(self, edge, kind, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DirectEndpoint, "send", spied)
        direct = Loop(plan)
        for stretch in plan.stretches():
            direct.run(stretch)
    assert any(kind is Kind.ANSWER and mask is not None for kind, mask in masks)


@pytest.mark.long
@pytest.mark.ray
def test_actors_give_the_same_digest_as_the_loop(tiny: MakeConfig) -> None:
    values = tiny("run.backend=ray", "run.nodes_per_actor=2").model_dump(mode="json")
    real, alone = actors.whole(values)(), loop.whole(values)()
    check_same({"real": [real], "loop": [alone]})
    assert {phase: len(s) for phase, s in real["seconds"].items()} == {
        "train": 2,
        "evaluation": 1,
        "calibration": 0,
        "inference": 1,
    }
    assert real["startup_s"] > 0
    assert real["actor_mb"] > 50


def test_other_records_are_not_compared(tiny: MakeConfig) -> None:
    first, second = (
        loop.whole(tiny(f"run.seed={seed}").model_dump(mode="json"))() for seed in (0, 1)
    )
    check_same({"a": [first, first]})
    with pytest.raises(RuntimeError, match="different records"):
        check_same({"a": [first], "b": [second]})


def test_bytes_and_evaluations_are_no_part_of_a_digest() -> None:
    def digest(*lines: dict[str, Any]) -> str:
        trace = Trace()
        trace.add_lines(lines)
        return str(trace.as_dict()["digest"])

    line = {"phase": "train", "round": 0, "loss": 1.5}
    evaluation = {"phase": "evaluation", "round": 0}
    assert digest(line) == digest({**line, "bytes": 7}, evaluation)
    assert digest(line) != digest({**line, "loss": 1.5000001})


def test_the_steady_state_is_the_median_stretch_but_for_the_first() -> None:
    trace = Trace()
    for seconds, rounds in ((90.0, 2), (4.0, 2), (6.0, 2), (1.0, 1)):
        trace.add_time("train", seconds, rounds)
    assert trace.as_dict()["seconds"]["train"] == [45.0, 2.0, 3.0, 1.0]
    assert steady([45.0, 2.0, 3.0, 1.0]) == 2.0


def test_the_network_is_the_shipped_one() -> None:
    """All but the size of the evaluation, which no figure is about."""
    shipped = load_config(ROOT / "topologies" / "ring.yaml").model_dump(mode="json")
    ours = ring(6).model_dump(mode="json")
    del shipped["evaluation"], ours["evaluation"]
    assert ours == shipped


def test_a_share_trains_its_nodes_on_arrays_of_the_right_shape(tiny: MakeConfig) -> None:
    """Nodes a and b of four; a's projection for an absent neighbour comes back to a."""
    config = tiny()
    plan = Plan.open(config)
    absent = DirectEndpoint(plan.method.network, 0, {})
    edge = plan.topology.incident(0)[0].index
    sent = np.ones((16, 4), dtype=np.float32)
    absent.send(edge, Kind.PROJECTION, 3, sent)
    address = (edge, Kind.PROJECTION, 3)
    assert absent.arrived([address])
    assert absent.take([address])[edge].array is sent
    assert not absent.arrived([address])
    trace = loop.share(config.model_dump(mode="json"), [0, 1])()
    assert [len(trace["seconds"][phase]) for phase in ("train", "inference")] == [2, 0]
