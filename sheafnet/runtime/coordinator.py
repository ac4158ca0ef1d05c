"""The coordinator: hands out stretches of rounds, collects reports, keeps the books.

A plain class without Ray or torch. Each `step` waits for one stretch on all hosts, settles the byte
ledger, and appends to the run directory what the nodes measured, while the hosts are at the next
stretch already. It is in no node's way and never sees a sample, an embedding or a projection.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from sheafnet.errors import ActorDied, ConnectionLost, NetworkError
from sheafnet.network.frame import PHASES, Phase
from sheafnet.network.ledger import Account, Line
from sheafnet.network.radio import RadioAccount, RoundCost, total
from sheafnet.nodes.events import evaluation_points
from sheafnet.runtime.checkpoint import Books, Checkpoint, Checkpoints
from sheafnet.runtime.diagnosis import Watch, contrasted, diagnose_run
from sheafnet.runtime.figures import Costs, sheaf_of, summarize
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.keep import Keep, without_checkpoints
from sheafnet.runtime.ledger_lines import Counted, ledger_lines
from sheafnet.runtime.measurements import Measurements, number
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.pool import HostPool
from sheafnet.runtime.report import Parameters, Report
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Pilot, Summary
from sheafnet.sheaf.cellular import Spectrum


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
    notes: tuple[str, ...] = ()
    """What had to be mended meanwhile."""

    @property
    def figures(self) -> str:
        """Losses and bytes so far, in a few words."""
        losses = {"loss": self.loss, "contrast": self.contrastive, "energy": self.energy}
        known = [f"{name} {v:.3g}" for name, v in losses.items() if v is not None]
        parts = known if self.phase == "train" else []
        return "  ".join([*parts, f"{self.bytes_total / 1e6:.1f} MB"])

    def __str__(self) -> str:
        """A line, and one more for each note and finding: ``on_progress=print``."""
        found = [f"{finding.signature}: {finding.text}" for finding in self.findings]
        line = f"{self.phase} {self.done}/{self.total}  {self.figures}"
        return "\n".join([*self.notes, *found, line])


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
        self._edges = contrasted(plan.method)
        self._incarnation: int = directory.about().get("incarnation", 0)
        self._checkpoints = Checkpoints(directory.path)
        self._stale = 0
        self._furthest = 0
        self._restarts = 0
        self._notes: list[str] = []
        self._told_of_missed = False
        self._renew()

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Start the hosts, at `checkpoint` or else at the beginning.

        Raises:
            ActorError: a host could not be made.
            RunDirectoryError: the checkpoint cannot be read.
        """
        self._actors = self._pool.start(checkpoint, self._incarnation)
        sizes = self._pool.sizes()
        self._keep = Keep.within(
            self._plan,
            sum(size.parameter_bytes for size in sizes),
            sum(size.state_bytes for size in sizes),
        )
        if not all(size.reaches_run for size in sizes):
            why = "the run directory is not on every machine; shared storage has it there"
            self._keep = without_checkpoints(self._keep, why)
        self._directory.mark("running", left_out=list(self._keep.left_out) or None)
        self._begin(checkpoint)

    def _renew(self) -> None:
        """Stand at the beginning of the run, with empty books."""
        self._account = Account()
        radio = self._plan.radio
        self._radio = None if radio is None else RadioAccount(radio)
        self._measured = Measurements(self._plan)
        self._watch = Watch(self._edges, self._plan.config)
        self._costs = Costs()
        self._spectrum: Spectrum | None = None
        self._submitted: deque[Stretch] = deque()
        self._done = 0
        self._rounds: dict[Phase, int] = dict.fromkeys(PHASES, 0)
        """Rounds of each phase that are done, in as many stretches as `_done`."""
        self._since = 0.0

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        """Go on with the books of `checkpoint`, or fresh ones, and the hosts as they stand."""
        self._renew()
        lengths = {"rounds": 0, "ledger": 0}
        if checkpoint is not None:
            books = checkpoint.books()
            self._done, self._rounds = books["done"], books["rounds"]
            lengths = books["lengths"]
            self._account.load(books["account"])
            if self._radio is not None:
                self._radio.load(books["radio"])
            self._measured.load(books["measured"])
            self._watch.load(books["watch"])
            self._costs.load(books["costs"])
            if books["spectrum"] is not None:
                self._spectrum = Spectrum(np.array(books["spectrum"]))
        self._directory.cut(lengths)
        self._checkpoints.discard_partial()
        self._costs.actors = self._actors
        self._stretches = islice(self._plan.stretches(), self._done, None)
        self._submit()
        self._since = time.perf_counter()

    def _books(self) -> Books:
        spectrum = self._spectrum
        return {
            "done": self._done,
            "rounds": self._rounds,
            "lengths": self._directory.lengths(),
            "account": self._account.state(self._rounds),
            **({} if self._radio is None else {"radio": self._radio.state()}),
            "measured": self._measured.state(),
            "watch": self._watch.state(),
            "costs": self._costs.state(),
            "spectrum": None if spectrum is None else spectrum.eigenvalues.tolist(),
        }

    def step(self) -> Progress | None:
        """Run the next stretch; None when the plan is done and every byte is accounted for.

        Where a host dies, or two of them lose their connection, all go back to the last checkpoint.

        Raises:
            DivergenceError: a loss or projection became NaN or infinite. Rounds that all nodes
                finished are logged.
            AccountingError: the bytes do not balance.
            NetworkError: a host failed, or died once more than ``run.restarts`` allows, or a
                connection is not there again.
        """
        while True:
            try:
                return self._step()
            except _MENDED as failure:
                self._recover(failure)

    def _step(self) -> Progress | None:
        if not self._submitted:
            self._log_ledger(self._account.close())
            return None
        stretch = self._submitted.popleft()
        self._submit()
        reports = self._pool.collect()
        now = time.perf_counter()
        self._costs.seconds[stretch.phase] += now - self._since
        self._since = now
        for report in reports:
            self._costs.spent[stretch.phase].add(report.seconds)
        findings = self._take(stretch, reports)
        for report in reports:
            if report.failure is not None:
                raise report.failure
        self._done += 1
        self._rounds[stretch.phase] = stretch.first + stretch.rounds
        if self._done > self._furthest:
            self._furthest, self._restarts = self._done, 0
        self._commit(stretch, reports)
        notes, self._notes = tuple(self._notes), []
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
            notes=notes,
        )

    def _commit(self, stretch: Stretch, reports: Sequence[Report]) -> None:
        """Keep the checkpoint whose parts the hosts have written, if they have."""
        parts = [report.part for report in reports if report.part is not None]
        if stretch.checkpoint is not None and len(parts) == len(reports):
            self._checkpoints.commit(stretch.checkpoint, parts, self._books())

    def _recover(self, failure: NetworkError) -> None:
        """Restart what died, connect anew, and have all hosts go on from the last checkpoint."""
        while True:
            self._restarts += 1
            if self._restarts > self._plan.config.run.restarts:
                raise failure
            checkpoint, refused = self._checkpoints.newest()
            done = 0 if checkpoint is None else checkpoint.number
            self._incarnation += 1
            note = (
                f"{failure} All go on from "
                f"{f'the checkpoint after stretch {done}' if done else 'the beginning'}, "
                f"as incarnation {self._incarnation}."
            )
            self._tell(*refused, note, incarnation=self._incarnation)
            try:
                self._pool.recover(checkpoint, self._incarnation)
            except ActorDied as another:
                failure = another
            else:
                self._begin(checkpoint)
                return

    def _tell(self, *notes: str, **facts: int) -> None:
        """Say what went wrong, to who watches the run and in its directory."""
        self._notes += notes
        known = self._directory.about().get("recoveries", [])
        self._directory.mark("running", recoveries=[*known, *notes], **facts)

    def _tell_of_missed(self, stretch: Stretch, lines: Sequence[Mapping[str, Any]]) -> None:
        """Say it once where frames did not come in time, and no simulated fault took them."""
        missed = sum(line.get("missed", 0) for line in lines)
        if not missed or self._plan.links is not None or self._told_of_missed:
            return
        self._told_of_missed = True
        last = stretch.first + stretch.rounds - 1
        self._tell(
            f"{stretch.phase} rounds {stretch.first}-{last}: {missed} frames did not come within "
            f"run.deadline_s = {self._plan.config.run.deadline_s:g} s, and their nodes went on "
            "without them; results depend on timing from here on (`missed` in rounds.jsonl). A "
            "longer run.deadline_s waits for slow neighbours."
        )

    def _submit(self) -> None:
        """Hand the next stretch to the hosts, if there is one."""
        stretch = next(self._stretches, None)
        if stretch is not None:
            if not self._keep.checkpoints:
                stretch = replace(stretch, checkpoint=None)
            self._submitted.append(stretch)
            self._pool.submit(stretch)

    def finish(self, startup_s: float, wall_s: float) -> Summary:
        """Save every node's parameters, aggregate the figures, write the summary.

        Raises:
            NetworkError: as in `step`.
        """
        while True:
            try:
                return self._finish(startup_s, wall_s)
            except ActorDied as death:
                self._recover(death)
            while self.step() is not None:
                pass

    def _finish(self, startup_s: float, wall_s: float) -> Summary:
        self._costs.memory_mb = [size.memory_mb for size in self._pool.sizes()]
        if self._keep.parameters:
            for part in self._pool.parameters():
                for index, parameters in sorted(part.items()):
                    self._directory.write_parameters(
                        self._plan.topology.nodes[index].id, parameters
                    )
        self._costs.startup_s, self._costs.wall_s = startup_s, wall_s
        summary = summarize(
            self._plan, self._account, self._measured, self._costs, self._spectrum, self._radio
        )
        found = diagnose_run(summary, self._watch.lines, self._edges, self._plan.config)
        pilot = self._directory.about().get("pilot")
        summary = summary.model_copy(
            update={"diagnosis": found, "pilot": pilot and Pilot.model_validate(pilot)}
        )
        self._directory.write_summary(summary.model_dump(mode="json"))
        return summary

    def _take(self, stretch: Stretch, reports: list[Report]) -> list[Finding]:
        sent: dict[int, int] = defaultdict(int)
        for report in reports:
            self._account.enter(report.balanced)
            self._account.post(report.ledger)
            for key, _, *sizes in report.balanced:
                sent[key.round] += sum(sizes)
            for key, fate, _, *sizes in report.ledger:
                if fate == "sent":
                    sent[key.round] += sum(sizes)
        self._costs.rejected += sum(report.rejected for report in reports)
        why = [text for report in reports for text in report.rejections]
        if why:
            self._directory.mark("running", rejections=why)
        stale = sum(report.stale for report in reports)
        if stale > self._stale:
            self._directory.mark("running", stale_frames=stale)
        self._stale = stale
        self._log_ledger(self._account.settle(), reports)
        costs: dict[int, RoundCost] = {}
        if self._radio is not None:
            rounds = range(stretch.first, stretch.first + stretch.rounds)
            sendings = (sending for report in reports for sending in report.sendings)
            costs = self._radio.enter(stretch.phase, rounds, sendings)
        records = {n: r for report in reports for n, r in sorted(report.records.items())}
        if stretch.phase == "train":
            lines = self._measured.add_training({n: r.train for n, r in records.items()})
        elif stretch.phase == "evaluation":
            maps = {n: m for report in reports for n, m in (report.restrictions or {}).items()}
            lines = self._measured.add_evaluation(
                {n: r.evaluation for n, r in records.items()}, **self._standing(stretch.first, maps)
            )
        elif stretch.phase == "calibration":
            lines = self._measured.add_calibration({n: r.calibration for n, r in records.items()})
        else:
            lines = self._measured.add_inference({n: r.inference for n, r in records.items()})
        self._tell_of_missed(stretch, lines)
        extra: dict[str, Any] = {} if self._keep.losses_by_edge else {"contrastive_per_edge": None}
        self._directory.append(
            "rounds",
            (
                line
                | {"bytes": sent[line["round"]]}
                | (_took(costs[line["round"]]) if costs else {})
                | (extra if stretch.phase == "train" else {})
                for line in lines
            ),
        )
        return self._watch.add(lines) if stretch.phase == "train" else []

    def _standing(self, evaluation: int, maps: Parameters) -> Mapping[str, Any]:
        """How far training has come and what it has cost when an evaluation takes place."""
        self._spectrum = spectrum = sheaf_of(self._plan.topology, maps).spectrum() if maps else None
        return {
            "after": evaluation_points(self._plan.config)[evaluation],
            "train_bytes": sum(
                count.total for key, count in self._account.totals.items() if key[0] == "train"
            ),
            **self._standing_of_radio(),
            "spectral_gap": number(spectrum.gap) if spectrum else None,
        }

    def _standing_of_radio(self) -> Mapping[str, float | None]:
        """What training has cost in simulated time and energy, where links have profiles."""
        if self._radio is None:
            return {}
        return {
            "train_seconds": number(self._radio.seconds["train"]),
            "train_joules": number(total(self._radio.joules("train"))),
        }

    def _log_ledger(self, settled: Iterable[Line], reports: Sequence[Report] = ()) -> None:
        counted: list[Counted] = [
            (key, {"sent": numbers, "delivered": numbers})
            for report in reports
            for key, *numbers in report.balanced
        ]
        counted += [(line.key, line.fates) for line in settled]
        arrow = self._plan.method.network.arrow if self._keep.ledger_by_edge else None
        self._directory.append("ledger", ledger_lines(counted, arrow, self._plan.radio))


def _took(cost: RoundCost) -> dict[str, Any]:
    """The simulated time and energy of a round, for its line."""
    return {
        "seconds": number(cost.seconds),
        "joules": number(total(cost.joules)),
        "joules_per_node": [number(joules) for joules in cost.joules],
    }


_MENDED = (ActorDied, ConnectionLost)
