"""Estimates beyond one hop: the dense solution, the hops, the messages and bytes by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch

import sheafnet
from sheafnet.config import Config
from sheafnet.network.channel import Endpoint
from sheafnet.network.frame import Kind
from sheafnet.nodes import diffusion, inference
from sheafnet.nodes.events import inference_events, missing_rows
from sheafnet.runtime.plan import Plan
from sheafnet.validation import check_model
from tests.faults.simulation import Simulation

Array = npt.NDArray[np.floating]
NEVER_AGAIN = 1e9
"""A tolerance that no estimate exceeds: every row is told once."""


def config_of(graph: dict[str, Any], dim: float = 1.0, **sections: Any) -> Config:
    """Small linear nodes of 4 dimensions."""
    values = {
        "name": "wide",
        "dataset": {"name": "synthetic", "features": 6, "latent": 2, "classes": 2,
                    "test_events": 12},
        "graph": {"prefix": "n"} | graph,
        "defaults": {
            "node": {"encoder": {"name": "mlp", "hidden": []}, "embedding_dim": 4},
            "edge": {"comparison_dim": dim},
        },
        "training": {"rounds": 0, "batch_size": 8},
        "inference": {"rounds": 1, "batch_size": 3} | sections.pop("inference"),
        "evaluation": {
            "gallery": 8, "support": 16, "few_shot": [1], "few_shot_draws": 1, "probe_steps": 3
        },
        "run": {"backend": "local"} | sections.pop("run", {}),
    }  # fmt: skip
    return check_model(Config, values | sections)


class Run(Simulation):
    """A run in one process that remembers what every node estimated in the last round."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, order=1)
        self.estimates: dict[int, Array] = {}

    def run(self) -> "Run":
        real = inference.diffuse

        def watched(node: Any, *args: Any) -> Any:
            section, late = yield from real(node, *args)
            self.estimates[node.spec.index] = section.numpy()
            return section, late

        with patch.object(inference, "diffuse", watched):
            super().run()
        return self

    def sections(self) -> list[Array]:
        """The true ones, of every node and event of the last round."""
        chosen = self.plan.config.inference
        events = inference_events(chosen, chosen.rounds - 1, 12)
        return [node.labelled("test", events).section.numpy() for node in self.nodes]


def extension(run: Run, row: int, missing: Sequence[int], truth: Sequence[Array]) -> Array:
    """The dense harmonic extension of one event: stack P x = P x of all edges, and solve."""
    sizes = [node.spec.dim for node in run.nodes]
    starts = np.cumsum([0, *sizes])
    rows = []
    for edge in run.plan.topology.edges:
        block = np.zeros((edge.dim, starts[-1]))
        for end, sign in ((edge.tail, 1.0), (edge.head, -1.0)):
            node = run.nodes[end]
            position = [e.index for e in node.edges].index(edge.index)
            weight = node.restrictions[position].weight.detach().numpy()
            block[:, starts[end] : starts[end + 1]] = sign * weight
        rows.append(block)
    whole = np.vstack(rows)
    unknown = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in missing])
    known = np.setdiff1d(np.arange(starts[-1]), unknown)
    given = np.concatenate([section[row] for section in truth])[known]
    solved, _, rank, _ = np.linalg.lstsq(whole[:, unknown], -whole[:, known] @ given, rcond=None)
    assert rank == len(unknown), "the extension is not unique"
    return np.asarray(solved)


