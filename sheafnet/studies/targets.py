"""Cost of a quality: what training had cost when an evaluation first reached a target."""

from collections.abc import Sequence
from dataclasses import dataclass

from sheafnet.errors import ConfigError
from sheafnet.studies.cells import CURVE_FIGURES, CellResult, Evaluation
from sheafnet.studies.figures import Spread
from sheafnet.validation import nearest

SHARES = (0.5, 0.8, 1.0)
"""Of the lowest final recall@1: what is asked for unless targets are named."""
_SYMBOLS = {"seconds": "s", "joules": "J"}


@dataclass(frozen=True)
class Target:
    """A quality to be reached by a figure of the evaluation curve."""

    figure: str
    value: float

    @property
    def label(self) -> str:
        """As it is typed."""
        return f"{self.figure}={self.value:.4g}"


def read_target(given: str) -> Target:
    """``FIGURE=VALUE``.

    Raises:
        ConfigError: the figure is none of the evaluation curve, or the value no number.
    """
    where = f"--target {given}"
    figure, separator, text = given.partition("=")
    if figure not in CURVE_FIGURES:
        raise ConfigError(f"{where}: must be FIGURE=VALUE. {nearest(figure, CURVE_FIGURES)}")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not separator or not 0.0 <= value <= 1.0:
        raise ConfigError(f"{where}: the value must be a share from 0 to 1, as in {figure}=0.2")
    return Target(figure, value)


def default_targets(results: Sequence[CellResult]) -> tuple[Target, ...]:
    """Shares of the lowest final recall@1 of any run that measured it: all of them get there."""
    last = [r.evaluations[-1].figures.get("recall_at_1") for r in results if r.evaluations]
    finals = [recall for recall in last if recall is not None]
    return tuple(Target("recall_at_1", share * min(finals)) for share in SHARES) if finals else ()


def at_once(target: Target, curve: Sequence[Evaluation]) -> bool:
    """Whether the very first evaluation reached `target`, so that less may do."""
    return bool(curve) and reached_at(target, curve[:1]) is not None


def reached_at(target: Target, curve: Sequence[Evaluation]) -> Evaluation | None:
    """The first evaluation that reached `target`; None if none did."""
    for evaluation in curve:
        value = evaluation.figures.get(target.figure)
        if value is not None and value >= target.value:
            return evaluation
    return None


def cost_of(target: Target, curve: Sequence[Evaluation], unit: str = "bytes") -> float | None:
    """What training had cost, in one of `COSTS`, when it first reached `target`; None if never."""
    evaluation = reached_at(target, curve)
    return None if evaluation is None else evaluation.cost(unit)


@dataclass(frozen=True)
class Reached:
    """What a target cost a contender, over the runs that measured its figure."""

    target: Target
    runs: int
    """Runs that measured the figure."""
    cost: Spread
    """In `unit`, of the runs that reached the target."""
    at_most: bool
    """Whether a run reached it at its first evaluation, so that it may have taken less."""
    unit: str = "bytes"

    @classmethod
    def of(cls, target: Target, results: Sequence[CellResult], unit: str = "bytes") -> "Reached":
        """By the runs of a contender, in one of `COSTS`."""
        curves = [
            r.evaluations
            for r in results
            if any(e.figures.get(target.figure) is not None for e in r.evaluations)
        ]
        cost = Spread.of(cost_of(target, curve, unit) for curve in curves)
        at_most = any(at_once(target, curve) for curve in curves)
        return cls(target, len(curves), cost, at_most, unit)

    def show(self) -> str:
        """For a table: how many runs got there is said if not all did."""
        mean, deviation = self.cost.mean, self.cost.deviation
        if not self.runs:
            return "-"
        if mean is None:
            return "never"
        told = [scaled(value, self.unit) for value in (mean, deviation) if value]
        text = " ± ".join(told) or scaled(0, self.unit)
        text = f"≤ {text}" if self.at_most else text
        reached = len(self.cost.values)
        return text if reached == self.runs else f"{text} ({reached} of {self.runs})"


def scaled(count: float, unit: str = "bytes") -> str:
    """Bytes with a decimal prefix and three or four digits; seconds and joules without one."""
    if unit != "bytes":
        return (
            f"{count:,.0f} {_SYMBOLS[unit]}" if count >= 1000 else f"{count:.3g} {_SYMBOLS[unit]}"
        )
    size, power = float(count), 0
    while size >= 1000 and power < 4:
        size, power = size / 1000, power + 1
    digits = 0 if not power else 2 if size < 10 else 1
    return f"{size:.{digits}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
