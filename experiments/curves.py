"""What a comparison measured over its training rounds, as one figure: E7."""

import json
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = (
    ("energy", "consistency energy", "log"),
    ("gradient_norm", "gradient norm", "log"),
    ("spectral_gap", "spectral gap of the Laplacian", "linear"),
    ("contrastive", "contrastive loss (nats)", "linear"),
    ("recall_at_1", "recall@1 on unseen events", "linear"),
    ("zero_shot_accuracy", "zero-shot accuracy", "linear"),
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
STYLES = ("-", "--", "-.", ":")


def points(folder: Path) -> dict[str, dict[str, dict[int, list[float]]]]:
    """By contender and figure: the values of all seeds after each number of rounds.

    Of the runs that the comparison printed, not of others that its folder may hold.
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    contenders = json.loads((folder / "compare.json").read_text(encoding="utf-8"))["contenders"]
    runs = [(label, key) for label, contender in contenders.items() for key in contender["cells"]]
    for label, key in runs:
        cell = json.loads((folder / "cells" / f"{key}.json").read_text(encoding="utf-8"))
        method = found[label]
        for line in cell["training"]:
            for name in ("energy", "gradient_norm", "contrastive"):
                if line[name] is not None:
                    method[name][line["round"] + 1].append(line[name])
        for evaluation in cell["evaluations"]:
            for name, value in evaluation["figures"].items():
                if value is not None:
                    method[name][evaluation["after"]].append(value)
    return found


def plot(folder: Path, path: Path) -> None:
    """Draw the study in `folder`: a line per method, its mean and standard deviation over seeds."""
    methods = points(folder)
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, constrained_layout=True)
    for panel, (name, label, scale) in zip(axes.flat, PANELS, strict=True):
        for k, (method, figures) in enumerate(methods.items()):
            at = sorted(figures[name])
            if not at:
                continue
            mean = [statistics.fmean(figures[name][r]) for r in at]
            spread = [
                statistics.stdev(figures[name][r]) if len(figures[name][r]) > 1 else 0.0 for r in at
            ]
            panel.plot(at, mean, STYLES[k % 4], color=COLOURS[k % 4], label=method)
            low = [m - s for m, s in zip(mean, spread, strict=True)]
            high = [m + s for m, s in zip(mean, spread, strict=True)]
            panel.fill_between(at, low, high, color=COLOURS[k % 4], alpha=0.2, linewidth=0)
        panel.set_yscale(scale)
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    for panel in axes[1]:
        panel.set_xlabel("training rounds")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
