"""The command line. Every command is a thin call of the Python API."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sheafnet.config import Config, GraphConfig, MethodName, load_config
from sheafnet.datasets import DATASETS
from sheafnet.errors import ConfigError, SheafnetError
from sheafnet.network.frame import PHASES
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.simulate import simulate
from sheafnet.studies.compare import compare
from sheafnet.studies.comparison_tables import print_comparison, write_comparison
from sheafnet.studies.contenders import METHODS
from sheafnet.studies.plot import write_plot
from sheafnet.studies.running import Failure, StudyProgress
from sheafnet.studies.sweep import sweep
from sheafnet.studies.sweep_output import PLOTS, TABLES, check_suffix, print_sweep, write_table
from sheafnet.studies.tables import print_run
from sheafnet.topology import build_topology, generate_graph
from sheafnet.validation import check_model, nearest
from sheafnet.version import __version__

app = typer.Typer(
    name="sheafnet",
    help="Simulate a decentralized sensor network and count every byte that crosses it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How results are printed."""

    text = "text"
    json = "json"


class Backend(StrEnum):
    """Where the nodes run."""

    ray = "ray"
    local = "local"


Kind = StrEnum("Kind", {k: k for k in GraphConfig.model_fields["generator"].annotation.__args__})  # type: ignore[misc]

FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, as training.rounds=200."),
]
MethodOption = Annotated[
    str | None,
    typer.Option(help="The method, instead of the file's: " + ", ".join(get_args(MethodName))),
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"sheafnet {__version__}")
        raise typer.Exit


@app.command("simulate")
def _simulate(
    topology: Annotated[Path, typer.Option(help="The YAML of the network and the run.")],
    rounds: Annotated[int | None, typer.Option(help="Training rounds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that the run draws.")] = None,
    method: MethodOption = None,
    overrides: SetOption = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run, new or empty.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="Ray actors, or one process.")] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of a running Ray cluster to join.")
    ] = None,
    nodes_per_actor: Annotated[
        str | None, typer.Option(metavar="K|auto", help="Nodes that share an actor process.")
    ] = None,
    output: FormatOption = Format.text,
) -> None:
    """Train the network, lose modalities, infer them, and say what it cost in bytes."""
    options = {
        "training.rounds": rounds,
        "run.seed": seed,
        "run.backend": backend.value if backend else None,
        "run.address": address,
        "run.nodes_per_actor": nodes_per_actor,
    }
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    config = load_config(topology, [*_chosen(method, overrides), *given])
    with _progress(output) as (on_start, on_progress):
        result = simulate(config, run_dir=run_dir, on_start=on_start, on_progress=on_progress)
    if output is Format.json:
        typer.echo(json.dumps(result.summary.model_dump(mode="json"), indent=2))
    else:
        print_run(Console(), RunDirectory.open(result.directory))


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="The YAML to check.")],
    method: MethodOption = None,
    overrides: SetOption = None,
) -> None:
    """Check a topology file and say what it describes."""
    plan = Plan.open(load_config(file, _chosen(method, overrides)))
    topology, config = plan.topology, plan.config
    degrees = sorted({len(topology.incident(node.index)) for node in topology.nodes})
    dims = sorted({edge.dim for edge in topology.edges})
    typer.echo(f"{file}: valid")
    seen = Counter(plan.dataset.modality(node.index) for node in topology.nodes)
    typer.echo(f"  topology: {topology.name}, data set: {config.dataset.name}")
    hub = "" if plan.method.hub is None else f", hub {topology.nodes[plan.method.hub].id}"
    typer.echo(f"  method: {config.method.name}{hub}")
    typer.echo(f"  modalities: {', '.join(f'{name} x {n}' for name, n in seen.items())}")
    typer.echo(
        f"  nodes: {len(topology.nodes)}, edges: {len(topology.edges)}, "
        f"degrees: {', '.join(map(str, degrees))}, d_ij: {', '.join(map(str, dims))}"
    )
    for phase in PHASES:
        count = plan.rounds(phase)
        floor = sum(plan.floor(phase).values())
        each = f" ({floor / count:,.0f} a round)" if count else ""
        typer.echo(f"  {phase}: rounds: {count:,}, at least {floor:,} bytes{each}")


