"""The command line. Every command is a thin call of the Python API."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer
import yaml
from rich.console import Console

from sheafnet.cli.bench import bench_command
from sheafnet.cli.completion import methods, topologies
from sheafnet.cli.datasets import datasets_command
from sheafnet.cli.doctor import doctor_command
from sheafnet.cli.options import Format, FormatOption, SetOption, TopologyOption
from sheafnet.cli.progress import run_progress
from sheafnet.cli.report import export_command, report_command, watch_command
from sheafnet.cli.studies import compare_command, scale_command, sweep_command
from sheafnet.config import Config, GraphConfig, MethodName, load_config
from sheafnet.datasets import find_dataset
from sheafnet.errors import ConfigError, SheafnetError
from sheafnet.network.frame import PHASES
from sheafnet.runtime.keep import Keep
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.pilot import wants_pilot
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.simulate import resume, simulate
from sheafnet.studies.tables import print_beside, print_run
from sheafnet.topology import build_topology
from sheafnet.validation import check_model
from sheafnet.version import __version__

app = typer.Typer(
    name="sheafnet",
    help="Simulate a decentralized sensor network and count every byte that crosses it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


class Backend(StrEnum):
    """Where the nodes run."""

    ray = "ray"
    local = "local"


Kind = StrEnum("Kind", {k: k for k in GraphConfig.model_fields["generator"].annotation.__args__})  # type: ignore[misc]

MethodOption = Annotated[
    str | None,
    typer.Option(
        help="The method, instead of the file's: " + ", ".join(get_args(MethodName)),
        autocompletion=methods,
    ),
]

AddressOption = Annotated[
    str | None, typer.Option(help="host:port of a running Ray cluster to join.")
]
PackingOption = Annotated[
    str | None, typer.Option(metavar="K|auto", help="Nodes that share an actor process.")
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
    topology: TopologyOption,
    rounds: Annotated[int | None, typer.Option(help="Training rounds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that the run draws.")] = None,
    method: MethodOption = None,
    overrides: SetOption = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run, new or empty.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="Ray actors, or one process.")] = None,
    address: AddressOption = None,
    nodes_per_actor: PackingOption = None,
    fault_free: Annotated[
        bool,
        typer.Option("--fault-free", help="Run it without its faults, too, and set both beside."),
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Watch nodes and edges while it runs, as `watch` does.")
    ] = False,
    output: FormatOption = Format.text,
) -> None:
    """Train the network, lose modalities, infer them, and say what it cost in bytes."""
    what = _given({"training.rounds": rounds, "run.seed": seed})
    where = _where(backend, address, nodes_per_actor)
    config = load_config(topology, [*_chosen(method, overrides), *what, *where])
    if fault_free and config.faults is None:
        raise ConfigError(f"--fault-free: {topology} has no faults that could be left out.")
    with run_progress(output, live) as (on_start, on_progress):
        result = simulate(config, run_dir=run_dir, on_start=on_start, on_progress=on_progress)
    if not fault_free:
        _print([result.directory], output)
        return
    calm = config.model_copy(update={"faults": None})
    beside = result.directory / "fault-free"
    with run_progress(output) as (on_start, on_progress):
        simulate(calm, run_dir=beside, on_start=on_start, on_progress=on_progress)
    if output is Format.text:
        _print([result.directory], output)
    _print([beside, result.directory], output)


@app.command("resume")
def _resume(
    run: Annotated[Path, typer.Argument(help="The run directory of a run that was broken off.")],
    overrides: SetOption = None,
    backend: Annotated[Backend | None, typer.Option(help="Ray actors, or one process.")] = None,
    address: AddressOption = None,
    nodes_per_actor: PackingOption = None,
    output: FormatOption = Format.text,
) -> None:
    """Go on from the last checkpoint, and end as if the run had not been broken off."""
    given = [*(overrides or ()), *_where(backend, address, nodes_per_actor)]
    with run_progress(output) as (on_start, on_progress):
        result = resume(run, given, on_start=on_start, on_progress=on_progress)
    _print([result.directory], output)


def _where(backend: Backend | None, address: str | None, nodes_per_actor: str | None) -> list[str]:
    """The overrides that say where a run takes place."""
    return _given(
        {
            "run.backend": backend.value if backend else None,
            "run.address": address,
            "run.nodes_per_actor": nodes_per_actor,
        }
    )


def _given(options: Mapping[str, object]) -> list[str]:
    """Options of the command line that were given, as overrides."""
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def _print(runs: Sequence[Path], output: Format) -> None:
    """Print one run, or several side by side; as JSON the summary of each."""
    loaded = [load_run(run) for run in runs]
    if output is Format.json:
        found = [run.directory.summary() or run.about for run in loaded]
        typer.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2))
    elif len(loaded) == 1:
        print_run(Console(), loaded[0])
    else:
        print_beside(Console(), loaded)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="The YAML to check.", autocompletion=topologies)],
    method: MethodOption = None,
    overrides: SetOption = None,
) -> None:
    """Check a topology file and say what it describes."""
    plan = Plan.open(load_config(file, _chosen(method, overrides)))
    Keep.within(plan)
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
    if wants_pilot(config):
        typer.echo(
            f"  d_ij that are auto: chosen by a pilot of {config.pilot.rounds} rounds, "
            "in which they are as above"
        )
    if plan.radio is not None:
        links = Counter(plan.radio.names)
        typer.echo(f"  links: {', '.join(f'{name} x {n}' for name, n in links.items())}")
    for phase in PHASES:
        count = plan.rounds(phase)
        if phase == "calibration" and not count:
            continue
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
    from sheafnet.graphs import generate_graph

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
    find_dataset(dataset, f"--dataset {dataset}")
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


@app.command()
def show(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    output: FormatOption = Format.text,
) -> None:
    """Print a finished or broken-off run again, or finished runs side by side."""
    _print(runs, output)


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


app.command("datasets")(datasets_command)
app.command("report")(report_command)
app.command("watch")(watch_command)
app.command("export")(export_command)
app.command("doctor")(doctor_command)
app.command("compare")(compare_command)
app.command("sweep")(sweep_command)
app.command("bench")(bench_command)
app.command("scale")(scale_command)


def run() -> int:
    """Run the command line; returns the exit code. An intended error is one message on stderr."""
    try:
        app(standalone_mode=True)
    except SheafnetError as error:
        notes = getattr(error, "__notes__", ())
        typer.echo(" ".join((f"sheafnet: {error}", *notes)), err=True)
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
