"""The plot of a scaling study: time, memory and bytes against the number of nodes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sheafnet.studies.folder import replacing
from sheafnet.studies.plot import COLOURS
from sheafnet.studies.round_cost import TimedPhase
from sheafnet.studies.scale import Scale, Size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Callable[[Size], float | None]


def write_scale_plot(scale: Scale, path: Path) -> None:
    """Write the plot; the format is that of the suffix of `path`.

    Times and bytes are on logarithmic axes, beside a grey line that grows as the number of nodes
    does. With several degrees a colour is a degree, else a curve.

    Raises:
        StudyError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(12.0, 5.0), layout="constrained")
    FigureCanvasAgg(canvas)
    time, memory, traffic = canvas.subplots(1, 3)
    _draw(time, scale, "time of a training round (ms)", _TIMES)
    _draw(memory, scale, "memory of all hosts (MB)", _MEMORY)
    _draw(traffic, scale, "bytes a round (kB)", _BYTES)
    for axes, curves in ((time, _TIMES), (traffic, _BYTES)):
        axes.set_yscale("log")
        _slope_one(axes, scale, curves[0][1])
    memory.set_ylim(bottom=0)
    _hosts(memory, scale)
    for axes in (time, memory, traffic):
        _legend(axes)
    canvas.suptitle(f"{scale.topology}: {scale.kind}", fontsize=10, x=0.01, ha="left")
    with replacing(path) as aside:
        canvas.savefig(aside, dpi=160)


def _of(phase: TimedPhase, name: str, factor: float = 1.0) -> Curve:
    def curve(size: Size) -> float | None:
        cost = size.cost(phase)
        return None if cost is None else factor * float(getattr(cost, name))

    return curve


_TIMES: Sequence[tuple[str, Curve]] = (
    ("round", _of("train", "round_ms")),
    ("compute", _of("train", "compute_ms")),
    ("messaging", _of("train", "messaging_ms")),
    ("wait", _of("train", "wait_ms")),
)
_BYTES: Sequence[tuple[str, Curve]] = (
    ("training", _of("train", "bytes", 1e-3)),
    ("inference", _of("inference", "bytes", 1e-3)),
)
_MEMORY: Sequence[tuple[str, Curve]] = (("all hosts", lambda size: size.memory_mb),)
_LINES = ("-", "--", "-.", ":")
_MARKS = ("o", "s", "^", "D")


def _draw(axes: "Axes", scale: Scale, label: str, curves: Sequence[tuple[str, Curve]]) -> None:
    several = len(scale.series) > 1
    for at, (degree, sizes) in enumerate(scale.series.items()):
        for k, (name, curve) in enumerate(curves):
            points = [(s.nodes, y) for s in sizes if (y := curve(s)) is not None and y > 0]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[(at if several else k) % len(COLOURS)],
                    linestyle=_LINES[k],
                    marker=_MARKS[k],
                    markersize=5,
                    label=f"{name}, degree {degree}" if several else name,
                )
    nodes = sorted({size.nodes for size in scale.sizes})
    axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, [f"{n:,}" for n in nodes])
    axes.minorticks_off()
    axes.set_xlabel("nodes")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _slope_one(axes: "Axes", scale: Scale, curve: Curve) -> None:
    """Through the first curve at the reference of the first degree."""
    through = scale.reference(scale.sizes[0]) if scale.sizes else None
    y = None if through is None else curve(through)
    if through is not None and y:
        ends = [f(size.nodes for size in scale.sizes) for f in (min, max)]
        line = [y * n / through.nodes for n in ends]
        axes.plot(ends, line, color="grey", linewidth=0.8, zorder=1, label="~ nodes")


def _hosts(axes: "Axes", scale: Scale) -> None:
    """Write the number of hosts below each number of nodes: it depends on nothing else."""
    hosts = {size.nodes: size.hosts for size in scale.sizes}
    axes.set_xticks([*hosts], [f"{n:,}\n({hosts[n]:,})" for n in hosts])
    axes.set_xlabel("nodes (hosts)")


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18)
        )
