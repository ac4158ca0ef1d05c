"""Law 3: only projections cross, and nothing that is not of the run harms it."""

import json
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sheafnet.network import switchboard
from sheafnet.network.frame import Frame, Kind, decode, encode
from sheafnet.network.payload import WireDtype
from sheafnet.nodes.node import Node
from sheafnet.runtime.coordinator import Coordinator
from sheafnet.runtime.machines import this_machine
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.pool import LocalPool
from sheafnet.runtime.ray_cluster import RaySession
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig, artifacts, run_artifacts


def tapped(config, directory: Path, monkeypatch) -> tuple[list[bytes], list[np.ndarray]]:
    """Every buffer of a local run, and every section that any node computed."""
    buffers: list[bytes] = []
    sections: list[np.ndarray] = []
    deliver, encode_section = switchboard.Switchboard.deliver, Node.sections

    def tap(self, buffer):
        buffers.append(buffer)
        deliver(self, buffer)

    def watch(self, split, events):
        result = encode_section(self, split, events)
        sections.append(result.detach().numpy().copy())
        return result

    monkeypatch.setattr(switchboard.Switchboard, "deliver", tap)
    monkeypatch.setattr(Node, "sections", watch)
    plan = Plan.open(config)
    coordinator = Coordinator(
        plan, LocalPool(plan, Path("r")), RunDirectory.create(config, directory)
    )
    coordinator.start()
    while coordinator.step() is not None:
        pass
    return buffers, sections


def test_every_buffer_is_a_frame_of_the_method_and_of_its_edges_size(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    topology = Plan.open(config).topology
    buffers, _ = tapped(config, tmp_path / "run", monkeypatch)
    frames = [decode(buffer) for buffer in buffers]
    kinds = Counter(frame.kind for frame in frames)
    # 5 edges, both directions; 6 rounds of training, one of evaluation.
    assert kinds[Kind.PROJECTION] == 6 * 10
    assert kinds[Kind.GALLERY] == kinds[Kind.PROTOTYPES] == 10
    assert kinds[Kind.GRADIENT] == 0
    assert kinds[Kind.REQUEST] == kinds[Kind.ANSWER] > 0
    assert kinds[Kind.ESTIMATE] == kinds[Kind.CALIBRATION] == 0
    for frame in frames:
        dim = topology.edges[frame.edge].dim
        assert len(frame.payload) == 4 * dim * frame.rows
        if frame.kind is Kind.REQUEST:
            assert frame.rows == 0


@pytest.mark.parametrize("diffusion", ["relay", "harmonic"])
def test_of_an_estimate_too_only_the_projection_crosses(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diffusion: str
) -> None:
    estimates: list[np.ndarray] = []
    project = Node.project

    def watch(self, section):
        estimates.append(section.numpy().copy())
        return project(self, section)

    config = tiny("inference.diffusion_iterations=3", f"inference.diffusion={diffusion}")
    topology = Plan.open(config).topology
    monkeypatch.setattr(Node, "project", watch)
    buffers, sections = tapped(config, tmp_path / "run", monkeypatch)
    frames = [decode(buffer) for buffer in buffers]
    told = [frame for frame in frames if frame.kind is Kind.ESTIMATE]
    # 4 rounds of 3 steps; at most as many each way over 5 edges.
    assert {divmod(f.round, 256) for f in told} == {(r, s) for r in range(4) for s in (1, 2, 3)}
    assert 0 < len(told) <= 4 * 3 * 10
    assert all(len(f.payload) == 4 * topology.edges[f.edge].dim * f.rows for f in told)
    wire = b"".join(buffers)
    assert not any(row.tobytes() in wire for rows in [*sections, *estimates] for row in rows[:8])


def test_no_section_of_any_node_is_in_any_buffer(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers, sections = tapped(tiny(), tmp_path / "run", monkeypatch)
    wire = b"".join(buffers)
    assert len(sections) > 20
    for section in sections:
        for row in section[:8]:
            assert row.tobytes() not in wire
    # The search would find one that had crossed.
    assert sections[0][0].tobytes() in wire + sections[0].tobytes()


def strangers(plan: Plan, run: str) -> list[bytes]:
    """Frames that no honest neighbour sends, and bytes that are none."""
    limits = plan.limits(run)
    edge = plan.topology.edges[0]
    values = np.ones((16, edge.dim), dtype="<f4")
    honest = Frame(
        Kind.PROJECTION, limits.run, 0, 2, 0, 0, WireDtype.FLOAT32, 16, None, values.tobytes()
    )

    def changed(**fields: object) -> bytes:
        names = Frame.__slots__
        return encode(Frame(**({n: getattr(honest, n) for n in names} | fields)))  # type: ignore[arg-type]

    section = np.ones((16, plan.topology.nodes[0].dim), dtype="<f4")
    nan = values.copy()
    nan[3, 1] = np.nan
    whole = encode(honest)
    return [
        b"",
        b"hello",
        whole[:-1],
        whole + b"\0",
        bytes([*whole[:40], whole[40] ^ 1, *whole[41:]]),
        changed(run=limits.run ^ 1),
        changed(edge=999),
        changed(payload=section.tobytes()),
        changed(payload=nan.tobytes()),
        changed(kind=Kind.GRADIENT),
        changed(rows=17, payload=b"\0" * 4 * 17 * edge.dim),
        changed(dtype=WireDtype.INT8),
        changed(kind=Kind.REQUEST, dtype=WireDtype.NONE, rows=0, payload=b"", mask=None),
        b"\x9b" * 100_000,
    ]


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_strangers_on_the_sockets_of_real_actors_are_refused(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    quiet = run_artifacts(tiny(), tmp_path / "quiet")
    config = tiny("run.backend=ray", "run.nodes_per_actor=2")
    plan = Plan.open(config)
    directory = RunDirectory.create(config, tmp_path / "hostile")
    with RaySession(plan, directory, [this_machine(config)]) as session:
        session.start()
        sent = inject(session._scratch.path, strangers(plan, directory.path.name))
        while session.step() is not None:
            pass
        summary = session.finish(0.0, 0.0)
    directory.mark("finished")
    assert summary.communication.rejected_frames == sent == 14 * 2  # actors
    assert summary.communication.lost_messages == 0
    hostile = artifacts(directory.path)
    assert quiet["summary"]["communication"].pop("rejected_frames") == 0
    assert hostile["summary"]["communication"].pop("rejected_frames") == sent
    for found in (quiet, hostile):
        lines = [json.loads(line) for line in found["ledger"]]
        refused = sum(line.pop("rejected", {}).get("messages", 0) for line in lines)
        assert (refused > 0) is (found is hostile)
        found["ledger"] = [line for line in lines if line.keys() > {"phase", "round", "edge"}]
    assert hostile == quiet


def inject(folder: Path, buffers: list[bytes]) -> int:
    """Send `buffers` to every socket in `folder`; returns how many were handed over."""
    paths = sorted(folder.iterdir())
    for path in paths:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            for buffer in buffers:
                stranger.sendall(len(buffer).to_bytes(4, "little") + buffer)
    return len(paths) * len(buffers)
