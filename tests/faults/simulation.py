"""A whole network under random faults in one process, driven by a seed: a deterministic simulation.

The seed draws a small graph, a method, a dtype and faults of every kind; the nodes run by a
scheduler of the test's own, which lets any node go on that can and delivers what is under way in
random order. There is no clock: if nobody can go on, the run hangs, and that is a failure.

    python -m tests.faults.simulation 17            replays seed 17
    python -m tests.faults.simulation 0 2000        runs the seeds 0 to 1999
"""

import hashlib
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

import torch

from sheafnet.config import Config
from sheafnet.network.channel import Endpoint
from sheafnet.network.ledger import Account, Line
from sheafnet.network.switchboard import Switchboard
from sheafnet.nodes.node import Node
from sheafnet.runtime.host import rounds_of
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.report import NodeRecords
from sheafnet.validation import check_model

METHODS = ("sheafalign", "sheafalign", "sheafalign", "imagebind", "all-pairs", "local",
           "concat-supervised")  # fmt: skip
PROBABILITIES = ("loss", "duplication", "delay", "reordering", "corruption")
ROUNDS = {"train": 5, "inference": 3}


def draw_config(seed: int) -> Config:
    """A small run with faults of every kind, drawn from `seed`."""
    rng = random.Random(seed)
    nodes = [f"n{k}" for k in range(rng.randint(3, 5))]
    tree = [(rng.randrange(k), k) for k in range(1, len(nodes))]
    pairs = {*tree, *(tuple(sorted(rng.sample(range(len(nodes)), 2))) for _ in range(2))}
    edges = [[nodes[left], nodes[right]] for left, right in sorted(pairs)]
    training: dict[str, Any] = {"rounds": ROUNDS["train"], "batch_size": 4}
    method = rng.choice(METHODS)
    if method == "sheafalign" and rng.random() < 0.5:
        training |= {"exchange_gradients": True, "reconstruction_gradient": "full"}
    training["wire_dtype"] = rng.choice(["float32", "float16", "bfloat16", "int8", "int8-row"])
    if training["wire_dtype"].startswith("int8") and rng.random() < 0.5:
        training["wire_rounding"] = "stochastic"
    values: dict[str, Any] = {
        "name": "simulated",
        "dataset": {"name": "synthetic", "features": 6, "latent": 2, "classes": 2,
                    "test_events": 12},
        "nodes": nodes,
        "edges": edges,
        "method": method,
        "defaults": {"node": {"encoder": {"name": "mlp", "hidden": []}, "embedding_dim": 4}},
        "training": training,
        "inference": {"rounds": ROUNDS["inference"], "batch_size": 6, "missing_probability": 0.4},
        # What a probe learns is not what is simulated.
        "evaluation": {
            "gallery": 8, "support": 16, "few_shot": [1], "few_shot_draws": 1, "probe_steps": 3
        },
        "run": {"backend": "local", "seed": seed, "stretch": rng.randint(1, 3)},
        "faults": draw_faults(rng, nodes, edges),
    }  # fmt: skip
    if method not in ("local", "concat-supervised") and rng.random() < 0.5:
        values["inference"] |= {
            "diffusion": rng.choice(["relay", "harmonic"]),
            "diffusion_iterations": rng.choice([1, 2, 5]),
            "diffusion_tolerance": rng.choice([0.0, 0.3]),
            "wire_dtype": rng.choice(["float32", "int8"]),
        }
    return check_model(Config, values)


def draw_faults(rng: random.Random, nodes: list[str], edges: list[list[str]]) -> dict[str, Any]:
    """Every kind of fault, each with one chance in two of being there."""

    def maybe(values: list[Any]) -> list[Any]:
        return [value for value in values if rng.random() < 0.5]

    def window(**more: Any) -> dict[str, Any]:
        phase = rng.choice(["train", "inference"])
        first = rng.randrange(ROUNDS[phase])
        over = rng.choice([None, first + 1, first + 2])
        return {"rounds": [first, over], "phase": phase, **more}

    def ends() -> dict[str, Any]:
        edge = rng.sample(rng.choice(edges), 2)
        return {rng.choice(["between", "from_to"]): edge}

    def chances(most: float) -> dict[str, float]:
        return {name: rng.random() * most for name in maybe([*PROBABILITIES])}

    left, right = rng.choice(edges)
    activity: dict[str, Any] = {"probability": rng.choice([1.0, 0.8])}
    activity["schedule"] = maybe([{"between": rng.choice(edges), "every": 2, "offset": 1}])
    return {
        **chances(0.3),
        "retransmissions": rng.choice([0, 0, 1, 3]),
        "phases": rng.choice([["train"], ["inference"], ["train", "inference"]]),
        "edges": maybe([{**ends(), **chances(0.9)} for _ in range(2)]),
        "down": maybe([window(**ends()) for _ in range(2)]),
        "nodes": maybe([window(node=rng.choice(nodes)) for _ in range(2)]),
        "stragglers": maybe([{"node": rng.choice(nodes), "probability": 0.4}]),
        "partitions": maybe([window(groups=[[left], [right]])]),
        "activity": activity,
    }


class Wire:
    """What is under way, delivered in random order."""

    def __init__(self, order: random.Random) -> None:
        self.held: list[bytes] = []
        self.order = order

    def send(self, node: int, buffer: bytes) -> None:
        del node  # the frame says whose it is
        self.held.append(buffer)

    def release(self) -> bytes:
        return self.held.pop(self.order.randrange(len(self.held)))


