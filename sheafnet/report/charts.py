"""The figures of a report, each a matplotlib figure: made here, placed by `sheafnet.report.page`.

All ink is drawn in `INK`, which becomes the colour of the text where a figure stands in a page, so
that light and dark pages share it. Colours of data are told apart in every kind of colour vision
and on both grounds.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from sheafnet.runtime.loaded import printable
from sheafnet.runtime.summary import Summary
from sheafnet.studies.pareto import pareto_front
from sheafnet.studies.plot import COLOURS, MARKS, prefix
from sheafnet.topology import Topology

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the colour of the text; no data has it."""
WIDTH = 4.8
"""Inches: at 72 dots an inch as wide as a phone, so that text is never smaller than set."""
NAMED_NODES = 40
"""Names beside more nodes than that would hide each other."""
DRAWN_NODES = 2000
"""A drawing of more shows nothing."""
_COLOURMAP = "viridis"

Line = Mapping[str, Any]
Picture = npt.NDArray[np.float32]


def canvas(height: float = 3.2, rows: int = 1, columns: int = 1) -> tuple["Figure", Any]:
    """A figure of the common width, and its axes in an array of (rows, columns)."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.tick_params(colors=INK, labelsize=8)
        each.xaxis.label.set_color(INK)
        each.yaxis.label.set_color(INK)
        each.title.set_color(INK)
        each.set_facecolor("none")
        for spine in each.spines.values():
            spine.set_color(INK)
        each.spines[["top", "right"]].set_visible(False)
    figure.set_facecolor("none")
    return figure, axes


def network(
    topology: Topology,
    sent: Mapping[str, int],
    recall: Mapping[str, float | None],
    failed: Sequence[str],
) -> "Figure | None":
    """The graph: width of an edge is its bytes, colour its alignment; None of very large ones.

    Args:
        topology: of the run.
        sent: bytes of both directions by ``left~right``.
        recall: alignment of an edge, mean of both directions; empty where it was not measured.
        failed: ids of nodes that slept or died.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    count = len(topology.nodes)
    if count > DRAWN_NODES:
        return None
    figure, ((axes,),) = canvas(4.4)
    places = _places(topology)
    names = [topology.edge_name(edge.index) for edge in topology.edges]
    ends = [places[[edge.tail, edge.head]] for edge in topology.edges]
    most = max(sent.values(), default=0) or 1
    thick = 5.0 if count <= NAMED_NODES else 2.0
    widths = [0.8 + thick * sent.get(name, 0) / most for name in names]
    axes.add_collection(LineCollection(ends, colors=INK, linewidths=[w + 1.4 for w in widths]))
    known = [value for name in names if (value := recall.get(name)) is not None]
    coloured: dict[str, Any] = {"colors": "#999999"}
    if known:
        values = [math.nan if (v := recall.get(name)) is None else v for name in names]
        coloured = {"array": values, "cmap": _COLOURMAP, "norm": Normalize(*_limits(known))}
    lines = axes.add_collection(LineCollection(ends, linewidths=widths, **coloured))
    if known:
        bar = figure.colorbar(lines, ax=axes, location="bottom", fraction=0.05, pad=0.02)
        bar.set_label("recall@1 across the edge", color=INK, fontsize=9)
        bar.ax.tick_params(colors=INK, labelsize=8)
        bar.outline.set_edgecolor(INK)
    size = 220.0 if count <= NAMED_NODES else max(4.0, 4000.0 / count)
    down = [node.id in failed for node in topology.nodes]
    for marked, mark, colour in ((False, "o", "#56B4E9"), (True, "X", "#D55E00")):
        here = places[[k for k, is_down in enumerate(down) if is_down is marked]]
        if len(here):
            label = "slept, died or was cut off" if marked else "node"
            style = {"edgecolors": INK, "linewidths": 0.8, "zorder": 3, "label": label}
            axes.scatter(here[:, 0], here[:, 1], size, color=colour, marker=mark, **style)
    if count <= NAMED_NODES:
        centre = places.mean(axis=0)
        for node, place in zip(topology.nodes, places, strict=True):
            away = place - centre
            away /= np.linalg.norm(away) or 1.0
            axes.annotate(
                node.id,
                place,
                xytext=tuple(16.0 * away),
                textcoords="offset points",
                ha="left" if away[0] > 0.3 else "right" if away[0] < -0.3 else "center",
                va="bottom" if away[1] > 0.3 else "top" if away[1] < -0.3 else "center",
                fontsize=9,
                color=INK,
            )
    if any(down):
        axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="upper right", markerscale=0.5)
    axes.set_aspect("equal")
    axes.margins(0.3, 0.2)
    axes.axis("off")
    return figure


