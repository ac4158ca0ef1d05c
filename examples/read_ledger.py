"""The ledger of a run: bytes by phase, edge and round, and its balance, added up by hand.

Links lose, delay, damage and repeat messages here, so that there is something to balance. The
columns of the ledger make a table of pyarrow as they are, and a data frame of pandas likewise:
`pandas.DataFrame(run.columns("ledger"))`.

    python examples/read_ledger.py [FOLDER]     without a FOLDER, a temporary one
"""

import sys
import tempfile

import numpy as np
import pyarrow
import pyarrow.compute as pc

import sheafnet

network = {
    "name": "noisy-square",
    "dataset": {"name": "synthetic", "features": 16, "classes": 4},
    "nodes": ["north", "east", "south", "west"],
    "edges": [("north", "east"), ("east", "south"), ("south", "west"), ("west", "north")],
    "defaults": {"node": {"embedding_dim": 16, "encoder": {"name": "mlp", "hidden": [16]}}},
    "training": {"rounds": 30, "batch_size": 32},
    "inference": {"rounds": 4, "batch_size": 64, "missing_probability": 0.2},
    "evaluation": {"gallery": 100, "support": 100},
    "faults": {"phases": ["train"], "loss": 0.1, "retransmissions": 1}
    | {"delay": 0.05, "corruption": 0.05, "duplication": 0.05},
    "run": {"backend": "local", "directory": sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp()},
}
result = sheafnet.simulate(sheafnet.load_config(network))
run = sheafnet.load_run(result.directory)

table = pyarrow.table(run.columns("ledger"))
ends = ("delivered", "late", "dropped", "rejected")  # one of them becomes of every message
for fate in ("sent", *ends):
    payload, framing, control = (
        table[f"{fate}.{kind}_bytes"] for kind in ("payload", "framing", "control")
    )
    table = table.append_column(f"{fate}.bytes", pc.add(pc.add(payload, framing), control))
print(f"{table.num_rows} lines: one for each round and direction of an edge")


def sent(lines: pyarrow.Table, by: str) -> list[tuple[str | int, int, int]]:
    """Messages and bytes sent, by the values of a column."""
    sums = lines.group_by(by).aggregate([("sent.messages", "sum"), ("sent.bytes", "sum")])
    return list(zip(*sums.sort_by(by).to_pydict().values(), strict=True))


print(f"\n{'phase':16}{'messages':>9}{'bytes':>10}")
for phase, messages, size in sent(table, "phase"):
    print(f"{phase:16}{messages:>9,}{size:>10,}")

training = table.filter(pc.equal(table["phase"], "train"))
print(f"\n{'training, edge':16}{'messages':>9}{'bytes':>10}")
for edge, messages, size in sent(training, "edge"):
    print(f"{edge:16}{messages:>9,}{size:>10,}")
sizes = [size for _, _, size in sent(training, "round")]
print(f"a training round took {min(sizes):,} to {max(sizes):,} bytes, retransmissions included")

print(f"\n{'balance':16}{'messages':>9}{'bytes':>10}")
totals = {
    fate: np.array([pc.sum(table[f"{fate}.{unit}"]).as_py() for unit in ("messages", "bytes")])
    for fate in ("sent", *ends)
}
totals["the rest"] = totals["sent"] - sum(totals[fate] for fate in ends)
for name, (messages, size) in totals.items():
    print(f"{name:16}{messages:>9,}{size:>10,}")
