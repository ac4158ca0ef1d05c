"""A scaling study as tables on the terminal, and as CSV or Parquet."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sheafnet.studies.growth import FROM
from sheafnet.studies.output import write_columns
from sheafnet.studies.round_cost import PHASES, TimedPhase
from sheafnet.studies.scale import GROWING, Growth, Scale, Size

_WHOLE = {"nodes", "degree", "edges", "hosts", "memory_from_nodes", "reference_nodes"}
_WHOLE |= {f"{phase}_rounds" for phase in PHASES}
TITLES = {"train": "A training round", "inference": "A round of missing-modality inference"}


def write_scale(scale: Scale, path: Path) -> None:
    """Write a row per size as CSV or Parquet, by the suffix of `path`.

    Raises:
        StudyError: the suffix is neither, or the file cannot be written.
    """
    rows = scale.rows()
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    others = _WHOLE | {"kind"} | {f"{phase}_warmed_up" for phase in PHASES}
    write_columns(columns, [name for name in columns if name not in others], path)


def print_scale(console: Console, scale: Scale) -> None:
    """Print start and memory, the rounds of both phases, traffic, growth, and what to know."""
    if scale.sizes:
        for part in _parts(scale):
            console.print(part)
    for failure in scale.failures:
        console.print(Text(f"Failed: {failure.overrides[0]}: {failure.error}", style="yellow"))


def _parts(scale: Scale) -> Iterable[RenderableType]:
    yield _start(scale)
    for phase in PHASES:
        if any(size.cost(phase) for size in scale.sizes):
            yield _rounds(scale, phase)
    yield Text("\n".join(_legend(scale)))
    yield _traffic(scale)
    if scale.growth:
        yield _growth(scale.growth)
        yield Text(f"Fitted to sizes from {FROM} nodes on, where there are two; else to all.")


Column = tuple[str, Callable[[Size], str]]


def _table(title: str, scale: Scale, columns: Sequence[Column]) -> Table:
    """A row per size; the degree is a column where there are several."""
    degrees = list(scale.series)
    named: list[Column] = [("nodes", lambda size: f"{size.nodes:,}")]
    if len(degrees) > 1:
        named.append(("deg", lambda size: str(size.degree)))
    table = Table(title=title, title_justify="left")
    for name, _ in (*named, *columns):
        table.add_column(name, justify="right")
    for size in scale.sizes:
        table.add_row(*(show(size) for _, show in (*named, *columns)))
    return table


def _start(scale: Scale) -> Table:
    degrees = list(scale.series)
    of_degree = f" of degree {degrees[0]}" if len(degrees) == 1 and degrees[0] else ""
    return _table(
        f"{scale.topology}: {scale.kind}{of_degree}; start and memory",
        scale,
        (
            ("edges", lambda size: f"{size.edges:,}"),
            ("hosts", lambda size: f"{size.hosts:,}"),
            ("start-up s", lambda size: f"{size.startup_s:.1f}"),
            ("run s", lambda size: f"{size.wall_s:.1f}"),
            ("MB in all", lambda size: f"{size.memory_mb:,.0f}"),
            ("MB a node *", lambda size: digits(scale.node_mb(size))),
        ),
    )


def _rounds(scale: Scale, phase: TimedPhase) -> Table:
    def of(name: str) -> Callable[[Size], str]:
        return lambda size: digits(_value(size, phase, name))

    def busy(size: Size) -> str:
        share = _value(size, phase, "efficiency")
        return "-" if share is None else f"{share:.0%}"

    return _table(
        TITLES[phase],
        scale,
        (
            ("ms", of("round_ms")),
            ("compute", of("compute_ms")),
            ("messaging", of("messaging_ms")),
            ("wait", of("wait_ms")),
            ("busy", busy),
            ("ms/node", of("node_round_ms")),
            ("ratio", lambda size: digits(scale.ratio(size, phase))),
        ),
    )


def _value(size: Size, phase: TimedPhase, name: str) -> float | None:
    cost = size.cost(phase)
    return None if cost is None else float(getattr(cost, name))


def _legend(scale: Scale) -> Iterable[str]:
    references = sorted({scale.reference(size).nodes for size in scale.sizes})
    yield (
        "ms: wall-clock time of a round, first stretch left out. compute, messaging, wait: of a "
        "round at a host, mean over all rounds. busy: parallel efficiency, the share of the hosts' "
        "wall-clock time that is compute. ms/node: ms x hosts / nodes. ratio: of ms/node to that "
        f"at {' or '.join(f'{n:,}' for n in references)} nodes."
    )
    yield "* beyond the hosts: growth since the smallest size with as many hosts."
    cold = [s for s in scale.sizes for p in PHASES if (c := s.cost(p)) and not c.warmed_up]
    if cold:
        yield f"The first stretch is not left out, as the only one: {_named(cold)}."
    hosts = {scale.reference(size).hosts for size in scale.sizes}
    unlike = [size for size in scale.sizes if size.hosts not in hosts]
    if unlike:
        yield (
            f"Not as many hosts as the reference have {_named(unlike)}: compare neither memory nor "
            "times."
        )


def _named(sizes: Sequence[Size]) -> str:
    names = dict.fromkeys(
        f"{s.nodes:,} nodes" + ("" if s.degree is None else f" of degree {s.degree}") for s in sizes
    )
    return ", ".join(names)


def _traffic(scale: Scale) -> Table:
    def of(phase: TimedPhase, name: str) -> Callable[[Size], str]:
        return lambda size: _count(_value(size, phase, name))

    return _table(
        "Traffic of a round",
        scale,
        (
            ("edges", lambda size: f"{size.edges:,}"),
            ("train\nmessages", of("train", "messages")),
            ("train\nbytes", of("train", "bytes")),
            ("infer\nmessages", of("inference", "messages")),
            ("infer\nbytes", of("inference", "bytes")),
        ),
    )


def _growth(growths: Sequence[Growth]) -> Table:
    table = Table(
        title="Growth: b of cost ~ x^b, least squares in logarithms", title_justify="left"
    )
    table.add_column("x, from … to")
    for name in GROWING:
        phase, _, field = name.partition(".")
        short = {"round_ms": "ms", "bytes": "bytes", "messages": "messages"}[field]
        table.add_column(f"{'train' if phase == 'train' else 'infer'}\n{short}", justify="right")
    for growth in growths:
        ends = f"{growth.over[0]:,}…{growth.over[-1]:,}"
        what = "degree" if growth.against == "degree" else "nodes"
        held = "" if growth.held is None else f"\nat {_held(growth)}"
        over = f", {what} {ends}" if growth.against == "edges" else f" {ends}"
        exponents = (growth.exponents[name] for name in GROWING)
        table.add_row(
            growth.against + over + held, *("-" if b is None else f"{b:.2f}" for b in exponents)
        )
    return table


def _held(growth: Growth) -> str:
    return f"{growth.held:,} nodes" if growth.against == "degree" else f"degree {growth.held}"


def digits(value: float | None) -> str:
    """Three digits, or all before the point where there are more."""
    if value is None:
        return "-"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
