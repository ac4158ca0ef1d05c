"""Simulated faults of links and nodes as frozen models: the key ``faults`` of a configuration.

What each does to a message is decided in `sheafnet.network.links`. A window of rounds ``[a, b]``
holds from round a until round b, in which it is over; without an end (``[a, null]``) it stays.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sheafnet.validation import Model

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
FaultPhase = Literal["train", "inference"]
"""Evaluation is a measurement and never disturbed."""
Round = Annotated[int, Field(ge=0)]
Rounds = tuple[Round, Round | None]
Group = Annotated[tuple[str, ...], Field(min_length=1)]


class Window(Model):
    """Rounds of a phase."""

    rounds: Rounds
    phase: FaultPhase = "train"

    @field_validator("rounds")
    @classmethod
    def _in_order(cls, value: Rounds) -> Rounds:
        if value[1] is not None and value[1] <= value[0]:
            raise ValueError(
                f"[{value[0]}, {value[1]}] holds no round: the second is the one when it is over"
            )
        return value

    def holds(self, phase: str, round_: int) -> bool:
        """Whether round `round_` of `phase` is in the window."""
        first, over = self.rounds
        return phase == self.phase and first <= round_ and (over is None or round_ < over)


class Ends(Model):
    """An edge in both directions (``between``) or in one (``from_to``)."""

    between: tuple[str, str] | None = None
    from_to: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.between is None) is (self.from_to is None):
            raise ValueError(
                "name the edge by either between: [a, b] (both ways) or from_to: [a, b] (one way)"
            )
        return self


class EdgeFaults(Ends):
    """Probabilities of one edge instead of those of all; a key left out stays as it is."""

    loss: Probability | None = None
    duplication: Probability | None = None
    delay: Probability | None = None
    reordering: Probability | None = None
    corruption: Probability | None = None


class DownFaults(Window, Ends):
    """An edge that is down for some rounds: what is sent over it is dropped."""


class NodeFaults(Window):
    """A node that is asleep for some rounds, or dead where they have no end."""

    node: str


class StragglerFaults(Model):
    """A node whose frames of a round are all late, with a probability."""

    node: str
    probability: Probability


class PartitionFaults(Window):
    """Groups of nodes without a link between them; nodes that none names are one more group."""

    groups: Annotated[tuple[Group, ...], Field(min_length=1)]


class ScheduleFaults(Model):
    """An edge that is there in every so many rounds only."""

    between: tuple[str, str]
    every: Annotated[int, Field(ge=2)]
    offset: Round = 0

    @model_validator(mode="after")
    def _offset_is_below(self) -> Self:
        if self.offset >= self.every:
            raise ValueError(f"offset = {self.offset} must be below every = {self.every}")
        return self


class ActivityFaults(Model):
    """A graph that changes: which edges are there in a round."""

    probability: Probability = 1.0
    schedule: tuple[ScheduleFaults, ...] = ()


class FaultsConfig(Model):
    """What goes wrong in a run, drawn from its seed."""

    loss: Probability = 0.0
    duplication: Probability = 0.0
    delay: Probability = 0.0
    reordering: Probability = 0.0
    corruption: Probability = 0.0
    retransmissions: Annotated[int, Field(ge=0, le=16)] = 0
    phases: Annotated[tuple[FaultPhase, ...], Field(min_length=1)] = ("train", "inference")
    """In which the probabilities, stragglers and activity act; windows name their own."""
    edges: tuple[EdgeFaults, ...] = ()
    down: tuple[DownFaults, ...] = ()
    nodes: tuple[NodeFaults, ...] = ()
    stragglers: tuple[StragglerFaults, ...] = ()
    partitions: tuple[PartitionFaults, ...] = ()
    activity: ActivityFaults = ActivityFaults()