class Simulation:
    """One run of `config`, with what is under way delivered in the order of `order`."""

    def __init__(self, config: Config, order: int) -> None:
        self.plan = Plan.open(config)
        network = self.plan.method.network
        self.wire = Wire(random.Random(order))
        self.board = Switchboard(network)
        self.nodes: list[Node] = []
        links = self.plan.links
        for spec in self.plan.topology.nodes:
            limits = self.plan.limits("r")
            end = Endpoint(network, spec.index, limits, self.wire, links=links)
            self.board.attach(end)
            node = Node(config, self.plan.method, spec.index, self.plan.dataset, end, links=links)
            self.nodes.append(node)
        self.records = {node.spec.index: NodeRecords() for node in self.nodes}
        self.account, self.lines = Account(), list[Line]()

    def run(self) -> "Simulation":
        """All stretches; after each the books of its rounds are closed."""
        for stretch in self.plan.stretches():
            self._drive(
                {
                    n.spec.index: rounds_of(n, stretch, self.records[n.spec.index])
                    for n in self.nodes
                }
            )
            self.account.post(self.board.drain())
            self.lines += self.account.settle()
            assert self.account.close() == [], f"{stretch}: lines are open after their rounds"
        return self

    def _drive(self, programs: dict[int, Any]) -> None:
        waiting = {index: next(program) for index, program in programs.items()}
        while waiting:
            able = [k for k, need in waiting.items() if self.nodes[k].endpoint.arrived(need)]
            if self.wire.held and (not able or self.wire.order.random() < 0.5):
                self.board.deliver(self.wire.release())
                continue
            assert able, f"nobody can go on: {waiting}"
            chosen = self.wire.order.choice(able)
            mail = self.nodes[chosen].endpoint.take(waiting.pop(chosen))
            try:
                waiting[chosen] = programs[chosen].send(mail)
            except StopIteration:
                continue
        assert not self.wire.held, "something was sent that nobody waits for"

    def digest(self) -> str:
        """Of every record, count and parameter."""
        found = hashlib.blake2b()
        for node in self.nodes:
            found.update(json.dumps(asdict(self.records[node.spec.index])).encode())
            for name, array in node.parameters().items():
                found.update(name.encode() + array.tobytes())
        for line in self.lines:
            fates = sorted(line.fates.items())
            found.update(repr((line.key, fates)).encode())
        return found.hexdigest()


def check(seed: int) -> Counter[str]:
    """Run `seed` in two orders of delivery and check what must hold; messages by fate.

    Raises:
        AssertionError: with the command that replays it.
    """
    try:
        return _check(seed)
    except Exception as error:
        raise AssertionError(
            f"python -m tests.faults.simulation {seed}   fails: {type(error).__name__}: {error}"
        ) from error


def _check(seed: int) -> Counter[str]:
    config = draw_config(seed)
    first = Simulation(config, order=seed).run()
    again = Simulation(config, order=seed + 1).run()
    assert first.digest() == again.digest(), "the order of delivery changes the result"
    _check_liveness(first)
    _check_books(first)
    _check_healed(first)
    fates: Counter[str] = Counter()
    for line in first.lines:
        fates.update({fate: count.messages for fate, count in line.fates.items()})
    return fates


def _check_liveness(run: Simulation) -> None:
    """Every node finished every round, and said so."""
    for records in run.records.values():
        for phase, found in (("train", records.train), ("inference", records.inference)):
            assert [r.round for r in found] == list(range(ROUNDS[phase])), phase
        assert len(records.evaluation) == 1
    assert run.board.rejected == 0, list(run.board.rejections)


def _check_books(run: Simulation) -> None:
    """Per directed edge and round; and what was missed is what the records say."""
    missed: Counter[str] = Counter()
    for line in run.lines:
        fates = ("delivered", "late", "dropped", "rejected")
        sums = [sum(line.of(f)[k] for f in fates) for k in range(4)]
        assert tuple(sums) == line.of("sent"), line
        assert line.of("duplicated").messages <= line.of("delivered").messages, line
        missed[line.key.phase] += line.of("missed").messages
    assert run.account.lost == 0
    for phase in ("train", "inference"):
        counted = sum(r.missed for n in run.records.values() for r in getattr(n, phase))
        assert counted == missed[phase], phase


def _check_healed(run: Simulation) -> None:
    """Where nothing is random and no window holds, every edge that is there delivers."""
    faults, links = run.plan.config.faults, run.plan.links
    assert faults is not None
    assert links is not None
    windows = [*faults.down, *faults.nodes, *faults.partitions]
    for line in run.lines:
        key = line.key
        if key.phase in faults.phases or any(w.holds(key.phase, key.round) for w in windows):
            continue
        assert line.of("delivered") == line.of("sent"), line
        assert line.of("missed").messages == 0, line


def main(arguments: list[str]) -> None:
    """Replay one seed, or run a range of them."""
    torch.set_num_threads(1)
    first, *rest = map(int, arguments)
    begin, fates = time.monotonic(), Counter[str]()
    seeds = range(first, rest[0]) if rest else range(first, first + 1)
    for seed in seeds:
        fates.update(check(seed))
    if not rest:
        print(json.dumps(draw_config(first).model_dump(mode="json", exclude_none=True)["faults"]))
    print(f"{len(seeds)} seeds in {time.monotonic() - begin:.1f} s: {dict(fates)}")


if __name__ == "__main__":
    main(sys.argv[1:])
