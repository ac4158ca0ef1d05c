"""What a round of one phase costs at one size of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sheafnet.studies.cells import CellResult, StretchEnd

TimedPhase = Literal["train", "inference"]
PHASES: tuple[TimedPhase, ...] = ("train", "inference")


@dataclass(frozen=True)
class RoundCost:
    """A round of training, or of missing-modality inference."""

    rounds: int
    """Rounds that `round_ms` is the mean of."""
    warmed_up: bool
    """Whether the first stretch is left out of `round_ms`; not where it is the only one."""
    round_ms: float
    """Wall-clock time of a round."""
    compute_ms: float
    """Of a round at a host, mean over all rounds and hosts: processor time of the method."""
    messaging_ms: float
    """Likewise: processor time in frames."""
    wait_ms: float
    """Likewise: the rest."""
    efficiency: float
    """Parallel efficiency: compute of all hosts / (hosts x time of a round), over all rounds."""
    node_round_ms: float
    """Time of a host for a round of one node: round_ms x hosts / nodes."""
    messages: float
    """Sent in a round, by all nodes."""
    bytes: float
    """Sent in a round, by all nodes."""

    @classmethod
    def of(cls, result: CellResult, phase: TimedPhase) -> "RoundCost | None":
        """From what is kept of a run; None where the phase had no rounds."""
        summary = result.summary
        timing, traffic = summary.timing, getattr(summary.communication, phase)
        mean_ms = timing.train_round_ms if phase == "train" else timing.inference_round_ms
        host = timing.train_host if phase == "train" else timing.inference_host
        if not traffic.rounds or not mean_ms:
            return None
        steady = steady_rounds(result.stretches, phase)
        rounds, round_ms = steady or (traffic.rounds, mean_ms)
        return cls(
            rounds=rounds,
            warmed_up=steady is not None,
            round_ms=round_ms,
            compute_ms=host.compute_ms,
            messaging_ms=host.messaging_ms,
            wait_ms=host.wait_ms,
            efficiency=host.compute_ms / mean_ms,
            node_round_ms=round_ms * summary.actors / summary.nodes,
            messages=traffic.messages / traffic.rounds,
            bytes=traffic.bytes_total / traffic.rounds,
        )


def steady_rounds(stretches: Sequence[StretchEnd], phase: TimedPhase) -> tuple[int, float] | None:
    """The rounds of `phase` after its first stretch, and their mean time in ms.

    The first stretch is a warm-up. What other phases took in between does not count.

    Returns:
        None where there is one stretch or none.
    """
    done, rounds, seconds = 0, 0, 0.0
    for before, end in zip((None, *stretches), stretches, strict=False):
        if end.phase != phase:
            continue
        if before is not None and done:
            rounds += end.done - done
            seconds += end.seconds - before.seconds
        done = end.done
    return (rounds, 1000 * seconds / rounds) if rounds else None