@app.command("topology")
def _topology(
    kind: Annotated[Kind, typer.Argument(help="The graph.")],
    nodes: Annotated[int, typer.Option(help="Number of nodes.")],
    degree: Annotated[
        int, typer.Option(help="Neighbours: of knn, random-regular and small-world.")
    ] = 4,
    rewire: Annotated[float, typer.Option(help="Rewiring probability of small-world.")] = 0.1,
    columns: Annotated[int | None, typer.Option(help="Width of a grid.")] = None,
    graph_seed: Annotated[int, typer.Option(help="Seed of a random graph.")] = 0,
    dataset: Annotated[str, typer.Option(help="Data set; see `sheafnet datasets`.")] = (
        "overlap-mnist"
    ),
    embedding_dim: Annotated[int, typer.Option(help="d_i of every node.")] = 64,
    comparison_dim: Annotated[
        str, typer.Option(help="d_ij of every edge: a number, or a fraction of d_i.")
    ] = "0.5",
    prefix: Annotated[str, typer.Option(help="Node ids are this and a number.")] = "node",
    name: Annotated[str | None, typer.Option(help="Name of the topology.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: print it.")
    ] = None,
) -> None:
    """Write the YAML of a generated network, nodes and edges listed, ready to edit."""
    source = f"sheafnet topology {kind.value}"
    graph = check_model(
        GraphConfig,
        {
            "generator": kind.value,
            "nodes": nodes,
            "degree": degree,
            "rewire": rewire,
            "columns": columns,
            "seed": graph_seed,
            "prefix": prefix,
        },
        source=source,
    )
    drawn = generate_graph(graph)
    ids = [f"{prefix}{index}" for index in range(nodes)]
    values = {
        "name": name or f"{kind.value}-{nodes}",
        "dataset": dataset,
        "defaults": {
            "node": {"embedding_dim": embedding_dim},
            "edge": {"comparison_dim": _number(comparison_dim)},
        },
        "nodes": ids,
        "edges": [[ids[i], ids[j]] for i, j in sorted(tuple(sorted(e)) for e in drawn.edges)],
    }
    if dataset not in DATASETS:
        raise ConfigError(
            f"--dataset {dataset}: no such data set. {nearest(dataset, list(DATASETS))}"
        )
    topology = build_topology(check_model(Config, values, source=source))
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{output}: exists already; choose another --output.") from None
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}.") from None
    typer.echo(f"{output}: {len(topology.nodes)} nodes, {len(topology.edges)} edges")


