"""Every example runs from any folder, and what it prints is true."""

import base64
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import networkx as nx
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

import sheafnet
from tests.notebook import TOUR, executed

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# One process for all: what they run in is made once.
pytestmark = pytest.mark.xdist_group("examples")

ONE_AFTER_THE_OTHER = """
import contextlib, json, runpy, sys
for script, text, *folder in json.load(sys.stdin):
    sys.argv = [script, *folder]
    with open(text, "w") as file, contextlib.redirect_stdout(file):
        runpy.run_path(script, run_name="__main__")
"""
"""One loading of torch serves all scripts."""


@dataclass(frozen=True)
class Ran:
    """What a script printed, and the folder that it was given."""

    text: str
    folder: Path

    def runs(self) -> Iterator[sheafnet.LoadedRun]:
        """The runs that it made, in order."""
        found = self.folder.rglob("run.json")
        return (sheafnet.load_run(p.parent) for p in sorted(found, key=lambda p: p.stat().st_ctime))

    def numbers(self, label: str) -> list[float]:
        """The numbers of the line that begins with `label`."""
        (line,) = [x for x in self.text.splitlines() if x.strip().startswith(label)]
        return [number(n) for n in NUMBER.findall(line.strip().removeprefix(label))]


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """All scripts, each in a folder of its own, and `own_topology` again without one."""
    base = tmp_path_factory.mktemp("examples")
    (base / "elsewhere").mkdir()
    (base / "temporary").mkdir()
    asked = [[path, base / f"{path.stem}.txt", base / path.stem] for path in SCRIPTS]
    asked.append([EXAMPLES / "own_topology.py", base / "alone.txt"])
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER],
        input=json.dumps(asked, default=str),
        cwd=base / "elsewhere",
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(base / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert not list((base / "elsewhere").iterdir()), "nothing where nobody asked for it"
    folders = {path.stem: base / path.stem for path in SCRIPTS}
    (folders["alone"],) = (base / "temporary").iterdir()
    return {name: Ran((base / f"{name}.txt").read_text(), at) for name, at in folders.items()}


def test_every_example_has_a_test_and_a_line_in_the_readme() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in SCRIPTS] + [TOUR.name]
    assert sorted(re.findall(r"^\| \[(\S+)\]\(\1\)", page, re.M)) == sorted(files)
    for script in SCRIPTS:
        assert f"test_{script.stem}" in globals()
        assert f"    python examples/{script.name} [FOLDER]" in script.read_text(encoding="utf-8")


def ledger(run: sheafnet.LoadedRun) -> list[dict[str, Any]]:
    """The lines of ledger.jsonl as they stand."""
    return [json.loads(line) for line in (run.path / "ledger.jsonl").open()]


def counted(lines: list[dict[str, Any]], fate: str = "sent") -> tuple[int, int]:
    """Messages and bytes of one fate."""
    counts = [line[fate] for line in lines if fate in line]
    kinds = ("payload_bytes", "framing_bytes", "control_bytes")
    messages = sum(count["messages"] for count in counts)
    return messages, sum(count[kind] for count in counts for kind in kinds)


def test_own_data(ran: dict[str, Ran]) -> None:
    script = ran["own_data"]
    (run,) = script.runs()
    arrays = {path.stem: np.load(path) for path in (script.folder / "machine").glob("*.npy")}
    assert {name: array.shape[1:] for name, array in arrays.items()} == {
        "labels": (),
        "sound": (40,),
        "motion": (12,),
        "heat": (8, 8),
    }
    assert {len(array) for array in arrays.values()} == {1500}
    summary = run.summary
    assert summary is not None
    aligned, missing = summary.alignment, summary.missing
    assert script.numbers("recall@1") == [round(aligned.recall_at_1, 3), 0.005]
    assert aligned.recall_at_1 > 10 / aligned.gallery
    per_edge = {edge: script.numbers(edge)[0] for edge in aligned.per_edge}
    assert np.mean(list(per_edge.values())) == pytest.approx(aligned.recall_at_1, abs=1e-3)
    (zero_shot,) = script.numbers("state by a neighbour's prototypes: accuracy")
    assert zero_shot == round(aligned.zero_shot_accuracy, 3)
    assert zero_shot > 0.5  # four states: 0.25 by chance
    masked = [line["missing"] for line in run.lines("inference")]
    assert script.numbers(str(sum(masked)))[0] == round(missing.nmse, 3)
    assert missing.nmse < 1
    for node in ("microphone", "accelerometer", "camera"):
        assert script.numbers(f"{node} ")[0] < 1
    for phase in ("train", "evaluation", "inference"):
        there = [line for line in ledger(run) if line["phase"] == phase]
        assert script.numbers(f"{phase}  ") == [counted(there)[1]]