@pytest.mark.parametrize(
    ("graph", "missing"),
    [
        ({"generator": "ring", "nodes": 6}, [1, 2, 3]),
        ({"generator": "ring", "nodes": 5}, [0, 1, 3, 4]),
        ({"generator": "grid", "nodes": 9}, [1, 3, 4, 5, 7]),
        ({"generator": "grid", "nodes": 12}, [0, 1, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_harmonic_converges_to_the_dense_solution(
    graph: dict[str, Any], missing: list[int], seed: int
) -> None:
    errors = []
    for iterations in (0, 20, 255):
        chosen = {
            "missing_nodes": [f"n{k}" for k in missing],
            "diffusion": "harmonic",
            "diffusion_iterations": max(1, iterations),
            "diffusion_tolerance": 0.0,
        }
        run = Run(config_of(graph, inference=chosen, run={"seed": seed}))
        noise = torch.Generator().manual_seed(seed)
        for node in run.nodes:
            for restriction in node.restrictions:
                weight = restriction.weight
                weight.data += 0.1 * torch.randn(weight.shape, generator=noise)
        run.run()
        truth = run.sections()
        worst = 0.0
        for row in range(3):
            solved = extension(run, row, missing, truth)
            found = np.concatenate([run.estimates[n][row] for n in missing])
            worst = max(worst, float(np.abs(found - solved).max()))
        errors.append(worst)
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 0.1
    assert errors[2] < 2e-3


@pytest.mark.parametrize("iterations", range(6))
def test_relay_reaches_a_hop_more_with_every_iteration(iterations: int) -> None:
    """On a line only n0 has its modality: n1 is answered, n2 is reached by the first iteration.

    What is reached just now is the chain of ridge maps from n0 to there.
    """
    chosen = {
        "missing_nodes": [f"n{k}" for k in range(1, 7)],
        "diffusion_iterations": max(1, iterations),
    }
    training = {"rounds": 12, "batch_size": 8}
    line = {"generator": "line", "nodes": 7}
    run = Run(config_of(line, 0.5, inference=chosen, training=training)).run()
    reached = [
        not np.array_equal(
            run.estimates[k], np.tile(run.nodes[k].moments.mean_section.numpy(), (3, 1))
        )
        for k in range(1, 7)
    ]
    last = max(1, iterations) + 1
    assert reached == [k <= last for k in range(1, 7)]
    section = torch.from_numpy(run.sections()[0])
    for k in range(1, min(last, 6) + 1):
        sent = run.nodes[k - 1].project(section)[-1]
        weight, offset = run.nodes[k].moments.ridge([0], run.plan.config.inference.ridge)
        section = sent @ weight.T + offset
    if last <= 6:
        assert np.allclose(run.estimates[last], section.numpy(), atol=1e-5)


def test_without_a_missing_neighbour_relay_is_ridge_and_nothing_more_is_sent(
    tmp_path: Path,
) -> None:
    ring = {"generator": "ring", "nodes": 6}
    training = {"rounds": 12, "batch_size": 8}
    apart = {"missing_nodes": ["n0", "n3"], "estimator": "ridge"}
    used = {"diffusion_iterations": 9, "estimator": "diffusion"}
    told = [
        sheafnet.simulate(
            config_of(ring, 0.5, inference=apart | more, training=training), run_dir=tmp_path / name
        ).summary
        for name, more in (("one-hop", {}), ("diffusion", used))
    ]
    assert told[0].communication == told[1].communication
    estimators = told[1].missing.estimators
    assert told[1].missing.estimator == "diffusion"
    assert told[1].missing.nmse == estimators["diffusion"].nmse < 1
    assert estimators["diffusion"].nmse == estimators["ridge"].nmse
    assert estimators["diffusion"].accuracy == estimators["ridge"].accuracy
    assert {k: v for k, v in estimators.items() if k != "diffusion"} == told[0].missing.estimators


@pytest.mark.parametrize("diffusion", ["relay", "harmonic"])
def test_messages_and_bytes_by_hand(tmp_path: Path, diffusion: str) -> None:
    """n1, n2 and n3 of a ring of six miss all three events, of 4 values in float32 each.

    Each asks both neighbours: 22 + 1 bytes a request. n0 and n4 answer with 3 rows, 21 + 48; n1, n2
    and n3 one another with none, 22. In each of 10 steps an estimate goes each way over n1~n2 and
    n2~n3. It has rows once: from n1 and n3 in the first step, from n2, which knows nothing before,
    in the second. Those 3 rows need no mask, 21 + 48; none are told by a mask without rows, 22.
    """
    chosen = {
        "missing_nodes": ["n1", "n2", "n3"],
        "diffusion": diffusion,
        "diffusion_iterations": 10,
        "diffusion_tolerance": NEVER_AGAIN,
    }
    config = config_of({"generator": "ring", "nodes": 6}, inference=chosen)
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    found = summary.communication.inference
    assert found.messages == 6 + 6 + 40
    assert found.control_bytes == 6
    assert found.payload_bytes == 48 * (2 + 4) == found.floor_bytes
    assert found.framing_bytes == 6 * 22 + (2 * 21 + 4 * 22) + (4 * 21 + 36 * 22)
    assert found.bytes_per_inferred_sample == found.bytes_total / 9
    assert summary.missing.unanswered == 3
    lines = list(sheafnet.RunDirectory.open(tmp_path / "run").lines("ledger"))
    inner = [n for n in lines if n["phase"] == "inference" and n["edge"] == "n1->n2"]
    assert [(n["round"], n["sent"]["messages"]) for n in inner] == [(0, 12)]


def test_a_row_is_told_again_once_it_has_moved() -> None:
    peer = diffusion._Peer(3, 2)
    first = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    assert peer.news(first, 0.5).tolist() == [True, True, True]
    peer.knows(first, np.array([True, False, True]))
    assert peer.news(first, 0.0).tolist() == [False, True, False]  # the second was not got
    moved = first + np.float32([[0.0, 5.0], [0.0, 0.0], [0.0, 0.5]])
    # From (3, 4) to (3, 9): 5 of a length of 9.487, 0.527; from nothing to a length of 0.5: all.
    assert peer.news(moved, 0.53).tolist() == [False, True, True]
    assert peer.news(moved, 0.52).tolist() == [True, True, True]
    assert peer.news(moved, 1.0).tolist() == [False, True, False]
    peer.knows(moved, np.array([False, True, False]))
    again = moved + np.float32([[0.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    # Counted from what the neighbour has, not from the step before: 10 of 14.318, 0.698.
    assert peer.news(again, 0.69).tolist() == [True, False, True]
    assert peer.news(again, 0.70).tolist() == [False, False, True]


@pytest.mark.parametrize("kind", ["relay", "harmonic"])
def test_without_tolerance_the_estimates_are_those_of_telling_all(kind: str) -> None:
    chosen = {"missing_probability": 0.6, "diffusion": kind, "diffusion_iterations": 7}
    training = {"rounds": 12, "batch_size": 8}
    grid = {"generator": "grid", "nodes": 9}
    whole, sent = [], []
    for tolerance in (0.0, 0.3):
        config = config_of(
            grid, 0.5, inference=chosen | {"diffusion_tolerance": tolerance}, training=training
        )
        for tell_all in (False, True):
            with patch.object(
                diffusion._Peer,
                "news",
                (lambda _self, p, _t: np.ones(len(p), dtype=np.bool_))
                if tell_all
                else diffusion._Peer.news,
            ):
                run = Run(config).run()
            whole.append(run.estimates)
            payload = [n.of("sent").payload for n in run.lines if n.key.phase == "inference"]
            sent.append(sum(payload))
    for node in range(9):
        assert np.array_equal(whole[0][node], whole[1][node])
        assert np.array_equal(whole[1][node], whole[3][node])
    assert sent[2] < sent[0] <= sent[1] == sent[3]
    assert any(not np.array_equal(whole[0][node], whole[2][node]) for node in range(9))


@pytest.mark.parametrize(("wire_dtype", "item", "scale"), [("float16", 2, 0), ("int8", 1, 4)])
@pytest.mark.parametrize("probability", [0.3, 0.8])
def test_the_floor_is_what_is_sent_and_what_a_search_says(
    tmp_path: Path, wire_dtype: str, item: int, scale: int, probability: float
) -> None:
    """A row is told once: in step s if the nearest node that has it is s hops off."""
    chosen = {
        "rounds": 2, "batch_size": 5, "missing_probability": probability,
        "wire_dtype": wire_dtype, "diffusion_iterations": 3, "diffusion_tolerance": NEVER_AGAIN,
    }  # fmt: skip
    config = config_of({"generator": "grid", "nodes": 9}, 0.5, inference=chosen)
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    topology, expected = Plan.open(config).topology, 0
    for round_ in range(2):
        masks = [missing_rows(config.inference, 0, n, round_) for n in topology.nodes]
        distance = np.full((9, 5), 99)
        for row in range(5):
            queue = [n for n in range(9) if not masks[n][row]]
            distance[queue, row] = 0
            while queue:
                node = queue.pop(0)
                for edge in topology.incident(node):
                    other = edge.other(node)
                    if distance[other, row] == 99:
                        distance[other, row] = distance[node, row] + 1
                        queue.append(other)
        for edge in topology.edges:
            for sender, asker in ((edge.tail, edge.head), (edge.head, edge.tail)):
                sizes = [(masks[asker] & ~masks[sender]).sum()]
                for step in (1, 2, 3):
                    both = masks[asker] & masks[sender] & (distance[sender] == step)
                    sizes.append(both.sum())
                expected += sum(int(n) * edge.dim * item + scale for n in sizes if n)
    assert summary.communication.inference.payload_bytes == expected
    assert summary.communication.inference.floor_bytes == expected


def test_a_way_that_is_down_closes_both(tmp_path: Path) -> None:
    """n0-n1-n2, of which n0 alone has it, and nothing gets from n1 to n2.

    n2 asks n1, whose answer is dropped, so that no estimate follows it; n1's request to n2 is
    dropped, so that n2 neither answers nor estimates. In 2 rounds of 4 steps n1 misses an answer
    and 4 estimates, n2 a request, an answer and 4 estimates.
    """
    faults = {"down": [{"from_to": ["n1", "n2"], "rounds": [0, None], "phase": "inference"}]}
    chosen = {"rounds": 2, "missing_nodes": ["n1", "n2"], "diffusion_iterations": 4}
    config = config_of({"generator": "line", "nodes": 3}, inference=chosen, faults=faults)
    found = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    fates = found.communication.inference.fates
    assert fates["sent"].messages == 2 * (2 + 3)  # of n0-n1; of n1-n2
    assert fates["dropped"].messages == 2 * 2
    assert fates["missed"].messages == 2 * (1 + 4 + 1 + 1 + 4)
    assert found.missing.per_node["n2"].unanswered == 6


def test_what_was_answered_stays_beside_what_is_estimated() -> None:
    answered = torch.tensor([True, False, False, True])
    true, guessed = torch.tensor([[1.0, 2.0], [7.0, 8.0]]), torch.tensor([[3.0, 4.0], [9.0, 9.0]])
    here = torch.tensor([False, True, False, True])  # of the last row it has both
    known, rows = diffusion._over((answered, true), (here, guessed))
    assert known.tolist() == [True, True, False, True]
    assert rows.tolist() == [[1.0, 2.0], [3.0, 4.0], [7.0, 8.0]]
    assert diffusion._over(None, (here, guessed)) == (here, guessed)
    assert diffusion._over((here, guessed), None) == (here, guessed)


def test_what_is_lost_is_told_again() -> None:
    """n0-n1-n2: n1 tells n2 of three rows in every step until n2 has got them, and never again."""
    line, training = {"generator": "line", "nodes": 3}, {"rounds": 12, "batch_size": 8}
    chosen = {
        "missing_nodes": ["n1", "n2"],
        "diffusion_iterations": 3,
        "diffusion_tolerance": NEVER_AGAIN,
    }
    faults = {"phases": ["inference"], "edges": [{"from_to": ["n1", "n2"], "loss": 0.5}]}
    seen = set()
    for seed in range(24):
        config = config_of(
            line, 0.5, inference=chosen, training=training, faults=faults, run={"seed": seed}
        )
        run = Run(config)
        assert run.plan.links is not None
        fates = [run.plan.links.attempts(Kind.ESTIMATE, step, 1, 0) for step in (1, 2, 3)]
        request = run.plan.links.attempts(Kind.REQUEST, 0, 1, 0)
        if () in fates:  # not there at all where the answer before it was lost
            continue
        told = []
        real = Endpoint.send

        def watched(end: Endpoint, edge: int, kind: Kind, *args: Any, **more: Any) -> bool:
            if kind is Kind.ESTIMATE and (end.node, edge) == (1, 1):
                told.append(len(args[1]))  # noqa: B023
            return real(end, edge, kind, *args, **more)  # noqa: B023

        with patch.object(Endpoint, "send", watched):
            run.run()
        lost = [fate == ("dropped",) for fate in fates]
        until = lost.index(False) + 1 if False in lost else 3
        assert told == [3] * until + [0] * (3 - until)
        mean = np.tile(run.nodes[2].moments.mean_section.numpy(), (3, 1))
        assert np.array_equal(run.estimates[2], mean) is all(lost)
        assert run.records[2].inference[0].missed == [*fates, request].count(("dropped",))
        seen.add((until, all(lost)))
    assert seen >= {(1, False), (2, False), (3, True)}