def _number(text: str) -> int | float | str:
    """A comparison dimension as typed; what is no number is left for the model to refuse."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@app.command("datasets")
def _datasets(output: FormatOption = Format.text) -> None:
    """List the data sets with their modalities, sizes and licences."""
    if output is Format.json:
        typer.echo(json.dumps({n: info.as_dict() for n, info in DATASETS.items()}, indent=2))
        return
    table = Table(title="Data sets", title_justify="left", show_lines=True)
    table.add_column("name", no_wrap=True)
    for column in ("what it is", "modalities", "sizes", "licence"):
        table.add_column(column, overflow="fold")
    for info in DATASETS.values():
        table.add_row(info.name, info.summary, info.modalities, info.sizes, info.licence)
    Console().print(table)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    output: FormatOption = Format.text,
) -> None:
    """Print a finished or broken-off run again."""
    directory = RunDirectory.open(run)
    if output is Format.text:
        print_run(Console(), directory)
        return
    figures = directory.summary()
    typer.echo(json.dumps(figures if figures is not None else directory.about(), indent=2))


def _chosen(method: str | None, overrides: Sequence[str] | None) -> list[str]:
    """``--method`` as an override, before those that refine it."""
    given = list(overrides or ())
    if method is None:
        return given
    for override in given:
        if override.partition("=")[0] in {"method", "method.name"}:
            raise ConfigError(
                f"--set {override}: --method {method} is given too; drop one of them."
            )
    return [f"method={method}", *given]


StudyOption = Annotated[
    Path | None,
    typer.Option("--study", help="Folder that keeps every finished run.", show_default=False),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes at most; default: one per usable core.")
]


@app.command("compare")
def _compare(
    topology: Annotated[Path, typer.Option(help="The YAML of the network and the run.")],
    methods: Annotated[
        str,
        typer.Option(
            metavar="M,...", help="Contenders: METHOD or METHOD@KEY=VALUE; the first is the norm."
        ),
    ] = ",".join(METHODS),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from run.seed on.")] = 5,
    tune: Annotated[
        bool, typer.Option("--tune", help="First choose settings on validation events.")
    ] = False,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="What to tune over, instead of the default grid."),
    ] = None,
    select: Annotated[str | None, typer.Option(metavar="FIGURE", help="What to choose by.")] = None,
    tune_seeds: Annotated[int, typer.Option(min=1, help="Seeds to tune with.")] = 1,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=VALUE", help="Tell the bytes to reach it."),
    ] = None,
    overrides: SetOption = None,
    study: StudyOption = None,
    workers: WorkersOption = None,
    output: FormatOption = Format.text,
) -> None:
    """Run several methods with several seeds and lay their figures side by side."""
    with _study_progress(output) as on_progress:
        comparison = compare(
            topology,
            methods=methods,
            seeds=seeds,
            overrides=overrides or (),
            targets=target or (),
            tune=tune,
            grid=grid or (),
            select=select,
            tune_seeds=tune_seeds,
            study=study,
            workers=workers,
            on_progress=on_progress,
        )
    write_comparison(comparison)
    if output is Format.json:
        typer.echo(json.dumps(comparison.as_dict(), indent=2))
    else:
        print_comparison(Console(), comparison)
    _end(comparison.failures)


@app.command("sweep")
def _sweep(
    topology: Annotated[Path, typer.Option(help="The YAML of the network and the run.")],
    over: Annotated[
        list[str], typer.Option(metavar="KEY=V1,V2", help="A key and its values; repeat it.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from run.seed on.")] = 3,
    quality: Annotated[str, typer.Option(help="Figure of the front.")] = "recall_at_1",
    cost: Annotated[str, typer.Option(help="Figure that it is weighed against.")] = "train_bytes",
    table: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Table, .csv or .parquet; default: in the study."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot, .png, .pdf or .svg; default: in the study.")
    ] = None,
    overrides: SetOption = None,
    study: StudyOption = None,
    workers: WorkersOption = None,
) -> None:
    """Run every combination of values of any keys, and plot quality against bytes."""
    if table is not None:
        check_suffix(table, TABLES, "--output")
    if plot is not None:
        check_suffix(plot, PLOTS, "--plot")
    with _study_progress(Format.text) as on_progress:
        result = sweep(
            topology,
            over,
            seeds=seeds,
            overrides=overrides or (),
            quality=quality,
            cost=cost,
            study=study,
            workers=workers,
            on_progress=on_progress,
        )
    table, plot = table or result.folder / "sweep.csv", plot or result.folder / "sweep.png"
    write_table(result, table)
    write_plot(result, plot)
    console = Console()
    print_sweep(console, result)
    console.print(Text(f"Table: {table}\nPlot: {plot}\nStudy: {result.folder}"), soft_wrap=True)
    _end(result.failures)


def _end(failures: Sequence[Failure]) -> None:
    """The exit code of a study of which runs failed is that of the first failure."""
    if failures:
        raise typer.Exit(failures[0].exit_code)


Callbacks = tuple[Callable[[Path], None], Callable[[Progress], None]]


@contextmanager
def _progress(output: Format) -> Iterator[Callbacks]:
    """A bar on a terminal, plain lines when piped; both on stderr, nothing under --format json."""
    console = Console(stderr=True)
    if output is Format.json:
        yield lambda _: None, lambda _: None
    elif console.is_terminal:
        with _bar(console) as callbacks:
            yield callbacks
    else:
        yield _lines()


@contextmanager
def _bar(console: Console) -> Iterator[Callbacks]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(compact=True),
    )
    with Bar(*columns, console=console, expand=True) as bar:
        tasks: dict[str, TaskID] = {}
        starting = bar.add_task("starting", total=None, figures="")

        def on_start(directory: Path) -> None:
            bar.remove_task(starting)
            console.print(f"Run directory: {directory}", soft_wrap=True)

        def on_progress(progress: Progress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task(
                    progress.phase, total=progress.total, figures=""
                )
            figures = _figures(progress)
            bar.update(tasks[progress.phase], completed=progress.done, figures=figures)
            for finding in progress.findings:
                console.print(Text(f"{finding.signature}: {finding.text}", style="yellow"))

        yield on_start, on_progress


def _lines() -> Callbacks:
    begin = time.monotonic()
    shown: dict[str, int] = {}

    def on_start(directory: Path) -> None:
        typer.echo(f"Run directory: {directory}", err=True)

    def on_progress(progress: Progress) -> None:
        for finding in progress.findings:
            typer.echo(f"{finding.signature}: {finding.text}", err=True)
        tenth = 10 * progress.done // progress.total
        if shown.get(progress.phase) == tenth and progress.done < progress.total:
            return
        shown[progress.phase] = tenth
        typer.echo(
            f"[{time.monotonic() - begin:6.1f} s] {progress.phase} "
            f"{progress.done}/{progress.total} {_figures(progress)}",
            err=True,
        )

    return on_start, on_progress


@contextmanager
def _study_progress(output: Format) -> Iterator[Callable[[StudyProgress], None]]:
    """As `_progress`, for the cells of a study."""
    console = Console(stderr=True)
    if output is Format.json:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield lambda progress: typer.echo(_cells(progress), err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None))
    with Bar(*columns, console=console, expand=True) as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(progress: StudyProgress) -> None:
            if progress.what not in tasks:
                tasks[progress.what] = bar.add_task("", total=progress.total)
            text = _cells(progress)
            bar.update(tasks[progress.what], completed=progress.done, description=text)

        yield on_progress


def _cells(progress: StudyProgress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = progress.seconds_left
    time_left = "" if left is None else f", {left // 60:.0f} min {left % 60:.0f} s left"
    return f"{progress.what}: {progress.done}/{progress.total} cells{failed}{time_left}"


def _figures(progress: Progress) -> str:
    parts = [f"{progress.bytes_total / 1e6:.1f} MB"]
    if progress.phase == "train":
        losses = {
            "loss": progress.loss,
            "contrast": progress.contrastive,
            "energy": progress.energy,
        }
        parts = [f"{name} {v:.3g}" for name, v in losses.items() if v is not None] + parts
    return "  ".join(parts)


def run() -> int:
    """Run the command line; returns the exit code. An intended error is one message on stderr."""
    try:
        app(standalone_mode=True)
    except SheafnetError as error:
        typer.echo(f"sheafnet: {error}", err=True)
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
