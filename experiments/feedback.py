"""What error feedback would do to projections, in figures: why there is no option for it (E8).

    .venv/bin/python experiments/feedback.py        # some minutes

Error feedback adds to every message what rounding took from the one before it on the same edge. It
keeps sums of messages right, such as those of gradients. Here the rows of a message are other
events in every round, so that what is added belongs to other rows. The ring is trained with
int8-row, with and without it; printed are the squared error of what arrives, relative to the
projections, and recall@1.
"""

import argparse
import tempfile
from typing import ClassVar
from unittest.mock import patch

import numpy as np

import sheafnet
from sheafnet.config import load_config
from sheafnet.network.channel import Endpoint
from sheafnet.network.frame import Kind, Mask
from sheafnet.network.payload import Array, WireDtype, pack, unpack

DTYPE = WireDtype.INT8_ROW
TOPOLOGY = "topologies/ring.yaml"


class Feeding(Endpoint):
    """An endpoint whose projections carry `share` of what the last one on their edge lost."""

    share = 1.0
    squares: ClassVar[list[tuple[float, float]]] = []
    """Of the error of what arrives, and of the projection, by message."""

    def send(
        self,
        edge: int,
        kind: Kind,
        number: int,
        array: Array | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Feed back, measure, send."""
        if kind is Kind.PROJECTION and array is not None:
            residuals: dict[int, Array] = self.__dict__.setdefault("residuals", {})
            fed = array + np.float32(self.share) * residuals.get(edge, np.zeros_like(array))
            arrives = unpack(pack(fed, DTYPE), DTYPE, *fed.shape)
            residuals[edge] = fed - arrives
            self.squares.append((float(((arrives - array) ** 2).sum()), float((array**2).sum())))
            array = fed
        super().send(edge, kind, number, array, mask)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    print("feedback  seed  squared error  recall@1")
    for Feeding.share in (0.0, 1.0):
        for seed in range(asked.seeds):
            config = load_config(
                TOPOLOGY,
                [
                    f"training.wire_dtype={DTYPE.label}",
                    f"training.rounds={asked.rounds}",
                    f"run.seed={seed}",
                    "run.backend=local",
                    "inference.rounds=1",
                ],
            )
            Feeding.squares = []
            with (
                patch("sheafnet.runtime.host.Endpoint", Feeding),
                tempfile.TemporaryDirectory() as folder,
            ):
                summary = sheafnet.simulate(config, run_dir=f"{folder}/run").summary
            wrong, whole = np.sum(Feeding.squares, axis=0)
            recall = summary.alignment.recall_at_1
            print(
                f"{Feeding.share:8.0f}  {seed:4}  {wrong / whole:13.2e}  {recall:8.3f}", flush=True
            )


if __name__ == "__main__":
    main()