def test_own_topology(ran: dict[str, Ran]) -> None:
    script = ran["own_topology"]
    places = nx.get_node_attributes(nx.random_geometric_graph(12, 0, seed=596), "pos")
    apart = {
        pair: math.dist(*(places[k] for k in pair)) for pair in itertools.combinations(places, 2)
    }
    edges = {f"mote{i} mote{j}": 16 if d < 0.32 else 4 for (i, j), d in apart.items() if d <= 0.45}
    values = yaml.safe_load((script.folder / "field.yaml").read_text())
    assert {" ".join(e["between"]): e["comparison_dim"] for e in values["edges"]} == edges
    wide = list(edges.values()).count(16)
    narrow = len(edges) - wide
    assert f"12 nodes, {len(edges)} edges, d_ij {narrow} x 4, {wide} x 16\n" in script.text
    # Both ends of an edge send 64 rows of d_ij float32.
    assert script.numbers("a training round takes at least") == [2 * 64 * 4 * sum(edges.values())]
    with Image.open(script.folder / "field.png") as picture:
        assert picture.size == (720, 600)
    assert (
        "refused: configuration: edges.19: no node is called 'mote12'. Did you mean" in script.text
    )

    alone = ran["alone"]
    assert alone.text == script.text.replace(str(script.folder), str(alone.folder))
    assert {path.name for path in alone.folder.iterdir()} == {"field.yaml", "field.png"}


def test_read_ledger(ran: dict[str, Ran]) -> None:
    script = ran["read_ledger"]
    (run,) = script.runs()
    lines = ledger(run)
    training = [line for line in lines if line["phase"] == "train"]
    assert script.text.startswith(f"{len(lines)} lines")
    assert run.summary is not None
    for phase in ("evaluation", "inference", "train"):
        sent = counted([line for line in lines if line["phase"] == phase])
        told = getattr(run.summary.communication, phase)
        assert sent == (told.messages, told.bytes_total)
        assert script.numbers(f"{phase} ") == list(sent)
    assert len({line["edge"] for line in training}) == 8
    for edge in {line["edge"] for line in training}:
        sent = counted([line for line in training if line["edge"] == edge])
        assert script.numbers(edge) == list(sent)
    rounds = [counted([x for x in training if x["round"] == r])[1] for r in range(30)]
    assert script.numbers("a training round took") == [min(rounds), max(rounds)]
    assert min(rounds) < max(rounds)
    for fate in ("sent", "delivered", "late", "dropped", "rejected"):
        assert script.numbers(f"{fate} ") == list(counted(lines, fate))
        assert counted(lines, fate)[0] > 0, "every kind of fault happened"
    assert script.numbers("the rest") == [0, 0]


