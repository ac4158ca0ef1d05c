"""Two methods at equal bytes, with two seeds each: the tables, and their differences.

Three feature views of the same handwritten digits (UCI, bundled). SheafAlign sends d/2 numbers a
sample over an edge, one space for all (`all-pairs`) sends d: with half as many rounds it has sent
the same. Few rounds and untuned settings, to be quick; the README has the figures that count.

    python examples/compare_methods.py [FOLDER]     without a FOLDER, a temporary one
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console

import sheafnet
from sheafnet.studies.comparison_tables import print_comparison

folder = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp())
rounds = 32
network = {
    "name": "digits",
    "dataset": "multiple-features",
    "nodes": [{"id": view, "modality": view} for view in ("fourier", "profile", "zernike")],
    "edges": [("fourier", "profile"), ("profile", "zernike"), ("zernike", "fourier")],
    "defaults": {"node": {"embedding_dim": 32, "encoder": {"name": "mlp", "hidden": [32]}}},
    "training": {"rounds": rounds, "batch_size": 64, "temperature": 0.2},
    "inference": {"rounds": 2},
    "evaluation": {"gallery": 200, "support": 200, "few_shot": [5], "every": rounds},
}
comparison = sheafnet.compare(
    network,
    methods=f"sheafalign,all-pairs@training.rounds={rounds // 2}",
    seeds=2,
    targets=["zero_shot_accuracy=0.5"],
    study=folder / "digits",  # keeps what was measured: the same call goes on from there
    workers=1,
)
print_comparison(Console(width=80), comparison)

ours, theirs = (standing.contender.label for standing in comparison.standings)
rows = {(row["contender"], row["figure"]): row for row in comparison.rows()}  # or a data frame
print(f"\n{ours} and {theirs}")
for name in ("train_bytes", "recall_at_1", "zero_shot_accuracy", "missing_nmse_ridge"):
    figure, one, other = comparison.figures[name], rows[ours, name], rows[theirs, name]
    print(
        f"{figure.label:20}{figure.show(one['mean']):>9}{figure.show(other['mean']):>9}"
        f"{other['difference_percent']:>+8.1f} %"
    )
