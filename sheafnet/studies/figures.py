"""The headline figures of a run, by name, and their mean and spread over seeds."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sheafnet.config import UNCERTAIN, Config
from sheafnet.errors import ConfigError
from sheafnet.runtime.pilot import wants_pilot
from sheafnet.runtime.summary import Summary
from sheafnet.validation import nearest

Better = Literal["higher", "lower"]
COSTS = ("bytes", "seconds", "joules")
"""What a quality may be weighed against."""
NO_LINK = "no edge has a link; name a profile, as in --set defaults.edge.link=ble"


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    name: str
    label: str
    """For people, without the unit."""
    unit: Literal["share", "bytes", "s", "J", ""]
    better: Better

    def show(self, value: float | None) -> str:
        """`value` with the digits that suit the unit; "-" where it was not measured."""
        if value is None:
            return "-"
        if self.unit in ("s", "J"):
            return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        if self.unit != "bytes":
            return f"{value:.3f}"
        return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.1f}"


def figures_of(config: Config) -> dict[str, Figure]:
    """The figures of a run of `config` by name, in the order of the tables.

    Simulated seconds and joules are among them where a link has a profile.
    """
    shots = [
        Figure(f"few_shot_accuracy_{k}", f"{k}-shot accuracy", "share", "higher")
        for k in config.evaluation.few_shot
    ]
    estimates = [
        figure
        for name in config.inference.measured
        for figure in (
            Figure(f"missing_nmse_{_plain(name)}", f"missing: NMSE, {name}", "", "lower"),
            Figure(
                f"missing_accuracy_{_plain(name)}", f"missing: accuracy, {name}", "share", "higher"
            ),
        )
    ]
    estimates += [
        Figure(f"missing_coverage_{name}", f"missing: 90 % interval, {name}", "share", "higher")
        for name in config.inference.measured
        if name in UNCERTAIN
    ]
    if config.inference.abstain is not None:
        estimates += [
            Figure("missing_abstained", "missing: abstained", "", "lower"),
            Figure("missing_nmse_kept", "missing: NMSE where kept", "", "lower"),
            Figure("missing_accuracy_kept", "missing: accuracy where kept", "share", "higher"),
        ]
    listed = [
        *(Figure(f"recall_at_{k}", f"recall@{k}", "share", "higher") for k in (1, 5, 10)),
        Figure("zero_shot_accuracy", "zero-shot accuracy", "share", "higher"),
        *shots,
        Figure("probe_accuracy", "linear probe accuracy", "share", "higher"),
        Figure("fused_accuracy", "fused accuracy", "share", "higher"),
        Figure("missing_accuracy_all_present", "all present: accuracy", "share", "higher"),
        *estimates,
        Figure("train_bytes", "bytes in training", "bytes", "lower"),
        Figure("train_bytes_per_round", "bytes a training round", "bytes", "lower"),
        *(
            [Figure("pilot_bytes", "bytes of the pilot", "bytes", "lower")]
            if wants_pilot(config)
            else []
        ),
        *(
            [Figure("calibration_bytes", "bytes of calibration", "bytes", "lower")]
            if config.inference.calibration
            else []
        ),
        Figure("inference_bytes", "bytes in inference", "bytes", "lower"),
        Figure("inference_bytes_per_sample", "bytes an inferred sample", "bytes", "lower"),
    ]
    if has_links(config):
        listed += [
            Figure("train_seconds", "simulated seconds of training", "s", "lower"),
            Figure("train_joules", "joules of training", "J", "lower"),
            Figure("inference_seconds", "simulated seconds of inference", "s", "lower"),
            Figure("inference_joules", "joules of inference", "J", "lower"),
        ]
    return {figure.name: figure for figure in listed}


def has_links(config: Config) -> bool:
    """Whether a run of `config` takes simulated time and energy: an edge names a profile."""
    edges = config.edges or ()
    return config.defaults.edge.link is not None or any(edge.link is not None for edge in edges)


def headline(summary: Summary) -> dict[str, float | None]:
    """The headline figures of a run by name; None for what was not measured."""
    a, m, c = summary.alignment, summary.missing, summary.communication
    found: dict[str, float | None] = {
        **{f"recall_at_{k}": getattr(a, f"recall_at_{k}") for k in (1, 5, 10)},
        "zero_shot_accuracy": a.zero_shot_accuracy,
        **{f"few_shot_accuracy_{k}": value for k, value in a.few_shot_accuracy.items()},
        "probe_accuracy": a.probe_accuracy,
        "fused_accuracy": a.fused_accuracy,
        "missing_accuracy_all_present": m.accuracy_all_present,
    }
    for name, estimate in m.estimators.items():
        found[f"missing_nmse_{_plain(name)}"] = estimate.nmse
        found[f"missing_accuracy_{_plain(name)}"] = estimate.accuracy
        if name in UNCERTAIN:
            found[f"missing_coverage_{name}"] = estimate.coverage_90
    if m.abstained is not None:
        found |= {
            "missing_abstained": m.abstained,
            "missing_nmse_kept": m.nmse_kept,
            "missing_accuracy_kept": m.accuracy_kept,
        }
    for phase, traffic in (("train", c.train), ("inference", c.inference)):
        if traffic.radio is not None:
            found[f"{phase}_seconds"] = traffic.radio.seconds
            found[f"{phase}_joules"] = traffic.radio.joules
    if c.calibration is not None:
        found["calibration_bytes"] = c.calibration.bytes_total
    if summary.pilot is not None:
        found["pilot_bytes"] = summary.pilot.bytes_total
    return found | {
        "train_bytes": c.train.bytes_total,
        "train_bytes_per_round": c.train.bytes_per_round,
        "inference_bytes": c.inference.bytes_total,
        "inference_bytes_per_sample": c.inference.bytes_per_inferred_sample,
    }


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def figure_named(name: str, figures: Mapping[str, Figure], option: str) -> Figure:
    """The figure called `name`.

    Raises:
        ConfigError: there is none; `option` is where the name was given.
    """
    if name not in figures:
        raise ConfigError(f"{option} {name}: no such figure. {nearest(name, list(figures))}")
    return figures[name]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of a figure over the runs that measured it."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        """Of those of `values` that are not None."""
        return cls(tuple(value for value in values if value is not None))

    @property
    def mean(self) -> float | None:
        """None where no run measured it."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """None of fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def show(self, figure: Figure) -> str:
        """``mean ± deviation`` with the digits of `figure`; a cost that does not vary, alone."""
        cost = figure.unit in ("bytes", "s", "J")
        if self.deviation is None or (cost and self.deviation == 0):
            return figure.show(self.mean)
        return f"{figure.show(self.mean)} ± {figure.show(self.deviation)}"


def difference(spread: Spread, reference: Spread) -> float | None:
    """By how many percent the mean of `spread` differs from that of `reference`."""
    if spread.mean is None or not reference.mean:
        return None
    return (spread.mean / reference.mean - 1.0) * 100.0


def apart(spread: Spread, reference: Spread) -> bool | None:
    """Whether the intervals mean ± deviation do not touch; None of fewer than two runs."""
    a, b = spread, reference
    if a.mean is None or b.mean is None or a.deviation is None or b.deviation is None:
        return None
    return abs(a.mean - b.mean) > a.deviation + b.deviation


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing or there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def of_seeds(seeds: Sequence[int]) -> str:
    """What the figures of a table are, in words."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"mean ± standard deviation of seeds {seeds[0]} to {seeds[-1]}"
