"""One self-contained page of one run or several: no network, no other file."""

import datetime
import itertools
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sheafnet.errors import ConfigError, InputError, StudyError
from sheafnet.network.frame import PHASES
from sheafnet.report import charts
from sheafnet.report.figures import inline_svg, write_files
from sheafnet.report.retrieved import retrieved
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.loaded import LoadedRun, form_of, labelled, printable
from sheafnet.runtime.summary import Bytes, Summary
from sheafnet.studies.beside import compared
from sheafnet.studies.folder import replacing
from sheafnet.studies.tables import NOT_COUNTED
from sheafnet.topology import Topology
from sheafnet.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEDGER_ROWS = 2000
"""Directed edges and phases that the ledger's table has at most; those of most bytes."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and what it is sorted by where that is a number."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Drawing:
    """A figure of the page."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Tile:
    """A figure in large letters."""

    name: str
    value: str


@dataclass
class Part:
    """What the page tells of one run."""

    label: str
    anchor: str
    line: str
    trouble: str
    tiles: list[Tile]
    findings: list[Finding]
    no_findings: str
    training: list[Drawing]
    alignment: list[Drawing]
    missing: dict[str, Any]
    pictures: list[Drawing]
    phases: Table
    fates: Table | None
    radios: dict[str, Any]
    ledger: Table
    commands: str
    config: str


@dataclass
class _Press:
    """Makes drawings of figures, and files of them where there is a folder for those."""

    folder: Path | None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def draw(self, figure: "Figure | None", name: str, caption: str) -> list[Drawing]:
        """The drawing, in a list; nothing where there is no figure."""
        if figure is None:
            return []
        svg = inline_svg(figure, f"f{next(self.numbers)}", caption)
        if self.folder is not None:
            figure.set_layout_engine("none")  # what that drawing has arranged stays where it is
            write_files(figure, self.folder, name)
        return [Drawing(Markup(svg), caption)]  # matplotlib made it and escaped its text