def _places(topology: Topology) -> npt.NDArray[np.float64]:
    graph = nx.Graph()
    graph.add_nodes_from(range(len(topology.nodes)))
    graph.add_edges_from((edge.tail, edge.head) for edge in topology.edges)
    if len(graph) <= 150:
        found = nx.kamada_kawai_layout(graph)
    else:
        found = nx.spring_layout(graph, pos=nx.spectral_layout(graph), seed=0, iterations=40)
    return np.array([found[node] for node in range(len(graph))])


def _plain(label: str) -> str:
    """`label` as matplotlib shows it as it is: no formula, and not hidden from legends."""
    return printable(label).replace("$", r"\$").removeprefix("_") or "run"


def _legend_height(labels: Collection[str]) -> float:
    """Inches."""
    return 0.17 * len(labels) if len(labels) > 1 else 0.0


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-9 else (low - 0.01, high + 0.01)


_CURVES = (
    ("loss", "loss", False),
    ("contrastive", "L_contrast (nats)", False),
    ("energy", "consistency energy", True),
    ("reconstruction", "L_recon", True),
    ("gradient_norm", "gradient norm", True),
    ("bytes", "bytes sent so far", False),
)


def curves(runs: Mapping[str, Sequence[Line]]) -> "Figure | None":
    """Losses, energy, gradient norm and bytes over training rounds; None where no round was logged.

    Args:
        runs: the training lines of rounds.jsonl of each run, by its label.
    """
    drawn = {_plain(label): lines for label, lines in runs.items() if lines}
    if not drawn:
        return None
    figure, axes = canvas(6.2 + _legend_height(drawn), 3, 2)
    for place, (key, title, steep) in zip(axes.flat, _CURVES, strict=True):
        scale, unit = 1.0, ""
        if key == "bytes":
            most = max(sum(line["bytes"] for line in lines) for lines in drawn.values())
            scale, name = prefix(most)
            unit = f" ({name})"
        positive = True
        for index, (label, lines) in enumerate(drawn.items()):
            rounds, values = _series(lines, key, scale)
            positive &= bool((values > 0).any())
            style = {"color": COLOURS[index % len(COLOURS)], "linewidth": 1.3}
            if len(rounds) > 60 and key != "bytes":
                place.plot(rounds, values, alpha=0.3, **(style | {"linewidth": 0.6}))
                values = _smooth(values)
            few = {"marker": MARKS[index % len(MARKS)], "markersize": 3} if len(rounds) < 15 else {}
            place.plot(rounds, values, label=label, **style, **few)
        if steep and positive:
            _logarithmic(place, place.yaxis)
        place.set_title(f"{title}{unit}", fontsize=9, loc="left", color=INK)
        place.grid(alpha=0.25, linewidth=0.5)
    for place in axes[-1]:
        place.set_xlabel("training round", fontsize=8)
    if len(drawn) > 1:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", fontsize=8, frameon=False, labelcolor=INK
        )
    return figure


