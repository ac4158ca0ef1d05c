"""The commands that run many configurations: compare, sweep and scale."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sheafnet.cli.completion import keys, topologies
from sheafnet.cli.options import Format, FormatOption, SetOption, TopologyOption
from sheafnet.cli.progress import study_progress
from sheafnet.studies.compare import compare
from sheafnet.studies.comparison_tables import print_comparison, write_comparison
from sheafnet.studies.contenders import METHODS
from sheafnet.studies.figures import COSTS
from sheafnet.studies.output import PLOTS, TABLES, check_suffix
from sheafnet.studies.plot import write_plot
from sheafnet.studies.running import Failure
from sheafnet.studies.scale import KINDS, ROUNDS, SIZES, scale
from sheafnet.studies.scale_output import print_scale, write_scale
from sheafnet.studies.scale_plot import write_scale_plot
from sheafnet.studies.sweep import sweep
from sheafnet.studies.sweep_output import print_sweep, write_table

StudyOption = Annotated[
    Path | None,
    typer.Option("--study", help="Folder that keeps every finished run.", show_default=False),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes at most; default: one per usable core.")
]
TableOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Table, .csv or .parquet; default: in the study."),
]
PlotOption = Annotated[
    Path | None, typer.Option(help="Plot, .png, .pdf or .svg; default: in the study.")
]


def compare_command(
    topology: TopologyOption,
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
        typer.Option(
            metavar="KEY=V1,V2",
            help="What to tune over, instead of the default grid.",
            autocompletion=keys,
        ),
    ] = None,
    select: Annotated[str | None, typer.Option(metavar="FIGURE", help="What to choose by.")] = None,
    tune_seeds: Annotated[int, typer.Option(min=1, help="Seeds to tune with.")] = 1,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=VALUE", help="Tell what it costs to reach it."),
    ] = None,
    cost: Annotated[
        str, typer.Option(metavar="|".join(COSTS), help="In which reaching it costs.")
    ] = "bytes",
    overrides: SetOption = None,
    study: StudyOption = None,
    workers: WorkersOption = None,
    output: FormatOption = Format.text,
) -> None:
    """Run several methods with several seeds and lay their figures side by side."""
    with study_progress(output) as on_progress:
        comparison = compare(
            topology,
            methods=methods,
            seeds=seeds,
            overrides=overrides or (),
            targets=target or (),
            cost=cost,
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


def sweep_command(
    topology: TopologyOption,
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2",
            help="A key and its values; repeat it.",
            autocompletion=keys,
        ),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from run.seed on.")] = 3,
    quality: Annotated[str, typer.Option(help="Figure of the front.")] = "recall_at_1",
    cost: Annotated[
        str,
        typer.Option(
            help="Figure that it is weighed against; bytes, seconds, joules: of training."
        ),
    ] = "train_bytes",
    table: TableOption = None,
    plot: PlotOption = None,
    overrides: SetOption = None,
    study: StudyOption = None,
    workers: WorkersOption = None,
) -> None:
    """Run every combination of values of any keys, and plot quality against cost."""
    _check_files(table, plot)
    with study_progress(Format.text) as on_progress:
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


def scale_command(
    nodes: Annotated[str, typer.Option(metavar="N,...", help="The sizes.")] = SIZES,
    kind: Annotated[
        str, typer.Option("--topology-kind", metavar="KIND", help=f"One of {', '.join(KINDS)}.")
    ] = "ring",
    degree: Annotated[
        str | None,
        typer.Option(metavar="D,...", help="Of knn, random-regular and small-world; default: 4."),
    ] = None,
    topology: Annotated[
        Path | None,
        typer.Option(
            help="A YAML whose graph is replaced; default: small cameras.",
            autocompletion=topologies,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Training rounds of every size.")] = ROUNDS,
    inference_rounds: Annotated[int, typer.Option(help="Inference rounds of every size.")] = ROUNDS,
    overrides: SetOption = None,
    study: StudyOption = None,
    table: TableOption = None,
    plot: PlotOption = None,
    output: FormatOption = Format.text,
) -> None:
    """Run one network at several sizes and tell what a round costs in time, memory and bytes."""
    _check_files(table, plot)
    with study_progress(output) as on_progress:
        result = scale(
            nodes,
            kind=kind,
            degree=degree,
            topology=topology,
            rounds=rounds,
            inference_rounds=inference_rounds,
            overrides=overrides or (),
            study=study,
            on_progress=on_progress,
        )
    table, plot = table or result.folder / "scale.csv", plot or result.folder / "scale.png"
    write_scale(result, table)
    write_scale_plot(result, plot)
    if output is Format.json:
        typer.echo(json.dumps(result.as_dict(), indent=2))
    else:
        console = Console()
        print_scale(console, result)
        paths = f"Table: {table}\nPlot: {plot}\nStudy: {result.folder}"
        console.print(Text(paths), soft_wrap=True)
    _end(result.failures)


def _check_files(table: Path | None, plot: Path | None) -> None:
    """Refuse files that could not be written, before anything is run."""
    if table is not None:
        check_suffix(table, TABLES, "--output")
    if plot is not None:
        check_suffix(plot, PLOTS, "--plot")


def _end(failures: Sequence[Failure]) -> None:
    """The exit code of a study of which runs failed is that of the first failure."""
    if failures:
        raise typer.Exit(failures[0].exit_code)
