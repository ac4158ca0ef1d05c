"""The whole stack that a frame meets on its way in, beside what has to become of it.

Node a of a triangle (a-b with d_ij 2, a-c with 3, b-c with 4) has asked b for rows 1 and 20 in
round 5. A batch has 24 rows, a gallery 7, a calibration 6, and there are 5 classes; all eight kinds
are in use, and estimates are exchanged three times.
"""

import numpy as np

from sheafnet.config import Named
from sheafnet.errors import FrameError
from sheafnet.network.channel import Endpoint, Limits
from sheafnet.network.frame import Frame, Kind, decode, encode, pack_mask, run_tag
from sheafnet.network.payload import WireDtype, pack
from sheafnet.network.switchboard import Switchboard
from sheafnet.topology import Edge, Node, Topology
from tests.fuzz import oracle

A, B, C = range(3)
AB, AC, BC = range(3)
RUN = run_tag(0x1234567)
ROWS = {
    Kind.PROJECTION: 24,
    Kind.GRADIENT: 24,
    Kind.GALLERY: 7,
    Kind.PROTOTYPES: 5,
    Kind.REQUEST: 24,
    Kind.ANSWER: 24,
    Kind.ESTIMATE: 24,
    Kind.CALIBRATION: 6,
}
ITERATIONS = 3
ASKED = (1, 20)
QUESTION_ROUND = 5
DTYPES = tuple(WireDtype)[1:]
TRIANGLE = Topology(
    "triangle",
    tuple(
        Node(index, name, None, Named(name="mlp"), 8)
        for index, name in [(A, "a"), (B, "b"), (C, "c")]
    ),
    (Edge(AB, A, B, 2), Edge(AC, A, C, 3), Edge(BC, B, C, 4)),
)


class Defect(AssertionError):
    """A frame was treated otherwise than the wire format says."""


def mask_of(length: int, *rows: int) -> bytes:
    """The wire form of these rows."""
    return pack_mask(np.isin(np.arange(length), rows))


def honest_frames(dtype: WireDtype, edge: int = AB) -> dict[Kind, bytes]:
    """What a's neighbour on `edge` may send it: a frame of every kind, in round 5 (and step 2)."""
    masks = {
        Kind.PROTOTYPES: mask_of(5, 0, 2, 3),
        Kind.REQUEST: mask_of(24, 16),  # takes the form with the rows left out
        Kind.ANSWER: mask_of(2, 1),
        Kind.ESTIMATE: mask_of(2, 1),
    }
    rows = ROWS | {Kind.PROTOTYPES: 3, Kind.REQUEST: 0, Kind.ANSWER: 1, Kind.ESTIMATE: 1}
    frames = {}
    for kind in Kind:
        values = np.linspace(-2, 3, rows[kind] * TRIANGLE.edges[edge].dim, dtype=np.float32)
        of_kind = WireDtype.NONE if kind is Kind.REQUEST else dtype
        payload = b"" if kind is Kind.REQUEST else pack(values.reshape(rows[kind], -1), dtype)
        number = 256 * QUESTION_ROUND + 2 if kind is Kind.ESTIMATE else QUESTION_ROUND
        frames[kind] = encode(
            Frame(kind, RUN, 0, number, edge, 1, of_kind, rows[kind], masks.get(kind), payload)
        )
    return frames


class Receiver:
    """Node a, its switchboard, and the rules that it has to keep; all tensors travel as `dtype`."""

    def __init__(self, dtype: WireDtype) -> None:
        self.honest = honest_frames(dtype)
        self.rules = oracle.Rules(
            run=RUN,
            dims={AB: 2, AC: 3},
            directions={AB: 1, AC: 1},
            rows={int(kind): rows for kind, rows in ROWS.items()},
            dtype=int(dtype),
            question=(AB, QUESTION_ROUND, len(ASKED)),
            iterations=ITERATIONS,
        )
        self._limits = Limits(RUN, ROWS, dict.fromkeys(ROWS, dtype), ITERATIONS)
        self.renew()

    def renew(self) -> None:
        """A node that has had no mail."""
        self.board = Switchboard(TRIANGLE, self)
        self.node = Endpoint(TRIANGLE, A, self._limits, self.board)
        self.board.attach(self.node)
        self.node.send(AB, Kind.REQUEST, QUESTION_ROUND, mask=np.isin(np.arange(24), ASKED))

    def send(self, node: int, buffer: bytes) -> None:
        """What a sends to nodes elsewhere goes nowhere."""

    def deliver(self, buffer: bytes) -> bool:
        """Deliver `buffer`; returns whether it was accepted, which is whether it should be.

        Raises:
            Defect: it was not treated as it should be; or whatever the stack raised.
        """
        should = self.expect(buffer)
        return self.judge(should, buffer)

    def expect(self, buffer: bytes) -> bool:
        """Whether `buffer` has to be accepted, after a look at how it is decoded.

        Raises:
            Defect: it is decoded otherwise than it should be.
        """
        frame = oracle.read(buffer)
        self._compare(buffer, frame)
        return frame is not None and self.rules.allow(frame)

    def judge(self, should: bool, buffer: bytes) -> bool:
        """Deliver `buffer`, which should be accepted or not.

        Raises:
            Defect: it was treated otherwise; or whatever the stack raised.
        """
        before = self.board.rejected
        self.board.deliver(buffer)
        accepted = self.board.rejected == before
        if accepted is not should:
            why = "" if accepted else f": {self.board.rejections[-1]}"
            raise Defect(f"{'accepted' if accepted else 'refused'} wrongly{why}")
        if self.board.touched != ({A} if accepted else set()):
            raise Defect(f"mail for {self.board.touched}")
        return accepted

    @staticmethod
    def _compare(buffer: bytes, frame: oracle.Fields | None) -> None:
        try:
            decoded = decode(buffer)
        except FrameError:
            if frame is not None:
                raise Defect(f"a sound frame is not decoded: {frame}") from None
            return
        if frame is None:
            raise Defect(f"decoded, though it is no frame: {decoded}")
        if any(getattr(decoded, name) != getattr(frame, name) for name in Frame.__slots__):
            raise Defect(f"decoded as {decoded} instead of {frame}")
        if encode(decoded) != buffer:
            raise Defect(f"another spelling of {encode(decoded).hex()}")

    def check_unharmed(self) -> None:
        """The honest frames are all delivered, as they were sent.

        Raises:
            Defect: one is not.
        """
        for kind, buffer in self.honest.items():
            self.board.deliver(buffer)
            rows, sent = ROWS[kind], decode(buffer)
            mail = self.node.take([(AB, kind, sent.round)])
            if AB not in mail:
                raise Defect(f"an honest {kind.name.lower()} was refused afterwards")
            array, mask = mail[AB].array, mail[AB].mask
            if pack(array, sent.dtype) != sent.payload:
                raise Defect(f"an honest {kind.name.lower()} came with other values")
            expected = {
                Kind.PROTOTYPES: (0, 2, 3),
                Kind.REQUEST: (16,),
                Kind.ANSWER: (20,),
                Kind.ESTIMATE: (20,),
            }
            named = None if mask is None else tuple(np.flatnonzero(mask))
            if named != expected.get(kind) or (mask is not None and len(mask) != rows):
                raise Defect(f"an honest {kind.name.lower()} came with rows {named}")
