"""What a message, a round, a start and an actor cost, each beside a reference of the same run.

    .venv/bin/python experiments/costs.py [--rounds 300] [--json]

Messages: 16 KiB from one process to another, one after the other, through an endpoint, its frame,
checks and ledger, over the sockets; beside it the same bytes through bare ZeroMQ sockets.
Rounds: the ring of 6 with an actor per node, and with two actors, beside the local backend (one
process, one thread), in turn.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import zmq

import sheafnet
from sheafnet.config import Config
from sheafnet.network.channel import Endpoint
from sheafnet.network.frame import Kind
from sheafnet.network.sockets import SocketAddress, SocketHub
from sheafnet.network.switchboard import Switchboard
from sheafnet.runtime.plan import Plan

RING = Path(__file__).parent.parent / "topologies" / "ring.yaml"
MESSAGES = 4000
SENDER, RECEIVER = 0, 1


def two_nodes() -> Plan:
    """A network of two nodes whose messages are 128 x 32 float32: 16 KiB."""
    return Plan.open(
        Config.model_validate(
            {
                "name": "pair",
                "dataset": {"name": "synthetic"},
                "nodes": ["a", "b"],
                "edges": [["a", "b"]],
            }
        )
    )


def echo_frames(folder: str) -> None:
    """The other end: take each projection and send one back."""
    _exchange(folder, RECEIVER)


def _exchange(folder: str, me: int) -> float:
    plan = two_nodes()
    hub = SocketHub(f"ipc://{folder}/f{me}", {SENDER: SENDER, RECEIVER: RECEIVER})
    hub.connect({1 - me: SocketAddress(f"ipc://{folder}/f{1 - me}")})
    board = Switchboard(plan.topology, hub)
    endpoint = Endpoint(plan.topology, me, plan.limits("costs"), board)
    board.attach(endpoint)
    values = np.random.default_rng(me).normal(size=(128, 32)).astype(np.float32)
    times = []
    for round_ in range(MESSAGES):
        start = time.perf_counter()
        address = [(0, Kind.PROJECTION, round_)]
        if me == SENDER:
            endpoint.send(0, Kind.PROJECTION, round_, values)
        while not endpoint.arrived(address):
            for buffer in hub.receive(60.0):
                board.deliver(buffer)
        endpoint.take(address)
        if me == RECEIVER:
            endpoint.send(0, Kind.PROJECTION, round_, values)
        times.append(time.perf_counter() - start)
    time.sleep(0.2)
    hub.close()
    return statistics.median(times[MESSAGES // 10 :]) / 2


def echo_raw(folder: str) -> None:
    """The other end of the reference."""
    _exchange_raw(folder, RECEIVER)


def _exchange_raw(folder: str, me: int) -> float:
    context = zmq.Context()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    pull.bind(f"ipc://{folder}/r{me}")
    push.connect(f"ipc://{folder}/r{1 - me}")
    buffer, times = bytes(128 * 32 * 4), []
    for _ in range(MESSAGES):
        start = time.perf_counter()
        if me == SENDER:
            push.send(buffer)
        pull.recv()
        if me == RECEIVER:
            push.send(buffer)
        times.append(time.perf_counter() - start)
    time.sleep(0.2)
    push.close(linger=0)
    pull.close(linger=0)
    context.term()
    return statistics.median(times[MESSAGES // 10 :]) / 2


def message_costs() -> dict[str, float]:
    """Median microseconds one way, frames and bare sockets in turn, best of three of each."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, list[float]] = {"frame": [], "raw": []}
    for _ in range(3):
        for name, other, own in (
            ("raw", echo_raw, _exchange_raw),
            ("frame", echo_frames, _exchange),
        ):
            with tempfile.TemporaryDirectory() as folder:
                process = spawn.Process(target=other, args=(folder,))
                process.start()
                found[name].append(own(folder, SENDER) * 1e6)
                process.join()
    frame, raw = (min(found[name]) for name in ("frame", "raw"))
    return {"message_us": frame, "raw_zeromq_us": raw, "ratio": frame / raw}


def round_costs(rounds: int) -> dict[str, float]:
    """Milliseconds a training round, backends in turn, median of three; and the actors' costs."""
    found: dict[str, list[sheafnet.Summary]] = {"local": [], "actors": [], "packed": []}
    for _ in range(3):
        for name, overrides in (
            ("local", ["run.backend=local"]),
            ("actors", ["run.nodes_per_actor=1"]),
            ("packed", ["run.nodes_per_actor=3"]),
        ):
            with tempfile.TemporaryDirectory() as folder:
                chosen = [f"training.rounds={rounds}", "inference.rounds=1", *overrides]
                config = sheafnet.load_config(RING, chosen)
                result = sheafnet.simulate(config, run_dir=Path(folder) / "run")
                found[name].append(result.summary)
    ms = {
        name: statistics.median(s.timing.train_round_ms or 0.0 for s in summaries)
        for name, summaries in found.items()
    }
    return {
        "local_round_ms": ms["local"],
        "actors_round_ms": ms["actors"],
        "actors_to_local": ms["actors"] / ms["local"],
        "packed_to_local": ms["packed"] / ms["local"],
        "startup_s": statistics.median(s.timing.startup_s for s in found["actors"]),
        "actor_mb_max": max(s.memory.actor_mb_max for s in found["actors"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = message_costs() | round_costs(chosen.rounds)
    if chosen.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:18} {value:10.2f}")


if __name__ == "__main__":
    main()
