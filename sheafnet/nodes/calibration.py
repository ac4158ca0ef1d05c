"""The exchange before inference: neighbours' projections of events that training never saw.

In a phase of its own, once, every node sends each neighbour the projections of the first events of
the validation split, for all of which it has its own modality, in the number format of inference.
"""

import numpy as np

from sheafnet.network.frame import Kind
from sheafnet.nodes.events import calibration_size
from sheafnet.nodes.node import Node, Program, array_of
from sheafnet.nodes.records import CalibrationRecord
from sheafnet.sheaf.calibration import Calibration


def calibrate(node: Node, round_: int, records: list[CalibrationRecord]) -> Program:
    """Send the projections of the calibration events, keep the neighbours'; appends a record."""
    events = np.arange(calibration_size(node.config, node.dataset), dtype=np.int64)
    section = node.labelled("validation", events).section
    for edge, own in zip(node.edges, node.project(section), strict=True):
        node.endpoint.send(edge.index, Kind.CALIBRATION, round_, array_of(own))
    wanted = node.every(Kind.CALIBRATION, round_)
    heard = yield wanted
    received = {
        position: node.tensor(heard[edge.index].array)
        for position, edge in enumerate(node.edges)
        if edge.index in heard
    }
    node.calibration = Calibration(section, received)
    records.append(CalibrationRecord(round_, len(events), len(wanted) - len(heard)))
