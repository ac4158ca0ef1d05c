"""What a host tells the coordinator after a stretch of rounds: numbers, no tensors, no torch.

The exception are the restriction maps, which a host adds to the report of an evaluation where the
spectrum of the sheaf is followed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sheafnet.errors import SheafnetError
from sheafnet.network.ledger import Entry, Row
from sheafnet.network.radio import Sending
from sheafnet.nodes.records import (
    CalibrationRecord,
    EvaluationRecord,
    InferenceRecord,
    TrainRecord,
)
from sheafnet.runtime.checkpoint import Part

Parameters = Mapping[int, Mapping[str, npt.NDArray[np.float32]]]
"""By node, by name."""


@dataclass
class NodeRecords:
    """The records of one node in a stretch."""

    train: list[TrainRecord] = field(default_factory=list)
    evaluation: list[EvaluationRecord] = field(default_factory=list)
    calibration: list[CalibrationRecord] = field(default_factory=list)
    inference: list[InferenceRecord] = field(default_factory=list)


@dataclass(slots=True)
class Seconds:
    """Where a host's time goes; compute and messaging are processor seconds of its one thread."""

    compute: float = 0.0
    """Sections, losses, steps, estimates."""
    messaging: float = 0.0
    """Frames: made, checked, counted, sent and received."""
    wait: float = 0.0
    """The rest: waiting for neighbours, or for a core."""

    def add(self, other: "Seconds") -> None:
        """Add `other` to this."""
        self.compute += other.compute
        self.messaging += other.messaging
        self.wait += other.wait


@dataclass
class Report:
    """What a host tells the coordinator after a stretch."""

    records: dict[int, NodeRecords]
    balanced: list[Row]
    """What the ledgers of two nodes of this host agree on."""
    ledger: list[Entry]
    """All other entries."""
    rejected: int
    """Frames refused in this stretch."""
    rejections: list[str]
    """Why, for the last of them."""
    seconds: Seconds
    """Of this stretch."""
    sendings: list[Sending] = field(default_factory=list)
    """What the nodes of this host sent, where links have profiles."""
    restrictions: Parameters | None = None
    """After an evaluation, where the spectrum is followed."""
    part: Part | None = None
    """Of the checkpoint at the end of this stretch, where one is due."""
    stale: int = 0
    """Frames so far of nodes as they were before a restart; they belong to no round of the run."""
    failure: SheafnetError | None = None


@dataclass(frozen=True)
class HostSize:
    """What a host takes."""

    memory_mb: float
    """Memory that belongs to its process alone."""
    parameter_bytes: int
    """Of all its nodes."""
    state_bytes: int
    """What a checkpoint of all its nodes takes."""
    reaches_run: bool
    """Whether it can write into the run directory."""
