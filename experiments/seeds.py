"""A topology over several seeds: mean and standard deviation of every headline figure.

    .venv/bin/python experiments/seeds.py topologies/ring.yaml --seeds 5 [--set a.b=c ...]

Runs in one process (local backend), whose figures are those of the actors bit for bit.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import sheafnet


def headline(summary: sheafnet.Summary) -> dict[str, float]:
    """The figures that are compared."""
    a, m, c = summary.alignment, summary.missing, summary.communication
    figures = {
        "recall@1": a.recall_at_1,
        "recall@5": a.recall_at_5,
        "recall@10": a.recall_at_10,
        "zero-shot accuracy": a.zero_shot_accuracy,
        **{f"{k}-shot accuracy": value for k, value in a.few_shot_accuracy.items()},
        "probe accuracy": a.probe_accuracy,
        "accuracy, all present": m.accuracy_all_present,
    }
    for name, estimator in m.estimators.items():
        figures[f"{name} NMSE"] = estimator.nmse
        figures[f"{name} accuracy"] = estimator.accuracy
    figures["bytes per training round"] = c.train.bytes_per_round
    figures["bytes per inferred sample"] = c.inference.bytes_per_inferred_sample
    return {name: value for name, value in figures.items() if value is not None}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("topology", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    runs = []
    for seed in range(chosen.seeds):
        overrides = [*chosen.overrides, f"run.seed={seed}", "run.backend=local"]
        with tempfile.TemporaryDirectory() as folder:
            config = sheafnet.load_config(chosen.topology, overrides)
            runs.append(headline(sheafnet.simulate(config, run_dir=Path(folder) / "run").summary))
    found = {
        name: (
            statistics.mean(run[name] for run in runs),
            statistics.stdev(run[name] for run in runs) if len(runs) > 1 else 0.0,
        )
        for name in runs[0]
    }
    if chosen.json:
        print(json.dumps({"seeds": chosen.seeds, "mean_and_sd": found}, indent=2))
        return
    print(f"{chosen.topology.stem}, {chosen.seeds} seeds {' '.join(chosen.overrides)}")
    for name, (mean, deviation) in found.items():
        print(f"  {name:26} {mean:12.3f} +- {deviation:.3f}")


if __name__ == "__main__":
    main()