def _logarithmic(axes: "Axes", axis: Any) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of every decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _series(
    lines: Sequence[Line], key: str, scale: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    rounds = np.array([line["round"] for line in lines])
    found = [line.get(key) for line in lines]
    values = np.array([math.nan if value is None else value for value in found], dtype=float)
    return rounds, np.cumsum(values) / scale if key == "bytes" else values


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over a fortieth of the run around each round, of what was measured."""
    half = max(1, len(values) // 80)
    known = np.isfinite(values)
    kernel = np.ones(2 * half + 1)
    total = np.convolve(np.where(known, values, 0.0), kernel, "same")
    count = np.convolve(known.astype(float), kernel, "same")
    total[count == 0] = math.nan
    return np.asarray(total / np.maximum(count, 1.0))


def heat_map(
    topology: Topology, values: Mapping[str, float | None], title: str, chance: float | None
) -> "Figure | None":
    """A value for each directed edge, ``querying->searched``, as a matrix of nodes by nodes.

    None of very large networks.
    """
    count = len(topology.nodes)
    if count > DRAWN_NODES:
        return None
    at = {node.id: node.index for node in topology.nodes}
    cells = [
        (*(at[name] for name in arrow.split("->")), value)
        for arrow, value in values.items()
        if value is not None
    ]
    figure, ((axes,),) = canvas(4.2)
    rows, columns, known = (list(each) for each in zip(*cells, strict=True)) if cells else ([],) * 3
    low, high = _limits(known or [0.0, 1.0])
    axes.set_box_aspect(1.0)
    side = 72.0 * 3.1 / count  # of a cell, in points; at least one that can be seen
    image = axes.scatter(
        columns, rows, max(side, 1.5) ** 2, c=known, cmap=_COLOURMAP, vmin=low, vmax=high,
        marker="s", linewidths=0.0,
    )  # fmt: skip
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    if count <= NAMED_NODES:
        ids, size = [node.id for node in topology.nodes], 8 if count <= 16 else 5
        axes.set_xticks(range(count), ids, rotation=60, ha="right", fontsize=size)
        axes.set_yticks(range(count), ids, fontsize=size)
    if count <= 10:
        for row, column, value in zip(rows, columns, known, strict=True):
            light = (value - low) / (high - low) > 0.6
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="#111111" if light else "#ffffff",
            )
    axes.set_xlabel("node that is searched", fontsize=8)
    axes.set_ylabel("node that asks", fontsize=8)
    axes.spines[:].set_visible(True)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_edgecolor(INK)
    by_chance = "" if chance is None else f" (chance {chance:.3g})"
    axes.set_title(f"{title}{by_chance}", fontsize=9, loc="left", color=INK)
    return figure


def reconstruction(summary: Summary) -> "Figure | None":
    """NMSE of missing sections by node and estimator; None where none was missing.

    A mark for each node and estimator, or a box of all nodes where they are many.
    """
    nodes = {n: found for n, found in summary.missing.per_node.items() if found.missing}
    found = summary.missing.estimators
    names = [name for name, estimate in found.items() if estimate.nmse is not None]
    if not nodes or not names:
        return None
    few = len(nodes) <= NAMED_NODES
    figure, ((axes,),) = canvas(1.4 + 0.22 * len(nodes) if few else 3.2)
    if few:
        for index, name in enumerate(names):
            values = [_or_nan(found.estimators[name].nmse) for found in nodes.values()]
            used = f"{name} (used)" if name == summary.missing.estimator else name
            axes.plot(
                values,
                range(len(nodes)),
                linestyle="none",
                marker=MARKS[index % len(MARKS)],
                color=COLOURS[index % len(COLOURS)],
                markeredgecolor=INK,
                markeredgewidth=0.5,
                markersize=7,
                label=used,
            )
        axes.set_yticks(range(len(nodes)), list(nodes), fontsize=8)
        axes.set_ylim(len(nodes) - 0.5, -0.5)
        figure.legend(loc="outside upper left", ncols=3, fontsize=8, frameon=False, labelcolor=INK)
    else:
        spread = [
            [v for found in nodes.values() if (v := found.estimators[name].nmse) is not None]
            for name in names
        ]
        _boxes(axes, spread, names)
    axes.axvline(1.0, color=INK, linestyle=":", linewidth=1.0)
    _logarithmic(axes, axes.xaxis)
    axes.set_xlabel("NMSE, lower is better; 1 is the train mean", fontsize=8)
    axes.grid(alpha=0.25, linewidth=0.5, axis="x")
    return figure


def energy(summary: Summary) -> "Figure | None":
    """Joules by node and phase, one upon the other; None where links tell no energy of any node.

    A bar for each node, or a box of all nodes for each phase where they are many.
    """
    from matplotlib.ticker import EngFormatter

    found = {
        phase: [_or_nan(each.joules) for each in radio.per_node.values()]
        for phase, radio in summary.communication.radios.items()
    }
    found = {phase: values for phase, values in found.items() if np.nansum(values) > 0}
    if not found:
        return None
    names = list(summary.communication.train.per_node)
    few = len(names) <= NAMED_NODES
    figure, ((axes,),) = canvas(1.4 + 0.22 * len(names) if few else 3.2)
    if few:
        left = np.zeros(len(names))
        for index, (phase, values) in enumerate(found.items()):
            style = {"color": COLOURS[index], "edgecolor": INK, "linewidth": 0.5}
            axes.barh(range(len(names)), values, left=left, label=phase, **style)
            left += np.nan_to_num(values)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        figure.legend(loc="outside upper left", ncols=4, fontsize=8, frameon=False, labelcolor=INK)
    else:
        known = [[v for v in values if not math.isnan(v)] for values in found.values()]
        _boxes(axes, known, list(found))
        _logarithmic(axes, axes.xaxis)
    axes.xaxis.set_major_formatter(EngFormatter("J"))
    axes.set_xlabel("simulated energy of the radios", fontsize=8)
    axes.grid(alpha=0.25, linewidth=0.5, axis="x")
    return figure


def _boxes(axes: "Axes", values: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    """A box for each name, lying."""
    line = {"color": INK}
    axes.boxplot(
        values,
        orientation="horizontal",
        tick_labels=names,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": COLOURS[5]},
        flierprops={"markersize": 3, "markeredgecolor": INK},
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def against_bytes(
    curves_: Mapping[str, Sequence[tuple[float, float]]], quality: str, cost: str
) -> "Figure | None":
    """Quality against bytes: the way of each run to its end, and the front of the ends.

    None of a single measurement, which shows no way.

    Args:
        curves_: by run, (bytes, quality) of its measurements in their order; the last is its end.
        quality: name of the axis.
        cost: the same, without unit.
    """
    ends = {_plain(label): points for label, points in curves_.items() if points}
    if sum(map(len, ends.values())) < 2:
        return None
    figure, ((axes,),) = canvas(3.4 + _legend_height(ends))
    most = max(points[-1][0] for points in ends.values())
    scale, unit = prefix(most)
    finals = [points[-1] for points in ends.values()]
    front = [finals[k] for k in pareto_front(finals)]
    if len(finals) > 1:
        axes.plot(
            [x / scale for x, _ in front],
            [y for _, y in front],
            color=INK,
            linestyle="--",
            linewidth=1.0,
            drawstyle="steps-post",
            label="Pareto front of the ends",
            zorder=1,
        )
    for index, (label, points) in enumerate(ends.items()):
        colour = COLOURS[index % len(COLOURS)]
        xs, ys = [x / scale for x, _ in points], [y for _, y in points]
        if len(points) > 1:
            axes.plot(xs, ys, color=colour, linewidth=1.2, marker=".", markersize=4)
        mark = {"marker": MARKS[index % len(MARKS)], "markersize": 8, "markeredgecolor": INK}
        axes.plot(xs[-1:], ys[-1:], linestyle="none", color=colour, label=label, **mark)
    axes.margins(0.12)
    axes.set_xlabel(f"{cost} ({unit})", fontsize=9)
    axes.set_ylabel(quality, fontsize=9)
    axes.grid(alpha=0.25, linewidth=0.5)
    figure.legend(loc="outside upper left", fontsize=8, frameon=False, labelcolor=INK)
    return figure


def retrieval(rows: Sequence[Sequence[Picture]], hits: Sequence[int | None]) -> "Figure":
    """Pictures: per row a query, its true partner, and what was found, the nearest first.

    Args:
        rows: pictures (height, width), or (height, width, 3) in 0 to 1.
        hits: per row, which of those found is the true partner; None where none is.
    """
    height, width = rows[0][0].shape[:2]
    each = (WIDTH / len(rows[0]) - 0.06) * min(2.0, height / width) + 0.06
    figure, axes = canvas(each * len(rows) + 0.3, len(rows), len(rows[0]))
    for row, (pictures, hit) in enumerate(zip(rows, hits, strict=True)):
        for column, picture in enumerate(pictures):
            place: Axes = axes[row, column]
            place.imshow(picture, cmap="gray", interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
            is_hit = hit is not None and column == hit + 2
            for spine in place.spines.values():
                spine.set_visible(True)
                spine.set_color(COLOURS[2] if is_hit else INK)
                spine.set_linewidth(3.0 if is_hit else 0.6)
            if row == 0:
                title = ("asks", "true")[column] if column < 2 else f"{column - 1}."
                place.set_title(title, fontsize=8, color=INK)
    return figure
