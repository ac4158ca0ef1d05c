"""The tables that the command line prints, from the figures of a run directory."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from sheafnet.errors import ConfigError, RunDirectoryError
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.loaded import LoadedRun, form_of, labelled, printable
from sheafnet.runtime.summary import Communication, Summary
from sheafnet.studies.beside import beside

NOT_COUNTED = (
    "Counted: every frame between nodes, at both ends. Not counted: headers of sockets and Ray."
)


def print_run(console: Console, run: LoadedRun) -> None:
    """Print a finished or broken-off run."""
    about = run.about
    if run.summary is not None:
        with form_of(run.path / "summary.json"):
            parts = list(summary_tables(run.summary))
    else:
        parts = list(_partial_tables(run))
    status = about["status"]
    problem = f": {about['error']}" if "error" in about else ""
    parts.append(Text(f"Run {status}{problem}", style="" if status == "finished" else "yellow"))
    with form_of(run.path / "run.json"):
        if "left_out" in about:
            parts.append(Text(f"Left out: {', '.join(about['left_out'])}"))
        parts += [Text(str(note), style="yellow") for note in about.get("recoveries", ())]
    _print_plain(console, parts)
    console.print(Text(f"Run directory: {run.path}"), soft_wrap=True)
    if status != "finished":
        console.print(Text(f"sheafnet resume {run.path}  goes on with it"), soft_wrap=True)


def print_beside(console: Console, runs: Sequence[LoadedRun]) -> None:
    """Print finished runs side by side.

    Raises:
        RunDirectoryError: one of them is not finished.
    """
    parts: list[RenderableType] = [Text()]
    summaries: dict[str, Summary] = {}
    for label, run in labelled(runs).items():
        if run.summary is None:
            raise RunDirectoryError(
                f"{run.path}: is not finished (`sheafnet resume {run.path}` goes on with it); only "
                "finished runs can stand side by side."
            )
        summaries[label] = run.summary
    parts.append(beside(summaries))
    _print_plain(console, parts)


def _print_plain(console: Console, parts: Sequence[RenderableType]) -> None:
    """Print `parts`; what a stranger's file says is text, neither markup nor a terminal's codes."""
    for part in parts:
        segments = [
            Segment(printable(text), style, control)
            for text, style, control in console.render(part, console.options.update(markup=False))
        ]
        console.print(Segments(segments), end="")


def summary_tables(summary: Summary) -> Iterable[RenderableType]:
    """The tables of a finished run."""
    s, t = summary, summary.timing
    yield Text(
        f"\n{s.topology}: {s.nodes} nodes, {s.edges} edges, {s.dataset}, {s.method}"
        f"{f' with hub {s.hub}' if s.hub else ''}, "
        f"{s.rounds} training rounds, seed {s.seed}, {s.backend} backend, {s.actors} "
        f"{'actor' if s.actors == 1 else 'actors'}"
    )
    yield _communication({n: traffic.model_dump() for n, traffic in s.communication.phases.items()})
    each = s.communication.inference.bytes_per_inferred_sample
    yield Text(
        "Inference: no sample was missing."
        if each is None
        else f"Inference: {_count(s.missing.missing)} missing samples at {each:.1f} bytes each; "
        f"for {_count(s.missing.unanswered)} of them no neighbour had its own"
        f"{', or its answer did not come' if s.communication.inference.fates else ''}."
    )
    c = s.communication
    if c.lost_messages or c.rejected_frames:
        yield Text(
            f"Lost: {_count(c.lost_messages)} messages; refused: {_count(c.rejected_frames)} "
            "frames (why: run.json).",
            style="yellow",
        )
    if s.pilot is not None:
        dims = s.pilot.comparison_dims.values()
        yield Text(
            f"Before that a pilot of {s.pilot.rounds} rounds sent {_count(s.pilot.bytes_total)} "
            f"bytes; it chose d_ij from {min(dims)} to {max(dims)}, {sum(dims)} in all."
        )
    yield Text(NOT_COUNTED, style="dim")
    if c.train.radio is not None:
        yield from _radio(c)
    if c.train.fates:
        yield _fates(s.communication)
    yield _alignment(summary)
    yield _missing(summary)
    yield Text(
        f"Start-up {t.startup_s:.1f} s, training {_number(t.train_round_ms, 1)} ms a round, "
        f"inference {_number(t.inference_round_ms, 1)} ms a round, {t.wall_s:.1f} s in all; "
        f"{s.memory.actor_mb:.0f} MB a process."
    )
    yield _diagnosis(s.diagnosis)


_ROWS = {
    "rounds": "rounds",
    "messages": "messages",
    "payload bytes": "payload_bytes",
    "framing bytes": "framing_bytes",
    "control bytes": "control_bytes",
    "bytes in all": "bytes_total",
    "floor": "floor_bytes",
}


def _communication(phases: Mapping[Any, Mapping[str, Any]]) -> Table:
    """One column a phase; the floor and the overhead are known only of finished runs."""
    table = Table(title="Bytes between nodes", title_justify="left")
    table.add_column("")
    for phase in phases:
        table.add_column(phase, justify="right", overflow="fold")
    for name, key in _ROWS.items():
        table.add_row(name, *(_count(figures.get(key)) for figures in phases.values()))
    each = [f["bytes_total"] / f["rounds"] if f["rounds"] else None for f in phases.values()]
    table.add_row("bytes per round", *map(_count, each), style="bold")
    over = [f.get("overhead_percent") for f in phases.values()]
    table.add_row("overhead over floor", *("-" if o is None else f"{o:.2f} %" for o in over))
    return table


def _radio(communication: Communication) -> Iterable[RenderableType]:
    """Simulated time and energy, by phase."""
    table = Table(title="Simulated time and energy of the links", title_justify="left")
    table.add_column("")
    for name in communication.radios:
        table.add_column(name, justify="right")
    radios = list(communication.radios.values())
    for row, figures in (
        ("seconds", [r.seconds for r in radios]),
        ("seconds per round", [r.seconds_per_round for r in radios]),
        ("joules", [r.joules for r in radios]),
        ("joules, highest node", [r.highest_joules for r in radios]),
        ("busy seconds, highest node", [r.busiest_seconds for r in radios]),
    ):
        table.add_row(row, *map(_measured, figures))
    yield table
    yield Text("Computing takes no simulated time, waiting no energy.", style="dim")


def _fates(communication: Communication) -> Table:
    """What simulated faults made of the messages, evaluation aside, which they leave alone."""
    table = Table(title="What became of them, under simulated faults", title_justify="left")
    table.add_column("")
    phases = {"train": communication.train, "inference": communication.inference}
    for phase in phases:
        table.add_column(f"{phase}, messages", justify="right")
        table.add_column("bytes", justify="right", overflow="fold")
    for fate in communication.train.fates:
        tallies = [traffic.fates[fate] for traffic in phases.values()]
        table.add_row(fate, *(_count(n) for t in tallies for n in (t.messages, t.bytes_total)))
    return table


def _alignment(summary: Summary) -> Table:
    a = summary.alignment
    table = Table(
        title=f"Alignment on unseen events (gallery of {a.gallery:,})", title_justify="left"
    )
    table.add_column("measure")
    table.add_column("network", justify="right")
    table.add_column("lowest", justify="right")
    table.add_column("highest", justify="right")
    table.add_column("chance", justify="right")
    edges, nodes = list(a.per_edge.values()), list(a.per_node.values())
    for k in (1, 5, 10):
        key = f"recall_at_{k}"
        spread = [getattr(edge, key) for edge in edges]
        _measure(table, f"recall@{k}, per edge", getattr(a, key), spread, getattr(a.chance, key))
    chance = a.chance.accuracy
    spread = [node.zero_shot_accuracy for node in nodes]
    _measure(table, "zero-shot accuracy", a.zero_shot_accuracy, spread, chance)
    for shots, accuracy in a.few_shot_accuracy.items():
        spread = [node.few_shot_accuracy[shots] for node in nodes]
        _measure(table, f"{shots}-shot accuracy", accuracy, spread, chance)
    spread = [node.probe_accuracy for node in nodes]
    _measure(table, "linear probe accuracy", a.probe_accuracy, spread, chance)
    if a.fused_accuracy is not None:
        _measure(table, "accuracy of all joined", a.fused_accuracy, [a.fused_accuracy], chance)
    return table


def _measure(
    table: Table, name: str, value: float | None, given: list[float | None], chance: float | None
) -> None:
    spread = [v for v in given if v is not None] or [math.nan]
    table.add_row(name, *(_number(v, 3) for v in (value, min(spread), max(spread), chance)))


def _missing(summary: Summary) -> Table:
    m = summary.missing
    table = Table(title="Missing modalities, inferred", title_justify="left")
    table.add_column("estimator")
    table.add_column("NMSE", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("in 90 % interval", justify="right")
    table.add_row("(nothing missing)", _number(0.0, 3), _number(m.accuracy_all_present, 3), "-")
    for name, figures in m.estimators.items():
        used = " (used)" if name == m.estimator else ""
        table.add_row(
            name + used,
            _number(figures.nmse, 3),
            _number(figures.accuracy, 3),
            _number(figures.coverage_90, 3),
        )
    if m.abstained is not None:
        kept = f"{m.estimator}, {m.abstained / m.missing:.1%} abstained" if m.missing else "kept"
        table.add_row(kept, _number(m.nmse_kept, 3), _number(m.accuracy_kept, 3), "-")
    return table


def _partial_tables(run: LoadedRun) -> Iterable[RenderableType]:
    """What the appended files of an unfinished run tell."""
    yield Text(f"\n{run.directory.config().get('name')}: not finished; this is what was logged.")
    table = _logged(run)
    if table is not None:
        yield table
    with form_of(run.path / "rounds.jsonl"):
        last = _last_round(run.lines("train"))
    if last is not None:
        yield last
    try:
        found = run.findings()
    except ConfigError:
        yield Text("Diagnosis: none; its config.yaml is of another version.")
    else:
        yield _diagnosis(found)


def _logged(run: LoadedRun) -> Table | None:
    """The bytes that its ledger sums up to; None where it is empty."""
    phases: dict[str, dict[str, Any]] = {}
    for phase, edges in run.sent().items():
        sums = [traffic.model_dump() for traffic in edges.values()]
        phases[phase] = {key: sum(each[key] for each in sums) for key in sums[0]}
        phases[phase]["rounds"] = run.rounds_logged(phase)
        del phases[phase]["floor_bytes"]
    return _communication(phases) if phases else None


def _last_round(lines: Sequence[Mapping[str, Any]]) -> Text | None:
    if not lines:
        return None
    last = lines[-1]
    return Text(
        f"Last logged training round: {last['round']}, loss {_number(last['loss'], 3)}, "
        f"energy {_number(last['energy'], 3)}"
    )


def _diagnosis(findings: Sequence[Finding]) -> Text:
    if not findings:
        return Text("Diagnosis: no failure signature shows.")
    lines = [f"- {finding.signature}: {finding.text}" for finding in findings]
    return Text("\n".join(["Diagnosis", *lines]), style="yellow")


def _measured(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