def test_sheaf_diagnostics(ran: dict[str, Ran]) -> None:
    script = ran["sheaf_diagnostics"]
    runs = list(script.runs())
    assert [run.config.training.rounds for run in runs] == [0, 40]
    ratios = []
    for column, run in enumerate(runs):
        topology = run.topology
        delta = np.zeros((36, 64))  # 8 + 8 + 8 + 12 and 4 * 16
        row = 0
        for edge in topology.edges:
            for node, sign in ((edge.tail, 1), (edge.head, -1)):
                path = run.path / "parameters" / f"{topology.nodes[node].id}.safetensors"
                weight = load_file(path)[f"restriction.{topology.edge_name(edge.index)}"]
                delta[row : row + edge.dim, 16 * node : 16 * node + 16] = sign * weight
            row += edge.dim
        singular = np.linalg.svd(delta, compute_uv=False)
        rank = int((singular > 1e-4).sum())
        sections = np.concatenate(run.sections("test", 200), axis=1)
        energy = np.mean([((delta @ section) ** 2).sum() for section in sections])
        assert script.numbers("sum of d_ij")[column] == 36
        assert script.numbers("sum of d_i ")[column] == 64
        assert script.numbers("rank of the coboundary")[column] == rank
        assert script.numbers("dimension of global sections")[column] == 64 - rank
        gap, largest = singular[rank - 1] ** 2, singular[0] ** 2
        told = [script.numbers(x)[column] for x in ("smallest eigenvalue above 0", "largest")]
        assert told == pytest.approx([gap, largest], abs=6e-4)
        same = script.numbers("energy of the same event")[column]
        assert same == pytest.approx(energy, abs=1e-3)
        ratios.append(script.numbers("their ratio")[column])
        assert same / script.numbers("energy of different events")[column] == pytest.approx(
            ratios[-1], abs=1e-3
        )
    assert ratios[0] > 0.9
    assert ratios[1] < 0.8
    names = [topology.edge_name(edge.index) for edge in topology.edges]
    parts = [script.numbers(name)[0] for name in names]
    assert sum(parts) == pytest.approx(same, abs=3e-3)


def test_compare_methods(ran: dict[str, Ran]) -> None:
    script = ran["compare_methods"]
    rival = "all-pairs@training.rounds=16"
    assert f"\nsheafalign and {rival}\n" in script.text
    cells = [json.loads(p.read_text()) for p in (script.folder / "digits").rglob("*.json")]
    of_method: dict[str, list[dict[str, Any]]] = {"sheafalign": [], "all-pairs": []}
    for cell in cells:
        of_method[cell["config"]["method"]["name"]].append(cell["summary"])
    assert [len(found) for found in of_method.values()] == [2, 2]

    def means(*path: str) -> list[float]:
        found = []
        for summaries in of_method.values():
            values: list[Any] = summaries
            for key in path:
                values = [value[key] for value in values]
            found.append(float(np.mean(values)))
        return found

    lines = script.text.splitlines()
    last = {
        line[:20].strip(): line[20:] for line in lines[lines.index(f"sheafalign and {rival}") :]
    }
    for label, path in {
        "bytes in training": ("communication", "train", "bytes_total"),
        "recall@1": ("alignment", "recall_at_1"),
        "zero-shot accuracy": ("alignment", "zero_shot_accuracy"),
        "missing: NMSE, ridge": ("missing", "estimators", "ridge", "nmse"),
    }.items():
        ours, theirs = means(*path)
        one, other, percent = (number(n) for n in NUMBER.findall(last[label]))
        assert [one, other] == pytest.approx([ours, theirs], abs=6e-4)
        assert abs(percent) == pytest.approx(abs(theirs / ours - 1) * 100, abs=0.06)
        if label == "bytes in training":
            assert theirs == pytest.approx(ours, rel=0.01), "that is what equal bytes means"


# The notebook


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[sheafnet.LoadedRun]]:
    """The notebook as it runs now, and the runs that it made, in order."""
    folder = tmp_path_factory.mktemp("tour")
    notebook = executed(TOUR, folder)
    made = sorted(folder.rglob("run.json"), key=lambda path: path.stat().st_ctime)
    return notebook, [sheafnet.load_run(path.parent) for path in made]


def cells_of(notebook: Any) -> dict[str, Any]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def printed(cell: Any) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def pictures(cell: Any) -> list[Image.Image]:
    found = (o.data.get("image/png") for o in cell.outputs if o.output_type == "display_data")
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found if data]