def write_report(
    paths: Sequence[str | Path], output: str | Path, figures: str | Path | None = None
) -> int:
    """Write the report of the runs at `paths`, finished or broken off, as one HTML file.

    Args:
        paths: run directories, at least one.
        output: the file; it is replaced.
        figures: a folder that gets every figure as SVG and PNG too.

    Returns:
        How many figures it has.

    Raises:
        RunDirectoryError: one is no run, or a file of it is spoiled.
        StudyError: a file cannot be written.
    """
    output = Path(output)
    if output.exists() and not output.is_file():
        raise StudyError(f"{output}: is no file; name one, as report.html.")
    runs = labelled([LoadedRun(path) for path in paths])
    press = _Press(None if figures is None else Path(figures))
    parts = [
        _part(label, f"run-{number}", run, press)
        for number, (label, run) in enumerate(runs.items(), 1)
    ]
    environment = Environment(
        loader=PackageLoader("sheafnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        title=parts[0].label if len(parts) == 1 else f"{len(parts)} runs",
        version=__version__,
        made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        joint=_joint(runs, press) if len(runs) > 1 else None,
        runs=parts,
        not_counted=NOT_COUNTED,
    )
    with replacing(output) as aside:
        aside.write_text(printable(text), encoding="utf-8")
    return next(press.numbers)


def _joint(runs: Mapping[str, LoadedRun], press: _Press) -> dict[str, Any]:
    """What several runs show together."""
    summaries = {label: run.summary for label, run in runs.items() if run.summary is not None}
    table = None
    if len(summaries) > 1:
        columns, rows = compared(summaries)
        cells = [[Cell(text) for text in row] for row in rows]
        table = Table("finished runs", ["", *columns], cells)
    lines = {label: run.lines("train") for label, run in runs.items()}
    drawn = press.draw(charts.curves(lines), "side-by-side-training", "Training, all runs")
    drawn += _against_bytes(runs, press, "side-by-side")
    return {"table": table, "figures": drawn}


def _against_bytes(runs: Mapping[str, LoadedRun], press: _Press, name: str) -> list[Drawing]:
    """Quality against bytes of training and of inference."""
    drawn: list[Drawing] = []
    for key, quality in (
        ("recall_at_1", "recall@1"),
        ("zero_shot_accuracy", "zero-shot accuracy"),
    ):
        points = {
            label: [
                (float(line["train_bytes"]), float(line[key]))
                for line in run.lines("evaluation")
                if line.get(key) is not None
            ]
            for label, run in runs.items()
        }
        drawn += press.draw(
            charts.against_bytes(points, quality, "sent in training"),
            f"{name}-{key.replace('_', '-')}-by-bytes",
            f"{quality.capitalize()} on unseen events against the bytes of training before it; "
            "each run's large mark is its last evaluation",
        )
    ends = {
        label: [(each, s.missing.accuracy)]
        for label, run in runs.items()
        if (s := run.summary) is not None
        and (each := s.communication.inference.bytes_per_inferred_sample) is not None
        and s.missing.accuracy is not None
    }
    if len(ends) > 1:
        drawn += press.draw(
            charts.against_bytes(ends, "accuracy of what was inferred", "sent for a sample"),
            f"{name}-inference",
            "Accuracy on inferred modalities against the bytes of inferring one",
        )
    return drawn


def _part(label: str, anchor: str, run: LoadedRun, press: _Press) -> Part:
    findings: list[Finding] = []
    none = "No failure signature shows."
    topology: Topology | None = None
    try:
        topology = run.topology
    except ConfigError as error:  # of another version: what was logged is readable still
        none = f"None could be made: {error}"
    if topology is not None or run.finished:
        findings, none = run.findings(), "No failure signature shows."
    summary = run.summary
    missing: dict[str, Any] = {}
    if summary is not None and summary.missing.missing:
        missing = {"table": _estimators(summary), "figures": _reconstruction(anchor, run, press)}
    sent = run.sent()
    return Part(
        label=label,
        anchor=anchor,
        line=_line(run),
        trouble=_trouble(run),
        tiles=_tiles(run, sent),
        findings=list(findings),
        no_findings=none,
        training=_training(anchor, run, topology, sent, press),
        alignment=_alignment(anchor, run, topology, press),
        missing=missing,
        pictures=_pictures(anchor, run, topology, press),
        phases=_phases(run, sent),
        fates=None if summary is None else _fates(summary),
        radios=_radios(anchor, summary, press),
        ledger=_ledger(sent),
        commands=_commands(run),
        config=yaml.safe_dump(run.directory.config(), sort_keys=False, allow_unicode=True),
    )


def _line(run: LoadedRun) -> str:
    """What was run, in a sentence."""
    s = run.summary
    if s is None:
        return f"{run.directory.config().get('name')}: not finished; this is what was logged."
    hub = f" with hub {s.hub}" if s.hub else ""
    actors = "actor" if s.actors == 1 else "actors"
    return (
        f"{s.topology}: {s.nodes} nodes, {s.edges} edges, {s.dataset}, {s.method}{hub}, {s.rounds} "
        f"training rounds, seed {s.seed}, {s.backend} backend, {s.actors} {actors}."
    )


def _trouble(run: LoadedRun) -> str:
    """What happened to the run itself."""
    with form_of(run.path / "run.json"):
        told = [str(note) for note in run.about.get("recoveries", ())]
        if run.about["status"] == "running":
            told.append("The run is under way, or was killed; this is what was logged so far.")
        elif run.about["status"] != "finished":
            why = run.about.get("error", "no reason is noted")
            told.append(f"Run {run.about['status']}: {why}")
    return " ".join(told)


def _tiles(run: LoadedRun, sent: Mapping[Any, Mapping[str, Bytes]]) -> list[Tile]:
    s = run.summary
    if s is None:
        total = sum(edge.bytes_total for edges in sent.values() for edge in edges.values())
        return [
            Tile("training rounds logged", f"{len(run.lines('train')):,}"),
            Tile("bytes so far", f"{total:,}"),
        ]
    c, a, m = s.communication, s.alignment, s.missing
    found: list[tuple[str, float | None, str]] = [
        ("bytes a training round", c.train.bytes_per_round, ",.0f"),
        ("bytes in training", c.train.bytes_total, ",.0f"),
        ("bytes an inferred sample", c.inference.bytes_per_inferred_sample, ",.1f"),
        (f"recall@1, gallery of {a.gallery:,}", a.recall_at_1, ".3f"),
        ("zero-shot accuracy", a.zero_shot_accuracy, ".3f"),
        ("accuracy of all joined", a.fused_accuracy, ".3f"),
        (f"NMSE of {m.estimator}", m.nmse, ".3f"),
        ("accuracy where inferred", m.accuracy, ".3f"),
        ("accuracy with all present", m.accuracy_all_present, ".3f"),
    ]
    if c.train.radio is not None:
        found.append(("simulated seconds of training", c.train.radio.seconds, ",.4g"))
        found.append(("joules of training", c.train.radio.joules, ",.4g"))
    return [Tile(name, f"{v:{form}}") for name, v, form in found if v is not None]


def _training(
    anchor: str,
    run: LoadedRun,
    topology: Topology | None,
    sent: Mapping[Any, Mapping[str, Bytes]],
    press: _Press,
) -> list[Drawing]:
    drawn: list[Drawing] = []
    if topology is not None:
        width = {topology.edge_name(e.index): 0 for e in topology.edges}
        arrows = _arrows(topology)
        for edges in sent.values():
            for arrow, traffic in edges.items():
                if arrow in arrows:
                    width[arrows[arrow]] += traffic.bytes_total
        recall: dict[str, list[float]] = {}
        if run.summary is not None:
            for arrow, found in run.summary.alignment.per_edge.items():
                if found.recall_at_1 is not None and arrow in arrows:
                    recall.setdefault(arrows[arrow], []).append(found.recall_at_1)
        means: dict[str, float | None] = {k: sum(v) / len(v) for k, v in recall.items()}
        drawn += press.draw(
            charts.network(topology, width, means, _failed(run)),
            f"{anchor}-network",
            "The network: the wider an edge the more bytes, the lighter the better its alignment",
        )
    with form_of(run.path / "rounds.jsonl"):
        curves = charts.curves({"run": run.lines("train")})
        drawn += press.draw(
            curves,
            f"{anchor}-training",
            "Training, by round: thin lines are rounds, thick ones their running mean",
        )
        drawn += _against_bytes({"run": run}, press, anchor)
    return drawn


def _arrows(topology: Topology) -> dict[str, str]:
    """Both arrows of every edge, and its name."""
    return {
        topology.arrow(edge.index, direction): topology.edge_name(edge.index)
        for edge in topology.edges
        for direction in (0, 1)
    }


def _failed(run: LoadedRun) -> list[str]:
    """Nodes that simulated faults put to sleep for some rounds."""
    faults = run.config.faults
    return [] if faults is None else sorted({window.node for window in faults.nodes})


def _alignment(
    anchor: str, run: LoadedRun, topology: Topology | None, press: _Press
) -> list[Drawing]:
    if run.summary is None or topology is None:
        return []
    found, drawn = run.summary.alignment, []
    for key, title, chance in (
        ("recall_at_1", "recall@1", found.chance.recall_at_1),
        ("zero_shot_accuracy", "zero-shot accuracy", found.chance.accuracy),
    ):
        arrows = _arrows(topology)
        values = {a: getattr(edge, key) for a, edge in found.per_edge.items() if a in arrows}
        if any(value is not None for value in values.values()):
            drawn += press.draw(
                charts.heat_map(topology, values, title, chance),
                f"{anchor}-{key.replace('_', '-')}",
                f"{title.capitalize()} in each direction of each edge",
            )
    return drawn


def _reconstruction(anchor: str, run: LoadedRun, press: _Press) -> list[Drawing]:
    assert run.summary is not None, "only finished runs have estimates"
    return press.draw(
        charts.reconstruction(run.summary),
        f"{anchor}-reconstruction",
        "Error of inferred sections by node and estimator",
    )


def _estimators(summary: Summary) -> Table:
    m = summary.missing
    rows = [
        [
            Cell(f"{name} (used)" if name == m.estimator else name),
            _share(e.nmse),
            _share(e.accuracy),
            _share(e.coverage_90),
        ]
        for name, e in m.estimators.items()
    ]
    caption = (
        f"{m.missing:,} missing samples; for {m.unanswered:,} of them no neighbour had its own. "
        f"Accuracy with nothing missing: {_share(m.accuracy_all_present).text}"
    )
    return Table(caption, ["estimator", "NMSE", "accuracy", "in 90 % interval"], rows)


def _pictures(
    anchor: str, run: LoadedRun, topology: Topology | None, press: _Press
) -> list[Drawing]:
    if topology is None:
        return []
    try:
        found = retrieved(run)
    except InputError:  # parameters were not kept, or the data is elsewhere
        return []
    return [
        drawing
        for number, each in enumerate(found, 1)
        for drawing in press.draw(
            charts.retrieval(each.rows, each.hits),
            f"{anchor}-retrieved-{number}",
            f"{each.arrow}",
        )
    ]


def _phases(run: LoadedRun, sent: Mapping[Any, Mapping[str, Bytes]]) -> Table:
    rows = []
    for phase in PHASES:
        if phase not in sent:
            continue
        total = _sum(sent[phase].values())
        if run.summary is not None:
            rounds = getattr(run.summary.communication, phase).rounds
        else:
            rounds = run.rounds_logged(phase)
        over = (total.bytes_total / total.floor_bytes - 1) if total.floor_bytes else None
        rows.append(
            [
                Cell(phase),
                _count(rounds),
                *_bytes(total),
                _count(total.bytes_total / rounds if rounds else None),
                Cell("-" if over is None else f"{over:.2%}", over),
            ]
        )
    columns = ["phase", "rounds", *_BYTES, "bytes a round", "over the floor"]
    return Table("sent by all nodes", columns, rows)


_BYTES = ["messages", "payload bytes", "framing bytes", "control bytes", "bytes in all", "floor"]


def _bytes(traffic: Bytes) -> list[Cell]:
    t = traffic
    sizes = (t.messages, t.payload_bytes, t.framing_bytes, t.control_bytes, t.bytes_total)
    return [*map(_count, sizes), _count(t.floor_bytes or None)]


def _sum(found: Any) -> Bytes:
    dumped = [each.model_dump() for each in found]
    return Bytes.model_validate({k: sum(d[k] for d in dumped) for k in Bytes.model_fields})


def _fates(summary: Summary) -> Table | None:
    c = summary.communication
    if not c.train.fates:
        return None
    rows = [
        [Cell(fate)]
        + [
            _count(value)
            for traffic in (c.train, c.inference)
            for value in (traffic.fates[fate].messages, traffic.fates[fate].bytes_total)
        ]
        for fate in c.train.fates
    ]
    columns = ["fate", "train, messages", "bytes", "inference, messages", "bytes"]
    return Table("what simulated faults made of the messages", columns, rows)


def _radios(anchor: str, summary: Summary | None, press: _Press) -> dict[str, Any]:
    """Simulated time and energy, where edges have links."""
    if summary is None or not summary.communication.radios:
        return {}
    rows = []
    for phase, r in summary.communication.radios.items():
        figures = (r.seconds, r.seconds_per_round, r.busiest_seconds, r.joules, r.highest_joules)
        rows.append([Cell(phase), *map(_measured, figures)])
    columns = ["phase", "seconds", "a round", "radio of the busiest node", "joules", "highest node"]
    caption = "simulated time and energy of the links: docs/links.md says what they hold"
    drawn = press.draw(
        charts.energy(summary), f"{anchor}-energy", "Energy of the radios, by node and phase"
    )
    return {"table": Table(caption, columns, rows), "figures": drawn}


def _ledger(sent: Mapping[Any, Mapping[str, Bytes]]) -> Table:
    found = [
        (phase, arrow, traffic)
        for phase in PHASES
        for arrow, traffic in sent.get(phase, {}).items()
    ]
    kept = found
    caption = "what was sent, by phase and directed edge; a column's name sorts by it"
    if len(found) > LEDGER_ROWS:
        kept = sorted(found, key=lambda row: -row[2].bytes_total)[:LEDGER_ROWS]
        caption += f". The {LEDGER_ROWS:,} of most bytes; {len(found) - LEDGER_ROWS:,} are left out"
    rows = [[Cell(arrow), Cell(phase), *_bytes(traffic)] for phase, arrow, traffic in kept]
    return Table(caption, ["edge", "phase", *_BYTES], rows)


def _commands(run: LoadedRun) -> str:
    path = shlex.quote(str(run.path / "config.yaml"))
    told = [f"sheafnet simulate --topology {path}"]
    if run.about["status"] != "finished":
        told.append(f"sheafnet resume {shlex.quote(str(run.path))}")
    told.append(f"sheafnet show {shlex.quote(str(run.path))}")
    with form_of(run.path / "run.json"):
        versions = run.about.get("versions", {}).items()
    return "\n".join([*told, "# " + ", ".join(f"{k} {v}" for k, v in versions)])


def _share(value: float | None) -> Cell:
    known = value is not None and not math.isnan(value)
    return Cell(f"{value:.3f}" if known else "-", value if known else None)


def _measured(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:,.4g}", value)


def _count(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:,.0f}", value)
