"""d_ij chosen by a pilot: what neighbours share, under a threshold or a budget."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import sheafnet
from sheafnet.datasets import synthetic
from sheafnet.errors import ConfigError, RunDirectoryError
from sheafnet.nodes.alignment import canonical_correlations
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.pilot import chosen_dims, correlations, round_bytes, wants_pilot
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.topology import build_topology
from tests.conftest import MakeConfig, artifacts, of_phase

AUTO = ("defaults.edge.comparison_dim=auto", "pilot.rounds=4")


def test_canonical_correlations_are_those_of_the_population() -> None:
    """Two views of three shared latents with noise, seen through matrices that mix everything."""
    random = np.random.default_rng(0)
    rho = np.array([0.95, 0.6, 0.2])
    n = 20000
    latent = random.standard_normal((n, 3))
    other = rho * latent + np.sqrt(1 - rho**2) * random.standard_normal((n, 3))
    a = np.hstack([latent, random.standard_normal((n, 2))]) @ random.standard_normal((5, 5)) + 3
    b = np.hstack([other, random.standard_normal((n, 1))]) @ random.standard_normal((4, 4)) - 1
    found = canonical_correlations(torch.from_numpy(a), torch.from_numpy(b))
    assert len(found) == 4
    np.testing.assert_allclose(found[:3], rho, atol=0.03)
    assert found[3] < 0.03


def test_what_is_shared_by_chance_is_near_nothing() -> None:
    """Within a sample of 60 rows, 20 independent dimensions correlate by up to about 0.9."""
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(60, 20, generator=generator) for _ in range(2))
    centred = [(x - x.mean(0)).double() for x in (own, other)]
    q = [torch.linalg.qr(x)[0] for x in centred]
    assert float(torch.linalg.svdvals(q[0].T @ q[1])[0]) > 0.8
    found = canonical_correlations(own, other)
    assert max(found) < 0.4
    assert found == sorted(found, reverse=True)
    assert all(0 <= rho <= 1 for rho in found)
    assert canonical_correlations(own, torch.zeros(60, 3)) == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.fixture
def piloted(tiny: MakeConfig, tmp_path: Path):
    """A run of the tiny network with overrides; its summary and folder."""

    def go(*overrides: str):
        run = tmp_path / "run"
        return sheafnet.simulate(tiny(*AUTO, *overrides), run_dir=run).summary, run

    return go


def test_a_threshold_keeps_what_is_above_it(piloted, tiny: MakeConfig) -> None:
    summary, run = piloted("pilot.threshold=0.3")
    config = tiny(*AUTO, "pilot.threshold=0.3")
    topology = build_topology(config)
    pilot = RunDirectory.open(run / "pilot").summary()
    assert pilot is not None
    dims = {}
    for edge in topology.edges:
        both = [
            pilot["alignment"]["per_edge"][topology.arrow(edge.index, d)]["canonical_correlations"]
            for d in (0, 1)
        ]
        assert len(both[0]) == 4  # d/2 in the pilot
        np.testing.assert_allclose(both[0], both[1], atol=1e-4)  # either end finds the same
        kept = sum((x + y) / 2 >= 0.3 for x, y in zip(*both, strict=True))
        dims[topology.edge_name(edge.index)] = max(1, kept)
    assert summary.pilot is not None
    assert summary.pilot.comparison_dims == dims
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert [edge["comparison_dim"] for edge in written["edges"]] == list(dims.values())
    # The bytes of a training round by hand: 16 rows, float32, two messages an edge.
    assert summary.communication.train.payload_bytes == 6 * sum(
        2 * 16 * 4 * d for d in dims.values()
    )


def test_every_byte_of_the_pilot_is_told(piloted) -> None:
    summary, run = piloted()
    lines = list(RunDirectory.open(run / "pilot").lines("rounds"))
    assert len(of_phase(lines, "train")) == 4
    assert of_phase(lines, "inference") == []
    assert summary.pilot.rounds == 4
    assert summary.pilot.bytes_total == sum(line["bytes"] for line in lines)
    assert json.loads((run / "summary.json").read_text())["pilot"]["rounds"] == 4


def test_a_budget_is_kept_and_spent(piloted, tiny: MakeConfig) -> None:
    budget = 2000
    summary, run = piloted(f"pilot.budget={budget}")
    spent = summary.communication.train.bytes_per_round
    config = tiny(*AUTO, f"pilot.budget={budget}")
    another = round_bytes(config, 2) - round_bytes(config, 1)
    assert (
        budget - 5 * 2 * 11 - another < spent <= budget
    )  # at most 11 of 32 bytes of framing spared
    # The last dimension of each edge brought more, relative to what there was before, than the next
    # one of any edge would bring.
    pilot = RunDirectory.open(run / "pilot")
    topology = build_topology(config)
    found = sheafnet.runtime.summary.Summary.model_validate(pilot.summary())
    dims = chosen_dims(config, found)
    taken, left = [], []
    for edge in topology.edges:
        shared = np.array(correlations(found, topology, edge.index))
        information = np.cumsum(-np.log(1 - shared**2) / 2)
        growth = np.diff(information) / np.maximum(information[:-1], 1e-9)
        taken += list(growth[: dims[edge.index] - 1])
        left += list(growth[dims[edge.index] - 1 :][:1])
    assert taken
    assert left
    assert min(taken) >= max(left) - 1e-9
    assert dims == list(summary.pilot.comparison_dims.values())


def test_a_budget_buys_the_largest_product_of_information(piloted, tiny: MakeConfig) -> None:
    """Of strong and weak edges, against a search of every allocation."""
    _, run = piloted()
    found = sheafnet.runtime.summary.Summary.model_validate(
        RunDirectory.open(run / "pilot").summary()
    )
    shared = {
        "a~b": [0.99, 0.98, 0.97, 0.96],
        "a~c": [0.9, 0.5, 0.4, 0.0],
        "a~d": [0.5, 0.45, 0.4, 0.35],
        "b~c": [0.3, 0.29, 0.1, 0.05],
        "c~d": [0.8, 0.79, 0.1, 0.1],
    }
    per_edge = {
        arrow: quality.model_copy(
            update={"canonical_correlations": shared["~".join(sorted(arrow.split("->")))]}
        )
        for arrow, quality in found.alignment.per_edge.items()
    }
    alignment = found.alignment.model_copy(update={"per_edge": per_edge})
    summary = found.model_copy(update={"alignment": alignment})
    for extra in range(1, 12):
        budget = 5 * 2 * (16 * 4 + 32) + extra * 2 * 16 * 4
        config = tiny(*AUTO, f"pilot.budget={budget}")
        names = [build_topology(config).edge_name(edge) for edge in range(5)]

        def product(dims: tuple[int, ...], names: list[str] = names) -> float:
            found = [shared[name][:dim] for name, dim in zip(names, dims, strict=True)]
            return float(np.prod([-np.log(1 - np.square(rhos)).sum() for rhos in found]))

        best = max(
            product(d) for d in itertools.product(range(1, 5), repeat=5) if sum(d) == 5 + extra
        )
        dims = chosen_dims(config, summary)
        assert sum(dims) == 5 + extra
        assert product(tuple(dims)) == pytest.approx(best)


def test_the_pilot_looks_at_the_validation_split_once(piloted) -> None:
    summary, run = piloted("evaluation.every=2")
    pilot = RunDirectory.open(run / "pilot")
    assert pilot.config()["evaluation"]["split"] == "validation"
    assert len(of_phase(list(pilot.lines("rounds")), "evaluation")) == 1
    written = yaml.safe_load((run / "config.yaml").read_text())["evaluation"]
    assert (written["split"], written["every"]) == ("test", 2)
    assert summary.alignment.per_edge["a->b"].canonical_correlations is None


def test_a_listed_dimension_stays_and_counts(tiny: MakeConfig, tmp_path: Path) -> None:
    edges = "edges=[{between: [a, b], comparison_dim: 3}, [b, c], [c, d], [d, a], [a, c]]"
    config = tiny(*AUTO, edges, "pilot.threshold=0.01")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.pilot is not None
    assert set(summary.pilot.comparison_dims) == {"b~c", "c~d", "a~d", "a~c"}
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    dims = {frozenset(e["between"]): e["comparison_dim"] for e in written["edges"]}
    assert dims[frozenset("ab")] == 3
    assert set(dims.values()) - {3} <= {1, 2, 4}


def test_it_goes_on_after_the_pilot(tiny: MakeConfig, tmp_path: Path) -> None:
    """A run that broke off has its d_ij; only whole runs are asked what a pilot would say."""
    config = tiny(*AUTO, "run.checkpoint_every=1", "run.stretch=2")
    whole = sheafnet.simulate(config, run_dir=tmp_path / "whole").summary

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(sheafnet.errors.Interrupted):
        sheafnet.simulate(config, run_dir=tmp_path / "run", on_progress=interrupt)
    again = sheafnet.resume(tmp_path / "run").summary
    assert again.pilot is not None
    assert whole.pilot is not None
    assert again.pilot.comparison_dims == whole.pilot.comparison_dims
    assert again.alignment == whole.alignment
    assert again.communication == whole.communication


def test_it_goes_on_in_the_pilot(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(*AUTO, "run.checkpoint_every=1", "run.stretch=2")
    sheafnet.simulate(config, run_dir=tmp_path / "whole")
    run, step = tmp_path / "run", Coordinator.step
    taken: list[Progress | None] = []

    def interrupted(self):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(step(self))
        return taken[-1]

    monkeypatch.setattr(Coordinator, "step", interrupted)
    with pytest.raises(sheafnet.errors.Interrupted, match=f"sheafnet resume {run}` goes on"):
        sheafnet.simulate(config, run_dir=run)
    for folder in (run, run / "pilot"):
        assert RunDirectory.open(folder).about()["status"] == "interrupted"
    taken.clear()
    with pytest.raises(sheafnet.errors.Interrupted):  # again, two stretches later
        sheafnet.resume(run)
    monkeypatch.setattr(Coordinator, "step", step)
    sheafnet.resume(run)
    for folder in ("", "pilot"):
        assert artifacts(run / folder) == artifacts(tmp_path / "whole" / folder)
    assert RunDirectory.open(run).config() == RunDirectory.open(tmp_path / "whole").config()


@pytest.mark.parametrize("settled", [False, True])
def test_killed_between_the_pilot_and_the_run(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    """The choice is noted, but config.yaml is not replaced; or it is, and nothing has begun."""
    config = tiny(*AUTO)
    sheafnet.simulate(config, run_dir=tmp_path / "whole")
    settle = RunDirectory.settle

    def killed(self, *chosen):
        before = (self.path / "config.yaml").read_bytes()
        settle(self, *chosen)
        if not settled:
            (self.path / "config.yaml").write_bytes(before)
        raise SystemExit

    monkeypatch.setattr(RunDirectory, "settle", killed)
    with pytest.raises(sheafnet.errors.Interrupted):
        sheafnet.simulate(config, run_dir=tmp_path / "run")
    monkeypatch.setattr(RunDirectory, "settle", settle)
    sheafnet.resume(tmp_path / "run")
    assert artifacts(tmp_path / "run") == artifacts(tmp_path / "whole")


def test_what_the_pilot_cannot_do_is_refused_first(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of inference may be larger than the validation split, which lacks nothing else."""
    monkeypatch.setattr(synthetic, "VALIDATION_EVENTS", 12)
    sheafnet.simulate(tiny(*AUTO, "inference.batch_size=20"), run_dir=tmp_path / "run")
    monkeypatch.setattr(synthetic, "VALIDATION_EVENTS", 1)
    with pytest.raises(ConfigError, match="retrieval needs at least 2"):
        sheafnet.simulate(tiny(*AUTO), run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_end_that_heard_nothing_leaves_it_to_the_other(piloted, tiny: MakeConfig) -> None:
    _, run = piloted()
    found = sheafnet.runtime.summary.Summary.model_validate(
        RunDirectory.open(run / "pilot").summary()
    )
    topology = build_topology(tiny(*AUTO))
    per_edge = dict(found.alignment.per_edge)
    one = per_edge["b->a"].canonical_correlations
    del per_edge["a->b"], per_edge["b->c"], per_edge["c->b"]
    alignment = found.alignment.model_copy(update={"per_edge": per_edge})
    summary = found.model_copy(update={"alignment": alignment})
    names = [topology.edge_name(edge) for edge in range(5)]
    assert correlations(summary, topology, names.index("a~b")) == one
    assert correlations(summary, topology, names.index("b~c")) == [0.0] * 4
    assert chosen_dims(tiny(*AUTO), summary)[names.index("b~c")] == 1


def test_a_generated_network_is_listed_with_its_dims(tiny: MakeConfig, tmp_path: Path) -> None:
    graph = ("nodes=null", "edges=null", "graph={generator: ring, nodes: 4}")
    summary = sheafnet.simulate(tiny(*AUTO, *graph), run_dir=tmp_path / "run").summary
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert "graph" not in written
    assert [node["id"] for node in written["nodes"]] == [f"node{k}" for k in range(4)]
    assert summary.pilot is not None
    assert len(summary.pilot.comparison_dims) == len(written["edges"]) == 4


def test_runs_without_a_name_and_studies_have_pilots_of_their_own(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    config = tiny(*AUTO, f"run.directory={tmp_path / 'runs'}")
    folders = [sheafnet.simulate(config).directory for _ in range(2)]
    assert len(set(folders)) == 2
    for folder in folders:
        assert folder.parent == tmp_path / "runs"
        assert RunDirectory.open(folder / "pilot").about()["status"] == "finished"
        assert RunDirectory.open(folder).about()["status"] == "finished"


def test_other_methods_have_no_pilot(tiny: MakeConfig, tmp_path: Path) -> None:
    for method in ("all-pairs", "imagebind"):
        config = tiny(*AUTO, f"method={method}")
        assert not wants_pilot(config)
        assert sheafnet.simulate(config, run_dir=tmp_path / method).summary.pilot is None


def test_bad_words(tiny: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="or auto"):
        tiny("defaults.edge.comparison_dim=many")
    with pytest.raises(ConfigError, match=r"pilot\.widest"):
        tiny("pilot.widest=auto")
    with pytest.raises(ConfigError, match="either a threshold or a budget"):
        tiny(*AUTO, "pilot.threshold=0.2", "pilot.budget=1000")
    with pytest.raises(ConfigError, match=r"pilot\.budget = 100: one dimension .* 960 bytes"):
        sheafnet.simulate(tiny(*AUTO, "pilot.budget=100"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(RunDirectoryError, match="exists already"):
        sheafnet.simulate(tiny(*AUTO), run_dir=tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]
