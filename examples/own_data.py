"""Your own arrays: a file per modality, the network in a dict, and what the run found.

Three sensors watch a machine that is in one of four states: a microphone (40 bands), an
accelerometer (12 features) and a thermal camera (8 x 8 pixels). Each sees its own mixture of what
goes on, and noise. Row i of every array is the same moment.

    python examples/own_data.py [FOLDER]     without a FOLDER, a temporary one
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import sheafnet

folder = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp())
arrays = folder / "machine"
arrays.mkdir(parents=True, exist_ok=True)

rng = np.random.default_rng(0)
labels = np.arange(1500) % 4  # 0 to classes - 1, without gaps
happening = rng.normal(size=(4, 10))[labels] + rng.normal(size=(1500, 10))
np.save(arrays / "labels.npy", labels)
for modality, shape in {"sound": (40,), "motion": (12,), "heat": (8, 8)}.items():
    seen = happening @ rng.normal(size=(10, np.prod(shape)))
    seen += rng.normal(size=seen.shape)
    np.save(arrays / f"{modality}.npy", seen.reshape(1500, *shape))  # first axis: events

network = {
    "name": "machine",
    "dataset": {"name": "arrays", "path": arrays},
    "nodes": [
        {"id": "microphone", "modality": "sound"},
        {"id": "accelerometer", "modality": "motion"},
        {"id": "camera", "modality": "heat"},
    ],
    "edges": [("microphone", "accelerometer"), ("accelerometer", "camera")],
    "defaults": {"node": {"embedding_dim": 16, "encoder": {"name": "mlp", "hidden": [32]}}},
    "training": {"rounds": 50, "batch_size": 64},
    "inference": {"rounds": 4, "batch_size": 64, "missing_probability": 0.2},
    "evaluation": {"gallery": 200, "support": 200},
    "run": {"backend": "local", "directory": folder},
}
result = sheafnet.simulate(sheafnet.load_config(network), on_progress=print)

aligned, missing = result.summary.alignment, result.summary.missing
print(f"\nrecall@1 {aligned.recall_at_1:.3f}, by chance {aligned.chance.recall_at_1:.3f}")
for edge, scores in aligned.per_edge.items():
    print(f"  {edge:27} {scores.recall_at_1:.3f}")
print(f"state by a neighbour's prototypes: accuracy {aligned.zero_shot_accuracy:.3f}")
print(f"{missing.missing} missing samples inferred: NMSE {missing.nmse:.3f}, the mean has 1")
for node, own in missing.per_node.items():
    print(f"  {node:27} {own.estimators[missing.estimator].nmse:.3f}")
for phase, edges in sheafnet.load_run(result.directory).sent().items():
    print(f"{phase:10} {sum(sent.bytes_total for sent in edges.values()):>9,} bytes")
print(f"all of it in {result.directory}")