def test_the_stored_outputs_are_those_of_the_source(
    tour: tuple[Any, list[sheafnet.LoadedRun]],
) -> None:
    """To mend: `make notebook`. Floats may differ in their last digits between machines."""
    stored, now = cells_of(nbformat.read(TOUR, as_version=4)), cells_of(tour[0])
    assert [cell.execution_count for cell in stored.values()] == list(range(1, len(stored) + 1))
    for name, cell in stored.items():
        before, after = printed(cell), printed(now[name])
        assert NUMBER.sub("#", before) == NUMBER.sub("#", after), name
        for one, other in zip(NUMBER.findall(before), NUMBER.findall(after), strict=True):
            if "," in one:
                assert one == other, name
            assert number(one) == pytest.approx(number(other), rel=0.02, abs=0.02), name
        sizes = [[picture.size for picture in pictures(c)] for c in (cell, now[name])]
        assert sizes[0] == sizes[1]
        assert len(sizes[0]) == name.startswith("figure-")
        assert {o.get("name", "stdout") for o in cell.outputs} <= {"stdout"}, "warnings"
    assert TOUR.stat().st_size < 300_000
    assert [name for name in stored if name.startswith("figure-")] == [
        "figure-losses",
        "figure-ledger",
        "figure-methods",
        "figure-sheaf",
    ]


def test_the_figures_that_the_notebook_prints_are_those_of_its_runs(
    tour: tuple[Any, list[sheafnet.LoadedRun]],
) -> None:
    text = {name: printed(cell) for name, cell in cells_of(tour[0]).items()}
    run, rival, untrained = tour[1]
    summary = run.summary
    assert summary is not None
    assert [r.config.method.name for r in tour[1]] == ["sheafalign", "all-pairs", "sheafalign"]
    assert {r.config.run.backend for r in tour[1]} == {"local"}
    # Four edges, both ends, 48 rounds of 64 rows of 16 float32.
    assert f"at least {4 * 2 * 48 * 64 * 16 * 4:,} bytes" in text["network"]
    assert [line for line in text["run"].splitlines() if line.startswith("train")][-1].startswith(
        "train 48/48"
    )
    aligned, missing = summary.alignment, summary.missing
    assert f"{aligned.recall_at_1:.3f}, by chance 0.005" in text["results"]
    assert f"{aligned.zero_shot_accuracy:.3f}, by chance 0.100" in text["results"]
    assert f"{missing.missing}, unanswered {missing.unanswered}" in text["results"]
    for name, estimate in missing.estimators.items():
        assert f"{name:16} NMSE {estimate.nmse:.3f}, acc" in text["results"]
    for phase in ("train", "evaluation", "inference"):
        messages, size = counted([line for line in ledger(run) if line["phase"] == phase])
        assert re.search(rf"{phase} +{messages:,} messages +{size:,} bytes", text["ledger"])
    assert text["ledger"].endswith("all that was sent was delivered: True\n")
    for method, found in (("sheafalign", run), ("all-pairs", rival)):
        points = [line for line in text["methods"].splitlines() if line.startswith(method)]
        assert [int(point.split()[1]) for point in points] == [12, 24, 36, 48]
        assert found.summary is not None
        spent = found.summary.communication.train.bytes_total
        assert f"{spent:,} bytes" in points[-1]
        assert points[-1].endswith(f"{found.summary.alignment.recall_at_1:.3f}")
    assert summary.sheaf.stalk_dimension == 4 * 32
    assert text["sheaf"].startswith(f"128 dimensions, {summary.sheaf.global_sections} of global")
    same = np.mean(run.sheaf().energy(run.sections("test", 200)))
    assert f"trained   energy: same digit {same:.3g}," in text["sheaf"]
    assert untrained.config.training.rounds == 0


def test_the_links_of_the_notebook_resolve() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) > 3
    for target in targets:
        assert (EXAMPLES / target).is_file(), target
