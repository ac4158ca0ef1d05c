"""The plot of a sweep: quality against cost, a mark per point, the Pareto front as a line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sheafnet.studies.figures import Figure
from sheafnet.studies.folder import replacing
from sheafnet.studies.sweep import Point, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart in every kind of colour vision. Black is left to the front.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
_PREFIXES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
NAMED_POINTS = 30
"""With more points than that, names beside them would hide each other."""


def mark(index: int) -> dict[str, Any]:
    """How the mark of number `index` looks, with its bars, as arguments of `errorbar`."""
    return {
        "fmt": MARKS[index % len(MARKS)],
        "color": COLOURS[index % len(COLOURS)],
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
        "markersize": 7,
        "capsize": 3,
    }


def write_plot(sweep: Sweep, path: Path) -> None:
    """Write the plot; the format is that of the suffix of `path`.

    The first swept key has a colour and a mark for each value; the others are written beside the
    points. Bars are standard deviations over seeds.

    Raises:
        StudyError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    scale, unit = _scale(sweep)
    _front(axes, sweep, scale)
    _points(axes, sweep, scale)
    costs = [c for p in sweep.points if (c := p.spread(sweep.cost).mean) is not None]
    if costs and min(costs) > 0 and max(costs) > 10 * min(costs):
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(f"{sweep.cost.label}{unit}")
    axes.set_ylabel(_with_unit(sweep.quality))
    seeds = f"{len(sweep.seeds)} seeds" if len(sweep.seeds) > 1 else f"seed {sweep.seeds[0]}"
    bars = ", bars: standard deviation" if len(sweep.seeds) > 1 else ""
    axes.set_title(f"{sweep.topology}, {seeds}{bars}", fontsize=10, loc="left")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        others = ", ".join(axis.name(sweep.axes) for axis in sweep.axes[1:])
        axes.legend(
            title=f"beside the marks:\n{others}" if others and _named(sweep) else None,
            title_fontsize=8,
            fontsize=8,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
    with replacing(path) as aside:
        canvas.savefig(aside, dpi=160)


def prefix(largest: float) -> tuple[float, str]:
    """What bytes up to `largest` are divided by on an axis, and the unit that they then have."""
    return next(((scale, name) for scale, name in _PREFIXES if largest >= scale), (1.0, "bytes"))


def _scale(sweep: Sweep) -> tuple[float, str]:
    """What costs are divided by, and the unit that they then have."""
    if sweep.cost.unit != "bytes":
        return 1.0, f" ({sweep.cost.unit})" if sweep.cost.unit else ""
    largest = max((p.spread(sweep.cost).mean or 0.0 for p in sweep.points), default=0.0)
    scale, name = prefix(largest)
    return scale, f" ({name})"


def _named(sweep: Sweep) -> bool:
    return len(sweep.points) <= NAMED_POINTS


def _with_unit(figure: Figure) -> str:
    unit = f" ({figure.unit})" if figure.unit else ""
    arrow = "" if figure.better == "higher" else ", lower is better"
    return f"{figure.label}{unit}{arrow}"


def _place(sweep: Sweep, point: Point, scale: float) -> tuple[float, float] | None:
    cost, quality = point.spread(sweep.cost).mean, point.spread(sweep.quality).mean
    return None if cost is None or quality is None else (cost / scale, quality)


def _points(axes: "Axes", sweep: Sweep, scale: float) -> None:
    first = sweep.axes[0]
    named = set()
    for point in sweep.points:
        place = _place(sweep, point, scale)
        if place is None:
            continue
        index = first.texts.index(point.texts[0])
        label = f"{first.name(sweep.axes)} {point.texts[0]}"
        across = point.spread(sweep.cost).deviation
        axes.errorbar(
            *place,
            xerr=across / scale if across else None,
            yerr=point.spread(sweep.quality).deviation,
            **mark(index),
            elinewidth=1.0,
            linestyle="none",
            label=None if label in named else label,
        )
        named.add(label)
        if len(point.texts) > 1 and _named(sweep):
            axes.annotate(
                ", ".join(point.texts[1:]),
                place,
                textcoords="offset points",
                xytext=(7, 5),
                fontsize=7,
            )


def _front(axes: "Axes", sweep: Sweep, scale: float) -> None:
    places = [_place(sweep, sweep.points[index], scale) for index in sweep.front]
    known = [place for place in places if place is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True),
            color="black",
            linestyle="--",
            linewidth=1.0,
            drawstyle="steps-post",
            marker="o",
            markersize=14,
            markerfacecolor="none",
            zorder=1,
            label="Pareto front",
        )
