"""The sheaf of a run: coboundary, Laplacian, global sections, consistency, before and after.

The restriction maps of the nodes make a cellular sheaf. The kernel of its Laplacian, the coboundary
times its transpose, are the global sections: what all nodes can hold without any two neighbours
disagreeing. A run of no rounds has the maps and encoders that training starts from.

    python examples/sheaf_diagnostics.py [FOLDER]     without a FOLDER, a temporary one
"""

import sys
import tempfile

import numpy as np

import sheafnet

network = {
    "name": "square",
    "dataset": {"name": "synthetic", "features": 24, "latent": 4, "unique": 0.1, "pairwise": 0.6},
    "nodes": ["north", "east", "south", "west"],
    "edges": [
        ("north", "east"),
        ("east", "south"),
        ("south", "west"),
        {"between": ("west", "north"), "comparison_dim": 12},
    ],
    "defaults": {"node": {"embedding_dim": 16, "encoder": {"name": "mlp", "hidden": [32]}}},
    "training": {"batch_size": 64},
    "inference": {"rounds": 0},
    "evaluation": {"gallery": 100, "support": 100},
    "run": {"backend": "local", "directory": sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp()},
}


def diagnose(run: sheafnet.LoadedRun) -> dict[str, float]:
    """Figures of the sheaf of `run`, and of its sections on 200 events that nobody trained on."""
    sheaf, sections = run.sheaf(), run.sections("test", 200)
    delta, spectrum = sheaf.dense_coboundary(), sheaf.spectrum()
    rng = np.random.default_rng(0)
    shuffled = [section[rng.permutation(len(section))] for section in sections]
    same, different = sheaf.energy(sections).mean(), sheaf.energy(shuffled).mean()
    return {
        "sum of d_ij": delta.shape[0],
        "sum of d_i": delta.shape[1],
        "rank of the coboundary": np.linalg.matrix_rank(delta),
        "dimension of global sections": spectrum.global_sections,
        "smallest eigenvalue above 0": spectrum.gap,
        "largest eigenvalue": spectrum.eigenvalues[-1],
        "energy of the same event": same,
        "energy of different events": different,
        "their ratio": same / different,
    }


runs = []
for rounds in (0, 40):
    config = sheafnet.load_config(network, [f"training.rounds={rounds}"])
    runs.append(sheafnet.load_run(sheafnet.simulate(config).directory))
untrained, trained = map(diagnose, runs)
print(f"{'':30}{'untrained':>10}{'trained':>10}")
for name in trained:
    form = "10.3f" if isinstance(trained[name], float) else "10d"
    print(f"{name:30}{untrained[name]:{form}}{trained[name]:{form}}")
print("A ratio of 1: what neighbours say of an event fits any other; of 0: they agree.")

cochain = runs[1].sheaf().coboundary(runs[1].sections("test", 200))
parts = [(disagreement**2).sum(axis=1).mean() for disagreement in cochain]
print("\nedge, trained     energy")
for edge, part in zip(runs[1].topology.edges, parts, strict=True):
    print(f"{runs[1].topology.edge_name(edge.index):14}{part:10.3f} in {edge.dim} dimensions")
