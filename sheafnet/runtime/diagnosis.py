"""Failure signatures of training (METHOD section 7), and all those of a run together.

Pure functions of the lines of rounds.jsonl and of the summary. A figure that is null, or was never
measured, shows nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sheafnet.config import Config
from sheafnet.method import Method
from sheafnet.runtime.finding import NEAR, Finding
from sheafnet.runtime.measurements import Line, mean, mean_known
from sheafnet.runtime.shortfalls import contrast_at_chance, overfitting, reconstruction, zero_shot
from sheafnet.runtime.summary import Summary

PATIENCE = 200
"""Training rounds before a loss is judged while training goes on. On the shipped ring the MLP
leaves log B within 60 rounds; the conv encoder stays there for 150 and then learns as well."""
WINDOW = 20
"""Newest rounds that a training figure is the mean of, against the noise of single batches."""


def contrasted(method: Method) -> list[str]:
    """Names of the edges that have a contrastive loss, in the order of ``contrastive_per_edge``."""
    edges = method.trained if method.aligns else ()
    return [method.network.edge_name(edge.index) for edge in edges]


def diagnose_training(lines: Sequence[Line], edges: Sequence[str], config: Config) -> list[Finding]:
    """What the training lines show.

    ``contrast-at-chance``: L_contrast of an edge is at least (1 - `NEAR`) log B (with a memory of
    M rounds log B + log(1 + M) / 2 in the place of log B). Where nothing has
    been learned, positive and negatives are exchangeable and its mean is at least log B (Jensen).
    What it lies below log B bounds the information that both ends share from below (arXiv
    1807.03748): at B = 128 less than 0.24 nats show, where ten classes are 2.3.

    ``collapse``: the mean over edges is there, and the energy at most NEAR^2 of the first round's:
    projections differ by less than NEAR of the lengths that they began with, and still tell no
    events apart. Collapsed runs of the ring lie below 0.001 of the first energy, the bound is
    0.0025, and healthy ones of the shipped topologies end at 0.008 to 0.024.

    Args:
        lines: of phase train, in order: the first one of the run and at least the last `WINDOW`.
            Judged once there are `PATIENCE` rounds, or all that the run has.
        edges: as `contrasted` names them.
        config: of the run.
    """
    training = config.training
    if not lines or lines[-1]["round"] + 1 < min(PATIENCE, training.rounds):
        return []
    contrast = _contrast(lines, edges)
    if not contrast:
        return []
    chance = contrast_at_chance(training.batch_size, training.memory)
    guessing = f"log B{' + log(1 + training.memory) / 2' if training.memory else ''} = {chance:.3g}"
    bound = (1 - NEAR) * chance
    level = mean(contrast.values())
    first, energy = lines[0].get("energy"), mean_known(n.get("energy") for n in lines[-WINDOW:])
    if level >= bound and first and energy is not None and energy <= NEAR**2 * first:
        return [_collapse(level, guessing, energy, first)]
    stuck = {name: value for name, value in contrast.items() if value >= bound}
    if not stuck:
        return []
    worst = max(stuck.values())
    sheaf = (
        " Or a lower training.sheaf_weight, or a training.sheaf_warmup."
        if config.method.name == "sheafalign"
        else ""
    )
    return [
        Finding.at(
            "contrast-at-chance",
            "edge",
            stuck if len(stuck) < len(contrast) else {},
            figure="contrastive_per_edge",
            value=worst,
            bound=bound,
            text=f"after {lines[-1]['round'] + 1} rounds the contrastive loss is {worst:.3g}, "
            f"where {guessing} means that projections do not tell an event from the "
            "others of its batch. Check that both ends see the same events; try more "
            "training.rounds, another training.temperature, training.learning_rate or encoder, a "
            f"larger training.batch_size.{sheaf}",
        )
    ]


def diagnose_run(
    summary: Summary, lines: Sequence[Line], edges: Sequence[str], config: Config
) -> list[Finding]:
    """What a finished run shows; `lines` and `edges` as in `diagnose_training`."""
    contrast = _contrast(lines, edges)
    return [
        *diagnose_training(lines, edges, config),
        *zero_shot(summary.alignment),
        *overfitting(
            summary.alignment, contrast, config.training.batch_size, config.training.memory
        ),
        *reconstruction(summary.missing, config.inference),
    ]


class Watch:
    """Training lines as they come, and what they show for the first time."""

    def __init__(self, edges: Sequence[str], config: Config) -> None:
        self._edges = edges
        self._config = config
        self._told: set[tuple[str, str]] = set()
        self.lines: list[Line] = []
        """The first line of the run and the newest: what a diagnosis looks at."""

    def state(self) -> dict[str, Any]:
        """The lines, and what was told, as JSON."""
        return {"lines": self.lines, "told": sorted(self._told)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.lines = state["lines"]
        self._told = {(signature, name) for signature, name in state["told"]}

    def add(self, lines: Sequence[Line]) -> list[Finding]:
        """Take the lines of a stretch; the findings that name what was not named before."""
        kept = [*self.lines, *lines]
        self.lines = kept[:1] + kept[1:][-WINDOW:]
        fresh = []
        for finding in diagnose_training(self.lines, self._edges, self._config):
            names = finding.where or self._edges
            places = {(finding.signature, name) for name in names}
            if not places <= self._told:
                fresh.append(finding)
            self._told |= places
        return fresh


def _collapse(level: float, guessing: str, energy: float, first: float) -> Finding:
    return Finding.at(
        "collapse",
        "network",
        {},
        figure="energy",
        value=energy,
        bound=NEAR**2 * first,
        text=f"the consistency energy fell from {first:.3g} to {energy:.3g}, while the contrastive "
        f"loss of {level:.3g} is near {guessing}: all events get the same projection, "
        "as the sheaf loss alone would have it. Try training.sheaf_reduction=mean if it is sum, a "
        "lower training.sheaf_weight, a training.sheaf_warmup of some hundred rounds, a lower "
        "training.learning_rate.",
    )


def _contrast(lines: Sequence[Line], edges: Sequence[str]) -> dict[str, float]:
    """L_contrast of the edges that have one, mean over the newest rounds."""
    columns = [line.get("contrastive_per_edge") or [] for line in lines[-WINDOW:]]
    found = {
        name: mean_known(column[k] for column in columns if k < len(column))
        for k, name in enumerate(edges)
    }
    return {name: value for name, value in found.items() if value is not None}
