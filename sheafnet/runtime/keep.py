"""What a run keeps in detail, so that its directory stays within ``run.directory_mb``.

The summary and a line per round are always kept. Then, as far as they fit, in this order: the
parameters of all nodes, the contrastive losses by edge in rounds.jsonl, the ledger by directed
edge, and checkpoints; without the ledger by edge, ledger.jsonl has a line per round, summed over
edges. The bytes of each edge in a whole phase stand in the summary in any case. Sizes are upper
estimates from the number of rounds, nodes and edges, so that what is kept does not change within a
run.
"""

from dataclasses import dataclass, replace

from sheafnet.network.frame import PHASES
from sheafnet.runtime.checkpoint import KEPT
from sheafnet.runtime.plan import Plan

_SUMMARY_OF_NODE = 2150
_SUMMARY_OF_EDGE = 2700
"""Both directions, four phases and the alignment."""
_CORRELATION = 44
"""One of ``canonical_correlations`` in both directions."""
_ROUND = 700
_LEDGER_LINE = 320
_FAULTY_LEDGER_LINE = 800
"""With every fate in it."""
_LEDGER_RADIO = 90
"""``radio`` of a line of the ledger."""
_JOULES = 14
"""One number of ``joules_per_node``."""
_LOSS = 14
"""One number of ``contrastive_per_edge``."""


@dataclass(frozen=True)
class Keep:
    """What is kept beside the summary and a line per round."""

    parameters: bool
    losses_by_edge: bool
    ledger_by_edge: bool
    checkpoints: bool
    left_out: tuple[str, ...] = ()
    """What is not, in words."""

    @classmethod
    def within(cls, plan: Plan, parameter_bytes: int = 0, state_bytes: int = 0) -> "Keep":
        """What fits, where all parameters take `parameter_bytes` and a checkpoint `state_bytes`.

        Raises:
            ConfigError: not even what is always kept does.
        """
        bound = plan.config.run.directory_mb
        left, rounds = bound * 1e6 - least_bytes(plan), _rounds(plan)
        if left < 0:
            raise plan.config.fault(
                f"run.directory_mb = {bound:g}: {rounds:,} rounds of {len(plan.topology.nodes):,} "
                f"nodes take up to {least_bytes(plan) / 1e6:.3g} MB. Allow as much, or run fewer "
                "rounds.",
                "run",
                "directory_mb",
            )
        kept: list[bool] = []
        left_out: list[str] = []
        for size, name in (
            (parameter_bytes, "the parameters"),
            (plan.config.training.rounds * len(plan.method.trained) * _LOSS, "losses by edge"),
            (
                rounds * 2 * len(plan.method.network.edges) * _ledger_line(plan),
                "the ledger by edge",
            ),
            ((KEPT + 1) * state_bytes, "checkpoints"),
        ):
            kept.append(size <= left)
            if size <= left:
                left -= size
            else:
                left_out.append(f"{name} ({size / 1e6:,.0f} MB)")
        return cls(kept[0], kept[1], kept[2], kept[3], tuple(left_out))


def without_checkpoints(keep: Keep, why: str) -> Keep:
    """`keep` for a run that cannot have any."""
    return replace(keep, checkpoints=False, left_out=(*keep.left_out, f"checkpoints ({why})"))


def least_bytes(plan: Plan) -> int:
    """What the files that are always kept take at most."""
    nodes, edges = len(plan.topology.nodes), len(plan.method.network.edges)
    energies = 0 if plan.radio is None else nodes * _JOULES
    of_rounds = _rounds(plan) * (_ROUND + energies + _ledger_line(plan))
    correlations = 0
    if plan.config.evaluation.canonical:
        correlations = _CORRELATION * sum(edge.dim for edge in plan.topology.edges)
    return nodes * _SUMMARY_OF_NODE + edges * _SUMMARY_OF_EDGE + correlations + of_rounds


def _ledger_line(plan: Plan) -> int:
    line = _LEDGER_LINE if plan.links is None else _FAULTY_LEDGER_LINE
    return line if plan.radio is None else line + _LEDGER_RADIO


def _rounds(plan: Plan) -> int:
    return sum(plan.rounds(phase) for phase in PHASES)
