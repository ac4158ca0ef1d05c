"""The coordinator: hands out stretches of rounds, collects reports, keeps the books.

A plain class without Ray or torch. Each `step` runs one stretch on all hosts, settles the byte
ledger, and appends to the run directory what the nodes measured. It is in no node's way inside a
stretch and never sees a sample, an embedding or a projection.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sheafnet.network.frame import Phase
from sheafnet.network.ledger import Account, Line
from sheafnet.nodes.events import evaluation_points
from sheafnet.runtime.diagnosis import Watch, contrasted, diagnose_run
from sheafnet.runtime.figures import Costs, has_spectrum, spectrum_of, summarize
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.measurements import Measurements, number
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.pool import HostPool
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Summary

if TYPE_CHECKING:
    from sheafnet.runtime.host import Report


@dataclass(frozen=True)
class Progress:
    """What is known after a stretch."""

    phase: Phase
    done: int
    """Rounds of this phase that are finished."""
    total: int
    loss: float | None
    contrastive: float | None
    """Mean over edges; log B where nothing has been learned."""
    energy: float | None
    bytes_total: int
    """Sent since the start of the run."""
    findings: tuple[Finding, ...] = ()
    """Failure signatures that show since this stretch."""


class Coordinator:
    """Runs a plan on a pool of hosts.

    Args:
        plan: of the run.
        pool: its hosts, not yet started.
        directory: where it logs.
    """

    def __init__(self, plan: Plan, pool: HostPool, directory: RunDirectory) -> None:
        self._plan = plan
        self._pool = pool
        self._directory = directory
        self._stretches = plan.stretches()
        self._account = Account()
        self._measured = Measurements(plan)
        self._edges = contrasted(plan.method)
        self._watch = Watch(self._edges, plan.config)
        self._costs = Costs()

    def start(self) -> None:
        """Start the hosts.

        Raises:
            ActorError: a host could not be made.
        """
        self._costs.actors = self._pool.start()

    def step(self) -> Progress | None:
        """Run the next stretch; None when the plan is done and every byte is accounted for.

        Raises:
            DivergenceError: a loss or projection became NaN or infinite. Rounds that all nodes
                finished are logged.
            AccountingError: the bytes do not balance.
            NetworkError: a host failed.
        """
        stretch = next(self._stretches, None)
        if stretch is None:
            self._log_ledger(self._account.close())
            return None
        begin = time.perf_counter()
        reports = self._pool.run(stretch)
        self._costs.seconds[stretch.phase] += time.perf_counter() - begin
        findings = self._take(stretch, reports)
        for report in reports:
            if report.failure is not None:
                raise report.failure
        last = self._measured.last_train
        return Progress(
            phase=stretch.phase,
            done=stretch.first + stretch.rounds,
            total=self._plan.rounds(stretch.phase),
            loss=last.get("loss"),
            contrastive=last.get("contrastive"),
            energy=last.get("energy"),
            bytes_total=sum(count.total for count in self._account.totals.values()),
            findings=tuple(findings),
        )

    def finish(self, startup_s: float, wall_s: float) -> Summary:
        """Save every node's parameters, aggregate the figures, write the summary."""
        parameters = self._pool.parameters()
        for index in sorted(parameters):
            node = self._plan.topology.nodes[index].id
            self._directory.write_parameters(node, parameters[index])
        self._costs.startup_s, self._costs.wall_s = startup_s, wall_s
        summary = summarize(self._plan, self._account, self._measured, self._costs, parameters)
        found = diagnose_run(summary, self._watch.lines, self._edges, self._plan.config)
        summary = summary.model_copy(update={"diagnosis": found})
        self._directory.write_summary(summary.model_dump(mode="json"))
        return summary

    def _take(self, stretch: Stretch, reports: "list[Report]") -> list[Finding]:
        sent: dict[int, int] = defaultdict(int)
        for report in reports:
            self._account.post(report.ledger)
            for key, fate, _, *sizes in report.ledger:
                if fate == "sent":
                    sent[key.round] += sum(sizes)
        self._costs.memory_mb = [report.memory_mb for report in reports]
        rejected = sum(report.rejected for report in reports)
        if rejected > self._costs.rejected:
            why = [text for report in reports for text in report.rejections]
            self._directory.mark("running", rejections=why)
        self._costs.rejected = rejected
        self._log_ledger(self._account.settle())
        records = {n: r for report in reports for n, r in sorted(report.records.items())}
        if stretch.phase == "train":
            lines = self._measured.add_training({n: r.train for n, r in records.items()})
        elif stretch.phase == "evaluation":
            lines = self._measured.add_evaluation(
                {n: r.evaluation for n, r in records.items()}, **self._standing(stretch.first)
            )
        else:
            lines = self._measured.add_inference({n: r.inference for n, r in records.items()})
        self._directory.append("rounds", (line | {"bytes": sent[line["round"]]} for line in lines))
        return self._watch.add(lines) if stretch.phase == "train" else []

    def _standing(self, evaluation: int) -> Mapping[str, Any]:
        """How far training has come and what it has cost when an evaluation takes place."""
        spectrum = None
        if has_spectrum(self._plan):
            spectrum = spectrum_of(self._plan, self._pool.parameters())
        return {
            "after": evaluation_points(self._plan.config)[evaluation],
            "train_bytes": sum(
                count.total for key, count in self._account.totals.items() if key[0] == "train"
            ),
            "spectral_gap": number(spectrum.gap) if spectrum else None,
        }

    def _log_ledger(self, lines: Iterable[Line]) -> None:
        arrow = self._plan.method.network.arrow
        self._directory.append(
            "ledger",
            (
                {
                    "phase": line.key.phase,
                    "round": line.key.round,
                    "edge": arrow(line.key.edge, line.key.direction),
                    **{fate: _numbers(count.numbers()) for fate, count in line.recorded().items()},
                }
                for line in lines
            ),
        )


def _numbers(numbers: tuple[int, int, int, int]) -> Mapping[str, Any]:
    names = ("messages", "payload_bytes", "framing_bytes", "control_bytes")
    return dict(zip(names, numbers, strict=True))
